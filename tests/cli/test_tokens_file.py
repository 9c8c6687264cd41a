"""The token file as a library: exact round trip, and what tells tokenizers apart."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mimo_audio.errors import CodesError
from mimo_audio.files.tokens import Tokens, fingerprint, read_tokens, write_tokens

TOKENS = Tokens(
    codes=np.random.default_rng(0).integers(0, 128, (8, 100)),
    samples=95500,
    sample_rate=24000,
    frame_rate=25.0,
    codebook_sizes=(1024, 1024, *[128] * 6),
    fingerprint="0123456789abcdef",
    model="ünïcode name",
)


def test_round_trip(tmp_path: Path) -> None:
    write_tokens(tmp_path / "a.tokens", TOKENS)
    back = read_tokens(tmp_path / "a.tokens")
    assert np.array_equal(back.codes, TOKENS.codes)
    assert back.codes.dtype == np.uint16
    assert {**vars(back), "codes": None} == {**vars(TOKENS), "codes": None}


def test_size_is_that_of_the_codes(tmp_path: Path) -> None:
    write_tokens(tmp_path / "a.tokens", TOKENS)
    assert (tmp_path / "a.tokens").stat().st_size < 8 * 100 * 2 + 600


def test_fingerprint_sees_every_entry_and_shape() -> None:
    codebooks = [torch.randn(16, 4, generator=torch.Generator().manual_seed(0)) for _ in range(3)]
    first = fingerprint(codebooks)
    assert fingerprint([codebook.clone() for codebook in codebooks]) == first
    assert fingerprint(codebooks[:2]) != first
    assert fingerprint([codebooks[0].reshape(4, 16), *codebooks[1:]]) != first
    codebooks[2][-1, -1] += 0.1
    assert fingerprint(codebooks) != first


def test_fingerprint_survives_bfloat16() -> None:
    codebooks = [torch.randn(16, 4, generator=torch.Generator().manual_seed(0))]
    assert fingerprint([codebooks[0].bfloat16().float()]) == fingerprint(codebooks)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CodesError, match=r"nowhere\.tokens"):
        read_tokens(tmp_path / "nowhere.tokens")
