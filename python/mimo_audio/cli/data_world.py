"""`mimo-audio data world`: a small world to train on."""

import os
from argparse import Namespace

from mimo_audio.cli.data_speak import Progress, report_problems
from mimo_audio.data.clips import Rendered
from mimo_audio.data.world.build import Report, Settings, build


def run(arguments: Namespace) -> int:
    """Makes the world and returns the exit status: 1 if some texts could not be said."""
    settings = Settings(arguments.hours, arguments.held_out, tuple(arguments.voices or ()), arguments.seed)
    workers = arguments.workers or os.cpu_count() or 1
    with Progress(None) as progress:

        def count(rendered: Rendered, total: int) -> None:
            progress.total(total)
            progress.count(rendered)

        report = build(settings, arguments.out, workers, arguments.speech, count)
    print(_table(report))
    return report_problems(report.problems)


def _table(report: Report) -> str:
    tasks = list(dict.fromkeys(task for rows in report.rows.values() for task in rows))
    widths = [max(len(task), 6) + 2 for task in tasks]
    lines = [f"{'':16}{'hours':>7}" + "".join(f"{task:>{width}}" for task, width in zip(tasks, widths, strict=True))]
    for split, rows in report.rows.items():
        counts = "".join(f"{rows[task]:>{width},}" for task, width in zip(tasks, widths, strict=True))
        lines.append(f"{split:16}{report.hours[split]:>7.2f}{counts}")
    return "\n".join(lines)
