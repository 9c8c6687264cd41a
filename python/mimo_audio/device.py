"""Where a model runs and in which arithmetic, where the user leaves it open; whether its weights are still the same."""

import torch
from torch import nn

import mimo_audio_native as mn
from mimo_audio.errors import ModelError


def choose_device(device: str) -> str:
    """ "auto" is the GPU if torch and the native ops both have one, else the CPU; others are themselves.

    Raises ModelError for a GPU that is not there.
    """
    lacking = None
    if not torch.cuda.is_available():
        lacking = "torch finds no GPU"
    elif mn.build_info()["cuda"] is None:
        lacking = "the native ops were built without CUDA"
    if device.startswith("cuda") and lacking:
        raise ModelError(f"device {device}: {lacking}")
    return ("cpu" if lacking else "cuda") if device == "auto" else device


def choose_dtype(dtype: torch.dtype | None, device: str) -> torch.dtype:
    """The dtype, by default float32 on the CPU and bfloat16 elsewhere."""
    if dtype is not None:
        return dtype
    return torch.float32 if device == "cpu" else torch.bfloat16


def weights_version(module: nn.Module) -> tuple[object, ...]:
    """Differs once a weight or buffer of the module was written to, replaced, converted or moved.

    What is derived from weights and kept, is kept together with this. Tensors made under torch.inference_mode count by
    their storage alone.
    """
    return tuple(
        (t.data_ptr(), t.dtype, t.device, 0 if t.is_inference() else t._version)
        for tensors in (module.parameters(), module.buffers())
        for t in tensors
    )
