"""What a command says besides its result: -v, --quiet, and that a program which calls the package keeps its own log."""

import io
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mimo_audio.cli import logs
from mimo_audio.progress import progress_bar

LOG = logging.getLogger("mimo_audio")


def test_verbose_says_what_is_done(mimo, wav: Path, model: Path, tmp_path: Path) -> None:
    run = mimo("encode", wav, tmp_path / "a.tokens", "-v")
    assert (run.status, run.out) == (0, "")
    assert f"mimo_audio.released.checkpoint: {model / 'model.safetensors'}: " in run.err
    assert f"{wav}: 48000 samples encoded in" in run.err
    assert mimo("encode", wav, tmp_path / "b.tokens").err == ""


def test_verbose_says_where_an_error_comes_from(mimo, tmp_path: Path) -> None:
    run = mimo("encode", tmp_path / "none.wav", tmp_path / "a.tokens", "--verbose")
    first, second, *_ = run.err.splitlines()
    assert first == f"mimo-audio: no such file or folder: {tmp_path / 'none.wav'}"
    assert second.startswith("Traceback")
    assert run.status == 2


def test_quiet_leaves_errors_only(mimo, tmp_path: Path, speech: np.ndarray) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", speech[:4800], 24000)
    (tmp_path / "in" / "b.wav").write_bytes(b"not sound")
    run = mimo("encode", tmp_path / "in", tmp_path / "out", "--quiet")
    assert run.status == 2
    assert run.err.splitlines()[-1] == "mimo-audio: 1 of 2 files failed"
    with logs.on_stderr(verbose=False, quiet=True):
        assert not LOG.isEnabledFor(logging.WARNING)


class Terminal(io.StringIO):
    """A standard error that is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("quiet", "shown", "bar"), [(False, True, True), (True, True, False), (False, False, False)])
def test_bars(quiet: bool, shown: bool, bar: bool) -> None:
    terminal = Terminal()
    with logs.on_stderr(verbose=False, quiet=quiet):
        assert list(progress_bar(range(3), shown=shown, file=terminal)) == [0, 1, 2]
    assert ("3/3" in terminal.getvalue()) == bar


def test_lines_go_above_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with logs.on_stderr(verbose=False, quiet=False), progress_bar(total=3) as bar:
        bar.update()
        LOG.warning("careful")
        LOG.info("1/3 done")
    assert "\rmimo-audio: careful\n" in terminal.getvalue()
    assert "\r1/3 done\n" in terminal.getvalue()


def test_a_program_keeps_its_own_log(mimo, wav: Path, tmp_path: Path) -> None:
    before = (LOG.level, list(LOG.handlers))
    mimo("encode", wav, tmp_path / "a.tokens", "-v")
    assert (LOG.level, list(LOG.handlers)) == before


def test_not_both(mimo) -> None:
    run = mimo("info", "-v", "-q")
    assert run.status == 2
    assert "not allowed with" in run.err


def test_closed_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    with logs.on_stderr(verbose=False, quiet=False):
        LOG.warning("nobody hears")
