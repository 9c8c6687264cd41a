"""Training audio: seeded, of the asked size, from folders and manifests, whoever reads it in whatever order."""

import numpy as np
import pytest
import soundfile
import torch

from mimo_audio.errors import AudioError
from mimo_audio.files.recordings import Recording, list_recordings
from mimo_audio.train.audio_data import AudioData
from mimo_audio.train.loop import read_ahead


def make(source, **changes):
    return AudioData(
        **{"sources": {source: 1.0}, "sample_rate": 24000, "samples": 4800, "batch": 3, "seed": 1, **changes}
    )


def crops(source, **changes):
    data = make(source, **changes)
    return lambda step, micro_batch=0: data(step, micro_batch).crops


def test_a_step_depends_on_seed_and_number_only(tones):
    first, second = crops(tones), crops(tones)
    second(7), second(3)
    assert first(5).shape == (3, 4800)
    assert torch.equal(first(5), second(5))
    assert not torch.equal(first(5), first(6))
    assert not torch.equal(first(5), first(5, 1))
    assert not torch.equal(first(5), crops(tones, seed=2)(5))


def test_a_crop_is_a_piece_of_a_recording_times_a_gain(tones):
    crop = crops(tones, batch=1)(0)[0].numpy()
    best = 0.0
    for path in tones.glob("*.wav"):
        wave = soundfile.read(path, dtype="float32")[0]
        windows = np.lib.stride_tricks.sliding_window_view(wave, len(crop))
        norms = np.linalg.norm(windows, axis=1) * np.linalg.norm(crop)
        best = max(best, float((windows @ crop / norms).max()))
    assert best == pytest.approx(1, abs=1e-4)


def test_gains_are_drawn_evenly_in_decibels(tmp_path):
    """From -16 to +2 dB, of amplitude; each crop its own."""
    soundfile.write(tmp_path / "x.wav", np.full(4800, 0.1, np.float32), 24000, subtype="FLOAT")
    level = 20 * crops(tmp_path, batch=600)(0).abs().amax(1).div(0.1).log10()
    assert level.min() == pytest.approx(-16, abs=0.3)
    assert level.max() == pytest.approx(2, abs=0.3)
    assert level.mean() == pytest.approx(-7, abs=0.7)
    assert level.std() == pytest.approx(18 / 12**0.5, abs=0.4)


def test_crops_come_from_all_of_a_recording(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.linspace(0.1, 0.5, 48000, dtype=np.float32), 24000, subtype="FLOAT")
    crop = crops(tmp_path, batch=200)(0)
    # Whatever the gain, end over beginning tells the place in the ramp.
    place = 0.04 / (crop[:, -1] / crop[:, 0] - 1) - 0.1
    assert place.min() < 0.02
    assert place.max() > 0.34
    assert place.mean() == pytest.approx(0.18, abs=0.03)


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


@pytest.mark.parametrize("workers", [1, 4])
def test_reading_ahead_changes_nothing(tones, workers):
    data = make(tones / "manifest.jsonl", utterances=1, seconds=1.0)
    places = [(step, micro_batch) for step in range(6) for micro_batch in (0, 1)]
    for place, batch in zip(places, read_ahead(data, places, workers), strict=True):
        expected = data(*place)
        assert torch.equal(batch.crops, expected.crops)
        assert torch.equal(batch.utterances[0], expected.utterances[0])
        assert batch.texts == expected.texts


def test_an_error_while_reading_ahead_comes_out(tones):
    for path in tones.glob("*.wav"):
        path.write_bytes(b"no audio")
    with pytest.raises(AudioError, match="cannot read"):
        list(read_ahead(make(tones), [(0, 0)], 2))


def test_a_manifest_names_files_beside_it(tones):
    manifest = tones / "some.jsonl"
    manifest.write_text('{"audio": "2.wav", "text": "x"}\n{"audio": "0.wav"}\n')
    assert list_recordings(manifest) == [Recording(tones / "2.wav", "x"), Recording(tones / "0.wav")]


@pytest.mark.parametrize(
    "line", ['{"file": "1.wav"}', "[1]", '{"audio": 1}', '{"audio": "x", "text": 2}', "{", "7", r'{"audio": "\ud800"}']
)
def test_a_broken_manifest_line_is_named(tones, line):
    manifest = tones / "manifest.jsonl"
    manifest.write_text('{"audio": "0.wav"}\n' + line + "\n")
    with pytest.raises(AudioError, match=r'manifest\.jsonl:2: expected a JSON object with "audio"'):
        list_recordings(manifest)


def test_lines_of_a_manifest_end_with_newlines_only(tones):
    manifest = tones / "some.jsonl"
    manifest.write_text('{"audio": "0.wav", "text": "a\u2028b\x85"}\r\n\n', encoding="utf-8")
    assert list_recordings(manifest) == [Recording(tones / "0.wav", "a\u2028b\x85")]


def test_a_recording_without_samples_or_header_is_named(tones):
    soundfile.write(tones / "empty.wav", np.zeros(0), 24000)
    (tones / "x.raw").write_bytes(bytes(100))
    manifest = tones / "some.jsonl"
    for name, message in (("empty.wav", "empty.wav: no samples"), ("x.raw", "cannot read .*x.raw")):
        manifest.write_text(f'{{"audio": "{name}"}}')
        with pytest.raises(AudioError, match=message):
            make(manifest)(0)


def test_texts_must_be_somewhere(tones):
    with pytest.raises(AudioError, match=r'no "text" in any of .*tones'):
        make(tones, utterances=1, seconds=1.0)


def test_recordings_with_text_must_be_short_enough(tones):
    data = make(tones / "manifest.jsonl", utterances=1, seconds=0.1)
    with pytest.raises(AudioError, match=r"no recording of at most 0\.1 s that has a text"):
        data(0)


def test_samples_that_are_no_numbers_are_named(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.array([0, np.inf] * 99, np.float32), 24000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"x\.wav: expected finite samples, got NaN or infinity"):
        crops(tmp_path)(0)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(AudioError, match="no audio files"):
        crops(tmp_path)


def test_an_unreadable_recording_is_named(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"cannot read .*broken\.wav"):
        crops(tmp_path)(0)


def test_hidden_files_and_folders_are_no_recordings(tones):
    wanted = list_recordings(tones)
    first = wanted[0].path
    (first.parent / f"._{first.name}").write_bytes(b"no sound")
    (tones / ".trash").mkdir()
    (tones / ".trash" / first.name).write_bytes(first.read_bytes())
    (tones / "take.wav").mkdir()
    assert list_recordings(tones) == wanted
