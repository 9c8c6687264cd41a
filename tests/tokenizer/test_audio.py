"""Audio files and resampling."""

import os
import threading

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close

from mimo_audio.errors import AudioError
from mimo_audio.files import audio
from mimo_audio.files.output import OutputError


def tone(seconds: float, rate: int, frequency: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 192000])
def test_resampling_keeps_a_tone(rate):
    wave = audio.resample(torch.from_numpy(tone(1, rate)).float(), rate, 24000)
    assert abs(len(wave) - 24000) <= 1
    expected = torch.from_numpy(tone(1, 24000)).float()[: len(wave)]
    assert_close(wave[1000:-1000], expected[1000 : len(wave) - 1000], atol=2e-3, rtol=0)


@pytest.mark.parametrize("rate", [16000, 24000, 44100])
def test_resampling_in_blocks_has_no_seams(rate):
    wave = torch.randn(rate) * 0.1
    whole = audio.resample(wave, rate, 24000)
    blocks = torch.cat(list(audio.resample_blocks(wave.split(777), rate, 24000)))
    assert_close(blocks, whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("suffix", "tolerance"), [("wav", 1e-4), ("flac", 1e-4), ("ogg", 0.05), ("mp3", 0.05)])
def test_read_formats_rates_and_channels(tmp_path, suffix, tolerance):
    path = tmp_path / f"sound.{suffix}"
    left, right = tone(1, 48000), tone(1, 48000, 1000)
    soundfile.write(path, np.stack([left, right], 1), 48000)
    wave = audio.read(path, 24000)
    assert abs(len(wave) - 24000) < 100
    middle = ((left + right) / 2)[::2]
    assert_close(wave[2000:20000], torch.from_numpy(middle).float()[2000:20000], atol=tolerance + 2e-3, rtol=0)


def test_eight_channels(tmp_path):
    soundfile.write(tmp_path / "many.wav", np.tile(tone(0.5, 24000)[:, None], (1, 8)), 24000, "FLOAT")
    assert_close(
        audio.read(tmp_path / "many.wav", 24000), torch.from_numpy(tone(0.5, 24000)).float(), atol=1e-6, rtol=0
    )


def test_long_files_come_in_blocks(tmp_path):
    soundfile.write(tmp_path / "long.wav", tone(70, 8000), 8000)
    blocks = list(audio.read_blocks(tmp_path / "long.wav", 8000))
    assert len(blocks) == 3
    assert_close(torch.cat(blocks), torch.from_numpy(tone(70, 8000)).float(), atol=1e-4, rtol=0)


def test_blocks_are_small_at_any_rate_and_channel_count(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK_VALUES", 8000)
    wave = np.tile(tone(0.5, 24000)[:, None], (1, 8))
    soundfile.write(tmp_path / "many.wav", wave, 24000, "FLOAT")
    blocks = list(audio.read_blocks(tmp_path / "many.wav", 24000))
    assert {len(block) for block in blocks} == {1000}
    assert_close(torch.cat(blocks), torch.from_numpy(wave[:, 0]).float(), atol=1e-6, rtol=0)


def test_a_file_encodes_like_its_wave(make_tokenizer, tmp_path):
    tokenizer = make_tokenizer()
    soundfile.write(tmp_path / "in.wav", np.random.default_rng(0).normal(0, 0.1, 30000), 16000, "FLOAT")
    wave, rate = soundfile.read(tmp_path / "in.wav", dtype="float32")
    codes = torch.cat(list(tokenizer.encode_file(tmp_path / "in.wav", 2)), 1)
    assert torch.equal(codes, tokenizer.encode(torch.from_numpy(wave), rate, 2))
    assert torch.equal(codes, tokenizer.encode_batch([torch.from_numpy(wave)], rate, 2)[0])


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_resampler_stands_in_for_the_published_one(golden_resampling, rate):
    # Another filter: equal in the pass band, so that white noise differs only near the band's edge.
    ours = audio.resample(golden_resampling[f"sr{rate}.in"], rate, 24000)
    published = golden_resampling[f"sr{rate}.out24k"]
    assert abs(len(ours) - len(published)) <= 1
    error = (ours[:2600] - published[:2600])[200:-200]
    assert error.square().mean() < 2e-3 * published.square().mean()


def test_unreadable_files(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        audio.read(tmp_path / "none.wav", 24000)
    (tmp_path / "text.wav").write_text("this is not audio")
    with pytest.raises(AudioError, match=r"cannot read .*text\.wav"):
        audio.read(tmp_path / "text.wav", 24000)
    with pytest.raises(AudioError, match="cannot read"):
        audio.read(tmp_path, 24000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 24000)
    with pytest.raises(AudioError, match="no samples"):
        audio.read(tmp_path / "empty.wav", 24000)
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan]), 24000, "FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        audio.read(tmp_path / "nan.wav", 24000)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "text.wav").write_text("this is not audio")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may read everything
    with pytest.raises(AudioError, match=r"text\.wav: no permission"):
        audio.read(tmp_path / "text.wav", 24000)


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac"])
def test_truncated_files(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 48000), 24000)
    data = path.read_bytes()
    for size in (len(data) // 2, 20):
        path.write_bytes(data[:size])
        with pytest.raises(AudioError, match=rf"cut\.{suffix}"):
            audio.read(path, 24000)


def test_write(tmp_path):
    wave = torch.randn(1000) * 0.8
    for name in ("out.wav", "out.flac"):
        audio.write(tmp_path / name, wave, 24000)
        info = soundfile.info(tmp_path / name)
        assert (info.subtype, info.samplerate, info.channels) == ("PCM_16", 24000, 1)
        assert_close(audio.read(tmp_path / name, 24000), wave.clamp(-1, 1), atol=1e-4, rtol=0)
    with pytest.raises(OutputError, match="exists"):
        audio.write(tmp_path / "out.wav", wave, 24000)
    audio.write(tmp_path / "out.wav", wave[:10], 24000, force=True)
    assert soundfile.info(tmp_path / "out.wav").frames == 10


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.mp3", ("MP3", "MPEG_LAYER_III")), ("a.OGG", ("OGG", "VORBIS")), ("a.oga", ("OGG", "VORBIS")),
     ("a.opus", ("OGG", "OPUS")), ("a.aif", ("AIFF", "PCM_16")), ("a.au", ("AU", "PCM_16"))],
)  # fmt: skip
def test_write_other_formats(tmp_path, name, kind):
    wave = torch.from_numpy(tone(2, 24000)).float()
    audio.write(tmp_path / name, wave[None], 24000)
    info = soundfile.info(tmp_path / name)
    assert (info.format, info.subtype, info.channels) == (*kind, 1)
    error = audio.read(tmp_path / name, 24000)[: len(wave)] - wave
    assert error[4800:-4800].square().mean() < 5e-3 * wave.square().mean()


def test_ten_minutes_as_vorbis(tmp_path):
    """libsndfile's encoder ends the process if it is given ten minutes at once."""
    audio.write(tmp_path / "long.ogg", torch.zeros(10 * 60 * 24000), 24000)
    assert soundfile.info(tmp_path / "long.ogg").frames == 10 * 60 * 24000


def test_sample_rates_that_a_format_does_not_have(tmp_path):
    with pytest.raises(AudioError, match=r"out\.opus: .*sample rates of 8000"):
        audio.write(tmp_path / "out.opus", torch.zeros(10), 44100)
    with pytest.raises(AudioError, match="sample_rate: expected a positive number"):
        audio.write(tmp_path / "out.ogg", torch.zeros(10), 0)
    assert not list(tmp_path.iterdir())


def test_bad_outputs(tmp_path):
    for name in ("out.xyz", "out"):
        with pytest.raises(AudioError, match=r"\.wav, \.flac, \.mp3"):
            audio.write(tmp_path / name, torch.zeros(10), 24000)
    with pytest.raises(AudioError, match="one channel"):
        audio.write(tmp_path / "out.wav", torch.zeros(2, 10), 24000)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        audio.write(tmp_path / "file" / "out.wav", torch.zeros(10), 24000)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32"])
def test_encodings_that_cannot_seek_are_read_in_order(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", tone(10, 8000), 8000, subtype=subtype)
    wave = audio.read(tmp_path / "a.wav", 8000)
    assert abs(len(wave) - 80000) < 400
    assert_close(wave[1000:1400].square().mean(), torch.tensor(0.125), atol=0.02, rtol=0)


@pytest.mark.parametrize("rate", [24000, 16000])
def test_flac_of_unknown_length_is_read_to_its_end(tmp_path, rate):
    """As encoders write it to a pipe: 36 bits of the header that would say how many samples there are, are 0."""
    soundfile.write(tmp_path / "known.flac", tone(40, 24000), 24000)
    data = bytearray((tmp_path / "known.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "unknown.flac").write_bytes(data)
    wave = audio.read(tmp_path / "unknown.flac", rate)
    assert torch.equal(wave, audio.read(tmp_path / "known.flac", rate))
    (tmp_path / "unknown.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=r"unknown\.flac"):
        audio.read(tmp_path / "unknown.flac", rate)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_pipes_are_read(tmp_path, suffix):
    path, pipe = tmp_path / f"a.{suffix}", tmp_path / "pipe"
    soundfile.write(path, tone(1, 24000), 24000)
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    wave = audio.read(pipe, 24000)
    writer.join()
    assert torch.equal(wave, audio.read(path, 24000))


def test_a_damaged_sample_rate_is_named(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1, 24000), 24000)
    data = bytearray(path.read_bytes())
    data[24:28] = (1).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"a.wav: expected a sample rate of 1000 to 1536000 Hz, got 1 Hz"):
        audio.read(path, 24000)
