"""A micro-batch of language-model training: what the data side makes and the losses read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

PADDING = -1  # in `documents`
IGNORED = -100  # in `labels`


@dataclass(frozen=True)
class Batch:
    """Rows of T positions, each filled with whole documents one after another and then with padding.

    input_ids [B, 1 + C, T * G] int64: token grids (see `mimo_audio.lm.groups`). labels, of the same shape: what is to
    be predicted at each position from those before it, -100 where nothing is; the text row at the first column of every
    group, the audio rows the codes of labelled patches (beside labelled text empty codes, which no loss reads).
    documents [B, T] int64: the number of each position's document within its row, -1 for padding; no document sees
    another, and rotary positions count from 0 in each. tasks: of every document, row by row, the task that it is an
    example of.
    """

    input_ids: Tensor
    labels: Tensor
    documents: Tensor
    tasks: Sequence[Sequence[str]] = ()

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(self.input_ids.to(device), self.labels.to(device), self.documents.to(device), self.tasks)


class Source(Protocol):
    """Where micro-batches come from."""

    def batch(self, step: int, micro_batch: int) -> Batch:
        """A pure function of its arguments and of the source's seed, called by several threads. Raises MimoError.

        The micro-batches of a step, whichever process takes which, are its global batch.
        """
        ...
