"""A session: a language model that reads prompts and writes groups, and remembers what it has read.

A prompt is read in blocks, and the keys and values of whole blocks stay in a cache: a prompt that begins with the same
ones, as the next turn of a dialogue does, is read from where it differs. A block is always read in one piece, whatever
is there already, for its numbers depend in their last bits on how many positions are computed at once: so an answer
never depends on the requests before it.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from operator import index

import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio.device import weights_version
from mimo_audio.errors import GenerationError
from mimo_audio.lm import groups
from mimo_audio.lm.model import AudioLanguageModel
from mimo_audio.lm.samplers import GREEDY, Sampler

BLOCK = 256  # positions: 41 s of speech, and enough to keep matrix products busy


@dataclass(frozen=True)
class Limits:
    """When a generation ends: after `max_new` groups, or with a text id of `stop` once there are `min_new` groups.

    Stop ids are not drawn before. Raises GenerationError.
    """

    max_new: int
    min_new: int = 0
    stop: Collection[int] = ()

    def __post_init__(self) -> None:
        for name, least in (("max_new", 1), ("min_new", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise GenerationError(f"{name}: expected a number of groups >= {least}, got {value!r}")
        try:
            object.__setattr__(self, "stop", tuple(map(index, self.stop)))
        except TypeError as error:
            raise GenerationError(f"stop: expected a collection of text ids, got {self.stop!r:.50}") from error
        if self.min_new > self.max_new:
            raise GenerationError(f"min_new: expected at most max_new ({self.max_new}), got {self.min_new}")


def generate(
    model: AudioLanguageModel,
    prompt_ids: Tensor,
    max_new: int,
    min_new: int = 0,
    stop: Collection[int] = (),
    text_sampler: Sampler | None = None,
    audio_sampler: Sampler | None = None,
    seed: int = 0,
) -> Tensor:
    """prompt_ids [1 + C, P * G] -> the groups that follow, [1 + C, n * G] int64 on the CPU; without samplers greedy.

    Ends after max_new groups, with a text id of `stop` once there are min_new groups, or at the end of the context.
    Raises LanguageModelError and GenerationError.
    """
    limits = Limits(max_new, min_new, stop)
    samplers = (text_sampler or GREEDY, audio_sampler or GREEDY)
    return torch.cat(list(Session(model).generate(prompt_ids, limits, *samplers, seed)), 1)


class Session:
    """One stream of groups with a language model; not for two threads at once."""

    def __init__(self, model: AudioLanguageModel) -> None:
        self.model = model
        self._read: Tensor  # the whole blocks of a prompt that the cache holds, a row per group
        self._forget()

    def generate(
        self,
        prompt_ids: Tensor,
        limits: Limits,
        text_sampler: Sampler = GREEDY,
        audio_sampler: Sampler = GREEDY,
        seed: int = 0,
    ) -> Iterator[Tensor]:
        """prompt_ids [1 + C, P * G] -> new groups [1 + C, G] int64 on the CPU, one by one as they are made.

        Ends early where the model's context is full. The same seed gives the same groups. Raises LanguageModelError and
        GenerationError, before anything is generated.
        """
        config = self.model.config
        groups.check("prompt_ids", prompt_ids, config, self.model.special.empty, batched=False)
        prompt = groups.split(prompt_ids.cpu().long(), config.group_size)
        room = config.max_position_embeddings - len(prompt)
        if room < 1:
            raise GenerationError(
                f"prompt_ids: expected fewer groups than the context of {config.max_position_embeddings}, "
                f"got {len(prompt)}"
            )
        for token in limits.stop:
            if not 0 <= token < config.vocab_size:
                raise GenerationError(f"stop: expected text ids from 0 to {config.vocab_size - 1}, got {token!r}")
        if not isinstance(seed, int) or isinstance(seed, bool) or not -(1 << 63) <= seed < 1 << 63:
            raise GenerationError(f"seed: expected an integer of 64 bits, got {seed!r}")
        return self._generate(prompt, min(limits.max_new, room), limits, text_sampler, audio_sampler, seed)

    def _generate(
        self, prompt: Tensor, most: int, limits: Limits, text_sampler: Sampler, audio_sampler: Sampler, seed: int
    ) -> Iterator[Tensor]:
        model, device = self.model, self.model.device
        text_rows = text_sampler.rows(1, device)
        seeds = torch.tensor([seed], device=device)
        hidden = self._read_prompt(prompt)
        for number in range(most):
            with torch.no_grad():
                offsets = torch.tensor([number], device=device)
                logits = model.lm_head(hidden).float()
                if not logits.isfinite().all():
                    raise GenerationError(
                        "the model's text logits are not finite: its weights are damaged, or its dtype "
                        f"({hidden.dtype}) is too narrow for it"
                    )
                if number < limits.min_new:
                    logits[:, list(limits.stop)] = -torch.inf
                token = int(mn.sample(logits, *text_rows, seeds, offsets))
                group = groups.text_group(token, model.config)
                if token == model.special.empty:
                    local_hidden = model.patch_decoder.input(hidden)
                    group[1:] = model.patch_decode(local_hidden, audio_sampler, seeds, offsets)[0].T
                mn.raise_device_errors(device, synchronize=False)  # the token and the codes have been waited for
            yield group
            if token in limits.stop and number >= limits.min_new:
                return
            if number + 1 < most:
                hidden = self._run(group.unsqueeze(0))

    def _read_prompt(self, prompt: Tensor) -> Tensor:
        """Reads what of the groups [P, 1 + C, G] the cache does not hold; -> last hidden state [1, H]."""
        if weights_version(self.model) != self._version:  # what was read with other weights is worth nothing
            self._forget()
        keys = self._keys(prompt)
        most = min(len(keys) - 1, len(self._read))  # the last group is run in any case: its hidden state is wanted
        same = (keys[:most] == self._read[:most]).all(1)
        known = int(same.long().cumprod(0).sum()) // BLOCK * BLOCK
        self._cache.truncate(known)
        self._read = keys[:known]  # all that is left, should reading be interrupted
        for piece in prompt[known:].split(BLOCK):
            hidden = self._run(piece)
        self._read = keys[: len(keys) // BLOCK * BLOCK]
        return hidden

    def _forget(self) -> None:
        """An empty cache for the model as it is now."""
        model = self.model
        self._version = weights_version(model)
        self._cache = model.new_cache()
        self._read = self._keys(torch.empty(0, 1 + model.config.audio_channels, model.config.group_size).long())

    @torch.no_grad()
    def _run(self, new: Tensor) -> Tensor:
        """Groups [N, 1 + C, G] that follow what the cache holds; -> hidden state [1, H] of the last."""
        embeds = self.model.embed_groups(new.unsqueeze(0).to(self.model.device))
        return self.model.backbone(embeds, cache=self._cache)[:, -1]

    def _keys(self, new: Tensor) -> Tensor:
        """Groups [N, 1 + C, G] -> [N, 1 + C * G] without what means nothing to the model."""
        text = new[:, 0, :1]
        return torch.cat([text, new[:, 1:].flatten(1) * (text == self.model.special.empty)], 1)
