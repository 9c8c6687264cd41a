"""`mimo-audio asr`: audio files to their transcripts."""

import os
from argparse import Namespace
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from mimo_audio.cli import batch, requests, standard
from mimo_audio.cli.language import Assistant, print_json, print_text
from mimo_audio.errors import MimoError
from mimo_audio.files.output import atomic_output
from mimo_audio.prompts import Prompt, tasks
from mimo_audio.tasks.results import Answer
from mimo_audio.tasks.streams import Stream


@standard.streams("input")
def run(arguments: Namespace) -> int:
    """Transcribes a file, a folder or a file of requests and returns the exit status."""
    source, many = arguments.input, requests.are_many(arguments.input)
    output: Path | None = None if arguments.output == standard.DASH else arguments.output
    if many and output is None:
        kind = "a folder" if os.path.isdir(source) else "a file of requests"
        raise MimoError(f"{source} is {kind}: expected OUTPUT, a folder for its transcripts or a .jsonl file")
    results = None
    if many and output is not None and output.suffix.lower() == requests.LINES and not os.path.isdir(output):
        batch.check_distinct(output, source)
        results = requests.Results(output, arguments)
    folder = Path() if output is None or results is not None else output
    if many:
        jobs = requests.plan(source, folder, batch.AUDIO_SUFFIXES, ".txt", "audio")
    else:
        jobs = batch.plan(source, folder, batch.AUDIO_SUFFIXES, ".txt")
    if results is not None and output is not None:
        jobs = [replace(job, target=output) for job in jobs]
        left = [job for job in jobs if not results.has(job.line, str(recording(job)))]
        batch.note_left(jobs, left)
        jobs = left
    else:
        jobs = batch.unfinished(jobs, arguments.skip_existing and output is not None)
    assistant = Assistant(arguments)

    def prompt_of(job: batch.Job) -> Prompt:
        language = job.fields.get("language", arguments.language)
        if language not in ("en", "zh"):
            raise MimoError(f"language: expected en or zh, got {language!r}")
        assistant.restart()
        return tasks.asr(assistant.model.prompts, assistant.read(recording(job)), language)

    def deliver(job: batch.Job, answer: Answer) -> None:
        record = {name: value for name, value in job.fields.items() if name not in ("audio", "output", "text")}
        if job.line is not None:
            record["line"] = job.line
        if "text" in job.fields:
            record["reference"] = job.fields["text"]
        record["input"] = standard.name(recording(job))
        record |= {"text": answer.text, "duration": round(assistant.seconds_read, 3)}
        if output is not None and results is None:
            record["output"] = str(job.target)
            with atomic_output(job.target, arguments.force) as partial:
                partial.write_text(answer.text + "\n", encoding="utf-8")
        record |= assistant.record(answer.stats, assistant.seconds_read)
        if results is not None:
            results.add(record)
        if arguments.json:
            print_json(record)
        elif output is None:
            print_text(answer.text)

    def transcribe(job: batch.Job) -> None:
        prompt = prompt_of(job)
        with assistant.options("transcribe") as options:
            deliver(job, assistant.model.answer(prompt, **options))

    def begin(job: batch.Job) -> tuple[Stream[Answer], float, float]:
        prompt = prompt_of(job)
        batch.check_distinct(job.target, recording(job))
        stream = assistant.model.stream("answer", prompt, ahead=0, **assistant.given())
        return stream, assistant.start, assistant.seconds_read

    def finish(job: batch.Job, begun: tuple[Stream[Answer], float, float]) -> None:
        stream, assistant.start, assistant.seconds_read = begun
        deliver(job, stream.result())

    if output is None:
        transcribe(jobs[0])
        return 0
    if not many:
        return batch.run(jobs, False, arguments.force, transcribe).exit_status()
    with results or nullcontext():
        force = arguments.force or results is not None  # that file was looked at above
        return batch.run_together(jobs, True, force, begin, finish, assistant.model.slots).exit_status()


def recording(job: batch.Job) -> Path:
    """The audio file of a job; names in a file of requests are relative to it."""
    return job.source if job.line is None else job.source.parent / job.fields.get("audio", "")
