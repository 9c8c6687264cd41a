"""Random crops: seeded, of the asked size, from folders and manifests."""

import json

import numpy as np
import pytest
import soundfile
import torch

from mimo_audio.errors import AudioError
from mimo_audio.train.audio_data import RandomCrops, list_audio


def crops(source, **changes):
    return RandomCrops(
        **{"sources": {source: 1.0}, "sample_rate": 24000, "samples": 4800, "batch": 3, "seed": 1, **changes}
    )


def test_a_step_depends_on_seed_and_number_only(tones):
    first, second = crops(tones), crops(tones)
    second(7), second(3)
    assert first(5).shape == (3, 4800)
    assert torch.equal(first(5), second(5))
    assert not torch.equal(first(5), first(6))
    assert not torch.equal(first(5), crops(tones, seed=2)(5))


def test_a_crop_is_a_piece_of_a_recording_times_a_gain(tones):
    crop = crops(tones, batch=1)(0)[0].numpy()
    best = 0.0
    for path in tones.iterdir():
        wave = soundfile.read(path, dtype="float32")[0]
        windows = np.lib.stride_tricks.sliding_window_view(wave, len(crop))
        norms = np.linalg.norm(windows, axis=1) * np.linalg.norm(crop)
        best = max(best, float((windows @ crop / norms).max()))
    assert best == pytest.approx(1, abs=1e-4)


def test_short_recordings_lie_between_zeros(tmp_path):
    soundfile.write(tmp_path / "short.wav", np.full(100, 0.5), 24000)
    batch = crops(tmp_path)(0)
    assert batch.shape == (3, 4800)
    assert ((batch != 0).sum(1) == 100).all()


def test_other_sample_rates_are_resampled(tmp_path):
    time = np.arange(8000) / 8000
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 500 * time), 8000)
    spectrum = np.abs(np.fft.rfft(crops(tmp_path)(0)[0].numpy()))
    assert spectrum.argmax() * 24000 / 4800 == pytest.approx(500, abs=5)


def test_shares_are_respected(tmp_path):
    for name, value in (("a", 0.1), ("b", -0.1)):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "x.wav", np.full(4800, value), 24000)
    batch = crops(tmp_path, sources={tmp_path / "a": 3.0, tmp_path / "b": 1.0}, batch=400)(0)
    assert 0.7 < float((batch.mean(1) > 0).float().mean()) < 0.8


def test_a_manifest_names_files_beside_it(tones):
    manifest = tones / "manifest.jsonl"
    manifest.write_text("".join(json.dumps({"audio": f"{i}.wav", "text": "x"}) + "\n" for i in (2, 0)))
    assert list_audio(manifest) == [tones / "2.wav", tones / "0.wav"]


def test_a_broken_manifest_line_is_named(tones):
    manifest = tones / "manifest.jsonl"
    manifest.write_text('{"audio": "0.wav"}\n{"file": "1.wav"}\n')
    with pytest.raises(AudioError, match=r'manifest\.jsonl:2: expected a JSON object with "audio"'):
        list_audio(manifest)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(AudioError, match="no audio files"):
        crops(tmp_path)


def test_an_unreadable_recording_is_named(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"cannot read .*broken\.wav"):
        crops(tmp_path)(0)
