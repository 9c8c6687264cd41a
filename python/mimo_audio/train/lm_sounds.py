"""What a language model in training sounds like: a few spoken answers to held-out requests, for TensorBoard.

They are made from the model folder that a checkpoint leaves, as its users will have it, adapters merged.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimo_audio.engine import generate
from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm.samplers import AUDIO
from mimo_audio.prompts.answer import read_answer
from mimo_audio.prompts.samples import Sample
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.train.lm_data import PackedSamples
from mimo_audio.train.recipe import TrainingError

DRAWS = 1000  # of samples, before it is clear that none is spoken
LONGEST = 3  # times the groups of the right answer


class Sounds:
    """The first `count` spoken samples of a source, the same ones throughout a run.

    tokenizer: the folder of the audio tokenizer, or "nano". Raises TrainingError if nothing is spoken in the source,
    ModelError for the tokenizer.
    """

    def __init__(self, source: PackedSamples, count: int, tokenizer: str) -> None:
        self.build = source.build
        self.tokenizer = AudioTokenizer.from_pretrained(tokenizer)
        self.requests = list(_spoken(source, count))
        if len(self.requests) < count:
            raise TrainingError(f"sounds: expected {count} spoken samples of validation, got {len(self.requests)}")

    def originals(self) -> Iterator[tuple[str, Tensor]]:
        """Names and waves [N] of the right answers, through the tokenizer."""
        for name, sample in self.requests:
            yield f"{name}/original", self._wave(self._split(sample)[1])

    def answers(self, folder: Path, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """Names and waves [N] of what the model in the folder says, text greedy, patches drawn as in every task.

        Answers without sound are left out. Raises MimoError.
        """
        model = AudioLanguageModel.from_pretrained(folder).to(device)
        for name, sample in self.requests:
            prompt, right = self._split(sample)
            size = self.build.group_size
            stop = (int(right[0, -size]),)
            most = min(LONGEST * right.shape[1], model.config.max_position_embeddings * size - prompt.shape[1])
            answer = generate(model, prompt, max_new=most // size, stop=stop, audio_sampler=AUDIO)
            if len(wave := self._wave(answer)):
                yield name, wave

    @property
    def sample_rate(self) -> int:
        """Of the waves, Hz."""
        return self.tokenizer.sample_rate

    def _split(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Prompt and the answer after it."""
        begin = (int((~sample.learned).nonzero().max()) + 1) * self.build.group_size
        return sample.ids[:, :begin], sample.ids[:, begin:]

    def _wave(self, answer: Tensor) -> Tensor:
        codes = read_answer(self.build, answer).codes
        empty = torch.tensor(self.build.empty_ids)[:, None]
        codes = codes[:, (codes != empty).all(0)]  # of a model that has not learned when there is none
        return self.tokenizer.decode(codes) if codes.shape[1] else torch.zeros(0)


def _spoken(source: PackedSamples, count: int) -> Iterator[tuple[str, Sample]]:
    """Samples that end in speech after a prompt, drawn as for training, each row once."""
    rng, seen, found = np.random.default_rng(source.seed), set[bytes](), 0
    for _ in range(DRAWS):
        if found == count:
            return
        task, reader = source.choices[rng.choice(len(source.shares), p=source.shares)]
        sample = reader.draw(task, rng)
        key = sample.ids.numpy().tobytes()
        last = int((~sample.learned).nonzero().max()) + 1 if not sample.learned.all() else 0
        row = sample.ids[0, last * source.build.group_size :]
        if not last or key in seen or not (row == source.build.layout.special.empty).any():
            continue
        seen.add(key)
        found += 1
        yield f"{found}-{task}", sample
