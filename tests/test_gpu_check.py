"""What scripts/gpu_check.sh is made of, without a GPU: its table, the kernels' numbers, which tests it runs."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gpu_table, cuda_proof = load("gpu_table"), load("cuda_proof")
STEPS = [["build", "ok", "61", ""], ["memcheck", "not run", "0", "no compute-sanitizer"]]


def case(name: str, seconds: float, ratio: float, target=None, wanted=None, share=0.5) -> dict:
    numbers = {"native_s": seconds, "reference_s": seconds * ratio, "ratio": ratio, "ceiling_share": share, "runs": 9}
    return {"case": name, **numbers, "target": target, "wanted_s": wanted}


def record(*rows: dict) -> dict:
    machine = {"device": "A GPU", "torch": "2.13.0", "build": {"cuda": "13.0", "git_revision": "abc"}}
    return {"machine": machine, "dtype": "float32", "ceilings": {"flops": 5e13, "bytes": 4.2e12}, "cases": list(rows)}


def line_of(lines: list[str], start: str) -> str:
    (line,) = [line for line in lines if line.startswith(start)]
    return " ".join(line.split())


def test_the_table_has_every_step_and_case() -> None:
    rows = [case("log_mel/1s", 12.34e-6, 7.5), case("tokenizer/60s", 0.0213, 1.0, share=None)]
    lines, well = gpu_table.table(STEPS, [record(*rows)])
    assert well
    assert line_of(lines, "build") == "build ok 61"
    assert line_of(lines, "memcheck") == "memcheck not run 0 no compute-sanitizer"
    assert line_of(lines, "A GPU") == "A GPU, float32: 50 TFLOP/s, 4.20 TB/s, torch 2.13.0, nvcc 13.0, abc"
    assert line_of(lines, "log_mel") == "log_mel/1s float32 12.3 us 50% 7.50x"
    assert line_of(lines, "tokenizer") == "tokenizer/60s float32 21.3 ms 1.00x"


@pytest.mark.parametrize(
    ("ratio", "target", "wanted", "verdict"),
    [
        (5.0, 5.0, None, "met"),
        (4.9, 5.0, None, "MISSED"),
        (5.0, 5.0, 1e-3, "met"),
        (5.0, 5.0, 0.9e-3, "MISSED"),
        (0.1, None, 1e-3, "met"),
        (0.1, None, None, ""),
    ],
)
def test_what_is_wanted_is_met_or_missed_and_no_failure(ratio, target, wanted, verdict) -> None:
    lines, well = gpu_table.table(STEPS, [record(case("op/size", 1e-3, ratio, target, wanted))])
    assert line_of(lines, "op/size").endswith(f"x {verdict}" if verdict else "x")
    assert well


def test_failures_show_and_count() -> None:
    failed = [["ops", "FAILED", "9", "3 failed"]]
    assert not gpu_table.table(failed, [])[1]
    lines, well = gpu_table.table(STEPS, [record({"case": "rvq/1", "error": "AssertionError: 2 of 9"})])
    assert not well
    assert line_of(lines, "rvq/1") == "rvq/1 float32 ERROR AssertionError: 2 of 9"


LISTING = """
arch = sm_80
 Function _ZN4mimo4cuda3fooEv:
  REG:26 STACK:0 SHARED:128 LOCAL:0 CONSTANT[0]:1800
arch = sm_90a
 Function _ZN4mimo4cuda3fooEv:
  REG:40 STACK:32 SHARED:128 LOCAL:0 CONSTANT[0]:1800
 Function _ZN4mimo4cuda3barEv:
  REG:7 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:1800
"""


def test_kernels_with_a_stack_are_named() -> None:
    kernels = cuda_proof.named(cuda_proof.parse_usage(LISTING))
    head, bar, foo, last = cuda_proof.report(kernels, ["sm_80", "sm_90a"])
    assert head.split()[:2] == ["sm_80", "sm_90a"]
    assert bar.split() == ["-", "7/0/0", "bar"]
    assert foo.split() == ["26/0/128", "40/32/128", "foo"]
    assert last == "2 kernels, 1 with a stack: foo"


CODE = """
	code for sm_90
		Function : _ZN4mimo4cuda3fooEv
        /*0000*/                   LDC R1, c[0x0][0x28] ;              /* 0x00000a00ff017b82 */
                                                                       /* 0x000ff00000000800 */
        /*0010*/              @!P0 BRA 0x60 ;                          /* 0x0 */
        /*0020*/                   FADD R1, R1, R2 ;                   /* 0x0 */
        /*0030*/                   LDL.64 R2, [R1] ;                   /* 0x0 */
        /*0040*/               @P1 BRA 0x30 ;                          /* 0x0 */
        /*0050*/              @!P2 BRA 0x20 ;                          /* 0x0 */
        /*0060*/               @P0 STL [R1+0x4], R2 ;                  /* 0x0 */
        /*0070*/                   EXIT ;                              /* 0x0 */
        /*0080*/                   BRA 0x80;                           /* 0x0 */
        /*0090*/                   NOP;                                /* 0x0 */
	code for sm_100
		Function : _ZN4mimo4cuda3fooEv
        /*0000*/                   EXIT ;                              /* 0x0 */
"""


def test_instructions_and_the_longest_innermost_loop_are_counted() -> None:
    found = list(cuda_proof.parse_code(CODE.splitlines()))
    assert found == [("_ZN4mimo4cuda3fooEv", "sm_90", (9, 2, 2)), ("_ZN4mimo4cuda3fooEv", "sm_100", (1, 0, 0))]


def test_the_record_has_a_line_per_kernel() -> None:
    text = cuda_proof.record({"foo": {"sm_90": (40, 32, 128, 9, 2, 2)}, "bar": {}}, commit="abc", nvcc="13.0")
    kept = json.loads(text)
    assert kept["commit"] == "abc"
    assert dict(zip(kept["columns"], kept["kernels"]["foo"]["sm_90"], strict=True))["instructions"] == 9
    assert len(text.splitlines()) == 9


def test_every_test_for_a_gpu_is_run() -> None:
    script = (ROOT / "scripts" / "gpu_check.sh").read_text()
    for path in (ROOT / "tests").rglob("test_*.py"):
        if path.parent.name != "ops" and re.search(r"mark\.cuda$|= pytest\.mark\.cuda", path.read_text(), re.MULTILINE):
            assert f"\n{path.relative_to(ROOT)} " in script
