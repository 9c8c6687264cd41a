"""What CUDA kernels report instead of raising: looking at values before a launch would synchronise."""

import torch

from mimo_audio_native._C import take_bad_data


def raise_device_errors(device: torch.device | str | int, synchronize: bool = True) -> None:
    """Raises for bad data that CUDA kernels of the device have met since the last call, on any stream.

    A CPU op raises itself. A CUDA kernel goes on with token 0, entry 0 of a codebook, or no padding, and its results
    are not to be used. Without `synchronize` the caller has waited for the kernels; then the call costs nothing.

    Raises:
        RuntimeError: the CPU op's message, of one of the places.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return
    if synchronize:
        torch.cuda.synchronize(device)
    message = take_bad_data(torch.cuda.current_device() if device.index is None else device.index)
    if message:
        raise RuntimeError(message)
