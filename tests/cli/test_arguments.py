"""Help, wrong usage and the process around a command."""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mimo_audio.cli.arguments import build_parser

TASKS = ("tts", "asr", "chat", "understand", "continue", "convert")
COMMANDS = (*TASKS, "encode", "decode", "roundtrip", "demo", "info")


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


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Those of all commands, of those that have subjects the subjects'."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in inner:
        for choice in action.choices.values():
            yield from parsers(choice)
    if not inner:
        yield parser


def test_every_command_has_the_common_options() -> None:
    found = list(parsers(build_parser()))
    assert len(found) >= len(COMMANDS) + 2
    for parser in found:
        assert {"-v", "--verbose", "-q", "--quiet"} <= set(parser._option_string_actions), parser.prog


@pytest.mark.parametrize("command", TASKS)
def test_tasks_have_the_same_options(mimo, command: str) -> None:
    words = mimo(command, "--help").out
    for option in ("--tokenizer", "--device", "--dtype", "--seed", "--temperature", "--top-k", "--max-new", "--json"):
        assert option in words
    assert ("--audio-top-p" in words) == (command not in ("asr", "understand"))


@pytest.mark.parametrize("command", ["roundtrip", "chat"])
def test_help_does_not_import_torch(command: str) -> None:
    """The answer is immediate because nothing heavy is loaded."""
    code = (
        "import sys; from mimo_audio.cli import main\n"
        f"try: main(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'mimo_audio_native')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "line",
    [
        "",
        "sing",
        "encode in.wav",
        "encode a b --n-q 0",
        "encode a b --n-q x",
        "info --device tpu",
        "info --dtype int8",
        "tts hello",
        "tts a -o b.wav --style c --freeform",
        "asr a --language fr",
        "asr a --max-new 0",
        "asr a --seed x",
        "understand a",
        "continue a",
        "convert a -o b.wav --example c d",
        "chat a --temperature warm",
    ],
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


def test_completion_of_commands_options_and_files(mimo, tmp_path: Path) -> None:
    """In a real bash: what it offers for the beginning of a word."""
    run = mimo("--completion", "bash")
    assert run.status == 0
    (tmp_path / "completion.sh").write_text(run.out)
    (tmp_path / "talk.wav").touch()

    def offered(*words: str) -> set[str]:
        line = " ".join(words)
        script = f"""
        source completion.sh
        COMP_WORDS=({line}) COMP_CWORD={len(words) - 1} COMP_LINE='{line}' COMP_POINT={len(line)}
        $(complete -p mimo-audio | sed 's/.*-F \\([^ ]*\\).*/\\1/') mimo-audio {words[-1]} {words[-2]}
        printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        return set(done.stdout.split())

    assert {"encode", "eval"} <= offered("mimo-audio", "e")
    assert offered("mimo-audio", "encode", "--skip") == {"--skip-existing"}
    assert "talk.wav" in offered("mimo-audio", "encode", "ta")


def test_completion_without_its_package(mimo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    run = mimo("--completion", "zsh")
    assert (run.status, run.err) == (2, "mimo-audio: needs the package shtab: pip install shtab\n")
