"""The published streaming decode, call by call."""

import re

import pytest
import torch
from torch.testing import assert_close

from mimo_audio.errors import CodesError, StreamError
from mimo_audio.tokenizer.streaming import RedecodingDecoder


def golden_call(arrays, case, call, row, every):
    """The golden wave of a call, the step between its samples, or None where the set lacks it."""
    for name, wave in arrays.items():
        if match := re.fullmatch(rf"{case}\.call{call}\.b{row}(?:_every(\d+))?", name):
            return wave, int(match[1] or every)
    return None


def test_published_calls(golden):
    arrays, compared = golden.arrays("decode"), 0
    for case, settings in golden.info["streaming"].items():
        calls = settings["calls"]
        totals = [sum(call["chunk"][row] for call in calls) for row in range(len(calls[0]["chunk"]))]
        row = totals.index(max(totals))  # in published batches padding leaks into every row but the longest
        codes = arrays.get(f"{case}.codes", arrays.get(f"{case}.codes{row}"))
        overlap = settings["config"]
        stream = RedecodingDecoder(golden.tokenizer, overlap["left_overlap"], overlap["right_overlap"])
        for number, call in enumerate(calls):
            chunk, codes = codes[:, : call["chunk"][row]], codes[:, call["chunk"][row] :]
            wave = stream.push(chunk, call["last"])
            assert len(wave) == (call["out"][row] or 0)
            if found := golden_call(arrays, case, number, row, settings["stored_every_nth_sample"]):
                expected, every = found
                assert_close(wave[::every], expected, atol=5e-5, rtol=0)
                compared += 1
    assert compared >= 6


def test_bad_chunks_leave_the_stream_as_it_was(make_tokenizer):
    tokenizer = make_tokenizer()
    codes = torch.randint(0, 8, (4, 30))
    stream, other = RedecodingDecoder(tokenizer, 12, 4), RedecodingDecoder(tokenizer, 12, 4)
    assert torch.equal(stream.push(codes[:, :10]), other.push(codes[:, :10]))
    with pytest.raises(CodesError, match="codebook 0, got 99"):
        stream.push(torch.full((4, 3), 99))
    with pytest.raises(StreamError, match="expected 4 codebooks as before, got 3"):
        stream.push(codes[:3])
    assert torch.equal(stream.push(codes[:, 10:], last=True), other.push(codes[:, 10:], last=True))
    with pytest.raises(StreamError, match="finished"):
        stream.push(codes)


def test_what_is_held_back_must_be_kept(make_tokenizer):
    with pytest.raises(StreamError, match=r"right: expected 0 \.\. 39 \(less than left\), got 40"):
        RedecodingDecoder(make_tokenizer(), 40, 40)
