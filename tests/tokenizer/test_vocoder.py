"""The vocoder's head: phases relative to a steady tone, and what training needs from it."""

import math

import pytest
import torch
from torch.testing import assert_close

from mimo_audio.tokenizer.vocoder import InverseSTFT, phase_advance

N_FFT, HOP = 960, 240


def constant_output(istft: InverseSTFT, bin_: int, phase: float, lengths: list[int]) -> torch.Tensor:
    """The wave of a head that says the same in every frame: one bin, one phase."""
    bins = istft.window.numel() // 2 + 1
    log_magnitude = torch.full((sum(lengths), bins), -20.0)
    log_magnitude[:, bin_] = math.log(50.0)
    phases = torch.zeros(sum(lengths), bins)
    phases[:, bin_] = phase
    return istft(log_magnitude, istft.absolute_phase(phases, lengths), lengths)


@pytest.mark.parametrize("bin_", [5, 6, 7, 33])
def test_with_the_advance_a_constant_output_is_a_steady_tone(bin_):
    wave = constant_output(InverseSTFT(N_FFT, HOP, advance=True), bin_, 0.4, [20])[N_FFT:-N_FFT].double()
    time = torch.arange(len(wave)).double()
    turn = 2 * torch.pi * bin_ * time / N_FFT
    basis = torch.stack([turn.cos(), turn.sin()], 1)
    fit = basis @ torch.linalg.lstsq(basis, wave[:, None]).solution
    assert (wave - fit[:, 0]).abs().max() < 1e-3 * wave.abs().max()


def test_without_it_a_constant_output_repeats_at_the_frame_rate():
    wave = constant_output(InverseSTFT(N_FFT, HOP, advance=False), 5, 0.4, [20])[N_FFT:-N_FFT]
    assert_close(wave[HOP:], wave[:-HOP], atol=1e-5, rtol=0)


def test_the_advance_starts_anew_in_every_sequence():
    istft = InverseSTFT(N_FFT, HOP, advance=True)
    alone = [constant_output(istft, 7, 0.4, [n]) for n in (5, 3, 9)]
    assert_close(constant_output(istft, 7, 0.4, [5, 3, 9]), torch.cat(alone), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("n_fft", "hop"), [(960, 240), (960, 200), (64, 24)])
def test_the_advance_is_exact_and_periodic(n_fft, hop):
    table = phase_advance(n_fft, hop)
    for frame in (0, 1, 2, 5, 1001):
        for k in (0, 1, 7, n_fft // 2):
            exact = k * hop * frame % n_fft * 2 * math.pi / n_fft
            assert_close(table[frame % len(table), k].item(), exact, atol=1e-6, rtol=1e-6)


def test_the_flag_of_the_configuration_reaches_the_head(make_tokenizer):
    plain, advanced = make_tokenizer(), make_tokenizer(vocoder_phase_advance=True)
    coarse = torch.randn(12, 20)
    log_magnitude, phase = plain.vocoder.spectrum(coarse, [5, 7])
    same, advanced_phase = advanced.vocoder.spectrum(coarse, [5, 7])
    assert_close(log_magnitude, same)
    assert log_magnitude.shape == phase.shape == (12, N_FFT // 2 + 1)
    table = phase_advance(N_FFT, HOP)
    frame = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6])
    assert_close(advanced_phase - phase, table[frame % 4], atol=1e-5, rtol=0)
    wave = advanced.vocoder(coarse, [5, 7])
    assert_close(wave, advanced.vocoder.synthesize(log_magnitude, advanced_phase, [5, 7]))
    assert wave.shape == (12 * HOP,)
