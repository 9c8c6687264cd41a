"""Keys and values that the backbone keeps of the positions it has read."""

import torch
from torch import Tensor

from mimo_audio.errors import LanguageModelError
from mimo_audio.lm.transformer import StackShape

CHUNK = 256  # positions; room grows by at least so many, and at least doubles


class KeyValueCache:
    """Room for the keys and values of `batch` rows, written in place; grows as needed up to `limit` positions.

    All rows have `length` positions so far; `padding` [B] says how many at a row's left are none of its own (None: no
    row has any).
    """

    def __init__(
        self, shape: StackShape, batch: int, limit: int, dtype: torch.dtype, device: torch.device, capacity: int = 0
    ) -> None:
        self.shape, self.batch, self.limit, self.dtype, self.device = shape, batch, limit, dtype, device
        self.length = 0
        self.padding: Tensor | None = None
        self.room = self._room(0)  # [layers, 2, B, K, capacity, D]: keys and values
        self.reserve(capacity)

    @property
    def capacity(self) -> int:
        """Positions that there is room for."""
        return self.room.shape[4]

    def reserve(self, length: int) -> None:
        """Makes room for `length` positions in all. Raises LanguageModelError beyond the limit."""
        if length > self.limit:
            raise LanguageModelError(f"positions: expected at most the context of {self.limit}, got {length}")
        if length > self.capacity:
            capacity = min(self.limit, max(2 * self.capacity, -(-length // CHUNK) * CHUNK))
            room = self._room(capacity)
            self._read(room).copy_(self._read(self.room))
            self.room = room

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Puts keys and values [B, K, T, D] behind the positions so far; returns those of all [B, K, length + T, D].

        They count once `length` is raised, after the last layer.
        """
        new, end = keys.shape[2], self.length + keys.shape[2]
        all_keys, all_values = self.room[layer].narrow(3, 0, end)
        all_keys.narrow(2, self.length, new).copy_(keys)
        all_values.narrow(2, self.length, new).copy_(values)
        return all_keys, all_values

    def truncate(self, length: int) -> None:
        """Forgets all but the first `length` positions."""
        if not 0 <= length <= self.length:
            raise LanguageModelError(f"length: expected 0 to {self.length} positions, got {length}")
        self.length = length
        if length == 0:
            self.padding = None

    def _room(self, capacity: int) -> Tensor:
        with torch.inference_mode(False):  # so that both inference and plain code may write to it
            shape = self.shape
            size = (shape.layers, 2, self.batch, shape.kv_heads, capacity, shape.head_dim)
            return torch.empty(size, dtype=self.dtype, device=self.device)

    def _read(self, room: Tensor) -> Tensor:
        return room.narrow(4, 0, self.length)
