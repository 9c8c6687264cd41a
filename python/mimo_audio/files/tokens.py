"""The .tokens file: the codes of one recording and what is needed to decode them, in a safetensors container.

Tensor "codes": uint16 [n_q, T], codebook by frame. Metadata (all strings, as safetensors wants): format
"mimo-audio-tokens", format_version, sample_rate (Hz), frame_rate (Hz), samples (length of the recording at sample_rate:
decoding trims to it), codebook_sizes (of all codebooks of the tokenizer, comma-separated), fingerprint (of those
codebooks), model (a name for people). Nothing in it is executed, and everything is checked before it is used.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from mimo_audio.errors import CodesError
from mimo_audio.files.output import atomic_output

FORMAT = "mimo-audio-tokens"
FORMAT_VERSION = "1"


@dataclass(frozen=True, eq=False)
class Tokens:
    """The codes [n_q, T] of one recording of `samples` samples at `sample_rate`, and whose codes they are."""

    codes: NDArray[np.integer]
    samples: int
    sample_rate: int
    frame_rate: float
    codebook_sizes: tuple[int, ...]
    fingerprint: str
    model: str


def fingerprint(codebooks: Sequence[Tensor]) -> str:
    """16 hexadecimal digits that tell tokenizers apart, of codebooks R x [K, D].

    The entries are rounded to bfloat16 first, so that a checkpoint stored in that precision counts as the same one.
    """
    digest = hashlib.sha256()
    for codebook in codebooks:
        digest.update(f"{tuple(codebook.shape)}".encode())
        digest.update(codebook.detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def write_tokens(path: Path, tokens: Tokens, force: bool = False) -> None:
    """Writes a .tokens file, whole or not at all. Raises OutputError."""
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "sample_rate": str(tokens.sample_rate),
        "frame_rate": str(tokens.frame_rate),
        "samples": str(tokens.samples),
        "codebook_sizes": ",".join(map(str, tokens.codebook_sizes)),
        "fingerprint": tokens.fingerprint,
        "model": tokens.model,
    }
    with atomic_output(path, force) as partial:
        partial.write_bytes(save({"codes": np.ascontiguousarray(tokens.codes, np.uint16)}, metadata))


def read_tokens(path: Path) -> Tokens:
    """Reads a .tokens file. Raises CodesError, in one line, if it is not one, is damaged or contradicts itself."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CodesError(f"{path}: not a token file (a safetensors file without format = {FORMAT})")
            version = metadata.get("format_version")
            if version != FORMAT_VERSION:
                raise CodesError(f"{path}: token file of format version {version}, expected {FORMAT_VERSION}")
            kind = file.get_slice("codes").get_dtype()
            if kind != "U16":
                raise CodesError(f"{path}: damaged token file, codes must be uint16 [n_q, T], got {kind}")
            codes = file.get_tensor("codes")
    except OSError as error:
        raise CodesError(f"{path}: cannot read the token file, {error.strerror or error}") from error
    except SafetensorError as error:
        raise CodesError(f"{path}: not a token file, or a truncated one ({error})") from error
    try:
        tokens = Tokens(
            codes=codes,
            samples=int(metadata["samples"]),
            sample_rate=int(metadata["sample_rate"]),
            frame_rate=float(metadata["frame_rate"]),
            codebook_sizes=tuple(int(size) for size in metadata["codebook_sizes"].split(",")),
            fingerprint=metadata["fingerprint"],
            model=metadata["model"][:100],
        )
        problem = _contradiction(tokens)
    except (KeyError, ValueError, OverflowError) as error:
        raise CodesError(f"{path}: damaged token file, metadata: {error!r}") from error
    if problem:
        raise CodesError(f"{path}: damaged token file, {problem}")
    return tokens


def _contradiction(tokens: Tokens) -> str | None:
    """What in a file's codes and metadata cannot be true together, in words."""
    codes, sizes = tokens.codes, tokens.codebook_sizes
    if codes.ndim != 2:
        return f"codes must be uint16 [n_q, T], got {list(codes.shape)}"
    if not re.fullmatch("[0-9a-f]{16}", tokens.fingerprint):
        return f"the fingerprint must be 16 hexadecimal digits, got {tokens.fingerprint[:16]!r}"
    if not 1 <= len(codes) <= len(sizes):
        return f"expected codes of 1 to {len(sizes)} codebooks, got {len(codes)}"
    if tokens.sample_rate <= 0 or not 0 < tokens.frame_rate <= tokens.sample_rate:
        return f"sample rate {tokens.sample_rate} Hz and frame rate {tokens.frame_rate} Hz"
    frames = tokens.samples * tokens.frame_rate / tokens.sample_rate
    if tokens.samples < 1 or abs(frames - codes.shape[1]) > 2:
        return f"{tokens.samples} samples are {frames:.1f} frames, got {codes.shape[1]}"
    for level, (row, size) in enumerate(zip(codes, sizes, strict=False)):
        if row.max() >= size:
            return f"codebook {level}: expected codes below {size}, got {row.max()}"
    return None
