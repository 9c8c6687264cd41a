"""The ops under several versions of torch and Python: runs scripts/one_op.py with each of the interpreters given.

    python scripts/versions.py --json bench/results/versions.json OTHER/bin/python ...

Each sees this checkout's mimo_audio_native, as it is built for this Python, beside its own torch; with --installed the
one that is installed for it (scripts/versions.sh).
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

from mimo_audio.evaluate.environment import environment

ROOT = Path(__file__).resolve().parents[1]
SAY = "import platform, torch; print(platform.python_version(), torch.__version__)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interpreters", nargs="+", metavar="PYTHON", help="of an environment with torch")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="the record")
    parser.add_argument("--installed", action="store_true", help="each uses its own mimo_audio_native")
    arguments = parser.parse_args()
    path = {"PYTHONPATH": "" if arguments.installed else str(ROOT)}
    found = []
    for interpreter in arguments.interpreters:
        python, torch = subprocess.check_output([interpreter, "-c", SAY], text=True).split()
        run = subprocess.run(
            [interpreter, "-W", "ignore", ROOT / "scripts" / "one_op.py"],
            env={**os.environ, **path},
            capture_output=True,
            text=True,
        )
        ok = run.returncode == 0 and run.stdout.startswith("rvq_encode runs")
        found.append({"python": python, "torch": torch, "runs": ok})
        print(python, torch, "runs" if ok else run.stderr)
    record = {"environment": environment("cpu"), "versions": found}
    arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
