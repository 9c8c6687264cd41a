"""Every task's ids are those of the published code, wherever that uses all its arguments."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from mimo_audio.errors import PromptError
from mimo_audio.prompts import Example, Prompt, PromptBuilder, Turn
from mimo_audio.prompts.in_context import in_context_speech
from mimo_audio.prompts.tasks import (
    asr,
    audio_understanding,
    capitalised,
    freeform_tts,
    instruct_tts,
    language_of,
    speech_to_text_dialogue,
    spoken_dialogue,
    text_dialogue,
    tts,
)

Case = dict[str, Any]


def with_codes(value: Any, audio: dict[str, list[int]]) -> Any:
    """A golden argument with the codes [8, T] that its "@audio<n>" stand for."""
    if isinstance(value, list):
        return [with_codes(item, audio) for item in value]
    if isinstance(value, dict):
        return {name: with_codes(item, audio) for name, item in value.items()}
    return torch.tensor(audio[value]).view(-1, 8).T if isinstance(value, str) and value in audio else value


def turns_of(messages: list[Case]) -> list[Turn]:
    contents = [message["content"] for message in messages]
    parts = [c if isinstance(c, dict) else {"audio": c} if isinstance(c, Tensor) else {"text": c} for c in contents]
    return [Turn(message["role"], **part) for message, part in zip(messages, parts, strict=True)]


def built(build: PromptBuilder, method: str, args: list[Any], kwargs: Case, request: str) -> Prompt:
    """Our prompt for a call of the published code; `request` is the template that it drew."""
    match method:
        case "get_asr_sft_prompt":
            return asr(build, args[0], instruction=request)
        case "get_tts_sft_prompt" if not kwargs.get("read_text_only", True):
            return freeform_tts(build, args[0], kwargs.get("prompt_speech"))
        case "get_tts_sft_prompt" if "instruct" in kwargs:
            return instruct_tts(build, args[0], kwargs["instruct"], kwargs.get("prompt_speech"), request)
        case "get_tts_sft_prompt":  # the published code drops the voice: test_the_voice_of_tts_is_heard
            return tts(build, args[0], instruction=request)
        case "get_audio_understanding_sft_prompt":
            return audio_understanding(build, *args, **kwargs)
        case "get_s2t_dialogue_sft_prompt":
            return speech_to_text_dialogue(build, [Turn("user", audio=args[0])], **kwargs)
        case "get_text_dialogue_sft_prompt":
            return text_dialogue(build, [Turn("user", args[0])], **kwargs)
        case "get_s2t_dialogue_sft_multiturn_prompt":
            return speech_to_text_dialogue(build, turns_of(args[0]), **kwargs)
        case "get_text_dialogue_sft_multiturn_prompt":
            return text_dialogue(build, turns_of(args[0]), **kwargs)
        case "get_in_context_learning_s2s_prompt":
            examples = [Example(e["input_audio"], e["output_transcription"], e["output_audio"]) for e in args[1]]
            return in_context_speech(build, args[0], examples, args[2])
    turns = turns_of(args[0]) if method.endswith("multiturn_prompt") else [Turn("user", audio=args[0])]
    if turns[0].role == "assistant":  # it drops the system prompt here, which ours does not
        kwargs = {}
    if kwargs.get("add_history") and "prompt_speech" in kwargs:  # a turn that follows those which had them
        kwargs = {}
    return spoken_dialogue(build, turns, kwargs.get("prompt_speech"), kwargs.get("system_prompt"))


def test_prompts_equal_the_golden_ones(build: PromptBuilder, golden_prompts: Case, prompt_case: Case) -> None:
    method = prompt_case["method"]
    args, kwargs = (with_codes(prompt_case[part], golden_prompts["audio"]) for part in ("args", "kwargs"))
    if "error" in prompt_case:
        with pytest.raises(PromptError, match=r"^turns\[0\]: expected the role user or assistant, got 'system'$"):
            built(build, method, args, kwargs, "")
        return
    expected = torch.tensor(prompt_case["input_ids"])
    said = build.tokenizer.decode(expected[0, ::4].tolist())
    request = re.search(r"<\|eosp\|>(.+?)<\|im_end" if "asr" in method else r"user\n(.+?): ", said)
    prompt = built(build, method, args, kwargs, request.group(1) if request else "")
    assert prompt.ids.dtype == torch.int64
    assert prompt.ids.tolist() == expected.tolist()


def test_the_default_requests_are_published_ones(build: PromptBuilder, golden_prompts: Case) -> None:
    case = next(case for case in golden_prompts["cases"] if case["method"] == "get_tts_sft_prompt")
    assert tts(build, *case["args"]).ids.tolist() == case["input_ids"]
    case = golden_prompts["cases"][0]
    (audio,) = with_codes(case["args"], golden_prompts["audio"])
    assert asr(build, audio, language="zh").ids.tolist() == case["input_ids"]


def test_capitals_and_languages_equal_the_golden_ones(golden_prompts: Case) -> None:
    for text, expected in golden_prompts["text_preprocess"].items():
        assert capitalised(text) == expected
    for text, expected in golden_prompts["detect_language"].items():
        assert language_of(text) == expected
