"""What is read from generated ids: thoughts, text, codes; also what the published pipeline read from golden ones."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from mimo_audio.errors import PromptError
from mimo_audio.prompts import Answer, PromptBuilder, read_answer


@pytest.fixture
def answer(build: PromptBuilder) -> Callable[..., Answer]:
    """Reads an answer made of texts and codes."""

    def read(*parts: str | Tensor, thinking: bool = False) -> Answer:
        ids = [build.template(part) if isinstance(part, str) else build.audio(part, "part")[:, 4:-4] for part in parts]
        return read_answer(build, torch.cat(ids, 1), thinking)

    return read


Read = Callable[..., Answer]


def test_text_and_speech_of_a_stream(answer: Read, codes: Callable[[int], Tensor]) -> None:
    first, second = codes(8), codes(4)
    said = answer("Hello", first, " you<|eot|>", second, "<|eostm|><|im_end|>")
    assert said.text == "Hello you"
    assert said.thought is None
    assert said.codes.tolist() == torch.cat([first, second], 1).tolist()


def test_speech_is_that_of_the_first_stream(answer: Read, codes: Callable[[int], Tensor]) -> None:
    inside, outside = codes(8), codes(4)
    said = answer(outside, "<|sostm|>a", inside, "<|eot|><|eostm|>", outside, "<|sostm|>", outside, "<|eostm|>")
    assert said.codes.tolist() == inside.tolist()


def test_frames_without_a_first_code_are_skipped(answer: Read, codes: Callable[[int], Tensor]) -> None:
    audio = codes(8)
    audio[0, [1, 6]] = 1024
    assert answer(audio).codes.tolist() == audio[:, [0, 2, 3, 4, 5, 7]].tolist()


def test_text_alone_has_no_codes(answer: Read) -> None:
    assert answer("Yes.<|im_end|>").codes.shape == (8, 0)
    assert answer("Yes.<|im_end|>").text == "Yes."


@pytest.mark.parametrize(
    ("parts", "thinking", "thought", "text"),
    [
        (["Hm.\n</think>\nYes.<|im_end|>"], True, "Hm.", "Yes."),
        (["<think>\nHm.\n</think>\nYes."], True, "Hm.", "Yes."),
        (["<think>\nHm.\n</think>\nYes."], False, "Hm.", "Yes."),
        (["Yes. <think> is a tag."], False, None, "Yes. <think> is a tag."),
        (["Hm. And then"], True, "Hm. And then", ""),
        (["Low voice.\n<|sostm|>Hi<|eot|><|eostm|>"], True, "Low voice.", "Hi"),
        (["Low.\n</think>\n<|sostm|>Hi<|eot|><|eostm|>"], True, "Low.", "Hi"),
        (["\n</think>\nYes."], True, "", "Yes."),
    ],
)
def test_a_thought_is_apart_from_the_text(
    answer: Read, parts: Sequence[str], thinking: bool, thought: str | None, text: str
) -> None:
    said = answer(*parts, thinking=thinking)
    assert (said.thought, said.text) == (thought, text)


def test_a_torn_character_at_the_end_is_no_error(build: PromptBuilder) -> None:
    ids = build.template("Hi 🎉")[:, :-4]
    assert read_answer(build, ids).text == "Hi \ufffd"


def test_ids_of_another_layout_are_refused(build: PromptBuilder) -> None:
    with pytest.raises(PromptError, match=r"^ids: expected \[9, T \* 4\], got \[8, 4\]$"):
        read_answer(build, torch.zeros(8, 4, dtype=torch.int64))


def test_golden_answers(build: PromptBuilder, golden_folder: Path) -> None:
    cases = json.loads((golden_folder / "e2e.json").read_text())["cases"]
    with safe_open(golden_folder / "e2e.safetensors", "pt") as arrays:
        names = {f"{case['mode']}.{case['tag']}.all_ids": case for case in cases}
        stored = [(arrays.get_tensor(name), names[name]) for name in arrays.keys() if name in names]  # noqa: SIM118
    assert len(stored) >= 4
    for ids, case in stored:
        answer = ids[:, -4 * case["max_new"] :].long()
        assert read_answer(build, answer).codes.shape[1] * 960 == case["wav_samples"]
        all_but_one = read_answer(build, answer[:, :-4])  # it takes the last id for a stop
        assert all_but_one.text == re.sub(r"<\|\w+\|>", "", case["text"]).strip()
