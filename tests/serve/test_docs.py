"""docs/serving.md: its Python runs against a real server, its endpoints and options are all there are."""

import json
import re
import shlex
from pathlib import Path

import httpx
import pytest

from mimo_audio.cli.arguments import build_parser

TEXT = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


def test_the_snippet_runs(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(snippet.replace("http://localhost:8000", server.url), names)
    names["client"].close()
    assert (tmp_path / "morning.wav").stat().st_size > 24000


def test_every_endpoint_is_told(http: httpx.Client) -> None:
    there = {path for path in http.get("/openapi.json").json()["paths"] if "playground" not in path}
    told = {path.replace("ID", "{voice}") for path in re.findall(r"`[A-Z, `]*(/[\w/]+)`", TEXT)}
    assert there - {"/v1/models/{name}"} <= told


def test_commands() -> None:
    for command in re.findall(r"^    mimo-audio (.*)$", TEXT, re.MULTILINE):
        build_parser().parse_args(shlex.split(command))
    for data in re.findall(r"-d '([^']*)'", TEXT):
        assert json.loads(data)["input"]
