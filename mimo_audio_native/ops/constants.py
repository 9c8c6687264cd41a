"""The error for arguments that an op treats as constants."""


def require_constant(op: str, needs_grad: bool, name: str) -> None:
    """Raise RuntimeError if autograd wants a gradient that the op does not have."""
    if needs_grad:
        raise RuntimeError(f"{op}: {name} is a constant and has no gradient: it must not require grad, got one that does")
