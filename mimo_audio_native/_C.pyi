"""Types of the native module; importing it registers torch.ops.mimo.*."""

from typing import Any

def build_info() -> dict[str, Any]:
    """Version, git revision, compiler, torch target, CPU instruction set in use, CUDA version and architectures."""
