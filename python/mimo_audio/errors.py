"""Errors whose message is one clean line for a person: the command line prints it and exits with status 2."""


class MimoError(ValueError):
    """Base of everything that bad input can raise here."""


class ModelError(MimoError):
    """A model folder, its config.json or its tensors are not what they should be."""


class AudioError(MimoError):
    """A wave or an audio file cannot be used."""


class CodesError(MimoError):
    """Codes do not fit the tokenizer that should read them."""


class StreamError(MimoError):
    """A stream is closed, cannot have these settings or cannot take this chunk."""


class LanguageModelError(MimoError):
    """Ids, a mask or hidden states do not fit the language model that should read them."""


class GenerationError(MimoError):
    """A prompt, a sampler or a limit that generation cannot work with."""


class PromptError(MimoError):
    """A prompt cannot be made of these texts, codes or turns."""


LONGEST = 1000  # characters of a message


def one_line(message: str) -> str:
    """The message without line breaks and control characters, and of bounded length, whatever it quotes."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def first_line(error: Exception) -> str:
    """What another library's error says first; its kind if it says nothing (as MemoryError does)."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
