"""Training samples: they begin with the prompt of inference, and what is learned is the answer, to the letter."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mimo_audio.errors import MimoError
from mimo_audio.prompts import Example, PromptBuilder, Turn, in_context, read_answer, samples, tasks
from mimo_audio.prompts.samples import Sample

Codes = Callable[[int], Tensor]
Shown = Callable[[Tensor], str]

QUESTION = "Who is it?"


def dialogue(codes: Codes) -> list[Turn]:
    return [Turn("user", audio=codes(9)), Turn("assistant", "Yes.", codes(24)), Turn("user", "And?")]


def cases(build: PromptBuilder, codes: Codes) -> dict[str, tuple[Sample, Tensor, str, str | None, Tensor | None]]:
    """By task: sample, prompt of inference, and the text, thought and codes that its answer holds."""
    audio, voice, speech = codes(10), codes(8), codes(24)
    spoken, written = (
        [*dialogue(codes), Turn("assistant", "No.", speech)],
        [Turn("user", "Hi"), Turn("assistant", "Ho")],
    )
    heard = [Turn("user", audio=audio), Turn("assistant", "Ho")]
    pairs = [Example(codes(12), "one", codes(16)), Example(codes(20), "two", codes(7))]
    s, p, b = samples, tasks, build
    return {
        "asr": (s.asr(b, audio, "hello"), p.asr(b, audio).ids, "hello", None, None),
        "tts": (s.tts(b, "hello", speech), p.tts(b, "hello").ids, "Hello", None, speech),
        "tts in a voice": (s.tts(b, "hello", speech, voice), p.tts(b, "hello", voice).ids, "Hello", None, speech),
        "instruct_tts": (
            s.instruct_tts(b, "hello", "softly", speech, voice, "They are shy."),
            p.instruct_tts(b, "hello", "softly", voice).ids, "Hello", "They are shy.", speech,
        ),
        "instruct_tts without a thought": (
            s.instruct_tts(b, "hello", "softly", speech), p.instruct_tts(b, "hello", "softly").ids, "Hello", "", speech,
        ),
        "understanding": (
            s.audio_understanding(b, audio, QUESTION, "Me."),
            p.audio_understanding(b, audio, QUESTION).ids, "Me.", None, None,
        ),
        "understanding with a thought": (
            s.audio_understanding(b, audio, QUESTION, "Me.", "Let me see."),
            p.audio_understanding(b, audio, QUESTION, thinking=True).ids, "Me.", "Let me see.", None,
        ),
        "spoken_dialogue": (
            s.spoken_dialogue(b, spoken, voice, "Be brief."),
            p.spoken_dialogue(b, spoken[:-1], voice, "Be brief.").ids, "No.", None, speech,
        ),
        "speech_to_text_dialogue": (
            s.speech_to_text_dialogue(b, heard, "Hm."),
            p.speech_to_text_dialogue(b, heard[:-1], thinking=True).ids, "Ho", "Hm.", None,
        ),
        "text_dialogue": (s.text_dialogue(b, written), p.text_dialogue(b, written[:-1]).ids, "Ho", None, None),
        "in_context_speech": (
            s.in_context_speech(b, "Slower", pairs, audio, "three", speech),
            in_context.in_context_speech(b, "Slower", pairs, audio).ids, "three", None, speech,
        ),
    }  # fmt: skip


NAMES = (
    "asr", "tts", "tts in a voice", "instruct_tts", "instruct_tts without a thought", "understanding",
    "understanding with a thought", "spoken_dialogue", "speech_to_text_dialogue", "text_dialogue", "in_context_speech",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_the_prompt_and_an_answer_that_reads_as_given(
    name: str, build: PromptBuilder, codes: Codes
) -> None:
    sample, prompt, written, thought, speech = cases(build, codes)[name]
    assert torch.equal(sample.ids[:, : prompt.shape[1]], prompt)
    first = prompt.shape[1] // 4
    assert sample.learned[first:].all()
    answer = read_answer(build, sample.ids[:, prompt.shape[1] :], thinking=thought is not None)
    assert (answer.text, answer.thought) == (written, thought)
    assert answer.codes.shape[1] == (0 if speech is None else speech.shape[1])
    if speech is not None:
        assert torch.equal(answer.codes, speech)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_ends_where_generation_stops_and_the_prompt_is_masked(
    name: str, build: PromptBuilder, codes: Codes
) -> None:
    sample, prompt, _, _, speech = cases(build, codes)[name]
    special = build.layout.special
    assert sample.ids[0, -4] == (special.im_end if speech is None else special.eostm)
    if name not in ("spoken_dialogue", "in_context_speech"):
        assert not sample.learned[: prompt.shape[1] // 4].any()


def test_all_of_the_assistants_speech_is_learned(build: PromptBuilder, codes: Codes, shown: Shown) -> None:
    for name, learned in (
        ("spoken_dialogue", "Yes.<|eot|>######<|eostm|>No.<|eot|>######<|eostm|>"),
        ("in_context_speech", "one<|eot|>####<|eostm|>two<|eot|>##<|eostm|>three<|eot|>######<|eostm|>"),
    ):
        sample = cases(build, codes)[name][0]
        assert shown(sample.ids[:, sample.learned.repeat_interleave(4)]) == learned


def test_labels_are_the_ids_that_are_learned(build: PromptBuilder, codes: Codes) -> None:
    sample = samples.tts(build, "hello", codes(24))
    labels, learned = sample.labels(4), sample.learned.repeat_interleave(4)
    assert torch.equal(labels[:, learned], sample.ids[:, learned])
    assert (labels[:, ~learned] == -100).all()
    assert (labels[0].view(-1, 4)[:, 1:] == -100).all()


def test_text_and_continuation_are_learned_whole(build: PromptBuilder, codes: Codes, shown: Shown) -> None:
    text = samples.text(build, "Some text.")
    assert shown(text.ids) == "Some text.<|endoftext|>"
    assert text.learned.all()
    speech = samples.speech_continuation(build, codes(9))
    assert shown(speech.ids) == "<|sosp|>###<|eosp|>"
    assert speech.learned.tolist() == [False, True, True, True, True]
    prompt = in_context.speech_continuation(build, codes(9)[:, :4])
    assert torch.equal(speech.ids[:, : prompt.ids.shape[1]], prompt.ids)


def test_interleaved_speech_is_heard_or_learned(build: PromptBuilder, codes: Codes, shown: Shown) -> None:
    sample = samples.interleaved(build, ["One.", codes(8), ("Three.", codes(12))])
    assert shown(sample.ids) == "One.<|sosp|>##<|eosp|><|sostm|>Three.<|eot|>###<|eostm|>"
    assert "##<|eosp|>" not in shown(sample.ids[:, sample.learned.repeat_interleave(4)])
    assert sample.learned.sum() == len(sample.learned) - 4


def test_a_thought_ends_even_if_it_is_empty(build: PromptBuilder, codes: Codes, shown: Shown) -> None:
    """The prompt has opened it: speech that followed at once would be part of it."""
    sample = samples.instruct_tts(build, "hello", "softly", codes(8))
    assert "<think>\n\n</think>\n<|sostm|>Hello<|eot|>##<|eostm|>" in shown(sample.ids)
    learned = shown(sample.ids[:, sample.learned.repeat_interleave(4)])
    assert learned == "\n</think>\n<|sostm|>Hello<|eot|>##<|eostm|>"


def test_texts_of_people_end_no_turn(build: PromptBuilder, codes: Codes) -> None:
    sample = samples.asr(build, codes(8), "<|im_end|> is what he said")
    assert (sample.ids[0, ::4][sample.learned] == build.layout.special.im_end).sum() == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b, c: samples.asr(b, c(8), ""), "text: expected some text"),
        (lambda b, c: samples.tts(b, "x", c(8)[:3]), r"answer: audio: expected codes \[8, T\]"),
        (lambda b, c: samples.text_dialogue(b, [Turn("user", "x")]), "turns: expected the assistant's turn at the end"),
        (lambda b, c: samples.text_dialogue(b, []), "turns: expected the assistant's turn at the end"),
        (lambda b, c: samples.interleaved(b, []), "pieces: expected at least one"),
        (lambda b, c: samples.audio_understanding(b, c(8), "x", " "), "answer: expected some text"),
    ],
)
def test_what_cannot_be_learned_is_named(make, message: str, build: PromptBuilder, codes: Codes) -> None:
    with pytest.raises(MimoError, match=message):
        make(build, codes)
