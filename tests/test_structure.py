"""The rules of the code base that no compiler checks: which layer may use which, what the binary may need of torch."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# csrc/README.md's table: folder -> what its files may #include with quotes (own folder's files besides).
MAY_INCLUDE = {
    "include/mimo": ("mimo/", "common/cpu_dispatch.h"),
    "cpu": ("mimo/", "cpu/"),
    "cuda": ("mimo/", "cuda/", "emulator/emulator.h"),
    "ops": ("mimo/", "common/"),
    "common": ("mimo/", "common/"),
    "emulator": ("emulator/", "cuda/mma.h"),
    "bindings": ("common/cpu_dispatch.h", "common/bad_data.h", "emulator/", "cuda/fft.cuh"),
    "dsp": ("mimo/", "common/cpu_dispatch.h"),
}
SEES_TORCH = ("common", "ops")


def native_sources() -> list[Path]:
    return [p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"}]


@pytest.mark.parametrize("path", native_sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_native_files_include_only_their_layer(path: Path) -> None:
    folder = str(path.parent.relative_to(ROOT / "csrc"))
    text = path.read_text()
    for include in re.findall(r'#include "([^"]+)"', text):
        assert include.startswith(MAY_INCLUDE[folder]), f"{folder} may not include {include}"
    if folder not in SEES_TORCH:
        assert not re.search(r"#include <(torch|ATen|c10)/", text), f"{folder} must not see torch"
    assert text.startswith("//"), "a file says in its first lines what it is for"


# The rooms of python/mimo_audio from the ground up: a file may import from its own room and from floors below.
FLOORS = (
    ("errors", "progress"),
    ("device", "dsp", "pitch"),
    ("files", "text"),
    ("released",),
    ("data",),
    ("tokenizer",),
    ("lm",),
    ("evaluate",),
    ("prompts",),
    ("engine",),
    ("train",),
    ("tasks",),
    ("serve",),
    ("cli",),
    ("__init__", "__main__"),
)
PACKAGE = ROOT / "python" / "mimo_audio"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def modules_imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inside & MODULES.keys() or {node.module}
    return found & MODULES.keys()


def room(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in MODULES} == {name for floor in FLOORS for name in floor}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    own = room(module)
    up = [
        other for other in modules_imported(MODULES[module]) if room(other) != own and floor[room(other)] >= floor[own]
    ]
    assert not up, f"{module} is not above {sorted(up)}"


def test_imports_do_not_go_round() -> None:
    left = {module: modules_imported(path) - {module} for module, path in MODULES.items()}
    while done := {module for module, needs in left.items() if not needs & left.keys()}:
        left = {module: needs for module, needs in left.items() if module not in done}
    assert not left, f"a circle within {sorted(left)}"


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "mimo_audio_native").rglob("*.py")), ids=lambda p: p.stem)
def test_the_ops_package_needs_torch_only(path: Path) -> None:
    foreign = imports_of(path) - set(sys.stdlib_module_names) - {"torch", "mimo_audio_native"}
    assert not foreign, f"mimo_audio_native may import torch and nothing else, found {sorted(foreign)}"


@pytest.mark.parametrize("folder", ["mimo_audio_native", "python/mimo_audio", "bench", "scripts", "tests"])
def test_every_python_file_says_what_it_is_for(folder: str) -> None:
    silent = [
        p
        for p in (ROOT / folder).rglob("*.py")
        if p.read_text().strip() and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert not silent


def test_every_op_has_its_files_under_one_stem() -> None:
    lists = dict(re.findall(r"set\((MIMO_\w*OPS) ([^)]+)\)", (ROOT / "CMakeLists.txt").read_text()))
    cuda, cpu = lists["MIMO_OPS"].split(), lists["MIMO_CPU_OPS"].split()
    for stem in (*cuda, *cpu):
        for pattern in (
            "csrc/include/mimo/{}.h",
            "csrc/ops/{}.cpp",
            "csrc/cpu/{}.cpp",
            *(["csrc/cuda/{}.cu"] if stem in cuda else []),
            "mimo_audio_native/ops/{}.py",
            "mimo_audio_native/reference/{}.py",
            "tests/ops/test_{}.py",
            "bench/cases/{}.py",
        ):
            assert (ROOT / pattern.format(stem)).exists(), pattern.format(stem)


@pytest.mark.parametrize(("space", "foreign"), [("mimo::cpu::avx2", False), ("elsewhere", True)])
def test_shared_inline_functions_are_found_wherever_the_objects_lie(space: str, foreign: bool, tmp_path: Path) -> None:
    compiler = os.environ.get("CXX", "c++")
    path = tmp_path / ("u" * 20)  # nm prints the name on a line of its own, with "u" where the type of a symbol stands
    source = tmp_path / "a.cpp"
    source.write_text(f"namespace {space} {{ inline int f() {{ return 1; }} int (*p)() = &f; }}")
    subprocess.run([compiler, "-c", source, "-o", path], check=True)
    command = [sys.executable, ROOT / "cmake" / "check_isa_objects.py", "avx2", path.name, path.name]
    check = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert check.returncode == int(foreign), check.stderr
    assert ("elsewhere::f()" in check.stderr) == foreign


def test_the_binary_uses_only_the_stable_abi_of_torch() -> None:
    """Every undefined symbol is Python's, the C or C++ run time's, or a C function of torch's stable ABI."""
    spec = importlib.util.find_spec("mimo_audio_native._C")
    assert spec
    assert spec.origin
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", "-C", spec.origin], check=True, capture_output=True, text=True
    )
    names = {
        line.split()[-1] if "(" not in line else line.split(maxsplit=1)[-1] for line in listing.stdout.splitlines()
    }
    foreign = {n for n in names if re.search(r"\b(at|c10|torch|caffe2)::", n)}
    assert not foreign, f"symbols outside the stable ABI: {sorted(foreign)}"
