"""Types of the native module; importing it registers torch.ops.mimo.*."""

from typing import Any

def build_info() -> dict[str, Any]:
    """Version, git revision, compiler, torch target, CPU instruction set in use, CUDA version and architectures."""

def take_bad_data(device: int) -> str:
    """What CUDA kernels of the device have reported since the last call, or the empty string."""
