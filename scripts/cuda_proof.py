"""Proves that the extension carries compiled CUDA kernels for every architecture, and prints what each kernel takes.

    python scripts/cuda_proof.py [ARCH...]              by default the architectures that we ship
    python scripts/cuda_proof.py --json FILE [ARCH...]  writes that down too, with the size of the code

The normal build is the shipped build: with nvcc on the machine, `make test` has compiled the .cu files. This looks into
the binary (with cuobjdump) instead of trusting the build's own word. A kernel's numbers are registers per thread, bytes
of stack per thread (registers that did not fit, and arrays with computed indices: slow memory) and bytes of static
shared memory per block.

The record (bench/results/cuda-static.json) also counts machine instructions: all of them, those that move the stack
(local), and those of the longest innermost loop. It shows what a change of a kernel has done on a machine without a
GPU; how fast it is, it does not say. Numbers change with the compiler, which is named.
"""

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

SHIPPED = ("sm_80", "sm_90", "sm_100", "sm_120")
COLUMNS = ("registers", "stack", "shared", "instructions", "local", "loop")
Kernels = dict[str, dict[str, tuple[int, ...]]]  # name -> architecture -> registers, stack, shared memory, ..


def find_cuobjdump() -> str | None:
    wheels = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/cuobjdump"))
    return str(wheels[-1]) if wheels else shutil.which("cuobjdump")


def parse_usage(listing: str) -> Kernels:
    """What `cuobjdump --dump-resource-usage` says."""
    kernels: Kernels = {}
    arch = ""
    for match in re.finditer(
        r"^arch = (\S+)|Function (\S+):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+)", listing, re.MULTILINE
    ):
        if match[1]:
            arch = match[1]
        else:
            kernels.setdefault(match[2], {})[arch] = int(match[3]), int(match[4]), int(match[5])
    return kernels


def parse_code(lines: Iterable[str]) -> Iterator[tuple[str, str, tuple[int, int, int]]]:
    """What `cuobjdump --dump-sass` says, per kernel: name, architecture, (instructions, local, loop)."""
    arch = name = ""
    code: list[tuple[int, str]] = []  # address, text
    for line in lines:
        if match := re.match(r"\s+code for (\S+)|\s+Function : (\S+)", line):
            if code:
                yield name, arch, sizes(code)
            code = []
            arch, name = match[1] or arch, match[2] or name
        elif match := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.+?)\s*;", line):
            code.append((int(match[1], 16), match[2]))
    if code:
        yield name, arch, sizes(code)


def sizes(code: list[tuple[int, str]]) -> tuple[int, int, int]:
    """Instructions but for the padding at the end; those that read or write local memory; the longest innermost loop.

    A loop is what lies between a branch and its target before it; the last branch, to itself, ends the code.
    """
    index = {address: number for number, (address, _) in enumerate(code)}
    used = max((n for n, (_, text) in enumerate(code) if text != "NOP"), default=-1) + 1
    local = sum(bool(re.match(r"(@!?\w+ )?(LDL|STL)\b", text)) for _, text in code)
    loops = []
    for number, (_, text) in enumerate(code):
        match = re.match(r"(?:@!?\w+ )?BRA\b.*?(0x[0-9a-f]+)$", text)
        if match and index.get(int(match[1], 16), number) < number:
            loops.append((index[int(match[1], 16)], number))
    inner = [b - a + 1 for a, b in loops if not any((c, d) != (a, b) and a <= c and d <= b for c, d in loops)]
    return used, local, max(inner, default=0)


def short(name: str, demangled: str) -> str:
    """A kernel's file (where only it has the kernel) and name, without namespaces and parameters."""
    file = re.search(r"_GLOBAL__N__[0-9a-f]+_\d+_(\w+?)_cu_", name)
    plain = re.sub(r"\(anonymous namespace\)::|mimo::(cuda::)?", "", demangled).removeprefix("void ")
    return (f"{file[1]}: " if file else "") + re.sub(r"\(\w+\)", "", plain).split("(")[0]


def named(kernels: Kernels) -> Kernels:
    """The same under readable names, sorted."""
    lines = list(kernels)
    if shutil.which("c++filt"):
        filt = subprocess.run(["c++filt"], input="\n".join(kernels), capture_output=True, text=True, check=True)
        lines = filt.stdout.splitlines()
    return dict(sorted((short(n, line), kernels[n]) for n, line in zip(kernels, lines, strict=True)))


def report(kernels: Kernels, archs: list[str]) -> list[str]:
    """A line per kernel and a last one on those that use the stack."""
    head = [f"{arch:>14}" for arch in archs]
    lines = [f"{'  '.join(head)}  registers/stack/shared per kernel"]
    for name, usage in kernels.items():
        cells = ["/".join(map(str, usage[arch][:3])) if arch in usage else "-" for arch in archs]
        lines.append("  ".join(f"{cell:>14}" for cell in cells) + f"  {name}")
    stacked = [name for name, usage in kernels.items() if any(usage[arch][1] for arch in archs if arch in usage)]
    return [*lines, f"{len(kernels)} kernels, {len(stacked)} with a stack: {', '.join(stacked) or 'none'}"]


def with_code(kernels: Kernels, cuobjdump: str, binary: str) -> Kernels:
    """The numbers of `COLUMNS` for each kernel."""
    found: Kernels = {name: {} for name in kernels}
    with subprocess.Popen([cuobjdump, "--dump-sass", binary], stdout=subprocess.PIPE, text=True) as listing:
        assert listing.stdout
        for name, arch, code in parse_code(listing.stdout):
            if arch in kernels.get(name, {}):
                found[name][arch] = (*kernels[name][arch], *code)
    return found


def record(kernels: Kernels, **machine: str) -> str:
    """JSON with a line per kernel."""
    lines = [f"  {json.dumps(name)}: {json.dumps(usage)}" for name, usage in kernels.items()]
    head = "".join(f' "{name}": {json.dumps(value)},\n' for name, value in (machine | {"columns": COLUMNS}).items())
    return "{\n" + head + ' "kernels": {\n' + ",\n".join(lines) + "\n }\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arch", nargs="*", default=SHIPPED)
    parser.add_argument("--json", type=Path, help="write the record here")
    arguments = parser.parse_args()
    import mimo_audio_native

    info = mimo_audio_native.build_info()
    spec = importlib.util.find_spec("mimo_audio_native._C")
    if info["cuda"] is None or spec is None or spec.origin is None:
        print("cuda_proof: the extension was built without CUDA (is nvcc on PATH?)", file=sys.stderr)
        return 1
    cuobjdump = find_cuobjdump()
    if cuobjdump is None:
        print("cuda_proof: no cuobjdump (pip install nvidia-cuda-cuobjdump, or a whole CUDA toolkit)", file=sys.stderr)
        return 1
    command = [cuobjdump, "--dump-resource-usage", spec.origin]
    kernels = parse_usage(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    archs = sorted({arch for usage in kernels.values() for arch in usage}, key=lambda arch: (len(arch), arch))
    print(f"CUDA {info['cuda']}, {', '.join(archs)}")
    print("\n".join(report(named(kernels), archs)))
    if arguments.json:
        kernels = named(with_code(kernels, cuobjdump, spec.origin))
        arguments.json.write_text(record(kernels, commit=info["git_revision"], nvcc=info["cuda"]))
    missing = set(arguments.arch) - set(archs)
    if missing:
        print(f"cuda_proof: no code for {', '.join(sorted(missing))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
