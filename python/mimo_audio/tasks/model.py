"""MimoAudio: every task of a MiMo-Audio model, from files and text to text and speech (MiMo-Audio report, section 4).

A task is a prompt (`mimo_audio.prompts.tasks`), one request to the engine, and what the ids that it adds mean
(`streams.Asked`). Errors are MimoErrors of one line; after any of them the model is as usable as before.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from mimo_audio.device import choose_device, choose_dtype
from mimo_audio.engine import Engine, Guard, Handle, Limits, Request
from mimo_audio.errors import AudioError, GenerationError, PromptError
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.prompts import Example, Prompt, PromptBuilder, in_context, read_answer, tasks
from mimo_audio.prompts.segments import pad_codes
from mimo_audio.tasks import pairing
from mimo_audio.tasks.defaults import Defaults
from mimo_audio.tasks.dialogue import Said, read_turns
from mimo_audio.tasks.options import Options, check, samplers
from mimo_audio.tasks.results import Answer, Response, Speech, Stats
from mimo_audio.tasks.sounds import Sound, blocks_of, codes_in
from mimo_audio.tasks.streams import AHEAD, CHUNKS, Asked, Schedule, Stream
from mimo_audio.tasks.streams import Sound as Streamed
from mimo_audio.tasks.voices import Voices
from mimo_audio.text import TextTokenizer
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.config import TokenizerConfig
from mimo_audio.tokenizer.model import SEGMENT_CODE_FRAMES

if TYPE_CHECKING:
    from typing_extensions import Unpack

Outcome = TypeVar("Outcome")
ANY = Defaults()  # any words, in no voice of its own
CONVERT = "Convert the speech as in the examples."
TASKS = ("transcribe", "speak", "understand", "chat", "convert", "extend", "answer", "say")
SLOTS = 8  # requests at once
VOICES = 4  # streams of sound that are decoded at once
# More seconds of speech than any text needs: some to breathe, and per character, which may be a digit or a CJK one.
MOST_SECONDS = (10.0, 0.4, 1.2)
CONTEXT_FRAMES = 250  # of a recording, decoded before its continuation so that the two join: as in published streaming


def load(
    model: str | PathLike[str] = "nano",
    tokenizer: str | PathLike[str] | None = None,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    slots: int = SLOTS,
    quantize: Literal["int8", "int4"] | None = None,
) -> "MimoAudio":
    """A language-model folder in the released layout and its audio tokenizer; "nano" is the small one that ships.

    The tokenizer is a folder of its own: the given one, else the model's subfolder tokenizer/ or the folder
    MiMo-Audio-Tokenizer beside the model. device "auto" takes the GPU if there is one; dtype is by default float32 on
    the CPU and bfloat16 on a GPU; slots: requests that run at once. quantize makes the language model's weights small
    while they are loaded, to a quarter and less of float32's; a folder of `mimo-audio quantize` has small ones already.
    Raises ModelError.
    """
    folder = pairing.find_model(model)
    tokenizer_folder = pairing.find_tokenizer(folder, tokenizer)
    config = LanguageModelConfig.load(folder / "config.json")
    pairing.check_pair(config, TokenizerConfig.load(tokenizer_folder / "config.json"))
    device = choose_device(str(device))
    dtype = choose_dtype(dtype, device)
    audio_dtype = torch.float32 if dtype == torch.float16 else dtype  # the tokenizer has no float16
    audio_tokenizer = AudioTokenizer.from_pretrained(tokenizer_folder, device, audio_dtype)
    return MimoAudio(
        AudioLanguageModel.from_pretrained(folder, device, dtype, quantize),
        TextTokenizer.load(folder, config.vocab_size),
        audio_tokenizer,
        slots,
        Defaults.load(folder, audio_tokenizer, config.audio_channels),
    )


class MimoAudio:
    """A language model with its two tokenizers, for every task; `slots` requests at once, from any threads.

    Audio arguments (`Sound`) are a path, a wave of floats at 24 kHz, (wave, sample_rate) of any rate, codes int [C, T]
    or a Speech; channels are averaged. All tasks take `Options` as keywords, and `stream` gives their answers while
    they are made. What a request shares with earlier ones, as the turns of a dialogue or a voice do, is not computed
    again. `defaults` are the voice that speaks where none is given, and the words that the model was taught.
    """

    def __init__(
        self,
        language_model: AudioLanguageModel,
        text_tokenizer: TextTokenizer,
        audio_tokenizer: AudioTokenizer,
        slots: int = SLOTS,
        defaults: Defaults = ANY,
    ) -> None:
        self.language_model, self.text_tokenizer, self.audio_tokenizer = language_model, text_tokenizer, audio_tokenizer
        self.defaults = defaults
        config = language_model.config
        pairing.check_pair(config, audio_tokenizer.config)
        self.prompts = PromptBuilder(
            text_tokenizer, config.group_size, config.speech_zeroemb_idx, config.speech_vocab_size
        )
        self.slots, self.engine = slots, Engine(language_model, slots)
        self._voices = Voices(audio_tokenizer, config.audio_channels, config.group_size, min(slots, VOICES))

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
        return self._run(self._transcribe(audio, language), options)

    def _transcribe(self, audio: Sound, language: str = "en") -> Asked[str]:
        asked = self._answer(tasks.asr(self.prompts, self.encode(audio), language))
        return Asked(asked.prompt, lambda response, _: asked.read(response, None).text)

    def speak(
        self,
        text: str,
        voice: Sound | None = None,
        style: str | None = None,
        freeform: bool = False,
        **options: "Unpack[Options]",
    ) -> Speech:
        """The text as speech, in the voice of a recording and in a style put in words, if given.

        Without either, the voice is the model's own (`defaults`), if it has one.
        freeform: the text itself says how it is spoken ("A tired man whispers: good night"). Raises MimoError.
        """
        return self._run(self._speak(text, voice, style, freeform), options)

    def _speak(
        self, text: str, voice: Sound | None = None, style: str | None = None, freeform: bool = False
    ) -> Asked[Speech]:
        codes = self._voice(voice) if style is None and not freeform else self._given(voice)
        if freeform and style is not None:
            raise PromptError(f"style: expected none with freeform, where the text carries it, got {style!r:.50}")
        if freeform:
            prompt = tasks.freeform_tts(self.prompts, text, codes)
        elif style is not None:
            prompt = tasks.instruct_tts(self.prompts, text, style, codes)
        else:
            prompt = tasks.tts(self.prompts, text, codes)
        return self._say(prompt, most_seconds=_most_seconds(text))

    def _given(self, voice: Sound | None) -> Tensor | None:
        return None if voice is None else self.encode(voice, "voice")

    def _voice(self, voice: Sound | None) -> Tensor | None:
        """The codes of the voice that is given, else of the model's own."""
        return self.defaults.voice if voice is None else self.encode(voice, "voice")

    def understand(self, audio: Sound, question: str, thinking: bool = False, **options: "Unpack[Options]") -> Answer:
        """The answer to a question about a recording, with a thought before it if `thinking`. Raises MimoError."""
        return self._run(self._understand(audio, question, thinking), options)

    def _understand(self, audio: Sound, question: str, thinking: bool = False) -> Asked[Answer]:
        return self._answer(tasks.audio_understanding(self.prompts, self.encode(audio), question, thinking))

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
        return self._run(self._chat(turns, voice, system, speech, thinking), options)

    def _chat(
        self,
        turns: Said | list[Said],
        voice: Sound | None = None,
        system: str | None = None,
        speech: bool = False,
        thinking: bool = False,
    ) -> Asked[Answer]:
        for name, given in (("voice", voice is not None), ("system", system is not None)):
            if given and not speech:
                raise PromptError(f"{name}: expected none without speech: only spoken answers follow it")
        if thinking and speech:
            raise PromptError("thinking: expected False with speech: only written answers are thought about first")
        dialogue = read_turns(turns, self.encode, speech)
        if speech:
            codes = self._voice(voice)
            said = self._say(tasks.spoken_dialogue(self.prompts, dialogue, codes, system))

            def spoken(response: Response, streamed: Streamed | None) -> Answer:
                reply = said.read(response, streamed)
                return Answer(reply.text, reply.thought, reply, reply.stats)

            return Asked(said.prompt, spoken, speaks=True)
        if any(turn.audio is not None for turn in dialogue):
            return self._answer(tasks.speech_to_text_dialogue(self.prompts, dialogue, thinking))
        return self._answer(tasks.text_dialogue(self.prompts, dialogue, thinking))

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
        return self._run(self._convert(examples, query, instruction), options)

    def _convert(
        self, examples: Sequence[tuple[Sound, Sound, str]], query: Sound, instruction: str = CONVERT
    ) -> Asked[Speech]:
        pairs = []
        for i, example in enumerate(examples):
            if not isinstance(example, list | tuple) or len(example) != 3:
                what = f"{len(example)} items" if isinstance(example, list | tuple) else type(example).__name__
                raise PromptError(f"examples[{i}]: expected (recording, the same changed, text), got {what}")
            source, target, text = example
            pairs.append(Example(self.encode(source, f"examples[{i}]"), text, self.encode(target, f"examples[{i}]")))
        return self._say(in_context.in_context_speech(self.prompts, instruction, pairs, self.encode(query, "query")))

    def extend(self, audio: Sound, seconds: float | None = None, **options: "Unpack[Options]") -> Speech:
        """What follows a recording, at most so many seconds; the recording itself is not part of it.

        For base models. Raises MimoError.
        """
        if seconds is not None:
            options["max_seconds"] = seconds
        return self._run(self._extend(audio), options)

    def _extend(self, audio: Sound) -> Asked[Speech]:
        codes = self.encode(audio)
        before = pad_codes(codes, self.prompts.group_size)[:, -CONTEXT_FRAMES:]
        return self._say(in_context.speech_continuation(self.prompts, codes), before)

    def stream(
        self, task: str, *arguments: Any, chunks: Schedule = "balanced", ahead: int = AHEAD, **named: Any
    ) -> "Stream[Any]":
        """A task by its name ("speak", "chat", ...) with its arguments and options: its answer while it is made.

        Iterate over it, with `for` or `async for`: TextDelta, AudioDelta, and in the end Completed, whose result is
        what the task itself returns. chunks: "ttfa" for the first sound as early as possible, "throughput" for the
        least work, "balanced". ahead: a stream pauses with so many tokens and patches that were not taken (0: never,
        for whoever wants its result alone). Streams are requests: many of them run as one batch. Raises MimoError.
        """
        if task not in TASKS:
            raise GenerationError(f"task: expected one of {', '.join(TASKS)}, got {task!r:.50}")
        if chunks not in CHUNKS:
            raise GenerationError(f"chunks: expected one of {', '.join(CHUNKS)}, got {chunks!r:.50}")
        options: Options = {}
        for name in named.keys() & Options.__annotations__.keys():
            options[name] = named.pop(name)  # type: ignore[literal-required]
        for name in ("on_text", "on_patch"):
            if options.get(name) is not None:
                raise GenerationError(f"{name}: expected none with a stream, whose events are the same")
        if not isinstance(ahead, int) or isinstance(ahead, bool) or ahead < 0:
            raise GenerationError(f"ahead: expected a number of tokens and patches from 0, got {ahead!r}")
        if task == "extend" and "seconds" in named:
            options["max_seconds"] = named.pop("seconds")
        asked: Asked[Any] = getattr(self, f"_{task}")(*arguments, **named)
        samples = self.audio_tokenizer.config.sampling_rate / self.audio_tokenizer.config.frame_rate
        return Stream(
            asked,
            self._submit(asked, options, buffer=ahead),
            lambda handle: self._response(handle, asked.prompt),
            self.prompts,
            self._voices.open,
            self.sample_rate,
            round(samples),
            chunks,
        )

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
        return self._run(self._answer(prompt), options)

    def _answer(self, prompt: Prompt) -> Asked[Answer]:
        def read(response: Response, _: Streamed | None) -> Answer:
            answer = read_answer(self.prompts, response.ids, prompt.thinking)
            return Answer(answer.text, answer.thought, None, response.stats)

        return Asked(prompt, read)

    def say(self, prompt: Prompt, before: Tensor | None = None, **options: "Unpack[Options]") -> Speech:
        """The spoken answer, its wave joining on the codes `before` it. Raises GenerationError if nothing is spoken."""
        return self._run(self._say(prompt, before), options)

    def _say(self, prompt: Prompt, before: Tensor | None = None, most_seconds: float | None = None) -> Asked[Speech]:
        def read(response: Response, streamed: Streamed | None) -> Speech:
            said = read_answer(self.prompts, response.ids, prompt.thinking)
            if streamed is None:
                if not said.codes.shape[1]:
                    raise GenerationError(f"the model answered without speech: {said.text!r:.80}")
                streamed = Streamed(said.codes, self._decode(said.codes, before))
            return Speech(streamed.wave, self.sample_rate, streamed.codes, said.text, said.thought, response.stats)

        return Asked(prompt, read, True, before, None if most_seconds is None else self._patches_in(most_seconds))

    def _decode(self, codes: Tensor, before: Tensor | None) -> Tensor:
        """The wave of codes [C, T] that join on the codes `before` them."""
        whole = codes if before is None else torch.cat([before, codes], 1)
        pieces = whole.split(SEGMENT_CODE_FRAMES, 1)
        wave = torch.cat([self.audio_tokenizer.decode(piece).cpu() for piece in pieces])
        return wave[len(wave) // whole.shape[1] * (whole.shape[1] - codes.shape[1]) :]

    def respond(self, prompt: Prompt, **options: "Unpack[Options]") -> Response:
        """The ids that the language model adds to a prompt: what every task runs. Raises GenerationError."""
        return self._run(Asked(prompt, lambda response, _: response), options)

    def _run(self, asked: Asked[Outcome], options: Options) -> Outcome:
        """The whole answer; on_text and on_patch hear of it as it is made."""
        handle = self._submit(asked, options)
        on_text, on_patch = options.get("on_text") or _ignore, options.get("on_patch") or _ignore
        text = self.text_tokenizer.stream(skip_special=True)
        try:
            for group in handle:
                if group[0, 0] == self.language_model.special.empty:
                    on_patch(group[1:])
                elif piece := text.push([int(group[0, 0])]):
                    on_text(piece)
        finally:
            handle.cancel()  # which is nothing where it has ended
        if piece := text.finish():
            on_text(piece)
        return asked.read(self._response(handle, asked.prompt), None)

    def _submit(self, asked: Asked[Outcome], options: Options, buffer: int = 0) -> Handle:
        """The request of a task. Raises GenerationError."""
        check(options)
        given = {name: value for name, value in options.items() if value is not None}
        options = Options(**{**self.defaults.sampling, **given})  # type: ignore[typeddict-item]
        prompt, config = asked.prompt, self.language_model.config
        length = prompt.ids.shape[1] // self.prompts.group_size
        room = config.max_position_embeddings - length
        if room < 1:
            raise GenerationError(
                f"the request takes {length} positions, expected fewer than the model's context of "
                f"{config.max_position_embeddings}: shorten its audio, its text or the dialogue"
            )
        max_new, max_seconds = options.get("max_new"), options.get("max_seconds")
        most_patches = None if max_seconds is None else self._patches_in(max_seconds)
        limits = Limits(room if max_new is None else max_new, 0, prompt.stop, most_patches, options.get("deadline"))
        guard = None if options.get("guard") is False else Guard(most_patches=asked.most_patches)
        request = Request(prompt.ids, limits, *samplers(prompt, options), options.get("seed") or 0, guard)
        return self.engine.submit(request, buffer)

    def _response(self, handle: Handle, prompt: Prompt) -> Response:
        """What the request has come to. Raises its error."""
        result = handle.result()
        if result.error is not None:
            raise result.error
        usage = result.usage
        stats = Stats(usage.prompt, usage.text, usage.patches, usage.seconds, result.reason == "stop", result.reason)
        return Response(result.ids, stats)

    def _patches_in(self, seconds: float) -> int:
        return ceil(seconds * self.audio_tokenizer.config.frame_rate / self.prompts.group_size)

    @property
    def _most_frames(self) -> int:
        return self.language_model.config.max_position_embeddings * self.prompts.group_size


def _ignore(_: object) -> None:
    pass


def _most_seconds(text: str) -> float:
    """More than speaking the text can take."""
    start, each, heavy = MOST_SECONDS
    return start + sum(heavy if c.isdigit() or ord(c) >= 0x2E80 else each for c in text)
