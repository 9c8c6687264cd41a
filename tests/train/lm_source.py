"""Language-model training data made up for tests: batches of packed documents of random text and patches."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mimo_audio.lm import AudioLanguageModel
from mimo_audio.train.batch import IGNORED, PADDING, Batch
from mimo_audio.train.lm_recipe import LanguageModelRecipe

STAGE = {
    "kind": "understanding_generation", "seed": 3, "steps": 6, "rows": 2, "context": 24, "micro_batches": 2,
    "learning_rates": {"patch_encoder": 0.004, "backbone": 0.002, "patch_decoder": 0.004}, "schedule": "cosine",
    "warmup": 0.3, "precision": "float32", "log_every": 2, "checkpoint_every": 3, "data": {},
}  # fmt: skip


@dataclass(frozen=True)
class RandomSource:
    """Micro-batches as a function of seed, step and number; the last positions of a row are padding."""

    model: AudioLanguageModel
    rows: int
    context: int
    seed: int = 0
    wrong: Callable[[int], None] = lambda step: None

    def batch(self, step: int, micro_batch: int) -> Batch:
        self.wrong(step)
        config, special = self.model.config, self.model.special
        random = torch.Generator().manual_seed(hash((self.seed, step, micro_batch)) % (1 << 60))
        size, shape = config.group_size, (self.rows, self.context * config.group_size)
        text = torch.randint(0, 5, (self.rows, self.context), generator=random)  # few words, which can be learned
        is_patch = torch.rand(text.shape, generator=random) < 0.4
        ids = torch.empty(self.rows, 1 + config.audio_channels, shape[1], dtype=torch.int64)
        ids[:, 0] = torch.where(is_patch, special.empty, text).repeat_interleave(size, 1)
        for channel, empty in enumerate(config.speech_zeroemb_idx):
            codes = torch.randint(0, max(1, empty), shape, generator=random)
            ids[:, 1 + channel] = torch.where(is_patch.repeat_interleave(size, 1), codes, empty)
        documents = torch.arange(self.context).repeat(self.rows, 1) * 3 // self.context
        documents[:, -2:] = PADDING
        labels = torch.full_like(ids, IGNORED)
        is_labelled = (torch.rand(text.shape, generator=random) < 0.7) & (documents >= 0)
        labels[:, 0, ::size] = torch.where(is_labelled, ids[:, 0, ::size], IGNORED)
        is_audio = (is_labelled & is_patch).repeat_interleave(size, 1)[:, None]
        labels[:, 1:] = torch.where(is_audio, ids[:, 1:], IGNORED)
        return Batch(ids, labels, documents, [["asr", "tts", "text"]] * self.rows)


def recipe_of(**changes: object) -> LanguageModelRecipe:
    """A recipe of one stage, "joint", of the tiny model."""
    stage = {**STAGE, **changes}
    return LanguageModelRecipe.from_dict({"start": "none", "stages": {"joint": stage}})
