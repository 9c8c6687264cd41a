"""Help, wrong usage and the process around a command."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ("encode", "decode", "roundtrip", "demo", "info")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(mimo, command: str) -> None:
    run = mimo(command, "--help")
    assert run.status == 0
    assert "examples:\n  mimo-audio " + command in run.out
    assert "--model" in run.out
    assert max(map(len, run.out.splitlines())) <= 120


def test_help_lists_the_commands(mimo) -> None:
    run = mimo("--help")
    assert run.status == 0
    assert {line.split()[0] for line in run.out.splitlines() if line.startswith("    ")} >= set(COMMANDS)


def test_help_does_not_import_torch() -> None:
    """The answer is immediate because nothing heavy is loaded."""
    code = (
        "import sys; from mimo_audio.cli import main\n"
        "try: main(['roundtrip', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'mimo_audio_native')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "line",
    ["", "sing", "encode in.wav", "encode a b --n-q 0", "encode a b --n-q x", "info --device tpu", "info --dtype int8"],
)
def test_wrong_usage(mimo, line: str) -> None:
    run = mimo(*line.split())
    assert run.status == 2
    assert "Traceback" not in run.err


def test_process(wav: Path, model: Path, tmp_path: Path) -> None:
    """The same as a process: results, exit status, one line on stderr."""

    def mimo(*words: object) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "mimo_audio", *map(str, words), "--model", str(model)]
        return subprocess.run(command, capture_output=True, text=True)

    good = mimo("encode", wav, tmp_path / "out.tokens")
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    bad = mimo("decode", wav, tmp_path / "out.wav")
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (2, "", 1)
    assert str(wav) in bad.stderr
