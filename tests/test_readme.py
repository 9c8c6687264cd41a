"""README.md: its Python runs where nano suffices, its command lines are ones that the parser takes."""

import re
import shlex
from importlib.resources import files
from pathlib import Path
from shutil import copyfile

import pytest
import torch

from mimo_audio.cli.arguments import build_parser

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^    mimo-audio (.*)$", TEXT, re.MULTILINE)
RELEASED = "MiMo-Audio-7B"  # what needs weights that are not in the package


def test_the_readme_has_what_is_tested() -> None:
    assert len(PYTHON) == 3
    assert sum(RELEASED in snippet for snippet in PYTHON) == 1
    assert len(COMMANDS) >= 15


@pytest.mark.parametrize("snippet", [snippet for snippet in PYTHON if RELEASED not in snippet])
def test_python(snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copyfile(str(files("mimo_audio") / "assets" / "digits.wav"), tmp_path / "in.wav")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {}
    op, equivalent, definition = snippet.partition("# Equivalent to:")
    exec(op, names)
    result = names["codes"]
    if equivalent:
        exec(definition, names)
        assert torch.equal(result, names["codes"])
    else:
        assert result.shape[0] == 8
        assert names["wave"].shape == names["tokenizer"].decode(result).shape


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command: str) -> None:
    words = shlex.split(command, comments=True)
    for sign in ("<", "|", ">"):
        words = words[: words.index(sign)] if sign in words else words
    if "--completion" in words:
        with pytest.raises(SystemExit, match=r"^0$"):
            build_parser().parse_args(words)
    else:
        build_parser().parse_args(words)


def test_extras_that_are_named_exist() -> None:
    """Wherever somebody is told to install 'mimo-audio-native[..]' or an extra [..]."""
    root = Path(__file__).parents[1]
    there = set(re.findall(r"^([a-z]+) = \[", (root / "pyproject.toml").read_text(), re.MULTILINE))
    pages = [root / "README.md", root / "Makefile", *root.glob("docs/*.md"), *root.glob("python/**/*.py")]
    named = {
        (str(page.relative_to(root)), extra)
        for page in pages
        for extras in re.findall(r"(?:mimo-audio-native|extra )\[([a-z,]+)\]", page.read_text())
        for extra in extras.split(",")
    }
    assert len(named) > 5
    assert {(page, extra) for page, extra in named if extra not in there} == set()
