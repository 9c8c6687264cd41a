"""The cached decoder: offline decoding but for the statistics of its norms, and the same however it is fed."""

import copy
from dataclasses import replace
from importlib.resources import files

import pytest
import soundfile
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from mimo_audio.errors import CodesError, StreamError
from mimo_audio.tokenizer.streaming import StreamDecoder
from mimo_audio.tokenizer.streaming.prior import speech_statistics, statistics


def random_codes(frames, codebooks=4):
    return torch.randint(0, 8, (codebooks, frames))


def offline_statistics(tokenizer, codes):
    """The statistics of the whole sequence, and so firmly that no frame changes them."""
    return [replace(one, frames=1e12) for one in statistics(tokenizer, [codes])]


def whole(stream, codes):
    return torch.cat([stream.push(codes), stream.finish()])


@pytest.mark.parametrize("step", [1, 3, 4])
@pytest.mark.parametrize("look_ahead", [None, 9])
def test_equals_offline_decoding_given_its_statistics(golden, step, look_ahead):
    codes = golden.arrays("decode")["stream_small.codes"]
    prior = offline_statistics(golden.tokenizer, codes)
    wave = whole(StreamDecoder(golden.tokenizer, 1, look_ahead, len(codes), step, prior=prior), codes)
    assert_close(wave, golden.tokenizer.decode(codes), atol=5e-5, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"avg_pooler": 1},
        {"decoder_kernel_size": 5, "avg_pooler": 3},
        {"ln_type": "RMSNorm", "vocoder_phase_advance": True},
        {"decoder_attn_window_size": (5, 0), "vocoder_attn_window_size": (3, 0)},
        {"nfft": 600, "window_size": 600},
        {"decoder_kernel_size": 2},
    ],
)
@pytest.mark.parametrize("frames", [1, 2, 37])
def test_every_shape_of_model(make_tokenizer, changes, frames):
    tokenizer, codes = make_tokenizer(**changes), random_codes(frames)
    stream = StreamDecoder(tokenizer, step=2, prior=offline_statistics(tokenizer, codes))
    assert_close(whole(stream, codes), tokenizer.decode(codes), atol=5e-5, rtol=0)


def test_bfloat16_is_as_close_as_offline(make_tokenizer):
    tokenizer, codes = make_tokenizer(), random_codes(30)
    prior = offline_statistics(tokenizer, codes)
    exact = tokenizer.decode(codes)
    tokenizer.to(torch.bfloat16)
    error = (whole(StreamDecoder(tokenizer, prior=prior), codes) - exact).square().mean()
    assert error < 2 * (tokenizer.decode(codes) - exact).square().mean()


@pytest.mark.parametrize(("step", "look_ahead"), [(1, None), (1, 0), (4, 1), (3, 12)])
def test_chunks_do_not_matter(make_tokenizer, step, look_ahead):
    tokenizer, codes = make_tokenizer(), random_codes(45)
    with StreamDecoder(tokenizer, look_ahead=look_ahead, step=step) as stream:
        one_by_one = [stream.push(chunk) for chunk in codes.split(1, 1)] + [stream.finish()]
    expected = torch.cat(one_by_one)
    assert len(expected) == 45 * 960
    assert expected.isfinite().all()
    for sizes in ([45], [7, 31, 2, 5], [44, 1]):
        with StreamDecoder(tokenizer, look_ahead=look_ahead, step=step) as stream:
            waves = [stream.push(chunk) for chunk in codes.split(sizes, 1)] + [stream.finish()]
        assert torch.equal(torch.cat(waves), expected)


def test_sound_comes_as_early_as_promised(make_tokenizer):
    tokenizer = make_tokenizer()
    for look_ahead in (0, 1, None, 5):
        stream = StreamDecoder(tokenizer, look_ahead=look_ahead)
        given = torch.tensor([len(stream.push(chunk)) for chunk in random_codes(12).split(1, 1)]).cumsum(0)
        assert torch.equal(given, (torch.arange(1, 13) * 960 - stream.delay).clamp(min=0))
    assert [StreamDecoder(tokenizer, look_ahead=n).delay for n in (0, 1, None, 5)] == [360, 1320, 1320, 5160]


def test_a_stream_does_not_notice_the_others(make_tokenizer):
    tokenizer, codes, other = make_tokenizer(), random_codes(20), random_codes(33)
    quiet = StreamDecoder(tokenizer, batch=3, look_ahead=1)
    expected = [quiet.push([None, codes, None])[1], quiet.finish(1)]
    busy = StreamDecoder(tokenizer, batch=3, look_ahead=1)
    busy.push([other[:, :5], None, None])
    waves = [busy.push([other[:, 5:6], codes[:, :3], other])[1], busy.push([None, codes[:, 3:17], None])[1]]
    busy.finish(0)
    busy.reset(0)
    waves += [busy.push([other, codes[:, 17:], None])[1], busy.finish(1)]
    assert torch.equal(torch.cat(waves), torch.cat(expected))
    alone = whole(StreamDecoder(tokenizer, look_ahead=1), other)
    # A batch equals single streams but for rounding.
    fresh = StreamDecoder(tokenizer, batch=2, look_ahead=1)
    both = [torch.cat(pieces) for pieces in zip(fresh.push([other, codes]), fresh.finish(), strict=True)]
    assert_close(both[0], alone, atol=1e-5, rtol=0)


def test_copies_and_resets(make_tokenizer):
    tokenizer, codes = make_tokenizer(), random_codes(30)
    expected = whole(StreamDecoder(tokenizer, batch=1), codes)
    stream = StreamDecoder(tokenizer, batch=2)
    start = stream.push([codes[:, :11], random_codes(4)])[0]
    twin = stream.copy()
    stream.copy_row(0, 1)
    rest = stream.push([codes[:, 11:]] * 2)
    assert torch.equal(torch.cat([start, rest[0], stream.finish(0)]), torch.cat([start, rest[1], stream.finish(1)]))
    assert_close(torch.cat([start, rest[0]]), expected[: len(start) + len(rest[0])], atol=1e-5, rtol=0)
    assert torch.equal(twin.push([codes[:, 11:], None])[0], rest[0])
    first = stream.state["decoder.cache"].clone()
    stream.reset()
    assert first.abs().sum() > 0
    assert stream.state["decoder.cache"].abs().sum() == 0
    again = stream.push([codes[:, :11], None])[0]
    assert torch.equal(again, start)


def test_memory_is_flat(make_tokenizer):
    tokenizer = make_tokenizer()
    stream = StreamDecoder(tokenizer, batch=2, step=25, context=30)

    def memory():
        rows = sum(row.pending.untyped_storage().nbytes() for row in stream._rows)
        tensors = stream.state._tensors
        return stream.state.nbytes, rows, [tensor.data_ptr() for tensor in tensors.values()]

    stream.push([random_codes(25)] * 2)
    before = memory()
    for _ in range(100):
        stream.push([random_codes(25)] * 2)
    assert memory() == before


def test_hour_ten_is_as_exact_as_second_one(make_tokenizer):
    """The same codes at another time give the same sound, once what was rotated for the old time is forgotten."""
    tokenizer = make_tokenizer()
    prior = offline_statistics(tokenizer, random_codes(50))
    stream = StreamDecoder(tokenizer, context=5, prior=prior)
    late = stream.copy()
    period = stream.pipeline.decoder.ring * stream.pipeline.vocoder.ring
    late.state["clock"].add_(period * (900_000 // period))
    codes = random_codes(60)
    for one in (stream, late):
        one.push(codes[:, :30])
    assert_close(late.push(codes[:, 30:]), stream.push(codes[:, 30:]), atol=1e-5, rtol=0)


def test_old_statistics_are_forgotten(make_tokenizer):
    tokenizer = make_tokenizer()
    stream = StreamDecoder(tokenizer, step=50, context=10)
    for _ in range(30):
        stream.push(random_codes(50))
    count = stream.state["dconv2.sums"][0, 0].item() / (2 * 2 * tokenizer.config.n_mels)
    assert 0.6 * 1500 < count < 0.66 * 1500  # 1 - 1 / e of the frames that the memory spans


class Questions(TorchDispatchMode):
    """Notes operations whose result or shape depends on data: a CUDA graph cannot hold them."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket._qualified_op_name in {
            "aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::masked_select",
        }:  # fmt: skip
            self.asked.append(func)
        return func(*args, **(kwargs or {}))


def test_a_step_asks_the_device_nothing(make_tokenizer):
    stream = StreamDecoder(make_tokenizer(), batch=2)
    with Questions() as questions:
        stream.pipeline.step(torch.zeros(4, 2, 1, dtype=torch.int64), torch.tensor([True, False]), stream.state)
    assert not questions.asked


def test_bad_chunks_leave_all_streams_as_they_were(make_tokenizer):
    tokenizer, codes = make_tokenizer(), random_codes(10)
    stream, calm = (StreamDecoder(tokenizer, batch=2) for _ in range(2))
    for one in (stream, calm):
        one.push([codes, codes])
        one.finish(1)
    bad = torch.full((4, 2), 3)
    bad[1, 1] = 8
    for chunks, error, message in (
        ([bad, None], CodesError, r"stream 0: codes: expected 0 \.\. 7 in codebook 1, got 8"),
        ([codes[:3], None], CodesError, r"stream 0: codes: expected 4 codebooks, got shape \[3, 10\]"),
        ([codes[0], None], CodesError, r"stream 0: codes: expected \[codebooks, frames\]"),
        ([codes[:3, :0], None], CodesError, r"stream 0: codes: expected 4 codebooks, got shape \[3, 0\]"),
        ([codes.float(), None], CodesError, "integer tensor"),
        ([codes, codes], StreamError, "stream 1: finished"),
        ([codes], StreamError, "expected one chunk for each of 2 streams, got 1"),
        (codes, StreamError, "expected one chunk for each of 2 streams, got 4"),
        (None, StreamError, "expected chunks for 2 streams, got NoneType"),
    ):
        with pytest.raises(error, match=message):
            stream.push(chunks)
    with pytest.raises(StreamError, match="stream 1: finished already"):
        stream.finish(1)
    with pytest.raises(StreamError, match=r"row: expected 0 \.\. 1, got 2"):
        stream.reset(2)
    assert torch.equal(stream.push([codes, None])[0], calm.push([codes, None])[0])


def test_a_closed_stream_is_closed(make_tokenizer):
    with StreamDecoder(make_tokenizer()) as stream:
        stream.push(random_codes(2))
    assert stream.state.nbytes == 0
    for use in (lambda: stream.push(random_codes(2)), stream.finish, stream.reset, stream.copy):
        with pytest.raises(StreamError, match="closed"):
            use()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch: expected an integer from 1, got 0"),
        ({"look_ahead": -1}, "look_ahead: expected an integer from 0 to 1500 or None, got -1"),
        ({"n_q": 5}, "n_q: expected an integer from 1 to 4 or None, got 5"),
        ({"step": 1.5}, "step: expected an integer from 1, got 1.5"),
        ({"context": True}, "context: expected an integer from 1, got True"),
    ],
)
def test_bad_settings(make_tokenizer, settings, message):
    with pytest.raises(StreamError, match=message):
        StreamDecoder(make_tokenizer(), **settings)


def test_models_that_cannot_stream(make_tokenizer):
    with pytest.raises(StreamError, match="causal decoder"):
        StreamDecoder(make_tokenizer(decoder_causal=False))
    unlimited = make_tokenizer(vocoder_attn_window_size=(6, -1))
    with pytest.raises(StreamError, match="look_ahead: expected a number"):
        StreamDecoder(unlimited)
    assert StreamDecoder(unlimited, look_ahead=2).delay == 8 * 240 + 360


def test_a_stream_starts_from_the_statistics_of_the_shipped_clips(make_tokenizer):
    """Their mean over the clips, again by convolutions in float64; they count as two code frames of rows."""
    tokenizer = make_tokenizer()
    decoder = tokenizer.decoder
    inputs: list[list[torch.Tensor]] = [[], []]
    for name in ("sentence.wav", "digits.wav"):
        with (files("mimo_audio") / "assets" / name).open("rb") as file:
            wave, rate = soundfile.read(file, dtype="float32")
        x = tokenizer.dequantize(tokenizer.encode(torch.from_numpy(wave), rate))
        for found, up in zip(inputs, (decoder.dconv1, decoder.dconv2), strict=True):
            with torch.no_grad():
                y = torch.nn.functional.conv_transpose1d(x.T[None], up.conv.weight, up.conv.bias, up.conv.stride)
                found.append(y.double())
                if up is decoder.dconv1:
                    x = up.norm(y.mT)[0, : len(x) * 2]
                    layout = decoder.layout([len(x)], x.device)
                    for layer in decoder.layers:
                        x = layer(x, layout)
                    x = decoder.layer_norm(x)
    prior = speech_statistics(tokenizer)
    for one, found in zip(prior, inputs, strict=True):
        assert one.mean == pytest.approx(sum(float(y.mean()) for y in found) / 2, rel=1e-3, abs=1e-6)
        assert one.variance == pytest.approx(sum(float(y.var(correction=0)) for y in found) / 2, rel=1e-3)
        assert one.frames == 2
    sums = StreamDecoder(tokenizer).state["dconv2.sums"][0].tolist()
    count = 2 * 4 * 20  # code frames, rows of each, channels
    mean, variance = prior[1].mean, prior[1].variance
    assert sums == pytest.approx([count, count * mean, count * (variance + mean**2)])
    first = StreamDecoder(tokenizer).push(random_codes(3))
    other = StreamDecoder(tokenizer, prior=[replace(one, frames=1e-9) for one in prior]).push(random_codes(3))
    assert not torch.allclose(first, other, atol=1e-3)


def test_what_a_last_step_lacks_does_not_count(make_tokenizer):
    """Five frames in steps of four: the norms have seen rows of five, not of eight."""
    tokenizer = make_tokenizer()
    stream = StreamDecoder(tokenizer, step=4, prior=[replace(p, frames=1e-9) for p in speech_statistics(tokenizer)])
    whole(stream, random_codes(5))
    for name, rows, channels in (("dconv1", 2, 16), ("dconv2", 4, 20)):
        assert stream.state[f"{name}.sums"][0, 0] == pytest.approx(5 * rows * channels, rel=0.02)


def test_statistics_follow_the_weights(make_tokenizer):
    tokenizer = make_tokenizer()
    before = speech_statistics(tokenizer)
    assert speech_statistics(tokenizer) is before
    with torch.no_grad():
        tokenizer.decoder.dconv2.conv.weight *= 2
    assert speech_statistics(tokenizer)[1].variance > 3 * before[1].variance


@pytest.mark.parametrize("batch", [1, 2])
def test_reset_is_a_fresh_start(make_tokenizer, batch):
    tokenizer = make_tokenizer()
    codes = random_codes(40, 2)
    fresh = StreamDecoder(tokenizer, batch=batch, n_q=2).push([codes] * batch)
    used = StreamDecoder(tokenizer, batch=batch, n_q=2)
    used.push([codes.flip(1)[:, :7]] * batch)
    twin = used.copy()
    for stream in (used, twin):
        stream.reset()
        assert all(torch.equal(a, b) for a, b in zip(stream.push([codes] * batch), fresh, strict=True))


def test_empty_chunks_change_nothing(make_tokenizer):
    tokenizer = make_tokenizer()
    codes = random_codes(30, 2)
    nothing = codes[:, :0]
    with StreamDecoder(tokenizer, n_q=2) as one, StreamDecoder(tokenizer, n_q=2) as other:
        whole = torch.cat([one.push(codes), one.finish()])
        pieces = [nothing, codes[:, :11], nothing, nothing, codes[:, 11:], nothing]
        assert torch.equal(torch.cat([*map(other.push, pieces), other.finish()]), whole)


@torch.no_grad()
def test_the_prior_follows_the_weights(make_tokenizer):
    tokenizer = make_tokenizer()
    codes = random_codes(40, 2)
    with torch.inference_mode():
        before = StreamDecoder(tokenizer, n_q=2).push(codes)
    assert torch.equal(StreamDecoder(tokenizer, n_q=2).push(codes), before)
    for weight in tokenizer.decoder.parameters():  # not the last one alone
        weight.mul_(1.1)
    changed = StreamDecoder(tokenizer, n_q=2).push(codes)
    assert torch.equal(changed, StreamDecoder(copy.deepcopy(tokenizer), n_q=2).push(codes))
