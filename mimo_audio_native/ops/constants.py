"""The error for arguments that an op treats as constants."""

from torch import Tensor


def require_constant(op: str, value: Tensor | None, name: str) -> None:
    """Raise RuntimeError if an argument wants a gradient that the op does not have.

    Not by `ctx.needs_input_grad`, which ends where a call leaves the rest to the schema's defaults.
    """
    if value is not None and value.requires_grad:
        raise RuntimeError(f"{op}: {name} is a constant: it must not require grad, got one that does")
