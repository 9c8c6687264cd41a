"""MimoAudio: every task of a MiMo-Audio model, from files and text to text and speech (MiMo-Audio report, section 4).

A task is a prompt (`mimo_audio.prompts.tasks`), one run of the language model (`MimoAudio.respond`), and what the ids
that it adds mean. Errors are MimoErrors of one line; after any of them the model is as usable as before.
"""

import time
from collections.abc import Iterable, Sequence
from math import ceil
from os import PathLike
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mimo_audio.device import choose_device, choose_dtype
from mimo_audio.errors import AudioError, GenerationError, PromptError
from mimo_audio.generation.session import Limits, Session
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.prompts import Example, Prompt, PromptBuilder, in_context, read_answer, tasks
from mimo_audio.prompts.segments import pad_codes
from mimo_audio.tasks import pairing
from mimo_audio.tasks.dialogue import Said, read_turns
from mimo_audio.tasks.options import Options, check, samplers
from mimo_audio.tasks.results import Answer, Response, Speech, Stats
from mimo_audio.tasks.sounds import Sound, blocks_of, codes_in
from mimo_audio.text import TextTokenizer
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.config import TokenizerConfig
from mimo_audio.tokenizer.model import SEGMENT_CODE_FRAMES

if TYPE_CHECKING:
    from typing_extensions import Unpack

CONVERT = "Convert the speech as in the examples."
CONTEXT_FRAMES = 250  # of a recording, decoded before its continuation so that the two join: as in published streaming


def load(
    model: str | PathLike[str] = "nano",
    tokenizer: str | PathLike[str] | None = None,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
) -> "MimoAudio":
    """A language-model folder in the released layout and its audio tokenizer ("nano", the default, is not there yet).

    The tokenizer is a folder of its own: the given one, else the model's subfolder tokenizer/ or the folder
    MiMo-Audio-Tokenizer beside the model. device "auto" takes the GPU if there is one; dtype is by default float32 on
    the CPU and bfloat16 on a GPU. Raises ModelError.
    """
    folder = pairing.find_model(model)
    tokenizer_folder = pairing.find_tokenizer(folder, tokenizer)
    config = LanguageModelConfig.load(folder / "config.json")
    pairing.check_pair(config, TokenizerConfig.load(tokenizer_folder / "config.json"))
    device = choose_device(str(device))
    dtype = choose_dtype(dtype, device)
    audio_dtype = torch.float32 if dtype == torch.float16 else dtype  # the tokenizer has no float16
    return MimoAudio(
        AudioLanguageModel.from_pretrained(folder, device, dtype),
        TextTokenizer.load(folder, config.vocab_size),
        AudioTokenizer.from_pretrained(tokenizer_folder, device, audio_dtype),
    )


class MimoAudio:
    """A language model with its two tokenizers, for every task. One request at a time, not from two threads.

    Audio arguments (`Sound`) are a path, a wave of floats at 24 kHz, (wave, sample_rate) of any rate, codes int [C, T]
    or a Speech; channels are averaged. All tasks take `Options` as keywords. What a request shares with the one before,
    as the turns of a dialogue do, is not computed again, in blocks of 256 positions.
    """

    def __init__(
        self, language_model: AudioLanguageModel, text_tokenizer: TextTokenizer, audio_tokenizer: AudioTokenizer
    ) -> None:
        self.language_model, self.text_tokenizer, self.audio_tokenizer = language_model, text_tokenizer, audio_tokenizer
        config = language_model.config
        pairing.check_pair(config, audio_tokenizer.config)
        self.prompts = PromptBuilder(
            text_tokenizer, config.group_size, config.speech_zeroemb_idx, config.speech_vocab_size
        )
        self._session = Session(language_model)

    @property
    def sample_rate(self) -> int:
        """Samples per second of generated speech."""
        return self.audio_tokenizer.sample_rate

    @property
    def most_seconds(self) -> float:
        """Seconds of audio that fill the language model's context."""
        return self._most_frames / self.audio_tokenizer.config.frame_rate

    def transcribe(self, audio: Sound, language: str = "en", **options: "Unpack[Options]") -> str:
        """The words of a recording; `language` "en" or "zh" is that of the request. Raises MimoError."""
        return self.answer(tasks.asr(self.prompts, self.encode(audio), language), **options).text

    def speak(
        self,
        text: str,
        voice: Sound | None = None,
        style: str | None = None,
        freeform: bool = False,
        **options: "Unpack[Options]",
    ) -> Speech:
        """The text as speech, in the voice of a recording and in a style put in words, if given.

        freeform: the text itself says how it is spoken ("A tired man whispers: good night"). Raises MimoError.
        """
        codes = None if voice is None else self.encode(voice, "voice")
        if freeform and style is not None:
            raise PromptError(f"style: expected none with freeform, where the text carries it, got {style!r:.50}")
        if freeform:
            prompt = tasks.freeform_tts(self.prompts, text, codes)
        elif style is not None:
            prompt = tasks.instruct_tts(self.prompts, text, style, codes)
        else:
            prompt = tasks.tts(self.prompts, text, codes)
        return self.say(prompt, **options)

    def understand(self, audio: Sound, question: str, thinking: bool = False, **options: "Unpack[Options]") -> Answer:
        """The answer to a question about a recording, with a thought before it if `thinking`. Raises MimoError."""
        return self.answer(tasks.audio_understanding(self.prompts, self.encode(audio), question, thinking), **options)

    def chat(
        self,
        turns: Said | list[Said],
        voice: Sound | None = None,
        system: str | None = None,
        speech: bool = False,
        thinking: bool = False,
        **options: "Unpack[Options]",
    ) -> Answer:
        """The next turn of a dialogue, in words or, with `speech`, spoken.

        turns: one, or a list in which user and assistant alternate and the user is last. A user's turn is a string of
        words (not a path) or a recording (a pathlib.Path, a wave, codes); the assistant's is the Answer that `chat`
        gave, or a `prompts.Turn`. voice and system (a request before everything) are for spoken answers, thinking is
        for written ones. Raises MimoError.
        """
        for name, given in (("voice", voice is not None), ("system", system is not None)):
            if given and not speech:
                raise PromptError(f"{name}: expected none without speech: only spoken answers follow it")
        if thinking and speech:
            raise PromptError("thinking: expected False with speech: only written answers are thought about first")
        dialogue = read_turns(turns, self.encode, speech)
        if speech:
            codes = None if voice is None else self.encode(voice, "voice")
            reply = self.say(tasks.spoken_dialogue(self.prompts, dialogue, codes, system), **options)
            return Answer(reply.text, reply.thought, reply, reply.stats)
        if any(turn.audio is not None for turn in dialogue):
            return self.answer(tasks.speech_to_text_dialogue(self.prompts, dialogue, thinking), **options)
        return self.answer(tasks.text_dialogue(self.prompts, dialogue, thinking), **options)

    def convert(
        self,
        examples: Sequence[tuple[Sound, Sound, str]],
        query: Sound,
        instruction: str = CONVERT,
        **options: "Unpack[Options]",
    ) -> Speech:
        """The query changed as the examples show: (recording, the same changed, what the changed one says) each.

        For base models, which learn from examples in the prompt. Raises MimoError.
        """
        pairs = []
        for i, example in enumerate(examples):
            if not isinstance(example, list | tuple) or len(example) != 3:
                what = f"{len(example)} items" if isinstance(example, list | tuple) else type(example).__name__
                raise PromptError(f"examples[{i}]: expected (recording, the same changed, text), got {what}")
            source, target, text = example
            pairs.append(Example(self.encode(source, f"examples[{i}]"), text, self.encode(target, f"examples[{i}]")))
        return self.say(
            in_context.in_context_speech(self.prompts, instruction, pairs, self.encode(query, "query")), **options
        )

    def extend(self, audio: Sound, seconds: float | None = None, **options: "Unpack[Options]") -> Speech:
        """What follows a recording, at most so many seconds; the recording itself is not part of it.

        For base models. Raises MimoError.
        """
        codes = self.encode(audio)
        prompt = in_context.speech_continuation(self.prompts, codes)
        if seconds is not None:
            options["max_seconds"] = seconds
        return self.say(prompt, pad_codes(codes, self.prompts.group_size)[:, -CONTEXT_FRAMES:], **options)

    def encode(self, audio: Sound, name: str = "audio") -> Tensor:
        """The codes int64 [C, T] that the language model reads; a recording used often is encoded once.

        Raises AudioError, with `name` for the argument, also for more audio than the context of the model holds.
        """
        codes = codes_in(audio)
        if codes is not None:
            return codes
        try:
            return self.encode_blocks(blocks_of(audio, self.sample_rate, self.most_seconds))
        except AudioError as error:
            raise AudioError(f"{name}: {error}") from error

    def encode_blocks(self, blocks: Iterable[Tensor]) -> Tensor:
        """`encode` of a mono wave at `sample_rate` that comes in blocks [N_i]."""
        pieces: list[Tensor] = []
        for piece in self.audio_tokenizer.encode_blocks(blocks, self.language_model.config.audio_channels):
            pieces.append(piece.cpu())
            if sum(codes.shape[1] for codes in pieces) > self._most_frames:
                raise AudioError(
                    f"expected at most {self.most_seconds:.0f} s, which fill the model's context, got more"
                )
        return torch.cat(pieces, 1)

    def answer(self, prompt: Prompt, **options: "Unpack[Options]") -> Answer:
        """The answer in words to any prompt of `mimo_audio.prompts`. Raises GenerationError."""
        response = self.respond(prompt, **options)
        read = read_answer(self.prompts, response.ids, prompt.thinking)
        return Answer(read.text, read.thought, None, response.stats)

    def say(self, prompt: Prompt, before: Tensor | None = None, **options: "Unpack[Options]") -> Speech:
        """The spoken answer, its wave joining on the codes `before` it. Raises GenerationError if nothing is spoken."""
        response = self.respond(prompt, **options)
        read = read_answer(self.prompts, response.ids, prompt.thinking)
        if not read.codes.shape[1]:
            raise GenerationError(f"the model answered without speech: {read.text!r:.80}")
        whole = read.codes if before is None else torch.cat([before, read.codes], 1)
        pieces = whole.split(SEGMENT_CODE_FRAMES, 1)
        wave = torch.cat([self.audio_tokenizer.decode(piece).cpu() for piece in pieces])
        wave = wave[len(wave) // whole.shape[1] * (whole.shape[1] - read.codes.shape[1]) :]
        return Speech(wave, self.sample_rate, read.codes, read.text, read.thought, response.stats)

    def respond(self, prompt: Prompt, **options: "Unpack[Options]") -> Response:
        """The ids that the language model adds to a prompt: what every task runs. Raises GenerationError."""
        check(options)
        config, size = self.language_model.config, self.prompts.group_size
        length = prompt.ids.shape[1] // size
        room = config.max_position_embeddings - length
        if room < 1:
            raise GenerationError(
                f"the request takes {length} positions, expected fewer than the model's context of "
                f"{config.max_position_embeddings}: shorten its audio, its text or the dialogue"
            )
        max_new, max_seconds = options.get("max_new"), options.get("max_seconds")
        limits = Limits(room if max_new is None else max_new, stop=prompt.stop)
        most_patches = ceil((max_seconds or self.most_seconds) * self.audio_tokenizer.config.frame_rate / size)
        on_text, on_patch = options.get("on_text") or _ignore, options.get("on_patch") or _ignore
        text, groups, patches, start = self.text_tokenizer.stream(skip_special=True), [], 0, time.perf_counter()
        for group in self._session.generate(prompt.ids, limits, *samplers(prompt, options), options.get("seed") or 0):
            groups.append(group)
            if group[0, 0] == self.language_model.special.empty:
                patches += 1
                on_patch(group[1:])
            elif piece := text.push([int(group[0, 0])]):
                on_text(piece)
            if patches == most_patches:
                break
        if piece := text.finish():
            on_text(piece)
        passed, ended = time.perf_counter() - start, int(groups[-1][0, 0]) in prompt.stop
        return Response(torch.cat(groups, 1), Stats(length, len(groups) - patches, patches, passed, ended))

    @property
    def _most_frames(self) -> int:
        return self.language_model.config.max_position_embeddings * self.prompts.group_size


def _ignore(_: object) -> None:
    pass
