"""Training steps of the language model against the published training step's plain-torch definition, in turns.

python bench/train_lm.py [--size tiny|nano|middle] [--pairs 3] [--json FILE]

The definition is what published fine-tuning does: HF-style blocks (separate rotations, repeated key-value heads,
softmax attention with a dense mask), rows padded to the longest, text logits at every position, the patch decoder by
plain attention. Same weights, same documents, same threads; a step is forward, losses and backward. Before timing, the
losses are compared. Loss tokens are text labels other than <|empty|> and labelled codes.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mimo_audio.evaluate.environment import environment
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.lm.losses import LossPass, combine, default_weights, pack
from mimo_audio.lm.transformer import Transformer
from mimo_audio.text import SpecialTokens
from mimo_audio.train.flops import matmul_flops, step_flops

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1000, "local_dim": 64, "local_layers": 2,
             "local_attn_heads": 4, "local_ffn_dim": 128, "input_local_dim": 64, "input_local_layers": 1},
    "nano": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000, "local_dim": 192, "local_layers": 3,
             "local_attn_heads": 4, "local_ffn_dim": 512, "input_local_dim": 128, "input_local_layers": 2},
    "middle": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16,
               "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 32000, "local_dim": 512, "local_layers": 8,
               "local_attn_heads": 32, "local_ffn_dim": 2048, "input_local_dim": 512, "input_local_layers": 3},
}  # fmt: skip
SPECIAL = SpecialTokens(
    sosp=3, eosp=4, empty=5, human=6, speechlm=7, sostm=8, eostm=9, eot=10, im_start=1, im_end=2, endoftext=0
)
MIXED, EQUAL = (40, 300, 90, 60, 150, 35, 220, 70, 110, 50, 45, 80), (128,) * 8  # positions of documents


def documents(config: LanguageModelConfig, lengths: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """Ids and labels [1 + C, T * G]: a prompt of 40%, then patches and text in turns of five."""
    random, made = torch.Generator().manual_seed(0), []
    for length in lengths:
        text = torch.randint(20, config.vocab_size, (length,), generator=random)
        is_patch = torch.arange(length) // 5 % 2 == 1
        ids = torch.empty(1 + config.audio_channels, length * config.group_size, dtype=torch.int64)
        ids[0] = torch.where(is_patch, SPECIAL.empty, text).repeat_interleave(config.group_size)
        for channel, empty in enumerate(config.speech_zeroemb_idx):
            ids[1 + channel] = torch.randint(0, empty, ids[0].shape, generator=random)
        labels = ids.clone()
        labels[:, : int(0.4 * length) * config.group_size] = -100
        made.append((ids, labels))
    return made


def stacked(rows: list[list[Tensor]], width: int, fill: int) -> Tensor:
    joined = [torch.cat(row, 1) for row in rows]
    return torch.stack([F.pad(row, (0, width - row.shape[1]), value=fill) for row in joined])


def kept(step: Callable[[], float], model: AudioLanguageModel) -> float:
    """Gigabytes that a step keeps for its gradient, besides the weights."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(sizes.values()) / 1e9


class Definition:
    """The published training step in plain torch, of the model's own weights, on padded rows [B, 1 + C, T * G]."""

    def __init__(self, model: AudioLanguageModel) -> None:
        self.model = model

    def stack(self, stack: Transformer, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, T, width]; mask [B or 1, 1, T, T] is added to the scores."""
        shape, (batch, length, _) = stack.shape, x.shape
        frequency = shape.rope_theta ** -(torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
        angle = torch.outer(torch.arange(length).float(), frequency)
        cos, sin = torch.cat([angle.cos()] * 2, 1), torch.cat([angle.sin()] * 2, 1)

        def rotate(y: Tensor) -> Tensor:
            a, b = y.chunk(2, -1)
            return y * cos + torch.cat([-b, a], -1) * sin

        for block in stack.layers:
            attention, mlp = block.self_attn, block.mlp
            y = block.input_layernorm(x)
            q, k, v = (
                p(y).view(batch, length, -1, shape.head_dim).transpose(1, 2)
                for p in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            q, k = rotate(q), rotate(k)
            k, v = (t.repeat_interleave(shape.heads // shape.kv_heads, 1) for t in (k, v))
            scores = q @ k.transpose(2, 3) / shape.head_dim**0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            x = x + attention.o_proj((weights @ v).transpose(1, 2).reshape(batch, length, -1))
            y = block.post_attention_layernorm(x)
            x = x + mlp.down_proj(F.silu(mlp.gate_proj(y)) * mlp.up_proj(y))
        return stack.norm(x)

    def __call__(self, ids: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        model, config = self.model, self.model.config
        size, (batch, length) = config.group_size, mask.shape
        text, wanted = ids[:, 0, ::size], labels[:, 0, ::size]
        is_patch = text == SPECIAL.empty
        codes = ids[:, 1:].view(batch, -1, length, size).permute(0, 2, 3, 1)  # [B, T, G, C]
        embedded = model.speech_embeddings(codes) * is_patch[:, :, None, None]
        frames = self.stack(model.patch_encoder.transformer, embedded.flatten(0, 1), None)
        patches = model.patch_encoder.projection(frames.flatten(1)).view(batch, length, -1)
        embeds = model.backbone.embed_tokens(text) * ~is_patch[..., None] + patches * is_patch[..., None]
        visible = torch.ones(length, length, dtype=torch.bool).tril() & mask[:, None, None]
        dense = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
        hidden = self.stack(model.backbone.transformer, embeds, dense)
        logits = model.lm_head(hidden)[:, :-1].flatten(0, 1).float()
        targets = wanted[:, 1:].flatten()
        each = F.cross_entropy(logits, targets, ignore_index=-100, reduction="none")
        weight = torch.where(targets == SPECIAL.empty, 0.01, 1.0) * (targets != -100)
        text_loss = (each * weight).sum() / weight.sum()
        row, column = (wanted[:, 1:] == SPECIAL.empty).nonzero(as_tuple=True)
        given = labels[:, 1:].view(batch, -1, length, size).permute(0, 2, 3, 1)[row, column + 1]  # [P, G, C]
        decoder = model.patch_decoder
        inputs = decoder.step_inputs(decoder.input(hidden[row, column]), given, model.speech_embeddings)
        steps = inputs.shape[1]
        causal = torch.full((steps, steps), torch.finfo(torch.float32).min).triu(1)[None, None]
        scores = decoder.logits(self.stack(decoder.transformer, inputs, causal))
        losses = [F.cross_entropy(s.flatten(0, 1), given[..., c].flatten()) for c, s in enumerate(scores)]
        weights = torch.tensor(default_weights(config.audio_channels))
        return (weights * torch.stack([text_loss, *losses])).sum() / weights.sum()


def measure(size: str, name: str, lengths: tuple[int, ...], pairs: int, peak: float) -> dict[str, Any]:
    """Both ways in turns; packed rows are as long as the longest document."""
    torch.manual_seed(0)
    config = LanguageModelConfig(**SIZES[size], input_full_attention=True)
    model = AudioLanguageModel(config, SPECIAL)
    made, group, longest = documents(config, lengths), config.group_size, max(lengths)
    rows: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):  # first fit
        place = next((row for row in rows if sum(lengths[n] for n in row) + lengths[number] <= longest), None)
        if place is None:
            rows.append([number])
        else:
            place.append(number)
    ids, labels = (stacked([[made[n][i] for n in row] for row in rows], longest * group, (0, -100)[i]) for i in (0, 1))
    numbers = stacked(
        [[torch.full((1, lengths[n]), k) for k, n in enumerate(row)] for row in rows], longest, -1
    ).squeeze(1)
    padded_ids, padded_labels = (stacked([[d[i]] for d in made], longest * group, (0, -100)[i]) for i in (0, 1))
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    loss_pass, definition = LossPass(model), Definition(model)

    def ours() -> float:
        packed = pack(model, ids, labels, numbers)
        total = combine(loss_pass(packed).sums(packed), packed.counts, default_weights(8)).total
        total.backward()
        return total.item()

    def theirs() -> float:
        total = definition(padded_ids, padded_labels, mask)
        total.backward()
        return total.item()

    found: dict[str, tuple[Callable[[], float], list[float]]] = {"ours": (ours, []), "definition": (theirs, [])}
    values = {way: step() for way, (step, _) in found.items()}  # the first is slower
    assert abs(values["ours"] - values["definition"]) < 1e-4 * abs(values["definition"]), values
    memory = {way: kept(step, model) for way, (step, _) in found.items()}
    for _ in range(pairs):
        for step, times in found.values():
            model.zero_grad(set_to_none=True)
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    packed = pack(model, ids, labels, numbers)
    tokens = int((packed.text != SPECIAL.empty).sum()) + packed.codes.numel()
    flops = step_flops(model, packed, True)
    seconds = {way: median(times) for way, (_, times) in found.items()}
    return {
        "case": f"{size}/{name}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "positions": sum(lengths),
        "loss_tokens": tokens,
        "ms": {way: 1000 * s for way, s in seconds.items()},
        "loss_tokens_per_second": {way: tokens / s for way, s in seconds.items()},
        "mfu": {way: flops / s / peak for way, s in seconds.items()},
        "kept_gb": memory,
        "speedup": median(t / o for o, t in zip(found["ours"][1], found["definition"][1], strict=True)),
        "loss": values,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Training steps of the language model against their definition.")
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--pairs", type=int, default=3, help="steps of each way")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    peak = matmul_flops("cpu", torch.float32)
    results = []
    for name, lengths in (("mixed", MIXED), ("equal", EQUAL)):
        result = measure(arguments.size, name, lengths, arguments.pairs, peak)
        results.append(result)
        ms, mfu = result["ms"], result["mfu"]
        print(
            f"{result['case']:14} {ms['ours']:8.0f} ms (MFU {mfu['ours']:.2f})   definition {ms['definition']:8.0f} ms "
            f"({mfu['definition']:.2f})   {result['speedup']:.2f}x loss tokens/s; kept for the gradient "
            f"{result['kept_gb']['ours']:.2f} and {result['kept_gb']['definition']:.2f} GB"
        )
    if arguments.json:
        record = {"environment": environment("cpu"), "threads": torch.get_num_threads(), "cases": results}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
