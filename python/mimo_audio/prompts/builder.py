"""What prompts are built with: a text tokenizer and a model's layout, checks of what people give, and turns."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mimo_audio.errors import CodesError, PromptError
from mimo_audio.lm.samplers import AUDIO, Sampler
from mimo_audio.prompts.segments import Layout, audio_segment, pad_codes, patches, stream_segment, text_segment
from mimo_audio.text.tokenizer import TextTokenizer, check_unicode


@dataclass(frozen=True, eq=False)
class Prompt:
    """Ids int64 [1 + C, T * G] of a task, the text ids that end its answer, and the samplers it is meant for.

    `thinking`: the prompt leaves a <think> open, so the answer begins inside it.
    """

    ids: Tensor
    stop: tuple[int, ...]
    text_sampler: Sampler
    thinking: bool = False
    audio_sampler: Sampler = AUDIO


@dataclass(frozen=True, eq=False)
class Turn:
    """What the "user" or the "assistant" of a dialogue said: text, codes int [C, T], or both, as the task asks."""

    role: str
    text: str | None = None
    audio: Tensor | None = None


@dataclass(frozen=True)
class PromptBuilder:
    """Makes segments for a model of `group_size` frames per patch, with empty ids and vocabulary sizes per codebook.

    Every segment is tokenised on its own. `name` is the argument that an error is to name.
    """

    tokenizer: TextTokenizer
    group_size: int
    empty_ids: tuple[int, ...]
    vocab_sizes: tuple[int, ...]
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layout", Layout(self.group_size, tuple(self.empty_ids), self.tokenizer.special))

    def template(self, text: str) -> Tensor:
        """Fixed text of a task, in which special tokens count."""
        return text_segment(self.layout, self.tokenizer.encode(text))

    def text(self, text: str) -> Tensor:
        """Text from a person, in which they do not."""
        return text_segment(self.layout, self.tokenizer.encode(text, specials=False))

    def audio(self, codes: Tensor | None, name: str) -> Tensor:
        """<|sosp|>, the patches of codes int [C, T], <|eosp|>. Raises CodesError if they do not fit the model."""
        return audio_segment(self.layout, self._patched(codes, name))

    def open_audio(self, codes: Tensor, name: str) -> Tensor:
        """The same without <|eosp|>: audio that is to go on."""
        marker = text_segment(self.layout, [self.tokenizer.special.sosp])
        return torch.cat([marker, patches(self.layout, self._patched(codes, name))], 1)

    def stream(self, text: str | None, codes: Tensor | None, name: str) -> Tensor:
        """Text and the codes int [C, T] of its speech, interleaved. Raises PromptError, CodesError."""
        ids = self.tokenizer.encode(checked_text(text, f"{name}: text"), specials=False)
        return stream_segment(self.layout, ids, self._patched(codes, f"{name}: audio"))

    def turn(self, role: str, *content: Tensor) -> Tensor:
        """A whole turn of a dialogue."""
        return torch.cat([self.template(f"<|im_start|>{role}\n"), *content, self.template("<|im_end|>\n")], 1)

    def answer(self, opening: str) -> Tensor:
        """The beginning of the assistant's turn."""
        return torch.cat([self.template("<|im_start|>assistant\n"), self.template(opening)], 1)

    def stop(self, *marks: str) -> tuple[int, ...]:
        """The ids of the end of text and of special tokens, given by their names in SpecialTokens, sorted."""
        return tuple(sorted({self.tokenizer.eos, *(getattr(self.tokenizer.special, mark) for mark in marks)}))

    def _patched(self, codes: Tensor | None, name: str) -> Tensor:
        """The codes on the CPU, padded to whole patches. Raises CodesError if they do not fit the model."""
        channels = len(self.empty_ids)
        if (
            not isinstance(codes, Tensor)
            or codes.is_floating_point()
            or codes.is_complex()
            or codes.dtype == torch.bool
        ):
            what = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
            raise CodesError(f"{name}: expected a tensor of integer codes [{channels}, T], got {what}")
        if codes.ndim != 2 or len(codes) != channels or not codes.shape[1]:
            raise CodesError(f"{name}: expected codes [{channels}, T] of at least one frame, got {list(codes.shape)}")
        codes = codes.to("cpu", torch.int64)
        for codebook, (row, size) in enumerate(zip(codes, self.vocab_sizes, strict=True)):
            if row.min() < 0 or row.max() >= size:
                wrong = row[(row < 0) | (row >= size)][0]
                raise CodesError(f"{name}: codebook {codebook}: expected codes from 0 to {size - 1}, got {wrong}")
        return pad_codes(codes, self.group_size)


def checked_text(text: str | None, name: str) -> str:
    """The text. Raises PromptError if there is none."""
    if not isinstance(text, str) or not text.strip():
        raise PromptError(f"{name}: expected some text, got {text!r:.50}")
    check_unicode(text, name)
    return text


def check_turns(turns: Sequence[Turn], name: str = "turns") -> None:
    """Raises PromptError unless user and assistant take turns and the user has the last word."""
    if not turns:
        raise PromptError(f"{name}: expected at least one turn, got none")
    for index, turn in enumerate(turns):
        expected = "user" if (len(turns) - index) % 2 else "assistant"
        if turn.role not in ("user", "assistant"):
            raise PromptError(f"{name}[{index}]: expected the role user or assistant, got {turn.role!r:.50}")
        if turn.role != expected:
            raise PromptError(
                f"{name}[{index}]: expected the role {expected} (user and assistant alternate and the user is last), "
                f"got {turn.role}"
            )
