"""`mimo-audio eval speech`: how well a model listens, speaks, converts, continues and answers."""

import json
import logging
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimo_audio.cli.evaluation_sets import set_names
from mimo_audio.errors import MimoError, one_line
from mimo_audio.evaluate import abilities, speech
from mimo_audio.evaluate.abilities import Item, Scores
from mimo_audio.evaluate.environment import environment
from mimo_audio.evaluate.judges import Judges
from mimo_audio.evaluate.plot import plot_abilities, plot_shots, require_matplotlib
from mimo_audio.evaluate.samples import ABILITIES, Sample, SampleSet, read_set
from mimo_audio.evaluate.word_errors import require_jiwer
from mimo_audio.files import audio
from mimo_audio.files.output import OutputError, atomic_output, check_output
from mimo_audio.progress import progress_bar
from mimo_audio.tasks import model
from mimo_audio.tasks.exam import Exam
from mimo_audio.tasks.options import Options

LOG = logging.getLogger(__name__)
LEFT_OUT, INTERRUPTED = 1, 130
NONE = "none"  # of a judge

Rows = dict[str, dict[str, list[Item]]]  # by ability, then by row


def run(arguments: Namespace) -> int:
    """Evaluates every set, prints a table per ability, writes record, pictures and sounds, returns the exit status."""
    require_matplotlib()
    require_jiwer()
    for name in ("scores.json", "scores.png", "shots.png"):
        check_output(arguments.out / name, arguments.force)
    sets = [read_set(name, path, arguments.held_out) for name, path in set_names(arguments.input).items()]
    work = list(_work(sets, arguments.abilities or ABILITIES, arguments.limit))
    idle = [samples.name for samples in sets if samples not in [used for _, used, _ in work]]
    if not work:
        wanted = ", ".join(arguments.abilities or ABILITIES)
        which = ' marked as "held_out"' if arguments.held_out else ""
        raise MimoError(f"{', '.join(idle)}: expected lines{which} that test {wanted}, got none")
    if idle:
        LOG.warning("nothing here tests any of the abilities: %s", ", ".join(idle))
    judges = _judges(arguments)
    dtype = arguments.dtype and getattr(torch, arguments.dtype)
    subject = model.load(arguments.model, arguments.tokenizer, arguments.device, dtype, quantize=arguments.quantize)

    rows: Rows = {}
    failed: list[str] = []
    interrupted = False
    try:
        for ability, samples, chosen in work:
            exam = _exam(subject, judges, arguments, f"{samples.name}/{ability}")
            for sample in progress_bar(chosen, desc=f"{samples.name}: {ability}", unit="sample"):
                try:
                    found = list(exam(ability, sample, samples))
                except OutputError:
                    raise
                except MimoError as error:
                    failed.append(one_line(f"{sample.name}: {error}"))
                    continue
                for label, item in found:
                    rows.setdefault(ability, {}).setdefault(f"{samples.name} {label}".strip(), []).append(item)
    except KeyboardInterrupt:
        interrupted = True
    if not rows and interrupted:
        raise KeyboardInterrupt
    if not rows:
        raise MimoError(f"no sample can be used; {failed[0]}")
    _report(arguments, subject, rows, failed, interrupted)
    for failure in failed:
        LOG.error("left out: %s", failure)
    if interrupted:
        LOG.error("interrupted, the results are those of the samples that are done")
        return INTERRUPTED
    return LEFT_OUT if failed else 0


def _work(
    sets: Sequence[SampleSet], wanted: Sequence[str], limit: int | None
) -> Iterator[tuple[str, SampleSet, list[Sample]]]:
    """Abilities and sets with the samples that test them, at most so many of each kind."""
    for samples in sets:
        for ability in wanted:
            kinds: dict[str, list[Sample]] = {}
            for sample in samples.of(ability):
                kinds.setdefault(f"{sample.task} {sample.values.get('kind')}", []).append(sample)
            if chosen := [sample for found in kinds.values() for sample in found[:limit]]:
                yield ability, samples, chosen


def _judges(arguments: Namespace) -> Judges:
    """Those asked for; each is tried before anything long begins."""
    recognisers = {}
    for name in arguments.recogniser or ["whisper"]:
        recognisers[Path(name).name] = speech.load_evaluator("--recogniser", name)
    chosen = {option: getattr(arguments, option) for option in ("speaker", "quality")}
    found = {o: None if name == NONE else speech.load_evaluator(f"--{o}", name) for o, name in chosen.items()}
    return Judges(recognisers, found["speaker"], found["quality"])


def _exam(subject: model.MimoAudio, judges: Judges, arguments: Namespace, folder: str) -> Any:
    """`Exam.take` for samples whose answers are kept in a folder below OUT/sounds."""
    options = Options(
        seed=arguments.seed, temperature=arguments.temperature, audio_temperature=arguments.audio_temperature
    )

    def take(ability: str, sample: Sample, samples: SampleSet) -> list[tuple[str, Item]]:
        number = sample.name.rpartition(":")[2]

        def keep(name: str, wave: Tensor, rate: int) -> str:
            path = arguments.out / "sounds" / folder / f"{int(number):05d}-{name}.wav"
            audio.write(path, wave, rate, arguments.force)
            return str(path.relative_to(arguments.out))

        shots = tuple(sorted(set(arguments.shots)))
        return list(Exam(subject, judges, shots, options, keep).take(ability, sample, samples))

    return take


def score(rows: Rows, recognisers: Sequence[str]) -> dict[str, dict[str, Scores]]:
    """The scores of every row; of conversion those after right and wrong examples are one."""
    found: dict[str, dict[str, Scores]] = {}
    for ability, by_label in rows.items():
        scores = found.setdefault(ability, {})
        for label, items in by_label.items():
            if ability == "conversion":
                base, _, which = label.rpartition(" ")
                if which == "right":
                    wrong = by_label.get(f"{base} wrong", [])
                    scores[f"{base} shots"] = abilities.conversion_scores(items, wrong, recognisers)
            elif ability == "transcription":
                scores[label] = abilities.transcription_scores(items, recognisers)
            elif ability == "answering":
                scores[label] = abilities.answer_scores(items)
            else:
                scores[label] = abilities.speech_scores(items, recognisers)
    return found


def _report(arguments: Namespace, subject: model.MimoAudio, rows: Rows, failed: list[str], interrupted: bool) -> None:
    recognisers = [Path(name).name for name in arguments.recogniser or ["whisper"]]
    scores = score(rows, recognisers)
    for ability, found in scores.items():
        print(f"{ability}\n{abilities.table(ability, found, recognisers)}\n")
    parameters = [weight for _, weight in subject.language_model.named_parameters()]
    record = {
        "environment": environment(str(subject.audio_tokenizer.device)),
        "model": Path(arguments.model).name,
        "parameters": sum(weight.numel() for weight in parameters),
        "tokenizer_parameters": sum(weight.numel() for weight in subject.audio_tokenizer.parameters()),
        "dtype": str(parameters[0].dtype).removeprefix("torch."),
        "seed": arguments.seed,
        "temperature": arguments.temperature,
        "audio_temperature": arguments.audio_temperature,
        "recognisers": recognisers,
        "speaker": arguments.speaker,
        "quality": arguments.quality,
        "shots": sorted(set(arguments.shots)),
        "limit": arguments.limit,
        "held_out": arguments.held_out,
        "scores": scores,
        "items": rows,
        "failed": failed,
        "interrupted": interrupted,
    }
    out, force = arguments.out, arguments.force
    with atomic_output(out / "scores.json", force) as partial:
        partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with atomic_output(out / "scores.png", force) as partial:
        plot_abilities(partial, scores, recognisers[0])
    if "conversion" in scores:
        with atomic_output(out / "shots.png", force) as partial:
            plot_shots(partial, scores["conversion"])
