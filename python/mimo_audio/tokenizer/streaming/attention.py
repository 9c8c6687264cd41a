"""A Transformer stack over streams: every frame passes every layer once, with keys and values kept in rings.

A step takes new rows of every stream and gives as many. A layer that sees R frames ahead works R frames behind its
input, so that all it may see is there; D, the sum of R over the layers so far (and what the input lags already), is how
far its output lags (`mimo_audio_native.stream_layers`).

Before a stream's start and after its end layers compute rows that nobody sees: a step is always the same work, whatever
the streams are doing. A row depends on its own stream only.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn

import mimo_audio_native as mn
from mimo_audio.tokenizer.streaming.state import State
from mimo_audio.tokenizer.transformer import TransformerLayer, TransformerStack


class StreamingStack:
    """`stack` with `rights` frames of look-ahead per layer and `left` frames of memory; its input lags by `delay`.

    most: rows that a step may have.
    """

    def __init__(
        self,
        name: str,
        stack: TransformerStack,
        state: State,
        most: int,
        left: int,
        rights: Sequence[int],
        delay: int = 0,
    ) -> None:
        self.cache, self.behind = f"{name}.cache", f"{name}.behind"
        self.left, self.rights, self.delay = left, list(rights), delay
        self.delays = list(accumulate(self.rights, initial=delay))  # of every layer's input; the last: of the output
        layers = [cast(TransformerLayer, layer) for layer in stack.layers]
        self.weights = [tensor for layer in layers for tensor in _weights(layer)]
        self.activation = layers[0].activation
        self.eps = cast(float, layers[0].final_layer_norm.eps)
        weight, heads = layers[0].self_attn.k_proj.weight, layers[0].self_attn.heads
        width = len(weight)
        pair = torch.arange(0, stack.head_dim, 2, dtype=torch.float32, device=weight.device)
        self.frequency = (1 / stack.theta ** (pair / stack.head_dim)).double()
        # A whole number of the largest steps: at equal places in them, equal work.
        self.ring = -(-(left + max(self.rights) + most) // most) * most
        state.add(self.cache, (len(layers), 2, heads, self.ring, stack.head_dim), weight.dtype)
        state.add(self.behind, (sum(self.rights), width), weight.dtype)

    def step(self, x: Tensor, state: State, position: Tensor, end: Tensor, active: Tensor | None) -> Tensor:
        """x [B, n, width] -> the same shape; `delays[-1]` frames behind, counting the input's own lag.

        position [B] int64, rows that every stream had before; end [B] int64, its length in frames (large while it is
        open); active [B] bool, streams whose state changes (None: all).
        """
        return mn.stream_layers(
            x,
            self.weights,
            self.rights,
            state[self.cache],
            state[self.behind],
            self.frequency,
            position,
            end,
            active,
            self.left,
            self.delay,
            self.activation,
            self.eps,
        )


def _weights(layer: TransformerLayer) -> list[Tensor]:
    """A layer's tensors in the order of `mimo_audio_native.stream_layers`."""
    attention = layer.self_attn
    modules: list[nn.Module] = [
        layer.self_attn_layer_norm,
        attention.q_proj,
        attention.k_proj,
        attention.v_proj,
        attention.out_proj,
        layer.final_layer_norm,
        layer.fc1,
        layer.fc2,
    ]
    tensors: list[Tensor] = []
    for module in modules:
        weight = module.get_parameter("weight")
        tensors.append(weight)
        if module is not attention.k_proj:
            tensors.append(module.get_parameter("bias") if hasattr(module, "bias") else weight.new_empty(0))
    return tensors
