"""Runs a planned step: positions of any requests, prompts and new groups alike, through the model at once.

A row is a position of a request. Every part of the model that a row meets gives it the same numbers alone or among
others: patch encoder and backbone by `backbone_step`, whose rows may be positions of one sequence, the way in to the
patch decoder and the text head by `linear`, then `sample` and `patch_decode`. So a prompt may be read in any pieces,
beside anything, and what a position was once computed to can be used by all who begin with the same positions.

With `static` (on a GPU) a step has one of the row counts of `SHAPES`, filled up with rows that write to a page of their
own, and every drawing row makes a patch, wanted or not: the host looks at what was drawn once a step, at its end, and
all before it can be captured as a CUDA graph per count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio.device import weights_version
from mimo_audio.engine.pages import Copy
from mimo_audio.errors import GenerationError, LanguageModelError, MimoError
from mimo_audio.lm.model import AudioLanguageModel
from mimo_audio.lm.patch_encoder import SpeechEmbeddings
from mimo_audio.lm.samplers import Sampler

SHAPES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # rows of a step
WIDEST_HEAD = 256  # of backbone_step
Settings: TypeAlias = tuple[Tensor, Tensor, Tensor]  # temperature, top-k, top-p [n]


@dataclass(frozen=True)
class Draw:
    """How a request draws: its samplers and its seed."""

    text: Sampler
    audio: Sampler
    seed: int


@dataclass(frozen=True, eq=False)
class Rows:
    """Groups [n, 1 + C, G] of one request from position `start` on, and the pages they lie in.

    draw: how the group after them is made, None if they are part of a prompt only; `number`: which group that is;
    `banned`: text ids that are not drawn.
    """

    groups: Tensor
    start: int
    pages: Sequence[int]
    draw: Draw | None = None
    number: int = 0
    banned: Sequence[int] = ()


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was made: a text id, and codes [C, G] if it is that of a patch; or why nothing could be."""

    token: int
    codes: Tensor | None = None
    error: MimoError | None = None


class Executor:
    """A model and its key-value pool of `pages` pages of `size` positions."""

    def __init__(self, model: AudioLanguageModel, pages: int, size: int, static: bool | None = None) -> None:
        config = model.config
        for name, width in (
            ("head_dim", config.head_dim),
            ("input_local_dim / local_attn_heads", config.patch_encoder.head_dim),
        ):
            if width > WIDEST_HEAD:
                raise GenerationError(f"{name}: expected heads of a width up to {WIDEST_HEAD}, got {width}")
        self.model, self.pages, self.size = model, pages, size
        self.static = model.device.type == "cuda" if static is None else static
        self._empty = model.special.empty
        self._version: object = None
        self._samplers: dict[tuple[Draw, ...], tuple[Settings, Settings, Tensor]] = {}
        self.refresh()

    def refresh(self) -> bool:
        """Looks whether the model's weights are still the same; if not, nothing in the pool counts any more."""
        version = weights_version(self.model)
        if version == self._version:
            return False
        self._version = version
        model, shape = self.model, self.model.config.backbone
        weight = model.backbone.embed_tokens.weight
        room = (shape.layers, 2, self.pages + 1, shape.kv_heads, self.size, shape.head_dim)  # the last page is nobody's
        pool = getattr(self, "_pool", None)
        if pool is None or (pool.dtype, pool.device) != (weight.dtype, weight.device):
            with torch.inference_mode(False):
                self._pool = torch.empty(room, dtype=weight.dtype, device=weight.device)
        stacks = (model.patch_encoder, model.backbone, model.patch_decoder)
        self._encoder, self._layers, self._decoder = (stack.transformer.tensors() for stack in stacks)
        self._codes = model.speech_embeddings.joined()
        self._samplers.clear()
        return True

    @torch.no_grad()
    def run(self, copies: Sequence[Copy], step: Sequence[Rows]) -> list[Drawn]:
        """Computes all rows; -> what those that draw have made, in their order."""
        for copy in copies:
            self._pool[:, :, copy.target, :, : copy.count] = self._pool[:, :, copy.source, :, : copy.count]
        hidden = self._hidden(step)
        drawing = [rows for rows in step if rows.draw is not None]
        if not drawing:
            return []
        last, at = [], 0
        for rows in step:
            at += rows.groups.shape[0]
            if rows.draw is not None:
                last.append(at - 1)
        if len(last) < len(hidden):
            hidden = hidden[torch.tensor(last + [0] * (self._filled(len(last)) - len(last)), device=hidden.device)]
        return self._draw(hidden, drawing)

    def _filled(self, rows: int) -> int:
        """How many rows a step of so many has."""
        if not self.static:
            return rows
        return next((count for count in SHAPES if count >= rows), -(-rows // SHAPES[-1]) * SHAPES[-1])

    def _hidden(self, step: Sequence[Rows]) -> Tensor:
        """Hidden states [R, H] of all rows, whose keys and values are in the pool then."""
        model, device = self.model, self._pool.device
        groups = step[0].groups if len(step) == 1 else torch.cat([rows.groups for rows in step])
        counts = [rows.groups.shape[0] for rows in step]
        starts = zip(step, counts, strict=True)
        positions = [position for rows, count in starts for position in range(rows.start, rows.start + count)]
        longest = max(positions)
        most = longest // self.size + 1
        tables = [[*rows.pages[:most], *[self.pages] * (most - len(rows.pages))] for rows in step]
        extra = self._filled(len(positions)) - len(positions)
        if extra:
            blank = torch.zeros(extra, *groups.shape[1:], dtype=groups.dtype)
            blank[:, 0] = 1 if self._empty == 0 else 0
            groups = torch.cat([groups, blank])
            positions += [0] * extra
            tables.append([self.pages] * most)
            counts.append(extra)
        pages = torch.tensor(tables, dtype=torch.int32)
        if len(tables) < len(positions):
            pages = pages.repeat_interleave(torch.tensor(counts), 0)
        transformer = model.backbone.transformer
        return mn.backbone_step(
            self._embed(groups),
            self._layers,
            transformer.norm.weight,
            self._pool,
            longest,
            None,
            *model.backbone.tables(longest + 1, device),
            transformer.shape.heads,
            transformer.shape.eps,
            torch.tensor(positions, device=device),
            pages.to(device),
        )

    def _embed(self, groups: Tensor) -> Tensor:
        """Groups [R, 1 + C, G] on the CPU -> inputs of the backbone [R, H]."""
        model = self.model
        text = groups[:, 0, 0]
        patches = (text == self._empty).nonzero().flatten()  # on the CPU: no device is asked
        if not self.static and len(patches) == len(groups):
            return self._encode(groups)
        embeds = model.backbone.embed_tokens(text.to(model.device))
        if len(patches) == 0:
            return embeds
        if self.static:
            is_patch = (text == self._empty).to(model.device)
            codes = groups.masked_fill((text != self._empty)[:, None, None], 0)  # what lies there means nothing
            return torch.where(is_patch[:, None], self._encode(codes), embeds)
        return embeds.index_copy(0, patches, self._encode(groups[patches]))

    def _encode(self, groups: Tensor) -> Tensor:
        """Patches [P, 1 + C, G] -> inputs of the backbone [P, H]."""
        codes = groups[:, 1:].transpose(1, 2).to(self._pool.device)
        return self.model.patch_encoder.rows(SpeechEmbeddings.rows(codes, self._codes), self._encoder)

    def _draw(self, hidden: Tensor, drawing: Sequence[Rows]) -> list[Drawn]:
        """Hidden states [>= n, H] -> what n rows make after them."""
        model, device, count = self.model, hidden.device, len(drawing)
        draws = tuple(rows.draw for rows in drawing if rows.draw is not None)
        fill = (draws[0],) * (len(hidden) - count)
        text, audio, seeds = self._samplers_of(draws + fill)
        offsets = torch.tensor([rows.number for rows in drawing] + [0] * len(fill), device=device)
        logits = model.lm_head.rows(hidden).float()
        for row, rows in enumerate(drawing):
            if rows.banned:
                logits[row, list(rows.banned)] = -torch.inf
        bad = ~logits.amax(1).isfinite()  # NaN is the largest of all
        if self.static or bad.any():
            logits = logits.masked_fill_(bad[:, None], 0)
        tokens = mn.sample(logits, *text, seeds, offsets)
        if self.static:
            codes = self._patches(hidden, audio, seeds, offsets, range(count))
            found, failed = tokens.tolist(), bad.tolist()  # the host waits here, once
            patches = [row for row in range(count) if found[row] == self._empty and not failed[row]]
            made = {row: codes[row] for row in patches}
        else:
            found, failed = tokens.tolist(), bad.tolist()
            patches = [row for row in range(count) if found[row] == self._empty and not failed[row]]
            made = {}
            if len(patches) == len(hidden):
                made = self._patches(hidden, audio, seeds, offsets, patches)
            elif patches:
                pick = torch.tensor(patches, device=device)
                inputs = (hidden[pick], _picked(audio, pick), seeds[pick], offsets[pick])
                made = self._patches(*inputs, patches)
        return [self._drawn(found[row], failed[row], made.get(row), hidden.dtype) for row in range(count)]

    def _drawn(self, token: int, failed: bool, codes: Tensor | MimoError | None, dtype: torch.dtype) -> Drawn:
        if failed:
            return Drawn(
                token,
                None,
                GenerationError(
                    "the model's text logits are not finite: its weights are damaged, or its dtype "
                    f"({dtype}) is too narrow for it"
                ),
            )
        if isinstance(codes, MimoError):
            return Drawn(token, None, codes)
        return Drawn(token, None if codes is None else codes.T)

    def _patches(
        self, hidden: Tensor, sampler: Settings, seeds: Tensor, offsets: Tensor, names: Sequence[int]
    ) -> dict[int, Tensor | MimoError]:
        """Codes [G, C] on the CPU by name of the row, or why there are none; a bad row does not harm the others."""
        model = self.model
        inputs = model.patch_decoder.input.rows(hidden)
        try:
            codes = model.patch_decoder.decode(
                inputs, model.speech_embeddings, *sampler, seeds, offsets, self._decoder
            ).cpu()
            mn.raise_device_errors(hidden.device, synchronize=False)  # the codes have been waited for
            return dict(zip(names, codes, strict=False))
        except RuntimeError as error:
            if "cannot be sampled" not in str(error):
                raise
            if len(hidden) == 1:
                message = "the patch decoder's logits are not finite: the model's weights are damaged"
                return {names[0]: LanguageModelError(message)}
        made: dict[int, Tensor | MimoError] = {}
        for row, name in enumerate(names):
            one = slice(row, row + 1)
            made |= self._patches(hidden[one], _picked(sampler, one), seeds[one], offsets[one], [name])
        return made

    def _samplers_of(self, draws: tuple[Draw, ...]) -> tuple[Settings, Settings, Tensor]:
        """Temperature, top-k, top-p [n] of text and of patches, and seeds [n]: kept, as the next step has the same."""
        found = self._samplers.get(draws)
        if found is None:
            device = self._pool.device
            if len(self._samplers) > 64:
                self._samplers.clear()
            found = (
                _settings([draw.text for draw in draws], device),
                _settings([draw.audio for draw in draws], device),
                torch.tensor([draw.seed for draw in draws], dtype=torch.int64, device=device),
            )
            self._samplers[draws] = found
        return found


def _settings(samplers: list[Sampler], device: torch.device) -> Settings:
    return (
        torch.tensor([sampler.temperature for sampler in samplers], dtype=torch.float32, device=device),
        torch.tensor([sampler.top_k for sampler in samplers], dtype=torch.int32, device=device),
        torch.tensor([sampler.top_p for sampler in samplers], dtype=torch.float32, device=device),
    )


def _picked(settings: Settings, pick: Tensor | slice) -> Settings:
    temperature, top_k, top_p = settings
    return temperature[pick], top_k[pick], top_p[pick]
