"""Every task of MimoAudio: what its arguments mean and what its results hold."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from mimo_audio import MimoAudio
from mimo_audio.errors import MimoError
from mimo_audio.files.output import OutputError
from mimo_audio.lm.samplers import AUDIO, GREEDY, Sampler
from mimo_audio.prompts import Prompt, Turn, tasks
from mimo_audio.tasks.options import samplers
from mimo_audio.tasks.results import Answer, Speech

SHORT = {"max_new": 12}


def same(one: Speech, other: Speech) -> bool:
    return torch.equal(one.codes, other.codes) and torch.equal(one.wave, other.wave) and one.text == other.text


# What audio may be


def test_audio_in_every_form(model: MimoAudio, wave: Tensor, tmp_path: Path) -> None:
    expected = model.encode(wave)
    assert expected.shape == (8, 33)
    path = tmp_path / "in.wav"
    soundfile.write(path, wave.numpy(), 24000, "FLOAT")
    frozen = wave.numpy().copy()
    frozen.flags.writeable = False
    stereo = torch.stack([wave * 1.5, wave * 0.5])
    forms = [path, str(path), wave.numpy(), frozen, (wave, 24000), (wave.double().numpy(), np.int64(24000))]
    forms += [wave.reshape(1, -1), stereo, stereo.T, (stereo.T.numpy(), 24000), expected, expected.numpy()]
    for form in forms:
        assert torch.equal(model.encode(form), expected)


def test_other_rates_are_resampled(model: MimoAudio, wave: Tensor) -> None:
    half = wave[::2]
    assert torch.equal(model.encode((half, 12000)), model.audio_tokenizer.encode(half, 12000, n_q=8))


def test_speech_is_audio(model: MimoAudio) -> None:
    speech = model.speak("Hello", max_new=12)
    assert torch.equal(model.encode(speech), speech.codes)
    assert same(model.speak("Bye", speech, **SHORT), model.speak("Bye", speech.codes, **SHORT))


# Tasks


def test_a_voice_and_a_style_change_the_speech(model: MimoAudio, wave: Tensor) -> None:
    plain = model.speak("Hello", **SHORT)
    others = [
        model.speak("Hello", voice=wave, **SHORT),
        model.speak("Hello", style="whispering", **SHORT),
        model.speak("Hello", voice=wave, style="whispering", **SHORT),
        model.speak("Hello", freeform=True, **SHORT),
        model.speak("Hello", voice=wave, freeform=True, **SHORT),
    ]
    assert len({speech.stats.prompt for speech in [plain, *others]}) == 6
    assert plain.thought is None
    assert all(speech.thought is not None for speech in others[1:])


def test_speech(model: MimoAudio, tmp_path: Path) -> None:
    speech = model.speak("Hello there", max_new=30)
    assert speech.sample_rate == 24000
    assert speech.codes.shape == (8, 4 * speech.stats.patches)
    assert speech.wave.shape == (960 * speech.codes.shape[1],)
    assert speech.duration == speech.codes.shape[1] / 25
    assert speech.stats.text + speech.stats.patches == 30
    assert not speech.stats.ended
    torch.testing.assert_close(speech.wave, model.audio_tokenizer.decode(speech.codes))
    speech.save(tmp_path / "out.flac")
    written, rate = soundfile.read(tmp_path / "out.flac", dtype="float32")
    assert rate == 24000
    assert np.abs(written - speech.wave.clamp(-1, 1).numpy()).max() < 1e-4
    with pytest.raises(OutputError, match="exists already"):
        speech.save(tmp_path / "out.flac")
    speech.save(tmp_path / "out.flac", force=True)


def test_understand(model: MimoAudio, wave: Tensor) -> None:
    answer = model.understand(wave, "Who speaks?", **SHORT)
    assert answer.thought is None
    assert answer.speech is None
    thoughtful = model.understand(wave, "Who speaks?", thinking=True, **SHORT)
    assert thoughtful.thought is not None


@pytest.mark.parametrize("thinking", [False, True])
def test_written_dialogues(model: MimoAudio, wave: Tensor, thinking: bool) -> None:
    """Words alone and recordings are tasks with samplers of their own."""
    codes = model.encode(wave)
    for said, prompt in (
        ("Hello", tasks.text_dialogue(model.prompts, [Turn("user", "Hello")], thinking)),
        (wave, tasks.speech_to_text_dialogue(model.prompts, [Turn("user", audio=codes)], thinking)),
        (
            ["Hello", Turn("assistant", "Hi."), wave],
            tasks.speech_to_text_dialogue(
                model.prompts, [Turn("user", "Hello"), Turn("assistant", "Hi."), Turn("user", audio=codes)], thinking
            ),
        ),
    ):
        answer, expected = model.chat(said, thinking=thinking, **SHORT), model.answer(prompt, **SHORT)
        assert (answer.text, answer.thought) == (expected.text, expected.thought)
        assert answer.stats.prompt == prompt.ids.shape[1] // 4


def test_a_dialogue_of_many_turns(model: MimoAudio, wave: Tensor, tmp_path: Path) -> None:
    """Answers are turns; spoken ones count with their speech, in a written dialogue with their words."""
    path = tmp_path / "question.wav"
    soundfile.write(path, wave.numpy(), 24000, "FLOAT")
    first = model.chat(path, wave, "be brief", speech=True, max_new=20)
    assert isinstance(first, Answer)
    assert first.speech is not None
    codes = model.encode(wave)
    history = [Turn("user", audio=codes), Turn("assistant", first.text, first.speech.codes), Turn("user", "And then?")]
    second = model.chat([path, first, "And then?"], wave, "be brief", speech=True, max_new=20)
    assert second.speech is not None
    expected = model.say(tasks.spoken_dialogue(model.prompts, history, codes, "be brief"), max_new=20)
    assert same(second.speech, expected)
    written = model.chat([path, first, "And then?"], **SHORT)
    history[1] = Turn("assistant", first.text)
    assert written.text == model.answer(tasks.speech_to_text_dialogue(model.prompts, history), **SHORT).text


def test_convert(model: MimoAudio, wave: Tensor) -> None:
    half = wave[: len(wave) // 2]
    speech = model.convert([(half, wave, "It rains."), (wave, half, "Not now.")], half, max_new=20)
    assert speech.duration > 0
    other = model.convert([(wave, half, "It rains."), (wave, half, "Not now.")], half, max_new=20)
    assert not same(speech, other)


def test_extend_joins_on_the_recording(model: MimoAudio, wave: Tensor) -> None:
    codes = model.encode(wave)
    speech = model.extend(wave, seconds=0.5, **{"temperature": 0})
    assert 0.5 <= speech.duration < 0.66
    assert speech.stats.patches == 4
    assert not speech.stats.ended
    padded = torch.cat([codes, codes[:, -1:].expand(-1, 3)], 1)  # whole patches
    whole = model.audio_tokenizer.decode(torch.cat([padded, speech.codes], 1))
    torch.testing.assert_close(speech.wave, whole[960 * padded.shape[1] :], atol=1e-6, rtol=0)


def test_long_speech_is_decoded_in_pieces(model: MimoAudio, wave: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As published; else memory would grow with its length."""
    monkeypatch.setattr("mimo_audio.tasks.model.SEGMENT_CODE_FRAMES", 20)
    speech = model.extend(wave, max_seconds=1)
    padded = torch.nn.functional.pad(model.encode(wave), (0, 3), "replicate")
    whole = torch.cat([padded, speech.codes], 1)
    waves = torch.cat([model.audio_tokenizer.decode(piece) for piece in whole.split(20, 1)])
    assert torch.equal(speech.wave, waves[960 * padded.shape[1] :])


# Options


def test_pieces_as_they_come(model: MimoAudio) -> None:
    pieces, patches = [], []
    speech = model.speak("Hello there", max_new=30, on_text=pieces.append, on_patch=patches.append)
    assert "".join(pieces).strip() == speech.text
    assert torch.equal(torch.cat(patches, 1), speech.codes)


def test_the_same_seed_gives_the_same(model: MimoAudio, wave: Tensor) -> None:
    first = model.speak("Hello there", max_new=20, seed=5)
    other = model.speak("Hello there", max_new=20, seed=6)
    model.transcribe(wave, **SHORT)
    assert same(model.speak("Hello there", max_new=20, seed=5), first)
    assert not same(first, other)
    assert same(model.speak("Hello there", max_new=20, seed=None), model.speak("Hello there", max_new=20, seed=0))


@pytest.mark.parametrize(
    ("options", "text", "patches"),
    [
        ({}, Sampler(0.6, 0, 0.95), AUDIO),
        ({"temperature": None, "top_p": None}, Sampler(0.6, 0, 0.95), AUDIO),
        ({"temperature": 0}, GREEDY, AUDIO),
        ({"temperature": 0.2, "top_k": 7, "audio_top_p": 0.5}, Sampler(0.2, 7, 0.95), Sampler(0.9, 0, 0.5)),
        ({"audio_temperature": 0}, Sampler(0.6, 0, 0.95), GREEDY),
        ({"audio_temperature": 1.5, "audio_top_k": 3, "audio_top_p": 1}, Sampler(0.6, 0, 0.95), Sampler(1.5, 3, 1)),
    ],
)  # fmt: skip
def test_samplers(options: dict, text: Sampler, patches: Sampler) -> None:
    prompt = Prompt(torch.zeros(9, 4), (), Sampler(0.6, 0, 0.95))
    assert samplers(prompt, options) == (text, patches)


def test_limits(model: MimoAudio) -> None:
    assert model.speak("Hello", max_seconds=0.33).stats.patches == 3  # of 0.16 s
    stats = model.answer(tasks.tts(model.prompts, "Hello"), max_new=7).stats
    assert stats.text + stats.patches == 7


def test_the_model_ends_its_answer(model: MimoAudio) -> None:
    """With the first id that it writes as the one that ends answers."""
    prompt = tasks.text_dialogue(model.prompts, [Turn("user", "Hello")])
    first = model.respond(prompt, max_new=1, temperature=0).ids
    stats = model.answer(replace(prompt, stop=(int(first[0, 0]),)), temperature=0).stats
    assert (stats.text, stats.patches, stats.ended) == (1, 0, True)


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, w: m.transcribe("nowhere.wav"), "audio: no such file: nowhere.wav"),
        (lambda m, w: m.transcribe(w[:0]), "audio: .*at least one sample"),
        (lambda m, w: m.transcribe(torch.zeros(2, 0)), "audio: .*at least one sample"),
        (lambda m, w: m.transcribe((w[:1], 192000)), "audio: .*at least one sample"),
        (lambda m, w: m.transcribe(w * torch.nan), "audio: .*NaN"),
        (lambda m, w: m.transcribe((w, 0)), "audio: sample_rate"),
        (lambda m, w: m.transcribe((w, "24 kHz")), "audio: expected .wave, sample_rate.*'24 kHz'"),
        (lambda m, w: m.transcribe((w * 32767).int()), r"audio: expected a path.*int32 \[31440\]"),
        (lambda m, w: m.transcribe(w.reshape(2, 2, -1)), "audio: expected a path"),
        (lambda m, w: m.transcribe(7), "audio: expected a path.*int"),
        (lambda m, w: m.transcribe(m.encode(w)[:5]), r"audio: expected codes \[8, T\].*\[5, 33\]"),
        (lambda m, w: m.transcribe(m.encode(w) + 1024), "audio: codebook 0: expected codes from 0 to 1024"),
        (lambda m, w: m.transcribe(w, "fr"), "language: expected en or zh"),
        (lambda m, w: m.understand(w, " "), "question: expected some text"),
        (lambda m, w: m.speak(""), "text: expected some text"),
        (lambda m, w: m.speak("a", style=""), "style: expected some text"),
        (lambda m, w: m.speak("a", style="b", freeform=True), "style: expected none with freeform"),
        (lambda m, w: m.speak("a", voice=w[:0]), "voice: .*at least one sample"),
        (lambda m, w: m.speak("a", max_new=0), "max_new: .*>= 1, got 0"),
        (lambda m, w: m.speak("a", max_seconds=0), "max_seconds: expected a number above 0, got 0"),
        (lambda m, w: m.speak("a", max_seconds=float("nan")), "max_seconds: .* got nan"),
        (lambda m, w: m.speak("a", temperature=-1), "^temperature: .*-1"),
        (lambda m, w: m.speak("a", audio_top_p=2), "^audio_top_p: .* got 2"),
        (lambda m, w: m.speak("a", audio_temperature=0, audio_top_k=3), "^audio_temperature 0 .* contradicts"),
        (lambda m, w: m.transcribe(w, top_p=0.5), "contradicts"),
        (lambda m, w: m.speak("a", seed=1 << 64), "seed: "),
        (lambda m, w: m.speak("half \ud800 a pair"), "text: .*surrogate"),
        (lambda m, w: m.chat([]), "at least one turn"),
        (lambda m, w: m.chat(["a", "b"]), r"turns\[0\]: expected the role assistant"),
        (lambda m, w: m.chat(["a", Turn("assistant", ""), "b"]), r"turns\[1\]: text: expected some text"),
        (lambda m, w: m.chat(Path("nowhere.wav")), r"turns\[0\]: no such file"),
        (lambda m, w: m.chat("a", voice=w), "voice: expected none without speech"),
        (lambda m, w: m.chat("a", system="b"), "system: expected none without speech"),
        (lambda m, w: m.chat("a", speech=True, thinking=True), "thinking: expected False with speech"),
        (lambda m, w: m.convert([], w), "examples: expected at least one"),
        (lambda m, w: m.convert([(w, w[:0], "x")], w), r"examples\[0\]: .*at least one sample"),
        (lambda m, w: m.convert([(w, w)], w), r"examples\[0\]: expected .recording, the same.* got 2 items"),
        (lambda m, w: m.convert([w], w), r"examples\[0\]: expected .recording, the same.* got Tensor"),
        (lambda m, w: m.convert([(w, w, "")], w), r"examples\[0\]: text"),
        (lambda m, w: m.extend(w, seconds=-1), "max_seconds"),
    ],
)  # fmt: skip
def test_bad_input(model: MimoAudio, wave: Tensor, call, message: str) -> None:
    with pytest.raises(MimoError, match=message) as caught:
        call(model, wave)
    assert "\n" not in str(caught.value)


def test_an_unknown_option(model: MimoAudio) -> None:
    with pytest.raises(TypeError, match="temprature"):
        model.speak("Hello", temprature=1)


def test_an_answer_without_speech(model: MimoAudio) -> None:
    with pytest.raises(MimoError, match="without speech"):
        model.speak("Hello", max_new=1)


def test_usable_after_errors(model: MimoAudio, wave: Tensor) -> None:
    expected = model.speak("Hello there", voice=wave, max_new=20)

    def fail(_: object) -> None:
        raise ZeroDivisionError

    for error, options in ((ZeroDivisionError, {"on_text": fail}), (MimoError, {"seed": 1 << 64})):
        with pytest.raises(error):
            model.speak("Hello there, friend", voice=wave, max_new=20, **options)
        assert same(model.speak("Hello there", voice=wave, max_new=20), expected)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, mimo_audio; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'tokenizers')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
