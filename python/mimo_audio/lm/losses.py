"""Training losses of the language model over packed documents (MiMo-Audio report, section 2.2, table 3).

Padding never reaches a layer: the documents of a batch are laid back to back, text logits are made where a text label
is, and the patch decoder sees the labelled patches of the whole batch as [P, steps]. `losses` is the whole computation;
training takes it apart, as it divides by the counts of a step's global batch, not of one micro-batch:

    documents = pack(model, input_ids, labels, documents)      # on the host
    entropies = LossPass(model)(documents)                     # of every label alone
    combine(entropies.sums(documents), counts, weights).total.backward()
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mimo_audio.errors import LanguageModelError
from mimo_audio.lm import groups
from mimo_audio.lm.model import AudioLanguageModel

PUBLISHED_WEIGHTS = (100.0, 12.0, 8.0, 6.0, 4.0, 2.0, 2.0, 1.0, 1.0)  # text, then the codebooks
EMPTY_LOSS_WEIGHT = 0.01
IGNORED = -100  # in labels
LOGITS_AT_ONCE = 1 << 27  # text logits kept for the gradient; more are made again for it, a part at a time


@dataclass(frozen=True)
class Losses:
    """Scalars: the weighted `total`, the mean cross-entropies of `text` and, [C], of every codebook."""

    total: Tensor
    text: Tensor
    channels: Tensor


@dataclass(frozen=True)
class Counts:
    """What sums of cross-entropies are divided by, float64 scalars that add up over micro-batches and processes.

    text: labels other than <|empty|>, and empty_loss_weight for each that is; frames: labelled patches x G.
    """

    text: Tensor
    frames: Tensor


@dataclass(frozen=True)
class Packed:
    """The documents of a batch back to back, N positions in all, and what is to be predicted of them."""

    groups: Tensor  # [N, 1 + C, G]
    cu_seqlens: Tensor  # [D + 1] int32
    longest: int
    text_at: Tensor  # [M], the positions before a text label
    text: Tensor  # [M], the labels
    text_weight: Tensor  # [M] float32
    patch_at: Tensor  # [P], the positions before a labelled patch
    codes: Tensor  # [P, G, C]

    @property
    def counts(self) -> Counts:
        """Of this batch alone."""
        frames = torch.tensor(self.codes.shape[0] * self.codes.shape[1], dtype=torch.float64, device=self.codes.device)
        return Counts(self.text_weight.double().sum(), frames)

    def to(self, device: torch.device) -> "Packed":
        """The same on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Packed(**{**vars(self), **moved})


def pack(
    model: AudioLanguageModel,
    input_ids: Tensor,
    labels: Tensor,
    documents: Tensor | None = None,
    empty_loss_weight: float = EMPTY_LOSS_WEIGHT,
) -> Packed:
    """input_ids and labels [B, 1 + C, T * G], documents [B, T] -> the documents back to back.

    documents: the number of every position's document within its row, whose positions lie together, -1 for padding;
    None: every row is one. A label at a document's first position is ignored: nothing comes before it. Raises
    LanguageModelError.
    """
    config, empty = model.config, model.special.empty
    groups.check("input_ids", input_ids, config, empty, batched=True)
    rows, length = len(input_ids), input_ids.shape[2] // config.group_size
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.shape != input_ids.shape:
        got = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise LanguageModelError(f"labels: expected integers {list(input_ids.shape)} as input_ids, got {got}")
    if documents is None:
        documents = torch.zeros(rows, length, dtype=torch.int64, device=input_ids.device)
    if list(documents.shape) != [rows, length] or documents.is_floating_point() or documents.dtype == torch.bool:
        raise LanguageModelError(
            f"documents: expected integers [{rows}, {length}], got {documents.dtype} {list(documents.shape)}"
        )
    is_real = documents >= 0
    if not is_real.any():
        raise LanguageModelError("documents: expected at least one position that is not padding, got none")
    number = (documents + (documents.amax() + 1) * torch.arange(rows, device=documents.device)[:, None])[is_real]
    is_first = torch.cat([torch.ones_like(number[:1], dtype=torch.bool), number[1:] != number[:-1]])
    starts = is_first.nonzero().flatten()
    if len(number[starts].unique()) < len(starts):
        raise LanguageModelError("documents: expected the positions of a document together, got one in several pieces")
    cu_seqlens = F.pad(starts, (0, 1), value=len(number)).int()
    grid, targets = (groups.split(x.long(), config.group_size)[is_real] for x in (input_ids, labels))
    text = targets[:, 0, 0].masked_fill(is_first, IGNORED)
    _check_labels(text, targets, model)
    text_at, patch_at = (text != IGNORED).nonzero().flatten(), (text == empty).nonzero().flatten()
    return Packed(
        groups=grid,
        cu_seqlens=cu_seqlens,
        longest=int(cu_seqlens.diff().amax()),
        text_at=text_at - 1,
        text=text[text_at],
        text_weight=torch.where(text[text_at] == empty, empty_loss_weight, 1.0),
        patch_at=patch_at - 1,
        codes=targets[patch_at, 1:].mT.contiguous(),
    )


def _check_labels(text: Tensor, targets: Tensor, model: AudioLanguageModel) -> None:
    given = text[text != IGNORED]
    limits = [("text row", given, model.config.vocab_size)]
    codes = targets[text == model.special.empty, 1:]
    limits += [(f"audio channel {c}", codes[:, c], size) for c, size in enumerate(model.config.speech_vocab_size)]
    for where, values, size in limits:
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < size:
            wrong = values[(values < 0) | (values >= size)][0]
            raise LanguageModelError(f"labels: expected 0 to {size - 1} in the {where}, got {int(wrong)}")


class Entropies(NamedTuple):
    """Cross-entropies, float32, of every label: text [M], codes [P, G, C], or None where no code is asked for."""

    text: Tensor
    codes: Tensor | None

    def sums(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """Weighted sums, float64 scalars that add up over micro-batches: of the text, and [C] of every codebook."""
        channels = packed.codes.shape[-1]
        codes = self.text.new_zeros(0, 1, channels) if self.codes is None else self.codes
        return (self.text.double() * packed.text_weight).sum(), codes.double().sum((0, 1))


class LossPass(nn.Module):
    """The model's forward pass in training, as a module of its own, so that sharding finds its beginning and end."""

    def __init__(self, model: AudioLanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, packed: Packed, audio: bool = True, zero_empty_embedding: bool = True) -> Entropies:
        """audio: also of the codes; without, the patch decoder is not run at all."""
        model = self.model
        embeds = model.embed_groups(packed.groups[None]).squeeze(0)
        if not zero_empty_embedding:
            text = packed.groups[:, 0, 0]
            is_patch = (text == model.special.empty).unsqueeze(-1)
            embeds = embeds + model.backbone.embed_tokens(text) * is_patch
        hidden = model.backbone.packed(embeds, packed.cu_seqlens, packed.longest)
        text = self._text(hidden[packed.text_at], packed.text)
        if not audio:
            return Entropies(text, None)
        local_hidden = model.patch_decoder.input(hidden[packed.patch_at])
        scores = model.patch_decoder(local_hidden, packed.codes, model.speech_embeddings)
        codes = [_cross_entropy(logits, packed.codes[..., channel]) for channel, logits in enumerate(scores)]
        return Entropies(text, torch.stack(codes, -1))

    def _text(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Of the positions before a label [M, H] -> [M]."""
        at_once = max(1, LOGITS_AT_ONCE // self.model.config.vocab_size)
        if len(hidden) <= at_once or not torch.is_grad_enabled():
            return self._text_part(hidden, labels)
        parts = zip(hidden.split(at_once), labels.split(at_once), strict=True)
        return torch.cat([checkpoint(self._text_part, *part, use_reentrant=False) for part in parts])

    def _text_part(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return _cross_entropy(self.model.lm_head(hidden), labels)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """logits [.., V], labels [..] -> [..] in float32 or wider."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)


def combine(sums: tuple[Tensor, Tensor], counts: Counts, weights: Sequence[float]) -> Losses:
    """Means and the weighted total, from sums of cross-entropies and what they are divided by.

    total is (w_0 text + sum of w_r channels_r) / (sum of all w) if there is labelled audio, else `text`. With the
    counts of a global batch, the losses of its micro-batches add up to those of the whole.
    """
    text = sums[0] / counts.text.clamp(min=1e-6)
    channels = sums[1] / counts.frames.clamp(min=1)
    if len(weights) != 1 + len(channels):
        raise LanguageModelError(
            f"weights: expected {1 + len(channels)}, of the text and of every codebook, got {len(weights)}"
        )
    w = torch.tensor(weights, dtype=torch.float64, device=text.device)
    weighted = (w[0] * text + (w[1:] * channels).sum()) / w.sum()
    return Losses(torch.where(counts.frames > 0, weighted, text), text, channels)


def default_weights(channels: int) -> tuple[float, ...]:
    """The published ones; codebooks beyond the eighth count as the eighth."""
    return PUBLISHED_WEIGHTS[: 1 + channels] + PUBLISHED_WEIGHTS[-1:] * max(0, channels - 8)


def losses(
    model: AudioLanguageModel,
    input_ids: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None = None,
    weights: Sequence[float] | None = None,
    empty_loss_weight: float = EMPTY_LOSS_WEIGHT,
    zero_empty_embedding: bool = True,
    documents: Tensor | None = None,
) -> Losses:
    """Losses of a batch as published fine-tuning computes them.

    Args:
        input_ids, labels: [B, 1 + C, T * G] integers (see `mimo_audio.lm.groups`). Labels say what each position should
            have been predicted to be: in the text row at the first column of every group, -100 to ignore; where that is
            <|empty|>, the audio rows are the codes.
        attention_mask: [B, T] bool, False for padding; or documents: [B, T] integers, the number of the position's
            document within its row, -1 for padding. Documents do not see each other, and positions restart in each.
        weights: of the text and of every codebook; by default 100-12-8-6-4-2-2-1-1. If those of all codebooks are 0,
            the patch decoder is not run, and `channels` are 0.
        empty_loss_weight: of text labels that are <|empty|>.
        zero_empty_embedding: patches have no text embedding, as in inference; False adds that of <|empty|>, as the
            published training code does by an oversight.

    Returns:
        total = (100 text + 12 channels_1 + ..) / 136 where there is labelled audio, else text. Differentiable.

    Raises:
        LanguageModelError: shapes, ids, labels, documents or weights that do not fit the model.
    """
    if attention_mask is not None:
        if documents is not None:
            raise LanguageModelError("documents: expected without an attention_mask, got both")
        documents = torch.where(attention_mask.bool(), 0, -1)
    weights = default_weights(model.config.audio_channels) if weights is None else tuple(weights)
    if not all(0 <= w < float("inf") for w in weights) or not sum(weights) or not empty_loss_weight >= 0:
        raise LanguageModelError(
            f"weights: expected none below 0 and one above, got {weights}, empty_loss_weight {empty_loss_weight}"
        )
    packed = pack(model, input_ids, labels, documents, empty_loss_weight).to(model.device)
    entropies = LossPass(model)(packed, any(weights[1:]), zero_empty_embedding)
    return combine(entropies.sums(packed), packed.counts, weights)
