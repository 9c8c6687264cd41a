"""Everything that streams remember, as tensors whose rows are the streams: made once, then changed in place.

The shapes never change, so memory is flat and a step that uses a state can be captured in a CUDA graph.
"""

from __future__ import annotations

import torch
from torch import Tensor


class State:
    """Named tensors [batch, ...] of `batch` streams, each with the value that a new stream starts from."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.batch, self.device = batch, device
        self._tensors: dict[str, Tensor] = {}
        self._initial: dict[str, Tensor] = {}

    def add(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, initial: Tensor | float = 0) -> None:
        """A tensor [batch, *shape] whose rows start as `initial`, which broadcasts to [*shape]."""
        value = torch.as_tensor(initial, dtype=dtype, device=self.device)
        self._initial[name] = value
        # Not contiguous(), which for a batch of one may give the initial value itself.
        self._tensors[name] = value.expand(self.batch, *shape).clone(memory_format=torch.contiguous_format)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def update(self, name: str, active: Tensor | None, value: Tensor) -> None:
        """Writes the rows of `value` [batch, ...] where `active` [batch] bool (None: all), in place; others stay."""
        old = self._tensors[name]
        old.copy_(value if active is None else torch.where(active.view(-1, *[1] * (old.dim() - 1)), value, old))

    def reset(self, row: int | None = None) -> None:
        """Back to the start: one row, or all."""
        for name, tensor in self._tensors.items():
            tensor[slice(None) if row is None else row] = self._initial[name]

    def copy_row(self, source: int, target: int) -> None:
        """Makes row `target` what row `source` is."""
        for tensor in self._tensors.values():
            tensor[target] = tensor[source]

    def copy(self) -> State:
        """A state of its own with the same content."""
        twin = State(self.batch, self.device)
        twin._initial = self._initial
        twin._tensors = {name: tensor.clone() for name, tensor in self._tensors.items()}
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes that the tensors take."""
        return sum(tensor.nbytes for tensor in self._tensors.values())
