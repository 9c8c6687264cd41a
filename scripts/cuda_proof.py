"""Proves that the extension carries compiled CUDA kernels for every architecture, and prints what each kernel takes.

    python scripts/cuda_proof.py [ARCH...]       by default the architectures that we ship

The normal build is the shipped build: with nvcc on the machine, `make test` has compiled the .cu files. This looks into
the binary (with cuobjdump) instead of trusting the build's own word. A kernel's numbers are registers per thread, bytes
of stack per thread (registers that did not fit, and arrays with computed indices: slow memory) and bytes of static
shared memory per block. They change with the compiler, so no record of them is kept.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

SHIPPED = ("sm_80", "sm_90", "sm_100", "sm_120")
Kernels = dict[str, dict[str, tuple[int, int, int]]]  # name -> architecture -> registers, stack, shared memory


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
        cells = ["/".join(map(str, usage[arch])) if arch in usage else "-" for arch in archs]
        lines.append("  ".join(f"{cell:>14}" for cell in cells) + f"  {name}")
    stacked = [name for name, usage in kernels.items() if any(usage[arch][1] for arch in archs if arch in usage)]
    return [*lines, f"{len(kernels)} kernels, {len(stacked)} with a stack: {', '.join(stacked) or 'none'}"]


def main() -> int:
    import mimo_audio_native

    required = sys.argv[1:] or list(SHIPPED)
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
    kernels = named(parse_usage(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    archs = sorted({arch for usage in kernels.values() for arch in usage}, key=lambda arch: (len(arch), arch))
    print(f"CUDA {info['cuda']}, {', '.join(archs)}")
    print("\n".join(report(kernels, archs)))
    missing = set(required) - set(archs)
    if missing:
        print(f"cuda_proof: no code for {', '.join(sorted(missing))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
