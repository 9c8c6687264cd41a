"""The language model as the published code runs it: plain torch, a Python call per layer, step and codebook.

The definition that whole generation is measured against; it reads the weights of a model of ours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm.config import LanguageModelConfig
from mimo_audio.lm.transformer import StackShape
from mimo_audio.released.checkpoint import released_name

Cache = list[tuple[Tensor, Tensor]]  # per layer: keys and values [B, heads, T, D]


class StepByStep:
    """Greedy generation; caches grow by concatenation. Rows of a batch have one length and kind."""

    def __init__(self, model: AudioLanguageModel) -> None:
        self.config: LanguageModelConfig = model.config
        self.empty = model.special.empty
        self.weights = {released_name(name): tensor for name, tensor in model.state_dict().items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, name: str, x: Tensor) -> Tensor:
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return self.weights[f"{name}.weight"] * scaled.to(x.dtype)

    def stack(self, name: str, shape: StackShape, x: Tensor, cache: Cache | None, causal: bool) -> Tensor:
        """x [B, T, width] -> [B, T, width] after the final norm; appends to the cache."""
        batch, length, _ = x.shape
        start = cache[0][0].shape[2] if cache else 0
        pair = torch.arange(0, shape.head_dim, 2, device=x.device) / shape.head_dim
        angles = torch.outer(torch.arange(start, start + length, device=x.device), shape.rope_theta**-pair)
        cos, sin = (torch.cat([table, table], -1).to(x.dtype) for table in (angles.cos(), angles.sin()))
        for index in range(shape.layers):
            layer = f"{name}.layers.{index}"
            y = self.norm(f"{layer}.input_layernorm", x)
            q, k, v = (
                self.linear(f"{layer}.self_attn.{part}_proj", y).view(batch, length, -1, shape.head_dim).transpose(1, 2)
                for part in "qkv"
            )
            q, k = (z * cos + torch.cat([-z.chunk(2, -1)[1], z.chunk(2, -1)[0]], -1) * sin for z in (q, k))
            if cache is not None:
                if len(cache) > index:
                    k, v = (torch.cat(pieces, 2) for pieces in zip(cache[index], (k, v), strict=True))
                    cache[index] = (k, v)
                else:
                    cache.append((k, v))
            k, v = (z.repeat_interleave(shape.heads // shape.kv_heads, 1) for z in (k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=causal and length > 1)
            x = x + self.linear(f"{layer}.self_attn.o_proj", y.transpose(1, 2).reshape(batch, length, -1))
            y = self.norm(f"{layer}.post_attention_layernorm", x)
            gated = F.silu(self.linear(f"{layer}.mlp.gate_proj", y)) * self.linear(f"{layer}.mlp.up_proj", y)
            x = x + self.linear(f"{layer}.mlp.down_proj", gated)
        return self.norm(f"{name}.norm", x)

    def embed(self, ids: Tensor) -> Tensor:
        """ids [B, 1 + C, T * G] -> [B, T, H]."""
        config = self.config
        groups = ids.unflatten(2, (-1, config.group_size))
        text = groups[:, 0, :, 0]
        is_audio = (text == self.empty)[..., None]
        x = self.weights["lm_head.weight"].new_zeros(*text.shape, config.group_size, config.input_local_dim)
        for channel, empty in enumerate(config.speech_zeroemb_idx):
            codes = groups[:, 1 + channel]
            x += F.embedding(codes, self.weights[f"speech_embeddings.{channel}.weight"]) * (codes != empty)[..., None]
        x *= is_audio[..., None]
        x = self.stack(
            "input_local_transformer", config.patch_encoder, x.flatten(0, 1), None, not config.input_full_attention
        ).unflatten(0, text.shape)
        x = self.linear("speech_group_downcast", (x * is_audio[..., None]).flatten(2))
        return x + F.embedding(text, self.weights["model.embed_tokens.weight"]) * ~is_audio

    def patch(self, hidden: Tensor) -> Tensor:
        """hidden [B, H] -> codes [B, G, C], step by step."""
        config, batch = self.config, len(hidden)
        tokens = torch.zeros(batch, config.group_size, config.audio_channels, dtype=torch.int64, device=hidden.device)
        x = self.linear("hidden_states_downcast", hidden)[:, None]
        cache: Cache = []
        for step in range(config.patch_steps):
            state = self.stack("local_transformer", config.patch_decoder, x, cache, True)[:, -1]
            x = x.new_zeros(batch, 1, config.input_local_dim)
            for channel, delay in enumerate(config.delay_pattern):
                if not delay <= step < delay + config.group_size:
                    continue
                logits = self.linear(f"local_transformer_lm_heads.{channel}", state)
                logits[:, config.speech_zeroemb_idx[channel]] = -torch.inf
                token = logits.argmax(-1)
                tokens[:, step - delay, channel] = token
                x = x + F.embedding(token, self.weights[f"speech_embeddings.{channel}.weight"])[:, None]
            if "speech_embeddings_to_local.weight" in self.weights:
                x = self.linear("speech_embeddings_to_local", x)
        return tokens

    def prefill(self, prompt_ids: Tensor) -> tuple[Tensor, Cache]:
        """prompt_ids [1 + C, P * G] -> last hidden state [1, H], cache."""
        cache: Cache = []
        hidden = self.stack("model", self.config.backbone, self.embed(prompt_ids[None]), cache, True)
        return hidden[:, -1], cache

    def generate(self, prompt_ids: Tensor, max_new: int) -> Tensor:
        """prompt_ids [1 + C, P * G] -> [1 + C, max_new * G]."""
        config, groups = self.config, []
        empty = torch.tensor(config.speech_zeroemb_idx, device=prompt_ids.device)[:, None].expand(-1, config.group_size)
        hidden, cache = self.prefill(prompt_ids)
        for _ in range(max_new):
            text = self.linear("lm_head", hidden).argmax(-1)
            codes = self.patch(hidden)[0].T if int(text) == self.empty else empty
            groups.append(torch.cat([text.expand(1, config.group_size), codes]))
            hidden = self.stack("model", config.backbone, self.embed(groups[-1][None]), cache, True)[:, -1]
        return torch.cat(groups, 1)
