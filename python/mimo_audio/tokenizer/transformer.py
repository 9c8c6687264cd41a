"""The pre-norm Transformer of encoder, decoder and vocoder, over packed sequences (MiMo-Audio report, section 2.1).

All three are the same blocks with rotary positions; they differ in width and in what a frame may attend to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mimo_audio_native as mn
from mimo_audio.tokenizer.packing import cumulative
from mimo_audio.tokenizer.products import linear

ACTIVATIONS = {  # names of configs -> those of ops
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}


def make_norm(kind: str, width: int) -> nn.Module:
    """The norm that a config's `ln_type` names."""
    return nn.RMSNorm(width, eps=1e-6) if kind == "RMSNorm" else nn.LayerNorm(width, eps=1e-5)


def rotary_tables(length: int, head_dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, head_dim / 2] of rotary positions 0 .. length - 1, float32."""
    pair = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device)
    angle = torch.outer(torch.arange(length, dtype=torch.float32, device=device), 1 / theta ** (pair / head_dim))
    return angle.cos(), angle.sin()


@dataclass(frozen=True)
class Layout:
    """Where the sequences of a pass lie and how far a frame sees; made once per pass, shared by its layers."""

    lengths: Sequence[int]
    cu_seqlens: Tensor  # [B + 1] int32
    cos: Tensor  # of every position [longest, head_dim / 2]; where attention is full, of every row [T, head_dim / 2]
    sin: Tensor
    left: int
    right: int
    full: bool  # whether attention is torch's own; else it is `window_attention`'s


def _full_attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """`Layout.full` attention, sequences of one length as one batch. q, k, v [T, H, D] -> [T, H, D]."""
    q, k = mn.rotary(q, k, layout.cos, layout.sin)

    def attend(q: Tensor, k: Tensor, v: Tensor, length: int) -> Tensor:
        q, k, v = (t.view(-1, length, *t.shape[1:]).transpose(1, 2) for t in (q, k, v))  # [B, H, length, D]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=layout.right == 0)
        return y.transpose(1, 2).flatten(0, 1)

    lengths = list(layout.lengths)
    if len(set(lengths)) == 1:
        return attend(q, k, v, lengths[0])
    return torch.cat(list(map(attend, q.split(lengths), k.split(lengths), v.split(lengths), lengths)))


class SelfAttention(nn.Module):
    """Multi-head self-attention with rotary positions; keys carry no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, layout: Layout, residual: Tensor) -> Tensor:
        """residual + the attention of x [T, width]."""
        q, k, v = (linear(proj, x).view(len(x), self.heads, -1) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if layout.full:
            y = _full_attention(q, k, v, layout)
        else:
            y = mn.window_attention(q, k, v, layout.cu_seqlens, layout.left, layout.right, layout.cos, layout.sin)
        return linear(self.out_proj, y.flatten(-2), residual=residual)


class TransformerLayer(nn.Module):
    """One pre-norm block: attention, then a two-layer feed-forward network."""

    def __init__(self, width: int, heads: int, ffn_dim: int, activation: str, norm: str) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads)
        self.self_attn_layer_norm = make_norm(norm, width)
        self.fc1 = nn.Linear(width, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, width)
        self.final_layer_norm = make_norm(norm, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        x = self.self_attn(self.self_attn_layer_norm(x), layout, x)
        return linear(self.fc2, linear(self.fc1, self.final_layer_norm(x), self.activation), residual=x)


class TransformerStack(nn.Module):
    """Base of encoder, decoder and vocoder: owns `layers` and lays out the sequences of a pass for them."""

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        ffn_dim: int,
        depth: int,
        window: tuple[int, int],
        causal: bool,
        activation: str,
        norm: str,
        theta: float,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(width, heads, ffn_dim, activation, norm) for _ in range(depth))
        self.left, self.right = window[0], 0 if causal else window[1]
        self.theta = theta
        self.head_dim = width // heads

    def layout(self, lengths: Sequence[int], device: torch.device) -> Layout:
        """The layout of sequences of these lengths for the stack's own rotary positions and attention window."""
        tables = rotary_tables(max(lengths), self.head_dim, self.theta, device)
        full = self.left < 0 and self.right <= 0 and not self._native(device)
        layout = Layout(lengths, cumulative(lengths, device), *tables, self.left, self.right, full)
        if not layout.full or len(lengths) == 1:
            return layout
        cos, sin = (torch.cat([table[:n] for n in lengths]) for table in tables)
        return replace(layout, cos=cos, sin=sin)

    def _native(self, device: torch.device) -> bool:
        """Whether attention without a limit to the left is `window_attention`'s all the same.

        Where it is faster than torch's own: in inference on the CPU if it is causal (1.3 to 1.8 times) or in bfloat16
        (1.5 to 2.6 times).
        """
        if device.type != "cpu" or torch.is_grad_enabled() or self.head_dim % 8 or self.head_dim > 128:
            return False
        return self.right == 0 or next(self.layers.parameters()).dtype == torch.bfloat16
