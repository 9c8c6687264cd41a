"""Which device a model runs on and in which arithmetic, where the user leaves it open."""

import torch

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
