"""docs/data.md: its manifest, commands, Python and recipe run as they stand."""

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mimo_audio.cli import main
from mimo_audio.data.token_set import TokenSet
from mimo_audio.files.schema import checked
from mimo_audio.train.lm_data import Data, TaskWeights, tasks_of

TEXT = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
LINES = re.findall(r"^    (\{.*\})$", TEXT, re.MULTILINE)
COMMANDS = [shlex.split(line, comments=True) for line in re.findall(r"^    mimo-audio (.*)$", TEXT, re.MULTILINE)]
SNIPPET = "\n".join(re.findall(r"^    ((?:from|tokens|row|codes) .*)$", TEXT, re.MULTILINE))
RECIPE = re.search(r"```json\n(.*?)```", TEXT, re.DOTALL)


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in {name for line in LINES for name in re.findall(r'"([^" ]+\.(?:flac|ogg|wav|mp3))"', line)}:
        path = Path("corpus") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.normal(size=60000), 24000)
    assert len(LINES) == 7
    Path("corpus/manifest.jsonl").write_text("\n".join(LINES))
    assert [command[1] for command in COMMANDS] == ["tokenize", "info", "verify", "merge"]
    assert main([*COMMANDS[0], "--workers", "1"]) == 0
    assert main([*COMMANDS[0][:2], "corpus/manifest.jsonl", "--out", "sets/more", "--workers", "1"]) == 0
    for command in COMMANDS[1:]:
        assert main(command) == 0
    names: dict = {}
    exec(SNIPPET, names)
    assert names["codes"].shape == (8, 50)
    rows = TokenSet(Path("sets/all")).rows
    assert len(rows) == 7
    tasks = {field.name for field in fields(TaskWeights)}
    assert {task for row in rows for task in tasks_of(row)} == tasks
    assert all(f"`{task}`" in TEXT for task in tasks)


def test_the_recipe_is_one() -> None:
    assert RECIPE
    problems: list[str] = []
    data = checked("data", Data, json.loads(RECIPE[1]), problems)
    assert not problems
    assert data.sets[0].tasks.tts == 2
