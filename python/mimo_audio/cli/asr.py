"""`mimo-audio asr`: audio files to their transcripts."""

import os
from argparse import Namespace
from pathlib import Path

from mimo_audio.cli import batch, standard
from mimo_audio.cli.language import Assistant, print_json, print_text
from mimo_audio.errors import MimoError
from mimo_audio.files.output import atomic_output
from mimo_audio.prompts import Prompt, tasks
from mimo_audio.tasks.results import Answer
from mimo_audio.tasks.streams import Stream


@standard.streams("input")
def run(arguments: Namespace) -> int:
    """Transcribes a file or a folder and returns the exit status."""
    is_folder = os.path.isdir(arguments.input)
    if arguments.output == standard.DASH:
        arguments.output = None
    if is_folder and arguments.output is None:
        raise MimoError(f"{arguments.input} is a folder: expected OUTPUT, the folder for its transcripts")
    jobs = batch.plan(arguments.input, arguments.output or Path(), batch.AUDIO_SUFFIXES, ".txt")
    jobs = batch.unfinished(jobs, arguments.skip_existing and arguments.output is not None)
    assistant = Assistant(arguments)

    def prompt_of(job: batch.Job) -> Prompt:
        assistant.restart()
        return tasks.asr(assistant.model.prompts, assistant.read(job.source), arguments.language)

    def deliver(job: batch.Job, answer: Answer) -> None:
        record = {"input": standard.name(job.source), "text": answer.text, "duration": round(assistant.seconds_read, 3)}
        if arguments.output is not None:
            record["output"] = str(job.target)
            with atomic_output(job.target, arguments.force) as partial:
                partial.write_text(answer.text + "\n", encoding="utf-8")
        record |= assistant.record(answer.stats, assistant.seconds_read)
        if arguments.json:
            print_json(record)
        elif arguments.output is None:
            print_text(answer.text)

    def transcribe(job: batch.Job) -> None:
        prompt = prompt_of(job)
        with assistant.options("transcribe") as options:
            deliver(job, assistant.model.answer(prompt, **options))

    def begin(job: batch.Job) -> tuple[Stream[Answer], float, float]:
        prompt = prompt_of(job)
        return assistant.model.stream("answer", prompt, **assistant.given()), assistant.start, assistant.seconds_read

    def finish(job: batch.Job, begun: tuple[Stream[Answer], float, float]) -> None:
        stream, assistant.start, assistant.seconds_read = begun
        deliver(job, stream.result())

    if arguments.output is None:
        transcribe(jobs[0])
        return 0
    if not is_folder:
        return batch.run(jobs, is_folder, arguments.force, transcribe).exit_status()
    return batch.run_together(jobs, is_folder, arguments.force, begin, finish, assistant.model.slots).exit_status()
