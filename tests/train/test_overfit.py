"""A handful of samples of every task, learned by heart: fine-tuned, exported and loaded, the model repeats them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mimo_audio.data.token_set import SetDescription
from mimo_audio.engine import generate
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.lm.losses import losses
from mimo_audio.prompts.samples import Sample
from mimo_audio.text import TextTokenizer
from mimo_audio.train import lm
from mimo_audio.train.finetune import TASKS, Settings, finetune, parts
from mimo_audio.train.lm_data import Data, PackedSamples, make_source
from mimo_audio.train.lora import Lora
from mimo_audio.train.text_tokenizer import train_text_tokenizer

from .test_lm_data import write_set

SIZES = (128, 64, 32)
ABOUT = SetDescription("0123456789abcdef", "tiny", SIZES, 25.0)
TURNS = [
    {"role": "user", "text": "Hm?", "audio": "/5.wav"},
    {"role": "assistant", "text": "Oh well", "audio": "/6.wav"},
]
ROWS = [
    {"audio": "/0.wav", "text": "One"},
    {"audio": "/1.wav", "text": "Two and three"},
    {"task": "instruct_tts", "audio": "/2.wav", "text": "Hi", "style": "softly", "thought": "A whisper."},
    {"task": "instruct_tts", "audio": "/3.wav", "text": "Hi", "style": "loudly"},
    {"task": "understanding", "audio": "/4.wav", "question": "Who?", "answer": "Me", "thought": "I hear."},
    {"task": "understanding", "audio": "/4.wav", "question": "Who?", "answer": "You"},
    {"task": "dialogue", "voice": "/0.wav", "turns": TURNS},
    {"task": "dialogue", "turns": [TURNS[0], {"role": "assistant", "text": "Yes"}], "thought": "So it is."},
    *(
        {"task": "conversion", "group": "slow", "instruction": "Slower", "input": f"/{n}.wav", "audio": f"/{n + 1}.wav",
         "text": f"Say {n}"} for n in (7, 9)
    ),
]  # fmt: skip
WORDS = (
    json.dumps(ROWS)
    + """
    Please transcribe this audio file Please speak the following text speech style thoughts answer system user assistant
    You need to based on the specified style instructions Your voice should be Convert the following <think> </think>"""
)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(lm, "peak_flops", lambda device, dtype: 1e12)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_model(folder: Path) -> Path:
    """A checkpoint in the released layout, tiny and random, whose heads are large enough to be sure of something."""
    text = train_text_tokenizer([WORDS] * 2, 400, folder / "text")
    torch.manual_seed(0)
    config = LanguageModelConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=text.size, max_position_embeddings=1024, local_dim=32, local_layers=1,
        local_attn_heads=2, local_ffn_dim=64, input_local_layers=1, audio_channels=len(SIZES),
        speech_vocab_size=tuple(size + 1 for size in SIZES), speech_zeroemb_idx=SIZES, delay_pattern=(0, 1, 2),
    )  # fmt: skip
    model = AudioLanguageModel(config, text.special, folder / "text")
    with torch.no_grad():
        for head in (model.lm_head, *model.patch_decoder.heads):
            head.weight *= 5
    model.save_pretrained(folder / "random")
    return folder / "random"


def every_sample(source: PackedSamples) -> list[tuple[str, Sample]]:
    """All samples that the source draws from, which are as many as its rows have tasks."""
    found = []
    for task, reader in source.choices:
        for row in reader.rows_of[task]:
            found.append((task, reader.makers[task](row, np.random.default_rng(0))))
    return found


def split(sample: Sample, size: int) -> tuple[Tensor, Tensor]:
    """Prompt and answer: what is learned last."""
    begin = int((~sample.learned).nonzero().max()) + 1
    return sample.ids[:, : begin * size], sample.ids[:, begin * size :]


@pytest.mark.parametrize(
    "way",
    [
        Settings(steps=100, learning_rate=5e-3),
        Settings(steps=200, learning_rate=1e-2, lora=Lora(rank=32, alpha=32)),
    ],
    ids=["all weights", "lora"],
)
def test_what_was_learned_by_heart_is_repeated(way, tmp_path, one_thread):
    folder, out = write_set(tmp_path / "set", ROWS, ABOUT, 0.32), tmp_path / "out"
    shape = {"rows": 1, "micro_batches": 1, "context": 512, "precision": "float32"}
    finetune(random_model(tmp_path), tmp_path, [folder], out, replace(way, **shape, empty_loss_weight=1.0))
    model = AudioLanguageModel.from_pretrained(out / "model")
    text = TextTokenizer.load(out / "model", model.config.vocab_size)
    source = make_source(Data(sets=tuple(parts([folder]))), model.config, text, 1, 512, 0)
    samples = every_sample(source)
    assert {task for task, _ in samples} == set(TASKS)
    assert len(samples) == 15
    size, speak = model.config.group_size, 0
    for task, sample in samples:
        with torch.no_grad():
            loss = losses(model, sample.ids[None], sample.labels(size)[None])
        assert loss.text < 0.02, task
        assert not (loss.channels > 0.5).any(), task  # the tokens of chance have 128, 64 and 32 kinds
        prompt, wanted = split(sample, size)
        answer = generate(model, prompt, max_new=wanted.shape[1] // size + 3, stop=(int(wanted[0, -size]),))
        assert torch.equal(answer[0, ::size], wanted[0, ::size]), task
        patches = wanted[0] == model.special.empty
        assert torch.equal(answer[1:, patches], wanted[1:, patches]), task
        speak += bool(patches.any())
    assert speak == 7
