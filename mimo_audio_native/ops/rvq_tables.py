"""Tables of codebooks for the CUDA search of ``rvq_encode``, made once per version of the codebooks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mimo_audio_native.ops.register import register_fake
from mimo_audio_native.streams import MadeOnce

ALIGNED_ROWS, ALIGNED_COLUMNS = 128, 32  # csrc/include/mimo/rvq.h, rvq_packed_size


class RvqTables:
    """Keeps the tables of a model's codebooks; makes them when first asked and again once a codebook has changed.

    A change is another tensor in a codebook's place, or one that torch counts as written in place (``_version``).
    torch does not count writes through ``.data`` or by ``torch.distributed``: `torch.autograd.graph.increment_version`
    tells it. Inference tensors have no version: their tables are made for each call. The first R' of the codebooks use
    the tables of all. A captured CUDA graph reads the tables of its capture: capture again when codebooks change.

    At full size the tables take 56 MB on CUDA; on the CPU, whose search needs none, they are empty. Copies and pickles
    of the object are empty caches.
    """

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def of(self, codebooks: Sequence[Tensor]) -> list[Tensor] | None:
        """The tables of codebooks [K_r, D], or None where the call has to make its own."""
        codebooks = list(codebooks)
        if torch.compiler.is_compiling() or not codebooks or any(c.is_inference() for c in codebooks):
            return None
        kept = self._kept
        if kept is None or not kept.is_of(codebooks):
            if codebooks[0].is_cuda and torch.cuda.is_current_stream_capturing():
                return None  # they would live in the graph's memory, without contents before its first replay
            kept = self._kept = _Kept(codebooks)
        return kept.tables.get()

    def __reduce__(self) -> tuple[type[RvqTables], tuple[()]]:
        return RvqTables, ()


class _Kept:
    """Tables, and what tells whether they still hold. It keeps the codebooks: no other tensor gets one's address."""

    def __init__(self, codebooks: list[Tensor]) -> None:
        self.codebooks = codebooks
        self.versions = [(c._version, c.data_ptr()) for c in codebooks]
        self.tables = MadeOnce(torch.ops.mimo.rvq_tables(codebooks))

    def is_of(self, codebooks: list[Tensor]) -> bool:
        """Whether the codebooks are the first of those kept, and unchanged."""
        return len(codebooks) <= len(self.codebooks) and all(
            ours is theirs and version == (theirs._version, theirs.data_ptr())
            for ours, theirs, version in zip(self.codebooks, codebooks, self.versions, strict=False)
        )


@register_fake("mimo::rvq_tables")
def _(codebooks: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    entries = norms = products = 0
    first = codebooks[0]
    if first.device.type == "cuda" and first.dtype == torch.float32:
        total = 0
        for codebook in codebooks:
            products += total * codebook.shape[0]
            total += codebook.shape[0]
        rows, columns = (-(-n // k) * k for n, k in ((total, ALIGNED_ROWS), (first.shape[1], ALIGNED_COLUMNS)))
        entries, norms = 2 * rows * columns, 2 * total
    return (
        first.new_empty((entries,), dtype=torch.bfloat16),
        first.new_empty((norms,), dtype=torch.float32),
        first.new_empty((products,), dtype=torch.float32),
    )
