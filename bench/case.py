"""What a benchmark case is: one op at one size, beside the plain-torch definition it is measured against."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Case:
    """One row of the record.

    name:         "op/size", for instance "rvq_encode/750".
    native:       runs the op once and returns its result.
    reference:    the same in plain torch, as the published code writes it; same threads, same dtype.
    check:        raises AssertionError when native's result is wrong; called once, with both, before any timing.
    flops:        least floating-point operations of the work, or 0 where memory is the limit.
    bytes:        least bytes that must move, or 0 where arithmetic is the limit.
    target:       wanted ratio reference time / native time on a CPU (the project's targets), None where there is none.
    cuda_target:  the same on a GPU.
    cuda_seconds: wanted time on one H200, None where there is none.
    audio:        seconds of sound that a call reads or makes, or 0.
    compiled:     the same by torch.compile under a CUDA graph, as far as plain torch goes; None where nobody would.
    products:     dtype of the matrix products behind `flops`, None for the run's own.
    graph:        whether there is a form that can be captured as a CUDA graph, as it never waits for the GPU.
    capture:      that form, None for `native` itself.
    """

    name: str
    native: Callable[[], Any]
    reference: Callable[[], Any]
    check: Callable[[Any, Any], None]
    flops: float = 0.0
    bytes: float = 0.0
    target: float | None = None
    cuda_target: float | None = None
    cuda_seconds: float | None = None
    audio: float = 0.0
    compiled: Callable[[], Any] | None = None
    products: torch.dtype | None = None
    graph: bool = True
    capture: Callable[[], Any] | None = None
