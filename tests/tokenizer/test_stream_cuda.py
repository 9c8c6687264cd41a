"""Streams on a GPU: the CPU's sound, the same bits for any chunks, and steps captured in a CUDA graph."""

import copy

import pytest
import torch
from torch.testing import assert_close

from mimo_audio.tokenizer.streaming import StreamDecoder, StreamEncoder
from mimo_audio.tokenizer.streaming.prior import speech_statistics

pytestmark = pytest.mark.cuda


def on_gpu(tokenizer):
    return copy.deepcopy(tokenizer).to("cuda")


def whole(stream, chunks):
    return torch.cat([*map(stream.push, chunks), stream.finish()])


def test_sounds_as_on_the_cpu(golden):
    codes = golden.arrays("decode")["stream_small.codes"]
    tokenizer = on_gpu(golden.tokenizer)
    # One prior for both: random weights have near ties, and a code that flips in its clips moves the norms' statistics.
    prior = speech_statistics(golden.tokenizer)
    expected = whole(StreamDecoder(golden.tokenizer, n_q=8, prior=prior), [codes])
    wave = whole(StreamDecoder(tokenizer, n_q=8, prior=prior), [codes.cuda()])
    assert_close(wave.cpu(), expected, atol=5e-5, rtol=0)
    assert torch.equal(whole(StreamDecoder(tokenizer, n_q=8, prior=prior), codes.cuda().split(1, 1)), wave)


def test_codes_do_not_depend_on_the_chunks(golden):
    clip, tokenizer = golden.clips()[0], on_gpu(golden.tokenizer)
    codes = [
        torch.cat([*map(stream.push, clip["wav"].split(size)), stream.finish()], 1)
        for size in (700, 10_000)
        for stream in [StreamEncoder(tokenizer)]
    ]
    assert torch.equal(*codes)


def test_a_captured_step_is_the_step(golden):
    tokenizer = on_gpu(golden.tokenizer)
    codes = golden.arrays("decode")["stream_small.codes"].long().cuda()
    eager = StreamDecoder(tokenizer, batch=2, n_q=8)
    captured = eager.copy()
    chunk, active = torch.zeros(8, 2, 1, dtype=torch.int64, device="cuda"), torch.tensor([True, True], device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # plans and workspaces are made before the capture, on a state of its own
        eager.pipeline.step(chunk, active, eager.copy().state)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        wave = captured.pipeline.step(chunk, active, captured.state)
    captured.state.reset()
    for frame in range(20):
        chunk.copy_(codes[:, frame : frame + 1, None].expand(-1, 2, -1))
        graph.replay()
        assert torch.equal(wave, eager.pipeline.step(chunk, active, eager.state))
