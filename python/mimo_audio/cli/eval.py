"""`mimo-audio eval`: how good a tokenizer is on sets of recordings."""

import json
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from tqdm import tqdm

from mimo_audio import audio
from mimo_audio.cli.codec import Codec, load
from mimo_audio.cli.roundtrip import reconstruct
from mimo_audio.errors import MimoError
from mimo_audio.evaluate import speech
from mimo_audio.evaluate.metrics import MEL_RATE
from mimo_audio.evaluate.plot import plot_scores, plot_usage, require_matplotlib
from mimo_audio.evaluate.report import COLUMNS, RoundTrip, aligned, mean_record, notes
from mimo_audio.files import atomic_output, check_output
from mimo_audio.recordings import Recording, list_recordings

SPEECH_COLUMNS = (
    ("WER original", "wer_original", "{:.3f}"),
    ("WER decoded", "wer_decoded", "{:.3f}"),
    ("speaker", "speaker_similarity", "{:.3f}"),
)


@dataclass
class Item:
    """A recording's round trip, and what the judges of speech made of both waves."""

    recording: Recording
    trip: RoundTrip
    codes: np.ndarray
    heard: tuple[str, str] | None = None  # in the original, in the resynthesis
    similarity: float | None = None

    def record(self) -> dict[str, Any]:
        record = self.trip.record() | {"text": self.recording.text, "speaker_similarity": self.similarity}
        return record | dict(zip(("heard_original", "heard_decoded"), self.heard or (None, None), strict=True))


def run(arguments: Namespace) -> int:
    """Evaluates every set, prints the table, writes records, pictures and sounds, and returns the exit status."""
    require_matplotlib()
    recogniser = arguments.recogniser and speech.load_judge("--recogniser", arguments.recogniser)
    speaker = arguments.speaker and speech.load_judge("--speaker", arguments.speaker)
    if recogniser:
        speech.require_jiwer()
    results = {name: arguments.out / name for name in ("scores.json", "scores.png", "usage.png")}
    for path in results.values():
        check_output(path, arguments.force)
    sets = _sets(arguments.input)
    codec = load(arguments)
    codec.warm_up()

    scores: dict[str, list[Item]] = {}
    for name, recordings in sets.items():
        chosen = recordings[: arguments.limit]
        scores[name] = []
        for number, recording in enumerate(tqdm(chosen, desc=name, unit="file", disable=None)):
            target = arguments.out / "sounds" / name / f"{number:05d}.wav"
            scores[name].append(_item(codec, recording, target, arguments.force, recogniser, speaker))
    means = {name: _mean(items) for name, items in scores.items()}
    usage = speech.codebook_usage(
        np.concatenate([item.codes for items in scores.values() for item in items], 1), codec.sizes
    )
    print(_table(means))
    print("perplexity of the codebooks:", ", ".join("{perplexity:.0f} of {size}".format(**row) for row in usage))

    record = {
        "model": codec.model,
        "dtype": codec.dtype,
        "n_q": codec.n_q or len(codec.sizes),
        "recogniser": arguments.recogniser,
        "speaker": arguments.speaker,
        "sets": {name: {"mean": means[name], "files": [i.record() for i in items]} for name, items in scores.items()},
        "codebooks": usage,
    }
    with atomic_output(results["scores.json"], arguments.force) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    with atomic_output(results["scores.png"], arguments.force) as partial:
        plot_scores(partial, {name: [item.trip for item in items] for name, items in scores.items()})
    with atomic_output(results["usage.png"], arguments.force) as partial:
        plot_usage(partial, usage)
    return 0


def _sets(sources: list[Path]) -> dict[str, list[Recording]]:
    """Recordings of every source under its folder's name. Raises MimoError if two have the same."""
    sets: dict[str, list[Recording]] = {}
    for source in sources:
        name = (source if source.is_dir() else source.parent).resolve().name
        if name in sets:
            raise MimoError(f"{source}: expected sets in folders of different names, got a second {name!r}")
        sets[name] = list_recordings(source)
    return sets


def _item(
    codec: Codec,
    recording: Recording,
    target: Path,
    force: bool,
    recogniser: speech.Judge | None,
    speaker: speech.Judge | None,
) -> Item:
    tokens = codec.encode(recording.path)
    item = Item(recording, reconstruct(codec, tokens, recording.path, target, force), tokens.codes)
    if recogniser or speaker:
        waves = [audio.read(path, MEL_RATE).numpy() for path in (recording.path, target)]
        if recogniser and recording.text:
            item.heard = tuple(recogniser(wave, MEL_RATE) for wave in waves)
        if speaker:
            item.similarity = speech.cosine(*(np.asarray(speaker(wave, MEL_RATE)) for wave in waves))
    return item


def _mean(items: list[Item]) -> dict[str, float | None]:
    judged = [(item.recording.text or "", *item.heard) for item in items if item.heard]
    similar = [item.similarity for item in items if item.similarity is not None]
    mean: dict[str, float | None] = {"seconds": sum(item.trip.seconds for item in items)}
    mean |= mean_record([item.trip for item in items])
    for place, name in ((1, "wer_original"), (2, "wer_decoded")):
        texts, heard = [row[0] for row in judged], [row[place] for row in judged]
        mean[name] = speech.word_error_rate(texts, heard) if judged else None
    return mean | {"speaker_similarity": fmean(similar) if similar else None}


def _table(means: dict[str, dict[str, float | None]]) -> str:
    return "\n".join([aligned([*COLUMNS, *SPEECH_COLUMNS], list(means.items())), *notes()])
