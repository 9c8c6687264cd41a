"""Tensors that are made once, on whatever CUDA stream asks first, and read on any."""

from collections.abc import Sequence

import torch
from torch import Tensor


class MadeOnce:
    """Keeps tensors of one device with the stream that makes them; the CPU has no streams to wait for.

    Not to be made inside a capture: they would live in the graph's memory, without contents before its first replay.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self._stream = torch.cuda.current_stream(self._tensors[0].device) if self._tensors[0].is_cuda else None
        self._made = None if self._stream is None else self._stream.record_event()

    def get(self) -> list[Tensor]:
        """The tensors, for work that the current stream gets from now on."""
        if self._stream is None or self._made is None or torch.cuda.is_current_stream_capturing():
            return self._tensors  # a capture begins with all streams idle
        stream = torch.cuda.current_stream(self._stream.device)
        if stream != self._stream:
            stream.wait_event(self._made)
            for tensor in self._tensors:  # freed, they must not be given away before this stream has read them
                tensor.record_stream(stream)
        return self._tensors
