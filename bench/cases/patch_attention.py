"""patch_attention at the full model's size (4 frames, 64 heads of 16) and at nano's: prefill, generation, training.

A GPU also gets more patches than its L2 cache holds.

Cases named `sdpa` have rotation followed by torch's scaled_dot_product_attention on [P, H, G, D] beside them, the
shortest plain-torch form, in place of the definition.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.case import Case
from mimo_audio_native import patch_attention, reference
from mimo_audio_native.reference.rotary import apply_rotary

FRAMES = 4
SIZES = [
    ("one_patch", 1, 64, 16),
    ("prefill_100", 100, 64, 16),
    ("prefill_2000", 2000, 64, 16),
    ("nano_100", 100, 4, 32),
]
CUDA_SIZES = [("prefill_20000", 20_000, 64, 16)]


def fused_attention(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    q, k = (apply_rotary(x, cos, sin) for x in (q, k))
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def with_gradients(
    attend: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor, rest: tuple
) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        out = attend(*inputs, *rest)
    return (out.detach(), *torch.autograd.grad(out, inputs, grad))


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}.get(dtype, 2e-2)

    def check(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
        for a, b in zip(got, wanted, strict=True):
            error = float((a.float() - b.float()).norm() / b.float().norm())
            assert error < tolerance, f"relative error {error:.2g}, allowed {tolerance:.2g}"

    for name, patches, heads, dim in SIZES + (CUDA_SIZES if device == "cuda" else []):
        qkv = torch.randn(patches, FRAMES, 3, heads, dim, generator=generator).to(device, dtype)
        grad = torch.randn(patches, FRAMES, heads, dim, generator=generator).to(device, dtype)
        angles = torch.arange(FRAMES)[:, None] * 640000.0 ** (-torch.arange(0, dim, 2) / dim)
        rest = (angles.cos().to(device), angles.sin().to(device))
        plain = list(qkv.unbind(2))
        tracked = [t.detach().requires_grad_() for t in plain]
        flops, size = 4.0 * patches * heads * dim * FRAMES**2, grad.numel() * grad.element_size()
        for suffix, other, target in (("", reference.patch_attention, 2.0), ("_sdpa", fused_attention, None)):
            yield Case(
                name=f"patch_attention/{name}{suffix}",
                native=lambda plain=plain, rest=rest: (patch_attention(*plain, *rest),),
                reference=lambda plain=plain, rest=rest, other=other: (other(*plain, *rest),),
                check=check,
                flops=flops,
                bytes=4.0 * size,
                target=target,
                cuda_seconds=1.3 * 7.6e-9 * patches if patches == 20_000 and dtype.itemsize == 2 else None,
            )
        yield Case(
            name=f"patch_attention/{name}_training",
            native=lambda t=tracked, g=grad, rest=rest: with_gradients(patch_attention, t, g, rest),
            reference=lambda t=tracked, g=grad, rest=rest: with_gradients(reference.patch_attention, t, g, rest),
            check=check,
            flops=3.5 * flops,
            bytes=11.0 * size,
        )
