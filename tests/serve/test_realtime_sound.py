"""Sound on the wire, and speech in it: G.711 against its definition, Silero's network against its own runtime."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mimo_audio.serve.realtime.sound import BYTES, RATE, RATES, TABLES, Decoder, Encoder, Format, decode
from mimo_audio.serve.realtime.vad import HYSTERESIS, STEP, Detector, TurnDetection, Turns

ASSETS = Path(__file__).parents[2] / "python" / "mimo_audio" / "assets"
needs_vad = pytest.mark.skipif(
    find_spec("silero_vad") is None or find_spec("onnxruntime") is None, reason="the extra [serve] is not installed"
)


# ITU-T G.711, tables 1a and 2a: bytes of the decision values' samples, which are 13 and 14 bits there.
@pytest.mark.parametrize(
    ("kind", "byte", "sample"),
    [
        ("audio/pcmu", 0xFF, 0), ("audio/pcmu", 0x7F, 0),
        ("audio/pcmu", 0x80, 4 * 8031), ("audio/pcmu", 0x00, -4 * 8031),
        ("audio/pcmu", 0xF0, 4 * 30), ("audio/pcmu", 0xEF, 4 * 33), ("audio/pcmu", 0x8F, 4 * 4191),
        ("audio/pcma", 0xD5, 8 * 1), ("audio/pcma", 0x55, -8 * 1), ("audio/pcma", 0xAA, 8 * 4032),
        ("audio/pcma", 0x2A, -8 * 4032), ("audio/pcma", 0xC5, 8 * 33), ("audio/pcma", 0xF5, 8 * 66),
    ],
)  # fmt: skip
def test_g711_is_that_of_the_standard(kind: Format, byte: int, sample: int) -> None:
    assert TABLES[kind][byte] == sample


@pytest.mark.parametrize("kind", TABLES)
def test_every_sample_goes_to_the_nearest_of_g711(kind: Format) -> None:
    samples = np.arange(-32768, 32768)
    errors = np.abs(TABLES[kind].astype(np.int64)[BYTES[kind]] - samples)
    best = np.abs(TABLES[kind].astype(np.int64)[None, :] - samples[::97, None]).min(1)
    assert (errors[::97] == best).all()
    assert (TABLES[kind][BYTES[kind][TABLES[kind].astype(np.int64) + 32768]] == TABLES[kind]).all()


@pytest.mark.parametrize("kind", RATES)
def test_sound_comes_back_and_pieces_join(kind: Format) -> None:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    encoder, data = Encoder(kind), b""
    for piece in np.array_split(wave, 7):
        data += encoder.push(piece)
    data += encoder.push(np.zeros(0, np.float32), last=True)
    assert len(data) == RATES[kind] * (2 if kind == "audio/pcm" else 1)
    back = decode(kind, data)
    assert len(back) == RATE
    error = np.abs(back - wave)[500:-500].max()
    assert error < (2e-5 if kind == "audio/pcm" else 0.02)
    decoder = Decoder(kind)
    pieces = np.concatenate([decoder.push(data[i : i + 333]) for i in range(0, len(data), 333)])
    assert np.abs(pieces - back[: len(pieces)]).max() < 1e-6  # 333 bytes are no whole number of samples


def test_windows_become_turns() -> None:
    detection = TurnDetection(threshold=0.5, silence_duration_ms=96)
    turns = Turns()
    below = 0.5 - HYSTERESIS
    found = [
        (window, change)
        for window, probability in enumerate(
            [0.1, 0.9, 0.1, 0.9, 0.9, 0.4, 0.9, 0.1, 0.4, 0.9, 0.1, below, 0.4, 0.1, 0.1]
        )
        if (change := turns.push(probability, detection))
    ]
    assert found == [(4, ("start", 3)), (12, ("stop", 13))]  # 0.4 neither begins silence nor ends it


@needs_vad
def test_speech_is_heard_as_silero_s_own_runtime_hears_it() -> None:
    import soxr

    wave, rate = soundfile.read(ASSETS / "sentence.wav", dtype="float32")
    assert rate == RATE
    wave = np.concatenate([np.zeros(RATE, np.float32), wave[: 3 * RATE], np.zeros(RATE, np.float32)])
    detector = Detector()
    found = [p for piece in np.array_split(wave, 29) for p in detector.push(piece)]
    spec = find_spec("silero_vad")
    assert spec
    assert spec.origin
    network = torch.jit.load(Path(spec.origin).parent / "data" / "silero_vad.jit")
    windows = torch.from_numpy(soxr.resample(wave, RATE, 16000)).split(512)
    with torch.no_grad():
        expected = [float(network(window[None], 16000)) for window in windows if len(window) == 512]
    assert len(found) == len(expected) - 1  # the resampler holds some back
    assert np.abs(np.array(found) - expected[:-1]).max() < 0.02
    speech = [index for index, probability in enumerate(found) if probability > 0.5]
    assert RATE // STEP <= speech[0] < RATE * 1.3 // STEP
    assert speech[-1] <= RATE * 4.1 // STEP
    assert max(found[: RATE // STEP]) < 0.1
