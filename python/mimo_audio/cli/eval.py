"""`mimo-audio eval tokenizer`: how good a tokenizer, and other codecs beside it, are on sets of recordings."""

import json
import logging
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from mimo_audio.cli import eval_speech
from mimo_audio.cli.codec import Codec, load, read_blocks
from mimo_audio.cli.evaluation_sets import folder_names
from mimo_audio.cli.roundtrip import reconstruct, reconstruct_by_peer
from mimo_audio.errors import AudioError, MimoError, one_line
from mimo_audio.evaluate import speech
from mimo_audio.evaluate.environment import environment
from mimo_audio.evaluate.metrics import MEL_RATE, bitrate
from mimo_audio.evaluate.peers import Peer, load_peer
from mimo_audio.evaluate.plot import plot_scores, plot_usage, require_matplotlib
from mimo_audio.evaluate.report import COLUMNS, RoundTrip, aligned, mean_record, notes
from mimo_audio.evaluate.word_errors import Transcripts, require_jiwer, word_error_rates
from mimo_audio.files import audio
from mimo_audio.files.output import OutputError, atomic_output, check_output
from mimo_audio.files.recordings import Recording, list_recordings
from mimo_audio.progress import progress_bar

LOG = logging.getLogger(__name__)
SPEECH_COLUMNS = (
    ("words", "words", "{}"),
    ("WER original", "wer_original", "{:.3f}"),
    ("WER decoded", "wer_decoded", "{:.3f}"),
    ("difference [95%]", "wer_difference_shown", "{}"),
    ("speaker", "speaker_similarity", "{:.3f}"),
)
LEFT_OUT, INTERRUPTED = 1, 130
SHORTEST_SECONDS = 0.25  # PESQ is not defined below
SILENCE = 1e-4  # of full scale: three steps of a 16-bit file


@dataclass
class Item:
    """A recording's round trip through one codec, and what the evaluators of speech made of both waves."""

    text: str | None
    trip: RoundTrip
    codes: np.ndarray | None  # of ours
    transcripts: Transcripts | None
    similarity: float | None

    def record(self) -> dict[str, Any]:
        found = (self.transcripts.original, self.transcripts.decoded) if self.transcripts else (None, None)
        record = self.trip.record() | {"text": self.text, "speaker_similarity": self.similarity}
        return record | dict(zip(("transcript_original", "transcript_decoded"), found, strict=True))


@dataclass
class Evaluation:
    """The codecs and the evaluators; and what they gave so far, by rows: a set's name, and SET/PEER."""

    codec: Codec
    peers: list[Peer]
    recogniser: speech.Evaluator | None
    speaker: speech.Evaluator | None
    out: Path
    force: bool
    rows: dict[str, list[Item]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def evaluate(self, name: str, recordings: list[Recording]) -> None:
        """Adds a set. A recording that one of the codecs or evaluators cannot use is left out of all their rows."""
        labels = [name, *(f"{name}/{peer.name}" for peer in self.peers)]
        self.rows |= {label: [] for label in labels}
        for number, recording in enumerate(progress_bar(recordings, desc=name, unit="file")):
            targets = [self.out / "sounds" / label / f"{number:05d}.wav" for label in labels]
            try:
                items = list(self._items(recording, targets))
            except OutputError:
                raise
            except MimoError as error:
                message = str(error) if str(recording.path) in str(error) else f"{recording.path}: {error}"
                self.failed.append(one_line(message))
                continue
            for label, item in zip(labels, items, strict=True):
                self.rows[label].append(item)

    def _items(self, recording: Recording, targets: list[Path]) -> Iterator[Item]:
        """The recording by every codec, ours first."""
        source = recording.path
        _check_audible(source)
        original = self._evaluated(recording, source)
        for peer, target in zip([None, *self.peers], targets, strict=True):
            codes = None
            if peer:
                trip = reconstruct_by_peer(peer, source, target, self.force)
            else:
                tokens = self.codec.encode(source)
                trip, codes = reconstruct(self.codec, tokens, source, target, self.force), tokens.codes
            decoded = self._evaluated(recording, target)
            spoken = original[0] is not None
            transcripts = Transcripts(recording.text or "", original[0], decoded[0]) if spoken else None
            similarity = speech.cosine(original[1], decoded[1]) if self.speaker else None
            yield Item(recording.text, trip, codes, transcripts, similarity)

    def _evaluated(self, recording: Recording, path: Path) -> tuple[Any, Any]:
        """A file's transcript and its speaker's embedding; None without the evaluator, or a text to compare with."""
        listen = self.recogniser if recording.text else None
        if not (listen or self.speaker):
            return None, None
        wave = audio.read(path, MEL_RATE).numpy()
        transcript = listen and speech.ask("--recogniser", listen, wave, MEL_RATE)
        return transcript, self.speaker and np.asarray(speech.ask("--speaker", self.speaker, wave, MEL_RATE))


def run(arguments: Namespace) -> int:
    """Evaluates every set, prints the table, writes records, pictures and sounds, and returns the exit status."""
    if arguments.subject == "speech":
        return eval_speech.run(arguments)
    require_matplotlib()
    recogniser = arguments.recogniser and speech.load_evaluator("--recogniser", arguments.recogniser)
    speaker = arguments.speaker and speech.load_evaluator("--speaker", arguments.speaker)
    if recogniser:
        require_jiwer()
    for name in ("scores.json", "scores.png", "usage.png"):
        check_output(arguments.out / name, arguments.force)
    sets = _sets(arguments.input, arguments.held_out)
    codec = load(arguments)
    codec.warm_up()
    kbit_per_s = bitrate(codec.sizes[: codec.n_q], codec.frame_rate)
    peers = [load_peer(option, kbit_per_s, codec.tokenizer.device) for option in arguments.peer]
    if len({peer.name for peer in peers}) < len(peers):
        raise MimoError(f"--peer: expected every codec once, got {', '.join(arguments.peer)}")

    evaluation = Evaluation(codec, peers, recogniser, speaker, arguments.out, arguments.force)
    interrupted = False
    try:
        for name, recordings in sets.items():
            evaluation.evaluate(name, recordings[: arguments.limit])
    except KeyboardInterrupt:
        interrupted = True
    scored = sum(len(evaluation.rows.get(name, ())) for name in sets)
    if not scored and interrupted:
        raise KeyboardInterrupt
    if not scored:
        raise AudioError(f"no recording can be scored; {evaluation.failed[0]}")
    _report(evaluation, arguments, interrupted)
    for failure in evaluation.failed:
        LOG.error("left out: %s", failure)
    if interrupted:
        LOG.error("interrupted, the results are those of the first %d recordings", scored)
        return INTERRUPTED
    return LEFT_OUT if evaluation.failed else 0


def _report(evaluation: Evaluation, arguments: Namespace, interrupted: bool) -> None:
    """Prints the table, writes scores.json and the pictures."""
    codec, rows = evaluation.codec, {label: items for label, items in evaluation.rows.items() if items}
    means = {label: _mean(items) for label, items in rows.items()}
    codes = [item.codes for items in rows.values() for item in items if item.codes is not None]
    usage = speech.codebook_usage(np.concatenate(codes, 1), codec.sizes)
    print(_table(means))
    print("perplexity of the codebooks:", ", ".join("{perplexity:.0f} of {size}".format(**row) for row in usage))

    record = {
        "environment": environment(str(codec.tokenizer.device)),
        "model": codec.model,
        "dtype": codec.dtype,
        "n_q": codec.n_q or len(codec.sizes),
        "recogniser": arguments.recogniser,
        "speaker": arguments.speaker,
        "peers": [
            {"name": peer.name, "kbit_per_s": peer.kbit_per_s, "n_q": peer.codebooks} for peer in evaluation.peers
        ],
        "sets": {label: {"mean": means[label], "files": [i.record() for i in items]} for label, items in rows.items()},
        "failed": evaluation.failed,
        "interrupted": interrupted,
        "codebooks": usage,
    }
    out, force = arguments.out, arguments.force
    with atomic_output(out / "scores.json", force) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    with atomic_output(out / "scores.png", force) as partial:
        plot_scores(partial, {label: [item.trip for item in items] for label, items in rows.items()})
    with atomic_output(out / "usage.png", force) as partial:
        plot_usage(partial, usage)


def _sets(sources: list[Path], held_out: bool = False) -> dict[str, list[Recording]]:
    """Recordings of every source under its folder's name. Raises MimoError."""
    return {
        name: list_recordings(source, held_out) for name, source in zip(folder_names(sources), sources, strict=True)
    }


def _check_audible(path: Path) -> None:
    """Raises AudioError for a recording that cannot be read, or has nothing to score."""
    samples, peak = 0, 0.0
    for block in read_blocks(path, MEL_RATE):
        samples += len(block)
        peak = max(peak, float(block.abs().max())) if len(block) else peak
    if samples < SHORTEST_SECONDS * MEL_RATE:
        raise AudioError(f"{path}: expected at least {SHORTEST_SECONDS} s, got {samples / MEL_RATE:.3f} s")
    if peak < SILENCE:
        raise AudioError(f"{path}: expected sound, got silence")


def _mean(items: list[Item]) -> dict[str, Any]:
    similar = [item.similarity for item in items if item.similarity is not None]
    mean: dict[str, Any] = {"seconds": sum(item.trip.seconds for item in items)}
    mean |= mean_record([item.trip for item in items])
    mean |= word_error_rates([item.transcripts for item in items if item.transcripts])
    return mean | {"speaker_similarity": fmean(similar) if similar else None}


def _table(means: dict[str, dict[str, Any]]) -> str:
    shown = [(label, mean | {"wer_difference_shown": _difference(mean)}) for label, mean in means.items()]
    return "\n".join([aligned([*COLUMNS, *SPEECH_COLUMNS], shown), *notes()])


def _difference(mean: dict[str, Any]) -> str | None:
    if mean["wer_difference_95"] is None:
        return None
    low, high = mean["wer_difference_95"]
    return f"{mean['wer_difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
