"""Spoken answers for TensorBoard: the right ones as the tokenizer decodes them, the model's from its saved folder."""

import pytest
import torch

from mimo_audio.lm import AudioLanguageModel
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.train import lm, lm_sounds
from mimo_audio.train.lm import Trainer
from mimo_audio.train.lm_data import TaskWeights
from mimo_audio.train.lm_recipe import LanguageModelRecipe
from mimo_audio.train.lm_sounds import Sounds
from mimo_audio.train.recipe import RecipeError, TrainingError

from ..lm.conftest import FOLDER
from .conftest import alone
from .lm_source import STAGE, RandomSource, recipe_of
from .test_lm_data import SIZES, build, source, write_set

__all__ = ["build"]  # the fixture
TOKENIZER = str(FOLDER / "ckpt" / "A_tok_s0")


class Heard:
    """In place of a TrainingLog."""

    def __init__(self) -> None:
        self.waves: dict[tuple[int, str], torch.Tensor] = {}

    def listen(self, done: int, name: str, wave: torch.Tensor, sample_rate: int) -> None:
        assert sample_rate == 24000
        self.waves[done, name] = wave


def test_answers_are_what_the_saved_model_says(build, tmp_path, monkeypatch):
    monkeypatch.setattr(lm, "peak_flops", lambda device, dtype: 1e12)
    held_out = source(build, write_set(tmp_path / "set", seconds=0.96), TaskWeights(tts=1, asr=1))  # whole patches
    sounds = Sounds(held_out, 3, TOKENIZER)
    model = AudioLanguageModel.from_pretrained(FOLDER / "ckpt" / "A_lm_s0")
    stage = recipe_of(rows=1, micro_batches=1).stages["joint"]
    trainer = Trainer(model, stage, RandomSource(model, 1, 24), alone(), sounds=sounds)
    trainer.save(tmp_path / "run", 1)
    asked = []

    def answers(loaded, prompt, **options):
        """The right ones; the second has a codebook without codes, as of a model that has not learned yet."""
        assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
        asked.append(prompt)
        right = next(s.ids for _, s in sounds.requests if torch.equal(s.ids[:, : prompt.shape[1]], prompt))
        right = right[:, prompt.shape[1] :].clone()
        if len(asked) == 2:
            right[2] = SIZES[1]
        return right

    monkeypatch.setattr(lm_sounds, "generate", answers)
    log = Heard()
    for done in (1, 2):
        trainer.examine(log, done)
    names = [name for name, _ in sounds.requests]
    assert len(asked) == 6
    assert names == ["1-tts", "2-tts", "3-tts"]
    assert log.waves.keys() == {
        *((1, f"{name}/original") for name in names), (1, names[0]), (1, names[2]), *((2, name) for name in names)
    }  # fmt: skip
    tokenizer = AudioTokenizer.from_pretrained(TOKENIZER)
    decoded = [tokenizer.decode(held_out.choices[0][1].codes(n)) for n in range(6)]
    for name in names:
        original = log.waves[1, f"{name}/original"]
        assert any(torch.equal(original, wave) for wave in decoded)
        assert torch.equal(log.waves[2, name], original)


def test_the_same_requests_throughout(build, tmp_path):
    held_out = source(build, write_set(tmp_path / "set"), TaskWeights(asr=1, tts=1), voice_prompt=0.0)
    first, second = (Sounds(held_out, 6, TOKENIZER).requests for _ in range(2))
    assert [name for name, _ in first] == [name for name, _ in second]
    assert all(torch.equal(a.ids, b.ids) for (_, a), (_, b) in zip(first, second, strict=True))
    assert len({sample.ids.numpy().tobytes() for _, sample in first}) == 6  # all that there are


def test_what_cannot_be_listened_to_is_named(build, tmp_path):
    written = source(build, write_set(tmp_path / "set"), TaskWeights(asr=1))
    with pytest.raises(TrainingError, match="sounds: expected 2 spoken samples of validation, got 0"):
        Sounds(written, 2, TOKENIZER)
    with pytest.raises(RecipeError, match=r"stages\.joint\.sounds must be 0 without validation"):
        LanguageModelRecipe.from_dict({"start": "none", "stages": {"joint": {**STAGE, "sounds": 2}}})
