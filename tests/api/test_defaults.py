"""What a model's folder says beside its weights: its own voice, and the words it was taught."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mimo_audio
from mimo_audio import MimoAudio
from mimo_audio.cli.codec import Codec
from mimo_audio.errors import CodesError, ModelError
from mimo_audio.files import audio
from mimo_audio.files.tokens import write_tokens
from mimo_audio.tasks.defaults import Defaults
from mimo_audio.tokenizer import AudioTokenizer

from .conftest import LANGUAGE_MODEL, TOKENIZER


@pytest.fixture
def folder(copied: Callable[..., Path], wave: Tensor, tmp_path: Path) -> Path:
    """A language model with a voice of its own, which is `wave`, and three words."""
    made = copied(LANGUAGE_MODEL, "lm")
    audio.write(tmp_path / "voice.wav", wave, 24000)
    write_tokens(
        made / "voice.tokens", Codec(AudioTokenizer.from_pretrained(TOKENIZER), "A").encode(tmp_path / "voice.wav")
    )
    (made / "words.txt").write_text("good\nmorning\nI'll\n")
    return made


def test_the_models_own_voice_speaks_where_none_is_given(folder: Path, model: MimoAudio, tmp_path: Path) -> None:
    own, wave = mimo_audio.load(folder, TOKENIZER, device="cpu"), audio.read(tmp_path / "voice.wav", 24000)
    assert own.defaults.voice is not None
    torch.testing.assert_close(own.defaults.voice, model.encode(wave), rtol=0, atol=0)
    asked = own._speak("Good morning.")
    assert torch.equal(asked.prompt.ids, model._speak("Good morning.", wave).prompt.ids)
    other = wave.flip(0)
    assert torch.equal(own._speak("Hello", other).prompt.ids, model._speak("Hello", other).prompt.ids)
    spoken = own._chat("Hello", speech=True)
    assert torch.equal(spoken.prompt.ids, model._chat("Hello", wave, speech=True).prompt.ids)


def test_a_style_in_words_is_not_contradicted_by_a_voice(folder: Path, model: MimoAudio) -> None:
    own = mimo_audio.load(folder, TOKENIZER, device="cpu")
    for manner in ({"style": "a deep voice"}, {"freeform": True}):
        ours, theirs = own._speak("Good night", **manner), model._speak("Good night", **manner)
        assert torch.equal(ours.prompt.ids, theirs.prompt.ids)


def test_words_that_were_not_taught(folder: Path, model: MimoAudio) -> None:
    defaults = mimo_audio.load(folder, TOKENIZER, device="cpu").defaults
    assert defaults.unknown("Good MORNING, I’ll 7 xylophones; 7 good ones") == ["7", "xylophones", "ones"]
    assert model.defaults.unknown("any word at all") == []
    assert model.defaults.voice is None


def test_bad_defaults(folder: Path, copied: Callable[..., Path], tmp_path: Path, wave: Tensor) -> None:
    (folder / "words.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"cannot read .*words\.txt"):
        mimo_audio.load(folder, TOKENIZER, device="cpu")
    (folder / "voice.tokens").write_bytes(b"noise")
    with pytest.raises(CodesError, match=r"voice\.tokens"):
        mimo_audio.load(folder, TOKENIZER, device="cpu")
    nano = Codec(AudioTokenizer.from_pretrained("nano"), "nano").encode(tmp_path / "voice.wav")
    write_tokens(folder / "voice.tokens", nano, True)
    with pytest.raises(ModelError, match=r"voice\.tokens: codes of another audio tokenizer"):
        Defaults.load(folder, AudioTokenizer.from_pretrained(TOKENIZER), 8)


def test_how_the_model_is_drawn_from_where_a_request_says_nothing(folder: Path, model: MimoAudio) -> None:
    (folder / "sampling.json").write_text('{"temperature": 1.5, "audio_top_k": 3}')
    own = mimo_audio.load(folder, TOKENIZER, device="cpu")
    length = {"max_new": 12, "seed": 7}
    expected = model.chat("Hello", temperature=1.5, audio_top_k=3, **length).text
    assert own.chat("Hello", **length).text == expected != model.chat("Hello", **length).text
    assert (
        own.chat("Hello", temperature=0, **length).text
        == model.chat("Hello", temperature=0, audio_top_k=3, **length).text
    )
    (folder / "sampling.json").write_text('{"max_new": 3}')
    with pytest.raises(ModelError, match=r"sampling\.json: expected numbers for some of temperature, .*max_new"):
        mimo_audio.load(folder, TOKENIZER, device="cpu")
