"""deploy/: the unit as systemd reads it, where there is one; the container file by its grammar; options that exist."""

import re
import shlex
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from mimo_audio.cli.arguments import build_parser

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT, CONTAINER = DEPLOY / "mimo-audio.service", DEPLOY / "Containerfile"
# What a Containerfile may consist of.
INSTRUCTIONS = set("FROM RUN ENV COPY USER EXPOSE STOPSIGNAL HEALTHCHECK ENTRYPOINT CMD WORKDIR ARG LABEL".split())


def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # names have upper case
    parser.read(UNIT)
    return parser


def test_the_unit_starts_a_command_that_is_understood() -> None:
    service = unit()["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert program.endswith("/mimo-audio")
    arguments = build_parser().parse_args(words)
    assert arguments.api_keys.name == "keys"
    assert int(service["TimeoutStopSec"]) > arguments.drain_seconds


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "mimo-audio"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    there = tmp_path / UNIT.name
    there.write_text(UNIT.read_text().replace("/opt/mimo/bin/mimo-audio", str(program)))
    check = subprocess.run(["systemd-analyze", "verify", "--man=no", there], capture_output=True, text=True)
    complaints = [line for line in check.stderr.splitlines() if UNIT.name in line]
    assert not complaints


def test_the_container_file_is_one() -> None:
    text = re.sub(r"^#.*\n", "", CONTAINER.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    assert {name for name, _ in found} <= INSTRUCTIONS
    assert found[0][0] == "FROM"
    stages = [words.split()[-1] for name, words in found if name == "FROM" and " AS " in words]
    copied = re.findall(r"--from=(\w+)", text)
    assert set(copied) <= set(stages)
    assert [name for name, _ in found].index("USER") < [name for name, _ in found].index("ENTRYPOINT")
    start = next(words for name, words in found if name == "ENTRYPOINT")
    program, *words = re.findall(r'"([^"]*)"', start)
    assert program == "mimo-audio"
    arguments = build_parser().parse_args(words)
    assert str(arguments.port) == next(words for name, words in found if name == "EXPOSE")
    check = next(words for name, words in found if name == "HEALTHCHECK")
    script = re.findall(r'"([^"]*)"', check.partition("CMD")[2])[2]
    compile(script, "HEALTHCHECK", "exec")
    assert "/ready" in script
