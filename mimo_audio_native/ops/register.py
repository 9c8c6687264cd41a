"""Registration with the checks that the kernels cannot make: torch does not ask them.

A fake kernel runs whenever an argument is a meta tensor, even if the others hold data: without a check the result
would be memory that nobody wrote. And a gradient without a gradient of its own counts as a constant.
"""

import functools
import inspect
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad


def _tensors(name: str, value: object) -> list[tuple[str, Tensor]]:
    if isinstance(value, list | tuple):
        return [pair for i, item in enumerate(value) for pair in _tensors(f"{name}[{i}]", item)]
    return [(name, value)] if isinstance(value, Tensor) else []


def register_fake(op: str) -> Callable[[Callable], Callable]:
    """torch.library.register_fake, but arguments on different devices raise RuntimeError."""

    def register(fake: Callable) -> Callable:
        names = list(inspect.signature(fake).parameters)

        def checked(*arguments):
            named = zip(names, arguments, strict=False)  # torch leaves out arguments that equal their defaults
            (first_name, first), *rest = [pair for name, value in named for pair in _tensors(name, value)]
            for name, tensor in rest:
                if tensor.device != first.device:
                    raise RuntimeError(
                        f"{op.split('::')[1]}: {name} must be on the device of {first_name} ({first.device}), "
                        f"got {tensor.device}"
                    )
            return fake(*arguments)

        torch.library.register_fake(op)(checked)
        return fake

    return register


def refuse_second_derivative(op: str) -> None:
    """Differentiating the op, which is another's gradient, raises RuntimeError."""

    def backward(ctx, *grads):
        raise RuntimeError(f"{op.split('::')[1]}: second derivatives are not implemented")

    torch.library.register_autograd(op, backward)


Function = TypeVar("Function", bound=Callable)


def refuse_forward_mode(function: Function) -> Function:
    """The function, but arguments with a tangent raise RuntimeError: torch would take them for constants."""

    @functools.wraps(function)
    def checked(*arguments, **named):
        if forward_ad._current_level >= 0:
            for name, value in [*enumerate(arguments), *named.items()]:
                if any(forward_ad.unpack_dual(tensor).tangent is not None for _, tensor in _tensors("", value)):
                    where = f"argument {name}"
                    raise RuntimeError(f"{function.__name__}: forward-mode derivatives are not implemented ({where})")
        return function(*arguments, **named)

    return checked  # type: ignore[return-value]


_AUTOCAST = torch.library.Library("mimo", "IMPL")


def float32_under_autocast(*ops: str, keeps_last: bool = False) -> None:
    """Under torch.autocast the ops take and give float32, as torch's own norms and losses do: searches and spectra.

    keeps_last: the tensors of the last argument stay as they are.
    """
    for op in ops:
        for device in ("cpu", "cuda"):
            if not keeps_last:
                torch.library.register_autocast(op, device, torch.float32)
            else:
                _AUTOCAST.impl(op, functools.partial(_float32_but_last, op, device), f"Autocast{device.upper()}")


def _float32_but_last(op: str, device: str, *arguments):
    call = getattr(torch.ops.mimo, op.split("::")[1])
    names = [argument.name for argument in call.default._schema.arguments]
    cast = [value if name == names[-1] else _float32(value) for name, value in zip(names, arguments, strict=False)]
    with torch.autocast(device, enabled=False):
        return call(*cast)


def _float32(value):
    if isinstance(value, list | tuple):
        return [_float32(item) for item in value]
    narrow = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if narrow else value


def over_leading(op: Callable[[Tensor], Tensor], signal: Tensor) -> Tensor:
    """An op of [B, L] -> [B, ...] for a signal [..., L] -> [..., ...]."""
    if signal.dim() == 2:
        return op(signal)
    out = op(signal.reshape(-1, signal.shape[-1]) if signal.dim() else signal)
    return out.view(*signal.shape[:-1], *out.shape[1:])
