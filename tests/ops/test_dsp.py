"""The torch-free stft and log_mel: equal to the ops, importable without torch, clear about bad input."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import mimo_audio_native as mn
from mimo_audio import dsp


def arrays(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    wave = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    return wave, torch.hann_window(960).numpy(), mn.mel_filterbank(24000, 960, 128).numpy()


@pytest.mark.parametrize("padding", ["center", "same"])
@pytest.mark.parametrize("length", [1, 700, 24000])
def test_equals_the_ops(length: int, padding: str) -> None:
    wave, window, filterbank = arrays(length)
    t = [torch.from_numpy(a) for a in (wave[None], window, filterbank)]
    mel = dsp.log_mel(wave, window, filterbank, 240, 1e-5, padding)
    assert mel.dtype == np.float32
    np.testing.assert_array_equal(mel, mn.log_mel(*t, 240, 1e-5, padding)[0].numpy())
    spectrum = dsp.stft(wave, window, 960, 240, padding)
    assert spectrum.dtype == np.complex64
    np.testing.assert_array_equal(spectrum, mn.stft(t[0], t[1], 960, 240, padding)[0].numpy())


def test_strided_arrays() -> None:
    wave, window, filterbank = arrays(5000)
    np.testing.assert_array_equal(
        dsp.log_mel(np.repeat(wave, 2)[::2], window[::-1][::-1], np.asfortranarray(filterbank), 240),
        dsp.log_mel(wave, window, filterbank, 240),
    )


def test_needs_no_torch() -> None:
    code = "import sys, mimo_audio.dsp; assert mimo_audio.dsp.stft; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_is_the_same_module_for_torch_users() -> None:
    from mimo_audio_native import _dsp

    assert _dsp.log_mel is dsp._dsp.log_mel


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wave": np.zeros(5)}, r"wave must be float32 \[N\], got float64 \[5\]"),
        ({"wave": np.zeros((1, 5), np.float32)}, r"wave must be float32 \[N\], got float32 \[1, 5\]"),
        ({"window": np.zeros(5, np.int16)}, r"window must be float32 \[W\], got int16 \[5\]"),
        ({"window": np.zeros(961, np.float32)}, "window must have 1 to n_fft = 960 samples, got 961"),
        ({"filterbank": np.zeros((8, 3), np.float32)}, "n_fft must be an even number .* got 14"),
        ({"filterbank": np.zeros((481, 0), np.float32)}, "filterbank must have at least one column"),
        ({"hop": 0}, "hop must be 1 to 2147483647, got 0"),
        ({"floor": 0.0}, "floor must be a normal positive float32 number"),
        ({"padding": "no"}, 'padding must be "center" or "same", got "no"'),
        ({"wave": np.zeros(0, np.float32)}, "wave must have at least one sample"),
    ],
)
def test_names_what_is_wrong(change: dict, message: str) -> None:
    wave, window, filterbank = arrays(960)
    arguments = {"wave": wave, "window": window, "filterbank": filterbank, "hop": 240} | change
    with pytest.raises(ValueError, match=f"log_mel: {message}"):
        dsp.log_mel(**arguments)
