"""A Transformer stack over streams: every frame passes every layer once, with keys and values kept in rings.

A step takes `frames` new rows of every stream and gives as many. A layer that sees R frames ahead works R frames behind
its input, so that all it may see is there; D, the sum of R over the layers so far (and what the input lags already), is
how far its output lags. With g the number of an input row of the stack, layer by layer the same row of a ring:

    keys of layer l      positions g - D[l-1]          visible to a query if g_query - left - R[l] <= g_key <= g_query,
    queries of layer l   positions g - D[l]            and if the position exists: 0 <= position < end of the stream

Before a stream's start and after its end layers compute rows that nobody sees: a step is always the same work, on
tensors of the same shape, whatever the streams are doing. A row depends on its own stream only.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from mimo_audio.tokenizer.streaming.state import State
from mimo_audio.tokenizer.transformer import TransformerLayer, TransformerStack


class StreamingStack:
    """`stack` with `rights` frames of look-ahead per layer and `left` frames of memory; its input lags by `delay`."""

    def __init__(
        self,
        name: str,
        stack: TransformerStack,
        state: State,
        frames: int,
        left: int,
        rights: Sequence[int],
        delay: int = 0,
    ) -> None:
        self.name, self.frames, self.left, self.rights = name, frames, left, list(rights)
        self.layers = [cast(TransformerLayer, layer) for layer in stack.layers]
        self.delays = list(accumulate(self.rights, initial=delay))  # of every layer's input; the last: of the output
        self.views = list(zip(self.rights, self.delays, strict=False))  # what a layer's mask depends on
        blocks = -(-(left + max(self.rights) + frames) // frames)
        weight, heads = self.layers[0].self_attn.k_proj.weight, self.layers[0].self_attn.heads
        width = len(weight)
        pair = torch.arange(0, stack.head_dim, 2, dtype=torch.float32, device=weight.device)
        self.frequency = (1 / stack.theta ** (pair / stack.head_dim)).double()
        for i, right in enumerate(self.rights):
            for part in ("keys", "values"):
                state.add(f"{name}.{i}.{part}", (heads, blocks, frames, width // heads), weight.dtype)
            if right:
                state.add(f"{name}.{i}.behind", (right, width), weight.dtype)
        self.blocks = blocks

    def step(self, x: Tensor, state: State, clock: Tensor, end: Tensor, active: Tensor | None) -> Tensor:
        """x [B, frames, width] -> the same shape; `delays[-1]` frames behind, counting the input's own lag.

        clock [B] int64, steps that every stream did before; end [B] int64, its length in frames (large while it is
        open); active [B] bool, streams whose state changes (None: all).
        """
        g = clock[:, None] * self.frames + torch.arange(self.frames, device=clock.device)  # [B, frames]
        block = (
            torch.arange(len(clock), device=clock.device),
            slice(None),
            clock % self.blocks,
        )  # the oldest, to replace
        rotations = {right: self._rotation(g - right) for right in {0, *self.rights}}
        masks = self._masks(g, clock, end, x.dtype)
        for i, layer in enumerate(self.layers):
            right = self.rights[i]
            normed = layer.self_attn_layer_norm(x)
            key, value = (self._heads(layer, part, normed) for part in ("k_proj", "v_proj"))
            keys = self._remember(state, f"{i}.keys", block, active, self._rotated(key, rotations[0]))
            values = self._remember(state, f"{i}.values", block, active, value)
            if right:
                x = self._delayed(state, f"{i}.behind", active, x)
                normed = layer.self_attn_layer_norm(x)
            query = self._rotated(self._heads(layer, "q_proj", normed), rotations[right]).transpose(1, 2)
            y = F.scaled_dot_product_attention(query, keys, values, masks[self.views[i]])
            x = x + layer.self_attn.out_proj(y.transpose(1, 2).flatten(-2))
            x = x + layer.fc2(layer.activation(layer.fc1(layer.final_layer_norm(x))))
        return x

    def _rotation(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """cos, cos and -sin, sin, [B, frames, 1, head_dim]; float64 angles: hour ten is as exact as second one."""
        angle = (position[..., None].double() * self.frequency)[:, :, None]
        cos, sin = angle.cos().float(), angle.sin().float()
        return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)

    def _masks(self, g: Tensor, clock: Tensor, end: Tensor, dtype: torch.dtype) -> dict[tuple[int, int], Tensor]:
        """What is added to the scores [B, 1, frames, ring], for every different (right, delay) of the layers."""
        slot = torch.arange(self.blocks * self.frames, device=g.device)
        age = (clock[:, None] - slot // self.frames) % self.blocks  # in steps
        key = (clock[:, None] - age) * self.frames + slot % self.frames  # [B, ring], g of every key
        behind = g[:, :, None] - key[:, None]
        masks = {}
        for right, delay in set(self.views):
            exists = (key >= delay) & (key < end[:, None] + delay)
            visible = (behind >= 0) & (behind <= self.left + right) & exists[:, None]
            # The least number, not -inf: a row that sees nothing must stay finite.
            hidden = torch.zeros(visible.shape, dtype=dtype, device=g.device).masked_fill(
                ~visible, torch.finfo(dtype).min
            )
            masks[right, delay] = hidden[:, None]
        return masks

    def _heads(self, layer: TransformerLayer, part: str, x: Tensor) -> Tensor:
        return getattr(layer.self_attn, part)(x).unflatten(-1, (layer.self_attn.heads, -1))  # [B, frames, H, D]

    def _rotated(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """`apply_rotary` of x [B, frames, H, D], in fewer calls."""
        wide = x.float()
        return torch.addcmul(wide * rotation[0], wide.roll(x.shape[-1] // 2, -1), rotation[1]).to(x.dtype)

    def _remember(
        self, state: State, part: str, block: tuple[Tensor, slice, Tensor], active: Tensor | None, new: Tensor
    ) -> Tensor:
        """Puts [B, frames, H, D] into the ring and gives all of it, [B, H, ring, D]."""
        ring, new = state[f"{self.name}.{part}"], new.transpose(1, 2)
        ring[block] = new if active is None else torch.where(active[:, None, None, None], new, ring[block])
        return ring.flatten(2, 3)

    def _delayed(self, state: State, part: str, active: Tensor | None, x: Tensor) -> Tensor:
        """The rows that left the delay line as those of x entered it."""
        name = f"{self.name}.{part}"
        line = torch.cat([state[name], x], 1)
        state.update(name, active, line[:, self.frames :])
        return line[:, : self.frames]
