"""The API against what the whole published pipeline computed, greedy: the same ids, the same waves."""

import json

import pytest
import torch
from torch import Tensor

from mimo_audio import MimoAudio
from mimo_audio.lm.samplers import GREEDY
from mimo_audio.prompts import Prompt, Turn, tasks

from .conftest import FOLDER

WITH_GREEDY = {"temperature": 0, "audio_temperature": 0}
CASES = {case["tag"]: case for case in json.loads((FOLDER / "e2e.json").read_text())["cases"] if case["mode"] == "fp32"}


def generated(golden: dict[str, Tensor], case: str, history: int = 0) -> Tensor:
    return golden[f"{case}.all_ids"][:, history + golden[f"{case}.prompt_ids"].shape[1] :].long()


def assert_same_text(text: str, case: str, model: MimoAudio, ids: Tensor) -> None:
    """The published text keeps special tokens and leaves out the last id, which ends most answers."""
    last = model.text_tokenizer.decode(ids[0, -4:-3], skip_special=True)
    assert text == (CASES[case]["text"].replace("<|Human|>", "") + last).strip()


def test_asr(model: MimoAudio, golden: dict[str, Tensor]) -> None:
    prompt = tasks.asr(model.prompts, model.encode(golden["wav0"]), "zh")
    assert torch.equal(prompt.ids, golden["asr.prompt_ids"].long())
    response = model.respond(prompt, max_new=CASES["asr"]["max_new"], **WITH_GREEDY)
    assert torch.equal(response.ids, generated(golden, "asr"))
    text = model.transcribe(golden["wav0"], "zh", max_new=CASES["asr"]["max_new"], **WITH_GREEDY)
    assert_same_text(text, "asr", model, response.ids)


def test_tts(model: MimoAudio, golden: dict[str, Tensor]) -> None:
    text = "Hello there, 今天"
    prompt = tasks.tts(model.prompts, text)
    assert torch.equal(prompt.ids, golden["tts.prompt_ids"].long())
    assert torch.equal(model.respond(prompt, max_new=30, **WITH_GREEDY).ids, generated(golden, "tts"))
    speech = model.speak(text, max_new=30, **WITH_GREEDY)
    torch.testing.assert_close(speech.wave, golden["tts.wav"], atol=5e-5, rtol=0)
    assert_same_text(speech.text, "tts", model, generated(golden, "tts"))


def test_spoken_dialogue(model: MimoAudio, golden: dict[str, Tensor]) -> None:
    voice = model.encode(golden["wav1"])
    question = model.encode(golden["wav0"])
    prompt = tasks.spoken_dialogue(model.prompts, [Turn("user", audio=question)], voice, "be brief")
    assert torch.equal(prompt.ids, golden["dialogue1.prompt_ids"].long())
    assert torch.equal(model.respond(prompt, max_new=20, **WITH_GREEDY).ids, generated(golden, "dialogue1"))
    answer = model.chat(golden["wav0"], golden["wav1"], "be brief", speech=True, max_new=20, **WITH_GREEDY)
    assert answer.speech is not None
    assert len(answer.speech.wave) == CASES["dialogue1"]["wav_samples"]
    assert_same_text(answer.text, "dialogue1", model, generated(golden, "dialogue1"))


def test_spoken_dialogue_with_history(model: MimoAudio, golden: dict[str, Tensor]) -> None:
    """The published history lacks the <|im_end|> of the answer; read as it is, it is continued as published.

    `chat` makes its prompts by the templates of many turns, where the <|im_end|> is.
    """
    history = golden["dialogue1.all_ids"].long()
    ids = torch.cat([history, golden["dialogue2_history.prompt_ids"].long()], 1)
    prompt = Prompt(ids, model.prompts.stop("im_end", "eostm"), GREEDY)
    expected = generated(golden, "dialogue2_history", history.shape[1])
    assert torch.equal(model.respond(prompt, max_new=12, **WITH_GREEDY).ids, expected)
    speech = model.say(prompt, max_new=12, **WITH_GREEDY)
    torch.testing.assert_close(speech.wave, golden["dialogue2_history.wav"], atol=5e-5, rtol=0)
    assert_same_text(speech.text, "dialogue2_history", model, expected)


@pytest.mark.parametrize("n_q", [8, 20])
def test_the_published_codes_are_ours(model: MimoAudio, golden: dict[str, Tensor], n_q: int) -> None:
    """The language model reads the first codebooks of as many as the tokenizer has."""
    codes = model.audio_tokenizer.encode(golden["wav1"], n_q=n_q)[:8]
    assert torch.equal(model.encode(golden["wav1"]), codes)
    patches = golden["dialogue1.prompt_ids"][1:].long()
    found = patches[:, patches[0] != 1024][:, : codes.shape[1]]
    assert torch.equal(found, codes)
