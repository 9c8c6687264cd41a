"""The processes of a parallel run (torchrun): sums and copies between them, and nothing at all if there is one."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from mimo_audio.errors import MimoError, first_line

BUCKET = 1 << 24  # numbers in one message
PATIENCE = timedelta(minutes=20)  # with another process, which may be writing a large model
TRANSPORTS = ("gloo", "nccl", "connection", "socket", "timed out")  # words of errors that a lost process causes


class ProcessesError(MimoError):
    """A process of a parallel run has ended, or does not answer any more."""


@dataclass(frozen=True)
class Processes:
    """This process among `count` that share the micro-batches of a step.

    Where `peers` processes work on every micro-batch together, there are that many times as many in all; this one is
    the `peer`-th of its micro-batches, and `group` are those of them that have the same number.
    """

    rank: int
    count: int
    device: torch.device
    peers: int = 1
    peer: int = 0
    group: dist.ProcessGroup | None = None

    @property
    def world(self) -> int:
        """How many processes there are in all."""
        return self.count * self.peers

    @property
    def is_first(self) -> bool:
        """Whether this one writes what is written once."""
        return self.rank == self.peer == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes that share the micro-batches, in place."""
        if self.count > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process of all."""
        if self.world == 1:
            return flag
        found = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(found)
        return bool(found)

    def wait(self) -> None:
        """Until all processes are here."""
        self.any(False)

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process the first one's values, in place."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)
                torch.autograd.graph.increment_version(tensor)  # broadcast leaves it, and caches look at it

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sums every parameter's gradient, in messages of some size."""
        if self.count == 1:
            return
        for bucket in _buckets(_local(p.grad) for p in parameters if p.grad is not None):
            message = self.sum(torch.cat([gradient.flatten() for gradient in bucket]))
            for gradient, total in zip(bucket, message.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(total.view_as(gradient))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(t.numel() for t in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


@contextmanager
def connected(device: str, patience: timedelta = PATIENCE) -> Iterator[Processes]:
    """The group that torchrun started this process in, or this process alone; device "cpu" or "cuda".

    Raises ProcessesError where another process is gone, or has not come to a sum for as long as `patience`.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
    try:
        if count > 1:
            dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=patience)
        yield Processes(rank, count, place)
    except RuntimeError as error:
        if count == 1 or not _is_of_transport(error):
            raise
        raise ProcessesError(
            f"process {rank} of {count}: another has ended or does not answer ({first_line(error)}); "
            "the last checkpoint is intact"
        ) from error
    if count > 1:  # after an error the others may be anywhere, and leaving together would wait for them
        dist.destroy_process_group()


def _is_of_transport(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in TRANSPORTS)
