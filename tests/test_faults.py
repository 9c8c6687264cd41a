"""The faults of `make mutants` can be planted: their places and their tests are there."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from scripts.mutants import Fault, planted, read_faults  # noqa: E402

FAULTS = [fault for path in sorted((ROOT / "scripts" / "faults").glob("*.txt")) for fault in read_faults(path)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.area}: {fault.name}")
def test_a_fault_has_its_place_and_its_tests(fault: Fault) -> None:
    assert planted(fault) != (ROOT / fault.file).read_text(encoding="utf-8")
    for test in fault.tests:
        path, _, name = test.partition("::")
        source = (ROOT / path).read_text(encoding="utf-8") if path.endswith(".py") else ""
        assert (ROOT / path).exists(), test
        assert not name or re.search(rf"def {re.escape(name.split('[')[0])}\b", source), test


def test_names_tell_faults_apart() -> None:
    assert len({(fault.area, fault.name) for fault in FAULTS}) == len(FAULTS) > 250
