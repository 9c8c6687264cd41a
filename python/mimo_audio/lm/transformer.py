"""The block stack that the language model uses three times (MiMo-Audio report, section 2.2).

Patch encoder, backbone and patch decoder are the same pre-norm blocks: attention whose projections carry biases, then
a gated feed-forward network. They differ in shape and in what a position attends to, which the caller passes in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

import mimo_audio_native as mn
from mimo_audio.tokenizer.transformer import rotary_tables
from mimo_audio_native import reference
from mimo_audio_native.streams import MadeOnce

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # layer, q [.., H, D], k and v [.., K, D] -> [.., H, D]


@dataclass(frozen=True)
class StackShape:
    """Sizes of a stack; `kv_heads` divides `heads`, and heads x head_dim need not be the width."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_dim: int
    eps: float
    rope_theta: float


def patch_attention(length: int, head_dim: int) -> Callable[..., Tensor]:
    """The attention inside patches of so many positions: the op, or its definition for sizes that the op is not for."""
    native = length <= 16 and head_dim % 8 == 0 and head_dim <= 128
    return mn.patch_attention if native else reference.patch_attention


def window_attention(head_dim: int) -> Callable[..., Tensor]:
    """The attention over packed rows: the op, or its definition for sizes that the op is not for."""
    return mn.window_attention if head_dim % 8 == 0 and head_dim <= 128 else reference.window_attention


FEW_ROWS = 4  # frames of a patch


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear, also with a weight of `mimo_audio_native.quantize_weight`.

    A few rows on the CPU go through `mimo_audio_native.linear` where no gradient is wanted: torch packs the weight anew
    for every product, which takes longer than to read it.
    """
    if weight.dtype == torch.uint8:
        return mn.quantized_linear(x, weight, bias)
    few = x.device.type == "cpu" and x.numel() <= FEW_ROWS * weight.shape[1] and x.dtype == weight.dtype
    if few and x.dtype in (torch.float32, torch.bfloat16) and not _tracked(x, weight, bias):
        return mn.linear(x.reshape(-1, weight.shape[1]), weight, bias).view(*x.shape[:-1], weight.shape[0])
    return F.linear(x, weight, bias)


def _tracked(*tensors: Tensor | None) -> bool:
    """Whether a result is to be differentiated, or computed in another dtype."""
    if torch.is_autocast_enabled("cpu") or forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


class Linear(nn.Linear):
    """nn.Linear by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def rows(self, x: Tensor) -> Tensor:
        """x [B, K] -> [B, N], where no row's result depends on the others; not differentiable."""
        product = mn.quantized_linear if self.weight.dtype == torch.uint8 else mn.linear
        return product(x, self.weight, self.bias)


class SelfAttention(nn.Module):
    """Projections around an attention that the caller chooses."""

    def __init__(self, shape: StackShape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.q_proj = Linear(shape.width, shape.heads * shape.head_dim)
        self.k_proj = Linear(shape.width, shape.kv_heads * shape.head_dim)
        self.v_proj = Linear(shape.width, shape.kv_heads * shape.head_dim)
        self.o_proj = Linear(shape.heads * shape.head_dim, shape.width, bias=False)

    def forward(self, x: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        q, k, v = (proj(x).unflatten(-1, (-1, self.head_dim)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        return self.o_proj(attend(q, k, v).flatten(-2))


class FeedForward(nn.Module):
    """silu(gate) * up, projected down."""

    def __init__(self, width: int, ffn_dim: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, ffn_dim, bias=False)
        self.up_proj = Linear(width, ffn_dim, bias=False)
        self.down_proj = Linear(ffn_dim, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One pre-norm block."""

    def __init__(self, shape: StackShape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.width, shape.eps)
        self.self_attn = SelfAttention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, shape.eps)
        self.mlp = FeedForward(shape.width, shape.ffn_dim)

    def forward(self, x: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), attend)
        return x + self.mlp(self.post_attention_layernorm(x))

    def tensors(self) -> list[Tensor]:
        """The block's 12 tensors, as `Transformer.tensors` gives them."""
        attention, mlp = self.self_attn, self.mlp
        return [
            self.input_layernorm.weight,
            attention.q_proj.weight,
            attention.q_proj.bias,
            attention.k_proj.weight,
            attention.k_proj.bias,
            attention.v_proj.weight,
            attention.v_proj.bias,
            attention.o_proj.weight,
            self.post_attention_layernorm.weight,
            mlp.gate_proj.weight,
            mlp.up_proj.weight,
            mlp.down_proj.weight,
        ]


class Transformer(nn.Module):
    """Blocks and a final norm. x [.., width] -> [.., width]."""

    def __init__(self, shape: StackShape) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, shape.eps)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        for index, block in enumerate(self.layers):
            x = block(x, partial(attend, index))
        return self.norm(x)

    def tensors(self) -> list[Tensor]:
        """The tensors of all blocks in the order of `mimo_audio_native.patch_decode` and `backbone_step`."""
        found = []
        for layer in self.layers:
            assert isinstance(layer, Block)
            found += layer.tensors()
        return found

    def rotary(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines [length, head_dim / 2] of positions 0 .. length - 1, float32."""
        wanted = (length, self.shape.head_dim, self.shape.rope_theta, device)
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return rotary_tables(*wanted)  # the graph's own: others would read them before a replay has made them
        cos, sin = _tables(*wanted).get()
        return cos, sin


@lru_cache(maxsize=64)
def _tables(length: int, head_dim: int, theta: float, device: torch.device) -> MadeOnce:
    with torch.inference_mode(False), torch.no_grad():  # training may use what inference has made
        return MadeOnce(rotary_tables(length, head_dim, theta, device))
