"""Modules whose tensors stay float32 whatever the precision of the model around them."""

from collections.abc import Callable

from torch import Tensor, nn


class Float32Module(nn.Module):
    """Follows `.to(device)` but not `.to(dtype)`: codebooks, windows and filter banks are never rounded."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Float32Module":
        return super()._apply(lambda tensor: tensor.to(fn(tensor[:0]).device), recurse)
