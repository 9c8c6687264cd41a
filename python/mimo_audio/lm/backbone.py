"""The backbone: a causal Transformer over positions, each a text token or a patch (MiMo-Audio report, section 2.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimo_audio.errors import LanguageModelError
from mimo_audio.lm.cache import KeyValueCache
from mimo_audio.lm.transformer import StackShape, Transformer, window_attention
from mimo_audio_native import backbone_step, rotary

STEP_DTYPES, STEP_HEAD_DIM = (torch.float32, torch.bfloat16, torch.float16), 256  # what `backbone_step` takes


class Backbone(nn.Module):
    """Grouped-query causal attention with rotary positions; owns the text embedding."""

    def __init__(self, shape: StackShape, vocab_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, shape.width)
        self.transformer = Transformer(shape)

    def forward(
        self, embeds: Tensor, attention_mask: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """embeds [B, T, H] -> hidden states [B, T, H] after the final norm.

        attention_mask [B, T] bool: False at positions that nothing attends to; a row's rotary positions count the
        others. With a cache the positions follow those in it and are added to it, without gradients; then a mask is
        for an empty cache only and must be False at the left, True at the right. Raises LanguageModelError.
        """
        if cache is None:
            return self._run(embeds, attention_mask, None)
        with torch.no_grad():
            return self._run(embeds, attention_mask, cache)

    def _run(self, embeds: Tensor, attention_mask: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        new = embeds.shape[1]
        past = 0 if cache is None else cache.length
        if attention_mask is not None and attention_mask.all():
            attention_mask = None
        if cache is not None:
            cache.reserve(past + new)
            padding = cache.padding if attention_mask is None else _left_padding(attention_mask, past)
            if new == 1 and embeds.dtype in STEP_DTYPES and self.transformer.shape.head_dim <= STEP_HEAD_DIM:
                hidden = self._step(embeds.squeeze(1), padding, cache).unsqueeze(1)
                cache.length, cache.padding = past + 1, padding
                return hidden
            if padding is not None:
                attention_mask = torch.arange(past + new, device=embeds.device) >= padding[:, None]
        cos, sin = self._rotary(past, new, attention_mask, embeds.device)
        visible = _visible(past, new, attention_mask, embeds.device)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (x.transpose(1, 2) for x in (*rotary(q, k, cos, sin), v))
            if cache is not None:
                k, v = cache.write(layer, k, v)
            causal = visible is None
            return F.scaled_dot_product_attention(q, k, v, visible, is_causal=causal, enable_gqa=True).transpose(1, 2)

        if cache is None:
            return self.transformer(embeds, attend)
        hidden = self.transformer(embeds, attend)
        cache.length, cache.padding = past + new, padding
        return hidden

    def packed(self, embeds: Tensor, cu_seqlens: Tensor, longest: int) -> Tensor:
        """Documents back to back, embeds [N, H] -> hidden states [N, H] after the final norm, for training.

        cu_seqlens [D + 1] int32: where each document begins, and N; `longest` has the most positions. A position
        attends to those of its own document up to itself, and rotary positions count from 0 in each: what `forward`
        gives for every document alone, without a mask that would grow with the square of N.
        """
        cos, sin = self.tables(longest, embeds.device)
        attention = window_attention(self.transformer.shape.head_dim)

        def attend(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
            return attention(q, k, v, cu_seqlens, -1, 0, cos, sin)

        return self.transformer(embeds, attend)

    def _step(self, embeds: Tensor, padding: Tensor | None, cache: KeyValueCache) -> Tensor:
        """One position per row, embeds [B, H] -> hidden states [B, H]."""
        transformer = self.transformer
        return backbone_step(
            embeds,
            transformer.tensors(),
            transformer.norm.weight,
            cache.room,
            cache.length,
            padding,
            *self.tables(cache.length + 1, embeds.device),
            transformer.shape.heads,
            transformer.shape.eps,
        )

    def tables(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rotary tables of `length` positions or some more: lengths share them."""
        return self.transformer.rotary(1 << max(8, (length - 1).bit_length()), device)

    def _rotary(self, past: int, new: int, mask: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """Tables of the new positions: [T, D / 2], or [B, T, D / 2] where rows count their own."""
        end = past + new
        cos, sin = self.tables(end, device)
        if mask is None:
            return cos[past:end], sin[past:end]
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, past:]
        return cos[positions], sin[positions]


def _left_padding(mask: Tensor, past: int) -> Tensor:
    """How many positions of each row are False; they must be its first ones, and those of an empty cache."""
    if past or (mask[:, 1:] < mask[:, :-1]).any() or not mask[:, -1].all():
        raise LanguageModelError(
            "attention_mask: with a cache, expected False only at the left of every row and the cache empty, got "
            + (f"{past} positions in the cache" if past else "another mask")
        )
    return (~mask).sum(1)


def _visible(past: int, new: int, mask: Tensor | None, device: torch.device) -> Tensor | None:
    """Which keys [B or 1, 1, T, past + T] each query attends to; None for all that are not later than it.

    A query that is masked out itself attends to itself, so that nothing becomes NaN.
    """
    if mask is None and (new == 1 or past == 0):
        return None
    query, key = torch.arange(past, past + new, device=device)[:, None], torch.arange(past + new, device=device)
    causal = key <= query
    return causal[None, None] if mask is None else ((causal & mask[:, None]) | (key == query))[:, None]
