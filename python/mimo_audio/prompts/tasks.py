"""The tasks of the instruct model, one function each: what was said and asked -> a Prompt (report, section 4).

Codes are int [C, T]; audio is padded to whole patches by repeating its last frame. Texts of people never become special
tokens. Raises PromptError or CodesError, in one line that names the argument.

Two arguments that the published code drops without a word have their effect here: the voice of plain `tts`, and the
system prompt of a spoken dialogue that the assistant opens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mimo_audio.errors import PromptError
from mimo_audio.lm.samplers import GREEDY, Sampler
from mimo_audio.prompts.builder import Prompt, PromptBuilder, Turn, check_turns, checked_text

NO_THOUGHT, THOUGHT, SPEECH = "<think>\n\n</think>\n", "<think>\n", "<|sostm|>"  # how answers begin
TRANSCRIBE = {"en": "Please transcribe this audio file", "zh": "请将这段语音转换为文字"}
SPEAK = {"en": "Please convert this text to speech", "zh": "请将这段文字转换为语音"}
STYLED = "你需要根据指定的风格指令和文本内容来生成语音。"
STYLED_IN_A_VOICE = "你需要根据指定的风格指令和文本内容来生成和语音prompt具有相同音色的语音。你的音色应该是："
VOICE = "Your voice should be:"
TEMPLATES = [*TRANSCRIBE.values(), *(f"{text}: " for text in SPEAK.values()), STYLED, STYLED_IN_A_VOICE, VOICE]

SPEECH_TEXT = Sampler(temperature=0.6)  # of the text beside synthesized speech
DIALOGUE = Sampler(temperature=0.6, top_p=0.95)
TEXT_DIALOGUE = Sampler(temperature=0.4, top_p=0.95)
UNDERSTANDING = Sampler(temperature=0.3, top_p=0.95)


def language_of(text: str) -> str:
    """ "zh" if the text holds a Chinese character, else "en"."""
    return "zh" if any("\u4e00" <= character <= "\u9fff" for character in text) else "en"


def capitalised(text: str) -> str:
    """ "Hello" for "hello" and "HELLO"; text that mixes upper and lower case as it is."""
    return text.capitalize() if text.isupper() or text.islower() else text


def asr(build: PromptBuilder, audio: Tensor, language: str = "en", instruction: str | None = None) -> Prompt:
    """Speech to its transcript; the language is that of the request, or `instruction` is the request."""
    if language not in TRANSCRIBE:
        raise PromptError(f"language: expected {' or '.join(TRANSCRIBE)}, got {language!r:.50}")
    request = build.text(_request(instruction, TRANSCRIBE[language]))
    ids = [build.turn("user", build.audio(audio, "audio"), request), build.answer(NO_THOUGHT)]
    return Prompt(torch.cat(ids, 1), build.stop("im_end"), GREEDY)


def tts(build: PromptBuilder, text: str, voice: Tensor | None = None, instruction: str | None = None) -> Prompt:
    """Text to speech, in the voice of a recording if given; the request is in the language of the text.

    With a voice the system turn of `instruct_tts` names it, and the rest is as without.
    """
    transcript, request = _speech_request(text, instruction)
    ids = [] if voice is None else [_styled(build, voice)]
    ids += [build.turn("user", build.text(f"{request}: {transcript}")), build.answer(SPEECH)]
    return _speech(build, ids, SPEECH_TEXT)


def instruct_tts(
    build: PromptBuilder, text: str, style: str, voice: Tensor | None = None, instruction: str | None = None
) -> Prompt:
    """Text to speech in a style put in words ("whispering"); the model first thinks about how to speak."""
    transcript, request = _speech_request(text, instruction)
    said = build.text(f"{request}: {transcript}({checked_text(style, 'style')})")
    ids = [_styled(build, voice), build.turn("user", said), build.answer(THOUGHT)]
    return _speech(build, ids, SPEECH_TEXT, thinking=True)


def freeform_tts(build: PromptBuilder, text: str, voice: Tensor | None = None) -> Prompt:
    """Text that says itself how it is spoken ("A sad man says: ...") to speech; the model thinks first."""
    said = build.text(capitalised(checked_text(text, "text")))
    ids = [_styled(build, voice), build.turn("user", said), build.answer(THOUGHT)]
    return _speech(build, ids, SPEECH_TEXT, thinking=True)


def audio_understanding(build: PromptBuilder, audio: Tensor, question: str, thinking: bool = False) -> Prompt:
    """A question about a recording."""
    asked = build.text(checked_text(question, "question"))
    turn = build.turn("user", build.audio(audio, "audio"), asked)
    return _text(build, [turn], UNDERSTANDING, thinking)


def spoken_dialogue(
    build: PromptBuilder, turns: Sequence[Turn], voice: Tensor | None = None, system_prompt: str | None = None
) -> Prompt:
    """Speech to speech, after one or many turns: users' have audio or text or both, the assistant's text and its audio.

    A turn of the assistant's that was not spoken is its text alone. The system prompt precedes the first user's turn;
    the voice is that of the answers.
    """
    check_turns(turns)
    ids = [] if voice is None else [build.turn("system", build.template(VOICE), build.audio(voice, "voice"))]
    preface = [] if system_prompt is None else [build.text(checked_text(system_prompt, "system_prompt") + "\n\n")]
    for index, turn in enumerate(turns):
        name = f"turns[{index}]"
        if turn.role == "user":
            ids.append(build.turn("user", *preface, _said(build, turn, name)))
            preface = []
        elif turn.audio is None:
            ids.append(build.turn("assistant", build.text(checked_text(turn.text, f"{name}: text"))))
        else:
            ids.append(build.turn("assistant", build.stream(turn.text, turn.audio, name)))
    return _speech(build, [*ids, build.answer(SPEECH)], DIALOGUE)


def speech_to_text_dialogue(build: PromptBuilder, turns: Sequence[Turn], thinking: bool = False) -> Prompt:
    """Speech to a written answer, after one or many turns: users' have audio or text, the assistant's text."""
    check_turns(turns)
    return _text(build, _written_turns(build, turns), DIALOGUE, thinking)


def text_dialogue(build: PromptBuilder, turns: Sequence[Turn], thinking: bool = False) -> Prompt:
    """Text to text, after one or many turns."""
    check_turns(turns)
    for index, turn in enumerate(turns):
        if turn.audio is not None:
            raise PromptError(f"turns[{index}]: expected text only, got audio")
    return _text(build, _written_turns(build, turns), TEXT_DIALOGUE, thinking)


def _speech_request(text: str, instruction: str | None) -> tuple[str, str]:
    """The text that is to be spoken and the request for it, both in words."""
    text = capitalised(checked_text(text, "text"))
    return text, _request(instruction, SPEAK[language_of(text)])


def _request(instruction: str | None, default: str) -> str:
    return default if instruction is None else checked_text(instruction, "instruction")


def _styled(build: PromptBuilder, voice: Tensor | None) -> Tensor:
    """The system turn of speech in a style, with the voice if there is one."""
    if voice is None:
        return build.turn("system", build.template(STYLED))
    return build.turn("system", build.template(STYLED_IN_A_VOICE), build.audio(voice, "voice"))


def _said(build: PromptBuilder, turn: Turn, name: str) -> Tensor:
    """A user's turn: its audio, its text, or the audio and then the text, as in `audio_understanding`."""
    if turn.audio is None and turn.text is None:
        raise PromptError(f"{name}: expected audio or text, got neither")
    said = [] if turn.audio is None else [build.audio(turn.audio, f"{name}: audio")]
    if turn.text is not None:
        said.append(build.text(checked_text(turn.text, f"{name}: text")))
    return torch.cat(said, 1)


def _written_turns(build: PromptBuilder, turns: Sequence[Turn]) -> list[Tensor]:
    ids = []
    for index, turn in enumerate(turns):
        name = f"turns[{index}]"
        if turn.role == "user":
            content = _said(build, turn, name)
        elif turn.audio is not None:
            raise PromptError(f"{name}: expected the assistant's text only, got audio")
        else:
            content = build.text(checked_text(turn.text, f"{name}: text"))
        ids.append(build.turn(turn.role, content))
    return ids


def _text(build: PromptBuilder, ids: list[Tensor], sampler: Sampler, thinking: bool) -> Prompt:
    answer = build.answer(THOUGHT if thinking else NO_THOUGHT)
    return Prompt(torch.cat([*ids, answer], 1), build.stop("im_end"), sampler, thinking)


def _speech(build: PromptBuilder, ids: list[Tensor], sampler: Sampler, thinking: bool = False) -> Prompt:
    return Prompt(torch.cat(ids, 1), build.stop("im_end", "eostm"), sampler, thinking)
