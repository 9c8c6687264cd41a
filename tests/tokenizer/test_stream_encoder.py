"""The streaming encoder: offline codes where it sees enough, the same codes however the wave arrives."""

import pytest
import torch

from mimo_audio.errors import AudioError, StreamError
from mimo_audio.tokenizer.streaming import StreamEncoder


@pytest.fixture
def wave():
    return 0.3 * torch.randn(24000)


def whole(stream, wave):
    return torch.cat([stream.push(wave), stream.finish()], 1)


def test_a_windowed_encoder_needs_no_more_than_its_window(make_tokenizer, wave):
    """2 layers of 8 frames at 50 Hz are 8 code frames; the convolutions reach one further."""
    tokenizer = make_tokenizer(encoder_attn_window_size=(8, 8))
    expected = tokenizer.encode(wave)
    for step in (1, 4, 7):
        assert torch.equal(whole(StreamEncoder(tokenizer, look_ahead=9, step=step, context=9), wave), expected)
    less = whole(StreamEncoder(tokenizer, look_ahead=0, step=4, context=9), wave)
    assert not torch.equal(less, expected)
    assert less.shape == expected.shape


def test_all_in_one_group_is_offline_encoding(golden):
    for clip in golden.clips():
        stream = StreamEncoder(golden.tokenizer, look_ahead=0, step=1000)
        assert torch.equal(whole(stream, clip["wav"]), golden.tokenizer.encode(clip["wav"]))


@pytest.mark.parametrize("samples", [1, 239, 240, 960, 5000, 24000])
def test_chunks_do_not_matter(make_tokenizer, wave, samples):
    tokenizer, wave = make_tokenizer(), wave[:samples]
    expected = whole(StreamEncoder(tokenizer, look_ahead=3, step=2, context=5), wave)
    assert expected.shape == (4, tokenizer.encode(wave).shape[1])
    for size in (237, 960, 1601):
        stream = StreamEncoder(tokenizer, look_ahead=3, step=2, context=5)
        codes = [stream.push(chunk) for chunk in wave.split(size)] + [stream.finish()]
        assert torch.equal(torch.cat(codes, 1), expected)


def test_codes_come_as_early_as_promised(make_tokenizer, wave):
    """A frame is centred, so that the last of `step + look_ahead` code frames reaches two hops beyond them."""
    stream = StreamEncoder(make_tokenizer(), look_ahead=3, step=2)
    given = [stream.push(chunk).shape[1] for chunk in wave.split(960)]
    assert given[:10] == [0, 0, 0, 0, 0, 2, 0, 2, 0, 2]


def test_memory_is_flat(make_tokenizer, wave):
    stream = StreamEncoder(make_tokenizer(), look_ahead=3, step=2, context=5)

    def memory():
        return sum(t.untyped_storage().nbytes() for t in (stream._wave, stream._frames, stream._mel.wave))

    seen = []
    for _ in range(30):
        stream.push(wave[:4800])
        seen.append(memory())
    assert max(seen[5:]) <= max(seen[:5])
    assert max(seen) < 200_000


def test_copies_and_resets(make_tokenizer, wave):
    stream = StreamEncoder(make_tokenizer(), look_ahead=2)
    start = stream.push(wave[:10000])
    twin = stream.copy()
    rest = stream.push(wave[10000:]), stream.finish()
    assert torch.equal(torch.cat([twin.push(wave[10000:]), twin.finish()], 1), torch.cat(rest, 1))
    stream.reset()
    assert torch.equal(stream.push(wave[:10000]), start)


def test_nothing_gives_nothing(make_tokenizer):
    assert StreamEncoder(make_tokenizer(), n_q=2).finish().shape == (2, 0)


def test_bad_samples_leave_the_stream_as_it_was(make_tokenizer, wave):
    tokenizer = make_tokenizer()
    stream, calm = (StreamEncoder(tokenizer, look_ahead=2) for _ in range(2))
    assert torch.equal(stream.push(wave[:5000]), calm.push(wave[:5000]))
    for bad, message in (
        (torch.full((500,), torch.nan), "NaN"),
        (wave.view(2, -1), "one channel"),
        (wave.to(torch.int16), "floating-point"),
    ):
        with pytest.raises(AudioError, match=message):
            stream.push(bad)
    assert torch.equal(whole(stream, wave[5000:]), whole(calm, wave[5000:]))
    for use in (lambda: stream.push(wave), stream.finish):
        with pytest.raises(StreamError, match="finished"):
            use()
    stream.close()
    for use in (lambda: stream.push(wave), stream.finish, stream.reset, stream.copy):
        with pytest.raises(StreamError, match="closed"):
            use()


@pytest.mark.parametrize("settings", [{"look_ahead": -1}, {"step": 0}, {"context": None}, {"n_q": 9}])
def test_bad_settings(make_tokenizer, settings):
    with pytest.raises(StreamError, match=f"{next(iter(settings))}: expected"):
        StreamEncoder(make_tokenizer(), **settings)
