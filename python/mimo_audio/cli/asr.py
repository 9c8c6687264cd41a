"""`mimo-audio asr`: audio files to their transcripts."""

import os
from argparse import Namespace
from pathlib import Path

from mimo_audio.cli import batch
from mimo_audio.cli.language import Assistant, print_json, print_text
from mimo_audio.errors import MimoError
from mimo_audio.files.output import atomic_output
from mimo_audio.prompts import tasks


def run(arguments: Namespace) -> int:
    """Transcribes a file or a folder and returns the exit status."""
    is_folder = os.path.isdir(arguments.input)
    if is_folder and arguments.output is None:
        raise MimoError(f"{arguments.input} is a folder: expected OUTPUT, the folder for its transcripts")
    jobs = batch.plan(arguments.input, arguments.output or Path(), batch.AUDIO_SUFFIXES, ".txt")
    assistant = Assistant(arguments)

    def transcribe(job: batch.Job) -> None:
        assistant.restart()
        prompt = tasks.asr(assistant.model.prompts, assistant.read(job.source), arguments.language)
        with assistant.options("transcribe") as options:
            answer = assistant.model.answer(prompt, **options)
        record = {"input": str(job.source), "text": answer.text, "duration": round(assistant.seconds_read, 3)}
        if arguments.output is not None:
            record["output"] = str(job.target)
            with atomic_output(job.target, arguments.force) as partial:
                partial.write_text(answer.text + "\n", encoding="utf-8")
        record |= assistant.record(answer.stats, assistant.seconds_read)
        if arguments.json:
            print_json(record)
        elif arguments.output is None:
            print_text(answer.text)

    if arguments.output is None:
        transcribe(jobs[0])
        return 0
    return batch.run(jobs, is_folder, arguments.force, transcribe).exit_status()
