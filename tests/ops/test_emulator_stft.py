"""What only the CUDA kernels of stft, log_mel and vocoder_head can get wrong, run on the emulator.

Every plan of the FFT, the order of threads, where blocks begin and end. The ops' own meaning is tested in test_stft.py,
test_log_mel.py and test_vocoder_head.py.
"""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference

emulator = pytest.importorskip("mimo_audio_native._emulator", reason="built without MIMO_EMULATOR")
emu = torch.ops.mimo_emu

TOLERANCE = {torch.float32: 1e-6, torch.float64: 4e-15}  # of the largest value, per frame or signal


@pytest.fixture(autouse=True)
def _shuffled_threads() -> None:
    emulator.shuffle_threads(1)


def error(result: Tensor, expected: Tensor) -> float:
    """Largest difference along the last dimension, relative to the largest expected value there."""
    assert result.shape == expected.shape
    return float(((result - expected).abs().amax(-1) / expected.abs().amax(-1)).max())


def only_2_3_5(n: int) -> bool:
    for factor in (2, 3, 5):
        while n % factor == 0:
            n //= factor
    return n == 1


SIZES = [n for n in range(2, 129, 2) if only_2_3_5(n)] + [240, 250, 480, 486, 500, 512, 750, 900, 960, 1000, 1024, 1080]
LARGE = [1920, 2048, 2400, 4096, 4374, 7500, 7776, 8000, 8100, 8192]  # teams of 64, 128, 256 threads


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_fft", SIZES + LARGE)
def test_every_size_of_the_fft(n_fft: int, dtype: torch.dtype) -> None:
    bound = TOLERANCE[dtype]
    hop = n_fft // 2
    window = torch.hann_window(n_fft, dtype=torch.float64) + 0.1
    wave = torch.randn(1, 2 * n_fft, dtype=torch.float64, requires_grad=True)
    spectrum = reference.stft(wave, window, n_fft, hop, "same")
    result = emu.stft(wave.detach().to(dtype), window.to(dtype), n_fft, hop, "same")
    assert error(torch.view_as_complex(result), spectrum.detach()) < bound
    grad = torch.randn_like(spectrum)
    (expected,) = torch.autograd.grad(spectrum, wave, grad)
    result = emu.stft_backward(torch.view_as_real(grad).to(dtype), window.to(dtype), n_fft, hop, "same", wave.shape[1])
    assert error(result, expected) < bound

    bins = torch.randn(1, 3, n_fft // 2 + 1, dtype=torch.complex128, requires_grad=True)
    wave = reference.istft(bins, window, hop)
    result = emu.istft(torch.view_as_real(bins.detach()).to(dtype), window.to(dtype), hop)
    assert error(result, wave.detach()) < bound
    grad = torch.randn_like(wave)
    (expected,) = torch.autograd.grad(wave, bins, grad)
    result = emu.istft_backward(grad.to(dtype), window.to(dtype), hop)
    assert error(torch.view_as_complex(result), expected) < bound


def conflicts(addresses: list[int]) -> int:
    """Shared-memory accesses of a warp beyond the least, for values of 8 bytes: 16 lanes have 16 pairs of banks."""
    halves = [Counter(a % 16 for a in set(half)) for half in (addresses[:16], addresses[16:])]
    return sum(max(banks.values(), default=1) - 1 for banks in halves)


@pytest.mark.parametrize(("n_fft", "reads"), [(960, 0), (512, 2), (1024, 2), (2048, 2)])
def test_bank_conflicts(n_fft: int, reads: int) -> None:
    """The tuned size has none, those of the mel loss in one pass's reads, two accesses for one."""
    gap = 0
    for radix, span, pad in emulator.fft_passes(n_fft):
        count = n_fft // 2 // radix
        for first in range(0, count, 32):
            lanes = range(first, min(first + 32, count))
            assert conflicts([j // span * (radix * span + pad) + j % span for j in lanes]) == 0  # writes
            assert conflicts([j + gap * (j // span) for j in lanes]) <= (reads if span == 8 else 0)
        gap = pad


def cases() -> dict[str, Callable[[], Tensor]]:
    """Every op, at a size of one warp per frame (960) and at one of two warps (1024)."""
    out: dict[str, Callable[[], Tensor]] = {}
    for n_fft, hop in ((960, 240), (1024, 256)):
        window = torch.hann_window(n_fft)
        wave, spectrum = torch.randn(2, 9 * hop + 5), torch.randn(2, 9, n_fft // 2 + 1, 2)
        x, bounds = torch.randn(19, n_fft + 2), torch.tensor([0, 4, 4, 5, 19])
        bank = mn.mel_filterbank(24000, n_fft, 40)
        mel_grad = torch.randn(2, 9, 40)
        out |= {
            f"stft {n_fft}": lambda w=wave, v=window, n=n_fft, h=hop: emu.stft(w, v, n, h, "same"),
            f"stft_backward {n_fft}": lambda s=spectrum, v=window, n=n_fft, h=hop: emu.stft_backward(
                s, v, n, h, "same", 9 * h + 5
            ),
            f"istft {n_fft}": lambda s=spectrum, v=window, h=hop: emu.istft(s, v, h),
            f"istft_backward {n_fft}": lambda w=wave, v=window, h=hop: emu.istft_backward(w[:, : 9 * h], v, h),
            f"log_mel {n_fft}": lambda w=wave, v=window, b=bank, h=hop: emu.log_mel(w, v, b, h, 1e-7, "same"),
            f"log_mel_backward {n_fft}": lambda g=mel_grad, w=wave, v=window, b=bank, h=hop: emu.log_mel_backward(
                g, w, v, b, h, 1e-7, "same"
            ),
            f"vocoder_head {n_fft}": lambda x=x, v=window, h=hop, c=bounds: emu.vocoder_head(x, v, h, c, 100.0),
            f"vocoder_head_backward {n_fft}": lambda x=x, v=window, h=hop, c=bounds: emu.vocoder_head_backward(
                torch.ones(19 * h), x, v, h, c, 100.0
            ),
        }
    return out


@pytest.mark.parametrize("name", list(cases()))
def test_the_order_of_threads_changes_no_bit(name: str) -> None:
    run = cases()[name]
    emulator.shuffle_threads(0)
    expected = run()
    assert expected.isfinite().all()
    for seed in (1, 2, 3):
        emulator.shuffle_threads(seed)
        torch.testing.assert_close(run(), expected, rtol=0, atol=0)


def test_a_long_wave_takes_many_blocks_and_rounds() -> None:
    wave = torch.randn(1, 70_000)
    window, bank = torch.hann_window(16), torch.rand(9, 5)
    spectrum = emu.stft(wave, window, 16, 4, "center")  # 17501 frames: blocks of 4 x 4 frames, the last not full
    expected = reference.stft(wave.double(), window.double(), 16, 4, "center")
    assert error(torch.view_as_complex(spectrum), expected) < 1e-6
    torch.testing.assert_close(
        emu.log_mel(wave, window, bank, 4, 1e-7, "center"), reference.log_mel(wave, window, bank, 4, 1e-7, "center")
    )
    grad = torch.randn_like(spectrum)
    leaf = wave.double().requires_grad_()
    torch.view_as_real(reference.stft(leaf, window.double(), 16, 4, "center")).backward(grad.double())
    assert error(emu.stft_backward(grad, window, 16, 4, "center", 70_000), leaf.grad) < 1e-6
    expected = reference.istft(torch.view_as_complex(spectrum[:, 1:]).cdouble(), window.double(), 4)
    assert error(emu.istft(spectrum[:, 1:], window, 4), expected) < 1e-6


@pytest.mark.parametrize("lengths", [[0, 0, 5] * 40, [1] * 30, [200, 1, 0, 99]])
def test_a_sequence_has_the_same_bits_packed_and_alone(lengths: list[int]) -> None:
    window = torch.hann_window(24)
    x, grad = torch.randn(sum(lengths), 26), torch.randn(sum(lengths) * 7)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    packed = emu.vocoder_head(x, window, 7, bounds, 2.0)
    packed_grad = emu.vocoder_head_backward(grad, x, window, 7, bounds, 2.0)
    for a, b in zip(bounds.tolist(), bounds[1:].tolist(), strict=False):
        alone = emu.vocoder_head(x[a:b], window, 7, None, 2.0)
        torch.testing.assert_close(packed[7 * a : 7 * b], alone, rtol=0, atol=0)
        alone = emu.vocoder_head_backward(grad[7 * a : 7 * b], x[a:b], window, 7, None, 2.0)
        torch.testing.assert_close(packed_grad[a:b], alone, rtol=0, atol=0)


@pytest.mark.parametrize(("length", "padding"), [(1, "center"), (5, "center"), (31, "same"), (90, "same")])
@pytest.mark.parametrize("mels", ["bands", "dense"])
def test_the_gradient_of_waves_shorter_than_the_padding(length: int, padding: str, mels: str) -> None:
    bank = torch.rand(33, 6, dtype=torch.float64)
    if mels == "bands":
        bank *= bank > 0.8
    window = torch.rand(50, dtype=torch.float64)
    wave = torch.randn(3, length, dtype=torch.float64, requires_grad=True)
    expected = reference.log_mel(wave, window, bank, 16, 1e-2, padding)
    grad = torch.randn_like(expected)
    expected.backward(grad)
    result = emu.log_mel_backward(grad, wave.detach(), window, bank, 16, 1e-2, padding)
    torch.testing.assert_close(result, wave.grad, rtol=1e-10, atol=1e-12)


def test_the_largest_float64_frame_fits_shared_memory() -> None:
    wave, bank = (
        torch.randn(1, 9000, dtype=torch.float64, requires_grad=True),
        torch.rand(4097, 128, dtype=torch.float64),
    )
    window = torch.hann_window(8192, dtype=torch.float64)
    expected = reference.log_mel(wave, window, bank, 4096, 1e-7, "center")
    expected.backward(torch.ones_like(expected))
    torch.testing.assert_close(emu.log_mel(wave.detach(), window, bank, 4096, 1e-7, "center"), expected.detach())
    result = emu.log_mel_backward(torch.ones_like(expected), wave.detach(), window, bank, 4096, 1e-7, "center")
    assert error(result, wave.grad) < 1e-13
