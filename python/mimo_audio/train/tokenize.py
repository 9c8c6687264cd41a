"""Recordings of manifests -> a token set: codes computed once, before training, in worker processes."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimo_audio.data.manifest import read_manifest, recordings
from mimo_audio.data.token_set import SetDescription, TokenSetWriter, digest
from mimo_audio.errors import AudioError, first_line
from mimo_audio.files import audio
from mimo_audio.files.tokens import fingerprint
from mimo_audio.progress import progress_bar
from mimo_audio.tokenizer import AudioTokenizer

CHUNK = 64  # recordings that a worker gets at once
BATCH_SECONDS = 60  # of sound that is encoded together
AHEAD = 3  # chunks per worker that wait for being written
Codes = NDArray[np.uint16]  # [C, T]
Results = tuple[dict[str, Codes], dict[str, str]]  # codes of those that could be read, and why the others could not
NOTHING: Results = ({}, {})  # rows of text alone need no recording


@dataclass(frozen=True)
class Summary:
    """What a run added, hours of all recordings that it encoded, and the files that it had to leave out, with why."""

    recordings: int
    rows: int
    hours: float
    failed: tuple[tuple[str, str], ...]


def describe(tokenizer: AudioTokenizer, model: str, codebooks: int) -> SetDescription:
    """The description of a set of the tokenizer's first `codebooks`. Raises AudioError if it has fewer."""
    config = tokenizer.config
    if not 1 <= codebooks <= len(config.codebook_size):
        raise AudioError(f"n_q: expected 1 to {len(config.codebook_size)} codebooks, got {codebooks}")
    mark = fingerprint(tokenizer.quantizer.embeddings(codebooks))
    return SetDescription(mark, model, tuple(config.codebook_size[:codebooks]), config.frame_rate)


def tokenize(
    manifests: Sequence[Path], out: Path, model: str, codebooks: int, device: str = "cpu", workers: int = 1
) -> Summary:
    """Adds the manifests' rows, and the codes of their recordings, to the set `out`, which is made if need be.

    What the set has already is passed over, so that the same call goes on where it was stopped. A row with a recording
    that cannot be read is left out. The codes are those of encoding each recording alone, whatever the workers. Raises
    MimoError.
    """
    tokenizer = AudioTokenizer.from_pretrained(model, device)
    description = describe(tokenizer, Path(model).resolve().name, codebooks)
    rows = [row for manifest in manifests for row in read_manifest(manifest)]
    with TokenSetWriter(out, description) as writer:
        before, frames = len(writer.records), writer.frames
        rows = [row for row in rows if digest(row) not in writer.ids]
        wanted = [
            name for name in dict.fromkeys(n for row in rows for n in recordings(row)) if name not in writer.records
        ]
        failed: dict[str, str] = {}
        chunks = [wanted[i : i + CHUNK] for i in range(0, len(wanted), CHUNK)]
        added = place = 0
        with progress_bar(total=len(wanted), unit="file", leave=False) as bar:
            for codes, wrong in chain([NOTHING], _encoded(chunks, tokenizer, codebooks, model, device, workers)):
                failed |= wrong
                writer.add_recordings(list(codes), list(codes.values()))
                first = place  # rows follow the order of their recordings
                while place < len(rows) and all(n in writer.records or n in failed for n in recordings(rows[place])):
                    place += 1
                added += writer.add_rows(row for row in rows[first:place] if not failed.keys() & recordings(row))
                hours = (writer.frames - frames) / description.frame_rate / 3600
                bar.update(len(codes) + len(wrong))
                bar.set_postfix_str(f"{hours:.2f} h, {hours * 3600 / max(bar.format_dict['elapsed'], 1e-9):.0f} h/h")
    return Summary(len(writer.records) - before, added, hours, tuple(failed.items()))


def _encoded(
    chunks: Sequence[Sequence[str]],
    tokenizer: AudioTokenizer,
    codebooks: int,
    model: str,
    device: str,
    workers: int,
) -> Iterator[Results]:
    """Results of every chunk, in order; in this process if there is one worker."""
    if workers == 1 or len(chunks) < 2:
        for chunk in chunks:
            yield encode_files(tokenizer, chunk, codebooks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), context, _start, (model, device, codebooks)) as pool:
        waiting: deque[Future[Results]] = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_work, chunk))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise AudioError("a worker process ended; is there enough memory? the set holds all before it") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[AudioTokenizer, int]


def _start(model: str, device: str, codebooks: int) -> None:
    """Makes this process a worker, which ends with its parent, even if that is killed."""
    global _worker
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    torch.set_num_threads(1)
    _worker = AudioTokenizer.from_pretrained(model, device), codebooks


def _work(names: Sequence[str]) -> Results:
    return encode_files(_worker[0], names, _worker[1])


def encode_files(tokenizer: AudioTokenizer, names: Sequence[str], codebooks: int) -> Results:
    """Codes uint16 [C, T] of audio files, each encoded alone, in batches of similar length."""
    rate = tokenizer.config.sampling_rate
    waves: dict[str, Tensor] = {}
    codes: dict[str, Codes] = {}
    failed: dict[str, str] = {}
    for name in names:
        try:
            wave = torch.cat(list(audio.read_blocks(name, rate)) or [torch.zeros(0)])
            waves[name] = audio.check_wave(wave)
        except AudioError as error:
            failed[name] = first_line(error)
    for batch in _batches(sorted(waves, key=lambda name: len(waves[name])), waves, BATCH_SECONDS * rate):
        try:
            found = tokenizer.encode_batch([waves[name] for name in batch], n_q=codebooks)
        except AudioError:  # one of them has sound that is no sound: each alone tells which
            for name in batch:
                try:
                    codes[name] = _narrow(tokenizer.encode(waves[name], n_q=codebooks))
                except AudioError as error:
                    failed[name] = first_line(error)
            continue
        codes |= {name: _narrow(item) for name, item in zip(batch, found, strict=True)}
    return {name: codes[name] for name in names if name in codes}, failed


def _narrow(codes: Tensor) -> Codes:
    return codes.cpu().numpy().astype(np.uint16)


def _batches(names: Sequence[str], waves: dict[str, Tensor], samples: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for name in names:
        if batch and sum(len(waves[other]) for other in batch) + len(waves[name]) > samples:
            yield batch
            batch = []
        batch.append(name)
    if batch:
        yield batch
