"""`mimo-audio tts`: text to an audio file, or many texts to a folder of them."""

from argparse import Namespace
from functools import cache
from pathlib import Path

from torch import Tensor

from mimo_audio.cli import batch, requests, standard
from mimo_audio.cli.language import Assistant, check_speech_output
from mimo_audio.errors import MimoError
from mimo_audio.files import audio
from mimo_audio.tasks.results import Speech
from mimo_audio.tasks.streams import Stream

KINDS = {"voice": str, "style": str, "freeform": bool, "seed": int}  # that a request may have beside its text


@standard.streams("text_file", "voice", target=".wav")
def run(arguments: Namespace) -> int:
    """Speaks the text, or all of a folder or a file of requests, and returns the exit status."""
    if (arguments.text is None) == (arguments.text_file is None):
        given = "neither" if arguments.text is None else "both"
        raise MimoError(f"expected TEXT or --text-file, got {given}")
    if requests.are_many(arguments.text_file):
        return _all(arguments)
    text = arguments.text if arguments.text_file is None else _read(arguments.text_file)
    if arguments.output is not None:
        job = batch.Job(arguments.text_file or Path(), arguments.output)
        if not batch.unfinished([job], arguments.skip_existing):
            return 0
    check_speech_output(arguments, arguments.voice)
    assistant = Assistant(arguments)
    assistant.warn_of_words(text)
    voice = assistant.read(arguments.voice) if arguments.voice else None
    if arguments.stream:
        assistant.stream("speak", text, voice, arguments.style, arguments.freeform)
        return 0
    with assistant.options("speak") as options:
        speech = assistant.model.speak(text, voice, arguments.style, arguments.freeform, **options)
    return assistant.deliver(speech)


def _all(arguments: Namespace) -> int:
    """Every text of --text-file, as one batch."""
    if arguments.stream is not None or arguments.output is None or standard.is_output(arguments.output):
        raise MimoError(f"{arguments.text_file} holds many texts: expected -o OUTPUT, a folder for their speech")
    jobs = requests.plan(arguments.text_file, arguments.output, {".txt"}, ".wav", "text")
    jobs = batch.unfinished(jobs, arguments.skip_existing)
    assistant = Assistant(arguments)
    read_voice = cache(assistant.read)  # its pages are the engine's to keep, its codes ours
    common = read_voice(arguments.voice) if arguments.voice else None

    def begin(job: batch.Job) -> tuple[Stream[Speech], float]:
        audio.check_writable_format(job.target)
        fields = job.fields or {"text": _read(job.source)}
        for name, kind in KINDS.items():
            value = fields.get(name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)):
                raise MimoError(f"{name}: expected a {kind.__name__}, got {value!r}")
        voice: Tensor | None = common
        if fields.get("voice") is not None:
            path = job.source.parent / fields["voice"]
            batch.check_distinct(job.target, path)
            voice = read_voice(path)
        assistant.restart()
        own = {"freeform": arguments.freeform, "style": None if fields.get("freeform") else arguments.style}
        own |= {name: fields[name] for name in own if fields.get(name) is not None}
        options = assistant.given() | ({} if fields.get("seed") is None else {"seed": fields["seed"]})
        assistant.warn_of_words(fields["text"])
        stream = assistant.model.stream("speak", fields["text"], voice, **own, ahead=0, **options)
        return stream, assistant.start

    def finish(job: batch.Job, begun: tuple[Stream[Speech], float]) -> None:
        stream, assistant.start = begun
        others = {name: value for name, value in job.fields.items() if name not in ("text", "output")}
        name = {"input": str(job.source)} if job.line is None else {"line": job.line}
        assistant.deliver(stream.result(), job.target, others | name)

    return batch.run_together(jobs, True, arguments.force, begin, finish, assistant.model.slots).exit_status()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MimoError(f"cannot read {path}: {error}") from error
