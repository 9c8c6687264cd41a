"""The language model's patch in plain torch at its best: compiled blocks, caches of a fixed length, one CUDA graph.

The strongest stand-in that anybody can have without kernels of their own, with the weights of bench/step_by_step.py.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.step_by_step import StepByStep
from mimo_audio.lm.transformer import StackShape

Room = list[Tensor]  # per layer [2, B, kv heads, positions, D]


def block(
    x: Tensor, weights: list[Tensor], rotary: list[Tensor], room: Tensor | None, place: Tensor, heads: int, eps: float
) -> Tensor:
    """x [B, T, width] -> [B, T, width]; with room, T is 1: position `place` [1] is written, later ones are not read."""
    norm, q_w, q_b, k_w, k_b, v_w, v_b, out, norm_2, gate, up, down = weights
    batch, length, _ = x.shape
    cos, sin = rotary
    width = 2 * cos.shape[-1]

    def turned(z: Tensor) -> Tensor:
        low, high = z.chunk(2, -1)
        return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)

    y = F.rms_norm(x, norm.shape, norm, eps)
    q, k, v = (
        F.linear(y, w, b).view(batch, length, -1, width).transpose(1, 2)
        for w, b in ((q_w, q_b), (k_w, k_b), (v_w, v_b))
    )
    q, k, visible = turned(q), turned(k), None
    if room is not None:
        keys, values = room[0].index_copy_(2, place, k), room[1].index_copy_(2, place, v)
        k, v, visible = keys, values, (torch.arange(keys.shape[2], device=x.device) <= place)[None]
    y = F.scaled_dot_product_attention(q, k, v, visible, enable_gqa=True)
    x = x + F.linear(y.transpose(1, 2).reshape(batch, length, heads * width), out)
    y = F.rms_norm(x, norm_2.shape, norm_2, eps)
    return x + F.linear(F.silu(F.linear(y, gate)) * F.linear(y, up), down)


class CompiledPatch:
    """patch(hidden [B, H]) -> hidden of the next position: text token, patch, embedding, backbone, greedily."""

    def __init__(self, plain: StepByStep, room: Tensor, place: int, compiled: bool = True) -> None:
        """room [layers, 2, B, kv heads, positions, D]: the backbone's cache, written at `place`."""
        self.plain, self.place = plain, torch.tensor([place], device=room.device)
        self.room, self.batch = list(room), room.shape[2]
        self.block = torch.compile(block, dynamic=False) if compiled else block

    def _stack(self, name: str, shape: StackShape, x: Tensor, room: Room | None, place: Tensor) -> Tensor:
        pairs = torch.arange(0, shape.head_dim, 2, device=x.device) / shape.head_dim
        positions = place if room else torch.arange(x.shape[1], device=x.device)
        angles = torch.outer(positions, shape.rope_theta**-pairs)
        rotary = [angles.cos().to(x.dtype), angles.sin().to(x.dtype)]
        weights = self.plain.weights
        for layer in range(shape.layers):
            at = f"{name}.layers.{layer}"
            attention = [f"self_attn.{p}_proj.{kind}" for p in "qkv" for kind in ("weight", "bias")]
            rest = [f"mlp.{p}_proj.weight" for p in ("gate", "up", "down")]
            names = ["input_layernorm.weight", *attention, "self_attn.o_proj.weight", "post_attention_layernorm.weight"]
            tensors = [weights[f"{at}.{key}"] for key in names + rest]
            x = self.block(x, tensors, rotary, room[layer] if room else None, place, shape.heads, shape.eps)
        return F.rms_norm(x, x.shape[-1:], weights[f"{name}.norm.weight"], shape.eps)

    @torch.no_grad()
    def __call__(self, hidden: Tensor) -> Tensor:
        plain, config = self.plain, self.plain.config
        text = plain.linear("lm_head", hidden).argmax(-1)
        shape = config.patch_decoder
        size = (shape.layers, 2, self.batch, shape.kv_heads, config.patch_steps, shape.head_dim)
        room = list(torch.zeros(size, dtype=hidden.dtype, device=hidden.device))
        steps = torch.arange(config.patch_steps, device=hidden.device)
        x = plain.linear("hidden_states_downcast", hidden)[:, None]
        made: list[list[Tensor]] = [[] for _ in config.delay_pattern]
        for step in range(config.patch_steps):
            state = self._stack("local_transformer", shape, x, room, steps[step : step + 1])[:, -1]
            x = x.new_zeros(self.batch, 1, config.input_local_dim)
            for channel, delay in enumerate(config.delay_pattern):
                if delay <= step < delay + config.group_size:
                    logits = plain.linear(f"local_transformer_lm_heads.{channel}", state)
                    logits[:, config.speech_zeroemb_idx[channel]] = -torch.inf
                    made[channel].append(logits.argmax(-1))
                    x = (
                        x
                        + F.embedding(made[channel][-1], plain.weights[f"speech_embeddings.{channel}.weight"])[:, None]
                    )
            if "speech_embeddings_to_local.weight" in plain.weights:
                x = plain.linear("speech_embeddings_to_local", x)
        codes = [torch.stack(channel, -1) for channel in made]  # each [B, G]
        y = hidden.new_zeros(self.batch, config.group_size, config.input_local_dim)
        for channel, empty in enumerate(config.speech_zeroemb_idx):
            table = plain.weights[f"speech_embeddings.{channel}.weight"]
            y = y + F.embedding(codes[channel], table) * (codes[channel] != empty)[..., None]
        y = self._stack("input_local_transformer", config.patch_encoder, y, None, self.place)
        y = plain.linear("speech_group_downcast", y.flatten(1))[:, None]
        is_patch = (text == plain.empty)[:, None, None]
        y = torch.where(is_patch, y, F.embedding(text, plain.weights["model.embed_tokens.weight"])[:, None])
        return self._stack("model", config.backbone, y, self.room, self.place)[:, -1]

    def graph(self, hidden: Tensor) -> Callable[[], Tensor]:
        """The call as a CUDA graph over this very `hidden`."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self(hidden)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self(hidden)

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
