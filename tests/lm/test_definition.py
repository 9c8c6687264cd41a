"""Shapes that the golden checkpoints do not have, against the model written out in float64.

`Naive` reads the tensors under their released names: one row, no cache, no batch, a loop wherever one could be.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm.transformer import StackShape
from mimo_audio.released.checkpoint import released_name


class Naive:
    """What `model` computes, for one row of ids [1 + C, T * G]."""

    def __init__(self, model: AudioLanguageModel) -> None:
        self.config, self.empty = model.config, model.special.empty
        self.w = {released_name(name): tensor.double() for name, tensor in model.state_dict(keep_vars=True).items()}

    def embed(self, ids: Tensor) -> Tensor:
        """-> [T, H]"""
        size = self.config.group_size
        rows = []
        for start in range(0, ids.shape[1], size):
            if ids[0, start] != self.empty:
                rows.append(self.w["model.embed_tokens.weight"][ids[0, start]])
                continue
            frames = torch.stack([self.frame(ids[1:, start + i].tolist()) for i in range(size)])
            full = self.config.input_full_attention
            frames = self.stack("input_local_transformer", self.config.patch_encoder, frames, causal=not full)
            rows.append(self.w["speech_group_downcast.weight"] @ frames.flatten())
        return torch.stack(rows)

    def frame(self, codes: list[int]) -> Tensor:
        """The sum of the embeddings of a frame's codes; -1 and empty codes add nothing."""
        total = torch.zeros(self.config.input_local_dim, dtype=torch.float64)
        for channel, (code, empty) in enumerate(zip(codes, self.config.speech_zeroemb_idx, strict=True)):
            if code not in (-1, empty):
                total += self.w[f"speech_embeddings.{channel}.weight"][code]
        return total

    def hidden(self, ids: Tensor) -> Tensor:
        return self.stack("model", self.config.backbone, self.embed(ids), causal=True)

    def text_logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.w["lm_head.weight"].T

    def local_hidden(self, hidden: Tensor) -> Tensor:
        return hidden @ self.w["hidden_states_downcast.weight"].T

    def decode(self, local_hidden: Tensor, given: Tensor | None = None) -> tuple[Tensor, dict[tuple[int, int], Tensor]]:
        """local_hidden [D_local] -> codes [G, C], `given` or greedy, and the logits by frame and codebook."""
        config = self.config
        codes = torch.full((config.group_size, config.audio_channels), -1)
        inputs, logits = [local_hidden], {}
        for step in range(config.patch_steps):
            y = self.stack("local_transformer", config.patch_decoder, torch.stack(inputs), causal=True)[-1]
            made = [-1] * config.audio_channels
            for channel, delay in enumerate(config.delay_pattern):
                frame = step - delay
                if 0 <= frame < config.group_size:
                    scores = self.w[f"local_transformer_lm_heads.{channel}.weight"] @ y
                    logits[frame, channel] = scores
                    allowed = scores.index_fill(0, torch.tensor(config.speech_zeroemb_idx[channel]), -torch.inf)
                    made[channel] = int(allowed.argmax() if given is None else given[frame, channel])
                    codes[frame, channel] = made[channel]
            summed = self.frame(made)
            if "speech_embeddings_to_local.weight" in self.w:
                summed = self.w["speech_embeddings_to_local.weight"] @ summed
            inputs.append(summed)
        return codes, logits

    def stack(self, prefix: str, shape: StackShape, x: Tensor, causal: bool) -> Tensor:
        """x [T, width] through a block stack."""
        length, half = len(x), shape.head_dim // 2
        angle = torch.outer(
            torch.arange(length, dtype=torch.float64),
            shape.rope_theta ** -(torch.arange(half, dtype=torch.float64) / half),
        )

        def rotate(vectors: Tensor) -> Tensor:
            a, b = vectors[:, :half], vectors[:, half:]
            return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], 1)

        for layer in range(shape.layers):
            w = {
                name.removeprefix(f"{prefix}.layers.{layer}."): tensor
                for name, tensor in self.w.items()
                if name.startswith(f"{prefix}.layers.{layer}.")
            }
            y = F.rms_norm(x, (shape.width,), w["input_layernorm.weight"], shape.eps)
            q, k, v = (
                (y @ w[f"self_attn.{n}_proj.weight"].T + w[f"self_attn.{n}_proj.bias"]).split(shape.head_dim, 1)
                for n in "qkv"
            )
            heads = []
            for head in range(shape.heads):
                shared = head // (shape.heads // shape.kv_heads)
                scores = rotate(q[head]) @ rotate(k[shared]).T / shape.head_dim**0.5
                if causal:
                    scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
                heads.append(scores.softmax(1) @ v[shared])
            x = x + torch.cat(heads, 1) @ w["self_attn.o_proj.weight"].T
            y = F.rms_norm(x, (shape.width,), w["post_attention_layernorm.weight"], shape.eps)
            gate, up = y @ w["mlp.gate_proj.weight"].T, y @ w["mlp.up_proj.weight"].T
            x = x + (F.silu(gate) * up) @ w["mlp.down_proj.weight"].T
        return F.rms_norm(x, (shape.width,), self.w[f"{prefix}.norm.weight"], shape.eps)


SHAPES = {
    "released": {},
    "causal_patches": {"input_full_attention": False},
    "one_channel": {"audio_channels": 1, "speech_vocab_size": 12, "speech_zeroemb_idx": 11, "delay_pattern": 0},
    "five_channels": {
        "audio_channels": 5,
        "speech_vocab_size": "9-8-7-6-5",
        "speech_zeroemb_idx": 4,
        "delay_pattern": "0-1-2-3-4",
    },
    "delays_0_0_1": {"delay_pattern": "0-0-1"},
    "delays_3_0_2": {"delay_pattern": "3-0-2"},
    "no_delays": {"delay_pattern": 0},
    "groups_of_1": {"group_size": 1},
    "groups_of_2": {"group_size": 2},
    "groups_of_5": {"group_size": 5},
    "narrow_patch_encoder": {"input_local_dim": 8},
    "wide_patch_encoder": {"input_local_dim": 32, "input_full_attention": False},
    "wide_patch_decoder": {"local_dim": 40, "local_attn_heads": 4, "input_local_dim": 16},
    "a_key_head_per_head": {"num_key_value_heads": 4},
    "one_key_head": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def model(request, make_model) -> AudioLanguageModel:
    return make_model(**request.param)


@torch.no_grad()
def test_passes(model, random_ids):
    ids = random_ids(model, batch=2, length=9)
    output = model(ids)
    naive = Naive(model)
    for row in range(2):
        torch.testing.assert_close(model.embed(ids)[row].double(), naive.embed(ids[row]), atol=1e-5, rtol=0)
        hidden = naive.hidden(ids[row])
        for actual, expected in (
            (output.hidden, hidden),
            (output.text_logits, naive.text_logits(hidden)),
            (output.local_hidden, naive.local_hidden(hidden)),
        ):
            torch.testing.assert_close(actual[row].double(), expected, atol=2e-5, rtol=0)


@torch.no_grad()
def test_patches_are_decoded_greedily(model):
    local_hidden = torch.randn(6, model.config.local_dim)
    naive = Naive(model)
    expected = torch.stack([naive.decode(row)[0] for row in local_hidden.double()])
    assert torch.equal(model.patch_decode(local_hidden), expected)


@torch.no_grad()
def test_patches_are_scored_teacher_forced(model):
    config = model.config
    local_hidden = torch.randn(3, config.local_dim)
    codes = torch.stack([torch.randint(size, (3, config.group_size)) for size in config.speech_vocab_size], -1)
    logits = model.patch_decoder(local_hidden, codes, model.speech_embeddings)
    naive = Naive(model)
    for row in range(3):
        _, expected = naive.decode(local_hidden[row].double(), codes[row])
        for (frame, channel), scores in expected.items():
            torch.testing.assert_close(logits[channel][row, frame].double(), scores, atol=2e-5, rtol=0)


@pytest.mark.parametrize("shape", ["released", "causal_patches", "delays_3_0_2", "narrow_patch_encoder", "tied"])
def test_gradients(shape, make_model, random_ids):
    model = make_model(**SHAPES[shape]).train()
    config = model.config
    ids = random_ids(model, batch=1, length=9)
    codes = torch.stack([torch.randint(size, (9, config.group_size)) for size in config.speech_vocab_size], -1)
    factors = [torch.randn(9, size) for size in (config.vocab_size, *config.speech_vocab_size)]

    def gradients(text_logits, patch_logits) -> dict[str, torch.Tensor]:
        total = (text_logits * factors[0]).sum()
        for scores, factor in zip(patch_logits, factors[1:], strict=True):
            total = total + (scores.mean(1) * factor).sum()
        model.zero_grad()
        total.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    output = model(ids)
    patch_logits = model.patch_decoder(output.local_hidden[0], codes, model.speech_embeddings)
    actual = gradients(output.text_logits[0], patch_logits)

    naive = Naive(model)
    hidden = naive.hidden(ids[0])
    scored = [naive.decode(*pair)[1] for pair in zip(naive.local_hidden(hidden), codes, strict=True)]
    expected_logits = [
        torch.stack([torch.stack([logits[frame, channel] for frame in range(config.group_size)]) for logits in scored])
        for channel in range(config.audio_channels)
    ]
    expected = gradients(naive.text_logits(hidden), expected_logits)
    for name, gradient in expected.items():
        assert (actual[name] - gradient).norm() <= 1e-4 * gradient.norm(), name
