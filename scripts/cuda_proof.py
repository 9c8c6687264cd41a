"""Proves that the installed extension carries compiled CUDA kernels for every architecture we ship.

The normal build is the shipped build: with nvcc on the machine, `make test` has compiled the .cu files. This looks into
the binary (with cuobjdump) instead of trusting the build's own word, and prints registers, shared
memory and spills per kernel.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import mimo_audio_native

REQUIRED = {"sm_80", "sm_90a", "sm_100"}


def find_cuobjdump() -> str | None:
    wheels = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/cuobjdump"))
    return str(wheels[-1]) if wheels else shutil.which("cuobjdump")


def short(name: str) -> str:
    """A demangled kernel name without namespaces and parameters."""
    name = name.replace("(anonymous namespace)::", "").replace("mimo::cuda::", "").replace("mimo::", "")
    return name.split("(")[0].removeprefix("void ")


def main() -> int:
    info = mimo_audio_native.build_info()
    spec = importlib.util.find_spec("mimo_audio_native._C")
    if info["cuda"] is None or spec is None or spec.origin is None:
        print("cuda_proof: the extension was built without CUDA (is nvcc on PATH?)", file=sys.stderr)
        return 1
    cuobjdump = find_cuobjdump()
    if cuobjdump is None:
        print("cuda_proof: no cuobjdump (pip install nvidia-cuda-cuobjdump, or a whole CUDA toolkit)", file=sys.stderr)
        return 1
    listing = subprocess.run([cuobjdump, "--list-elf", spec.origin], check=True, capture_output=True, text=True).stdout
    found = set(re.findall(r"sm_\d+[a-z]?", listing))
    usage = subprocess.run(
        [cuobjdump, "--dump-resource-usage", spec.origin], check=True, capture_output=True, text=True
    ).stdout
    kernels = re.findall(r"Function (\S+):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    demangled = subprocess.run(["c++filt"], input="\n".join(k[0] for k in kernels), capture_output=True, text=True)
    print(f"CUDA {info['cuda']}, {', '.join(sorted(found))}, {len(kernels)} kernels")
    print(f"{'registers':>9} {'stack':>6} {'shared':>7} {'local':>6}  kernel")
    for name, (_, registers, stack, shared, local) in zip(demangled.stdout.splitlines(), kernels, strict=True):
        print(f"{registers:>9} {stack:>6} {shared:>7} {local:>6}  {short(name)}")
    missing = REQUIRED - found
    if missing or not kernels:
        print(f"cuda_proof: no code for {', '.join(sorted(missing)) or 'any kernel'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
