"""Where and when a record was made: machine, versions, the commit of the code."""

import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

import mimo_audio_native


def environment(device: str) -> dict[str, Any]:
    """Device, threads, versions, commit ("-dirty" if files differ from it) and date, as records give them."""
    build = mimo_audio_native.build_info()
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else _cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "version": build["version"],
        "commit": _commit() or build["git_revision"],
        "date": time.strftime("%Y-%m-%d"),
    }


def _commit() -> str | None:
    """Of the checkout that this file belongs to; None where it is installed."""
    here = Path(__file__).parent
    try:
        if subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True).returncode:
            return None
        command = ["git", "describe", "--always", "--dirty"]
        return subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    isa = mimo_audio_native.build_info()["cpu_isa"]
    return f"{next(names, platform.machine())}, {isa.upper()}"
