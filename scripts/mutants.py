"""Plants faults, one at a time, in a copy of the sources, and runs the tests that should notice (`make mutants`).

python scripts/mutants.py [--json bench/results/mutants.json] [--areas train prompts] [--sample 20 --seed 1] [--resume]

Faults are in scripts/faults/*.txt. A fault whose old text is not there exactly once is an error; so are tests that fail
without a fault. Every run is a process forked from one that has torch loaded, and ends at the first test that fails.
Outcomes go to build/mutants.jsonl at once; --resume takes those of the same commit from there.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
COPIED = ("python", "tests", "recipes", "pyproject.toml", "README.md", "docs")
AT_ONCE = 2
JOURNAL = ROOT / "build" / "mutants.jsonl"
LOADED_ONCE = (
    "torch._dynamo torch.distributed.tensor torch.utils.flop_counter mimo_audio_native pytest safetensors.torch "
    "tokenizers soundfile soxr pystoi"
)


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` in a file; `tests` (files, perhaps ::names) should fail. why: reason to let it live."""

    area: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    why: str = ""


def read_faults(path: Path) -> list[Fault]:
    """Blocks between blank lines: `# name`, `tests: ...`, `file: ...`, `- old` and `+ new` lines, perhaps `why: ...`.

    `tests:` and `file:` hold for the blocks that follow, too.
    """
    faults, tests, file = list[Fault](), tuple[str, ...](), ""
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        name, why, old, new = "", "", list[str](), list[str]()
        for line in block.strip("\n").splitlines():
            key, _, rest = line.partition(" ")
            if key == "#":
                name = rest
            elif key == "tests:":
                tests = tuple(rest.split())
            elif key == "file:":
                file = rest
            elif key == "why:":
                why = rest
            elif key in ("-", "+"):
                (old if key == "-" else new).append(rest)
            else:
                raise SystemExit(f"{path.name}: expected a line with #, tests:, file:, why:, - or +, got {line!r}")
        if name:
            faults.append(Fault(path.stem, name, file, "\n".join(old), "\n".join(new), tests, why))
    return faults


def planted(fault: Fault) -> str:
    """The file's text with the fault."""
    text = (ROOT / fault.file).read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise SystemExit(f"{fault.area}: {fault.name}: expected its old text once in {fault.file}")
    return text.replace(fault.old, fault.new)


def make_copy(folder: Path) -> Path:
    """The files that git knows, of what the tests need."""
    names = subprocess.run(["git", "ls-files", *COPIED], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in names.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


class FirstFailure:
    """A pytest plugin that writes the first test that fails, and with what error, into a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, report: Any) -> None:
        if report.failed and not self.path.exists():
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message.splitlines()[0] if crash and crash.message else str(report.longrepr)[-100:]
            self.path.write_text(f"{report.nodeid}\n{message:.100}")

    pytest_runtest_logreport = note
    pytest_collectreport = note


def run_tests(folder: Path, tests: tuple[str, ...], failure: Path) -> None:
    """In a child: the tests on the package in the folder; exits with pytest's status."""
    import pytest

    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os.chdir(folder)
    # An editable installation finds the package in the repository first.
    sys.meta_path[:] = [finder for finder in sys.meta_path if "Editable" not in repr(type(finder)) + repr(finder)
                        and "ScikitBuild" not in repr(type(finder))]  # fmt: skip
    sys.path.insert(0, str(folder / "python"))
    import mimo_audio

    if not str(mimo_audio.__file__).startswith(str(folder)):
        os._exit(99)
    options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", f"--basetemp={folder / 'tmp'}"]
    os._exit(pytest.main([*options, *tests], plugins=[FirstFailure(failure)]))


Outcome = tuple[str, float]  # what failed ("" for nothing), seconds


def read_journal(commit: str) -> dict[str, Outcome]:
    """The outcomes of a commit, by key; none of a checkout with changes, which nobody can tell from another."""
    if commit.endswith("-dirty") or not JOURNAL.exists():
        return {}
    rows = [json.loads(line) for line in JOURNAL.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return {row["key"]: (row["failed"], row["seconds"]) for row in rows if row["commit"] == commit}


def run_all(
    jobs: list[tuple[str, tuple[str, ...], str | None, str]],
    scratch: Path,
    limit: float,
    note: Callable[[str, Outcome], None],
) -> dict[str, Outcome]:
    """Jobs (key, tests, file to change or None, its text) -> outcomes by key, each noted as soon as it is there."""
    copies = [make_copy(scratch / f"copy{n}") for n in range(AT_ONCE)]
    context = multiprocessing.get_context("fork")
    running: dict[int, tuple[str, str | None, Any, float, Path]] = {}
    waiting, done = list(reversed(jobs)), dict[str, Outcome]()
    while waiting or running:
        for place in range(AT_ONCE):
            if place in running:
                key, file, process, since, failure = running[place]
                seconds = time.monotonic() - since
                if process.is_alive() and seconds < limit:
                    continue
                if process.is_alive():
                    process.kill()
                process.join()
                found = failure.read_text() if failure.exists() else ""
                if process.exitcode == 99:
                    raise SystemExit("the package under test is not the copy")
                if process.exitcode and not found:
                    found = "time limit" if seconds >= limit else f"pytest ended with {process.exitcode}"
                done[key] = found, round(seconds, 1)
                note(key, done[key])
                what = found.replace("\n", ": ") or "nothing failed"
                print(f"{len(done)}/{len(jobs)} {key}: {what} ({seconds:.0f} s)", flush=True)
                if file:
                    shutil.copy2(ROOT / file, copies[place] / file)
                del running[place]
            if waiting:
                key, tests, file, text = waiting.pop()
                if file:
                    (copies[place] / file).write_text(text, encoding="utf-8")
                failure = scratch / f"failure{len(done)}-{place}"
                process = context.Process(target=run_tests, args=(copies[place], tests, failure))
                process.start()
                running[place] = key, file, process, time.monotonic(), failure
        time.sleep(0.05)
    return done


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Plant faults and see whether tests notice.")
    parser.add_argument("--json", type=Path, help="record whose areas to write anew")
    parser.add_argument("--areas", nargs="+", help="default: all")
    parser.add_argument("--only", default="", help="faults whose name holds this, not for a record")
    parser.add_argument("--sample", type=int, metavar="N", help="N of the areas' faults, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument(
        "--limit", type=float, default=240, metavar="S", help="of a run; one that takes longer is caught"
    )
    parser.add_argument("--resume", action="store_true", help="take what build/mutants.jsonl has of this commit")
    arguments = parser.parse_args()
    if arguments.json and arguments.only:
        parser.error("--json: expected whole areas or a sample, got --only")
    faults = [f for path in sorted((ROOT / "scripts" / "faults").glob("*.txt")) for f in read_faults(path)]
    if len({(fault.area, fault.name) for fault in faults}) < len(faults):
        raise SystemExit("two faults have one name")
    wanted = arguments.areas or {fault.area for fault in faults}
    chosen = {f"{f.area}: {f.name}": f for f in faults if f.area in wanted and arguments.only in f.name}
    if arguments.sample:
        names = sorted(chosen)
        chosen = {n: chosen[n] for n in random.Random(arguments.seed).sample(names, min(arguments.sample, len(names)))}
    texts = {name: planted(fault) for name, fault in chosen.items()}
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    sys.dont_write_bytecode = True  # a file changes within the second that a cached one is told by
    for module in LOADED_ONCE.split():
        import_module(module)
    import torch

    torch.set_num_threads(1)
    from bench.run import machine

    about = machine("cpu")
    known = read_journal(about["commit"]) if arguments.resume else {}
    JOURNAL.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, JOURNAL.open("a", encoding="utf-8") as journal:

        def note(key: str, outcome: Outcome) -> None:
            row = {"commit": about["commit"], "key": key, "failed": outcome[0], "seconds": outcome[1]}
            journal.write(json.dumps(row) + "\n")
            journal.flush()

        whole = {test: (f"no fault: {test}", (test,), None, "") for f in chosen.values() for test in f.tests}
        jobs = [(key, fault.tests, fault.file, texts[key]) for key, fault in chosen.items()]
        left = [job for job in (*whole.values(), *jobs) if job[0] not in known]
        found = known | run_all(left, Path(scratch), arguments.limit, note)
    red = [key for key, *_ in whole.values() if found[key][0]]
    if red:
        raise SystemExit(f"fails without a fault: {', '.join(red)}")
    areas: dict[str, dict[str, Any]] = {}
    for key, fault in chosen.items():
        test, seconds = found[key]
        area = areas.setdefault(
            fault.area,
            {"commit": about["commit"], "date": about["date"], "faults": 0, "caught": 0, "survived": [], "by_test": []},
        )
        if arguments.sample:
            area["sample"] = {"of": sum(f.area == fault.area for f in faults), "seed": arguments.seed}
        row = {"name": fault.name, "file": fault.file}
        area["faults"] += 1
        area["caught"] += bool(test)
        if test:
            test, _, error = test.partition("\n")
            area["by_test"].append(row | {"caught_by": test, "error": error, "seconds": seconds})
        else:
            area["survived"].append(row | {"why": fault.why})
    for name, area in areas.items():
        print(f"{name}: {area['caught']} of {area['faults']} caught")
    if arguments.json:
        before = json.loads(arguments.json.read_text())["areas"] if arguments.json.exists() else {}
        if arguments.sample:  # which says less than a whole area does
            areas = {name: area for name, area in areas.items() if "sample" in before.get(name, {"sample": None})}
        record = {"machine": about, "areas": dict(sorted((before | areas).items()))}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    if any(not row["why"] for area in areas.values() for row in area["survived"]):
        raise SystemExit("faults survived: a test is missing, or the reason that none is needed")


if __name__ == "__main__":
    main()
