"""The pages of documentation as their readers use them: code blocks run in order, in one fresh folder.

Commands run in this process; lines with pipes and redirections run in bash, with `mimo-audio` on its path. `furnish`
lays out what stands in for what a reader has.
"""

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass
from glob import glob
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from mimo_audio.cli import main

ROOT = Path(__file__).parents[1]
PROGRAMS = ("mimo-audio", "make", "pip", "hf", "python", "torchrun", "apt-get", "mkdir", "npm", "curl", "scripts/")


@dataclass(frozen=True)
class Block:
    """A block of code: python, shell, json or "" for what is none of them (drawings, formulas)."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The page's blocks in order: fenced ones, and those indented by four."""
    found = []
    text = page.read_text(encoding="utf-8")
    for fenced, language, body, indented in re.findall(
        r"^(```(\w*)\n(.*?)^```$)|((?:(?<=\n\n)|\A)(?:    [^\n]*\n|\n(?=    ))+)", text, re.MULTILINE | re.DOTALL
    ):
        if fenced:
            found.append(Block({"sh": "shell", "bash": "shell"}.get(language, language), body))
        else:
            body = "".join(line[4:] + "\n" for line in indented.splitlines()).strip("\n") + "\n"
            found.append(Block(_language(body), body))
    return found


def _language(body: str) -> str:
    first = body.split(maxsplit=1)[0] if body.strip() else ""
    if first == "#!/bin/bash" or any(first == name or first.startswith(name) for name in PROGRAMS):
        return "shell"
    return "python" if first in ("from", "import") else ""


def commands(block: Block) -> list[str]:
    """The lines of a shell block, continued ones joined."""
    joined = block.text.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def furnish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the folder the working directory, and puts `mimo-audio`, `aplay` and `arecord` on the path."""
    monkeypatch.chdir(folder)
    programs = folder / ".programs"
    programs.mkdir()
    clip = str(files("mimo_audio") / "assets" / "digits.wav")
    for name, script in {
        "mimo-audio": f'exec {sys.executable} -W ignore -m mimo_audio "$@"',
        "aplay": "cat > /dev/null",
        "arecord": f'tail -c +45 "{clip}"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "python")]))
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))  # of a chat
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def run(command: str, may_say: str | None = None) -> None:
    """Runs a line of a shell block. It must succeed, or end with the message that it may."""
    words = shlex.split(command, comments=True)
    said = io.StringIO()
    if words[0] == "mimo-audio" and not {"<", "|", ">", "&&"} & set(words):
        with redirect_stderr(said):
            status = main([name for word in words[1:] for name in sorted(glob(word)) or [word]])
    else:
        shell = ["bash", "-o", "pipefail", "-c", command]
        nothing, kept = subprocess.DEVNULL, subprocess.PIPE
        done = subprocess.run(shell, stdin=nothing, stderr=kept, text=True, timeout=600)
        status = done.returncode
        said.write(done.stderr)
    is_allowed = bool(may_say) and str(may_say) in said.getvalue()
    assert status == 0 or is_allowed, f"{command}\n{said.getvalue()}"


def run_page(
    page: Path, skipped: Iterable[str], python: bool = True, may_say: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Runs the page's shell and, if wanted, its Python; returns Python's names and the commands left out.

    skipped: patterns of commands that are left out; may_say: a message that a command may end with.
    """
    names: dict[str, Any] = {}
    left_out = []
    for block in blocks(page):
        if block.language == "python" and python:
            exec(block.text, names)
        elif block.language == "shell":
            for command in commands(block):
                if any(re.search(pattern, command) for pattern in skipped):
                    left_out.append(command)
                else:
                    run(command, may_say)
    return names, left_out
