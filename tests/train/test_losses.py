"""Reconstruction losses against values worked out by hand, and the properties they are chosen for."""

import math

import pytest
import torch

import mimo_audio_native as mn
from mimo_audio.tokenizer.losses import (
    MEL_FLOOR,
    SPECTRUM_FLOOR,
    MultiScaleMelLoss,
    SpectrumLoss,
    WaveSpectrumLoss,
    coarse_mel_loss,
    emphasis,
    wrapped_distance,
)

N_FFT, HOP = 960, 240


@pytest.fixture
def wave() -> torch.Tensor:
    return 0.1 * torch.randn(2, 9600, generator=torch.Generator().manual_seed(0))


def true_spectrum(wave: torch.Tensor) -> torch.Tensor:
    return mn.stft(wave, torch.hann_window(N_FFT), N_FFT, HOP, "same")


def test_mel_loss_is_zero_for_identical_waves(wave):
    assert MultiScaleMelLoss(24000)(wave, wave) == 0


def test_mel_loss_of_a_gain_is_its_logarithm_at_every_scale(wave):
    loss = MultiScaleMelLoss(24000)(2 * wave, wave)
    torch.testing.assert_close(loss, torch.tensor(3 * math.log(2)), rtol=1e-3, atol=0)


def test_mel_loss_ignores_what_lies_below_the_floor():
    noise = torch.randn(1, 9600, generator=torch.Generator().manual_seed(0)) * MEL_FLOOR * 1e-3
    assert MultiScaleMelLoss(24000)(noise, torch.zeros(1, 9600)) == 0


def test_mel_loss_uses_the_papers_scales():
    loss = MultiScaleMelLoss(24000)
    assert [loss.get_buffer(f"window{i}").numel() for i in (5, 6, 7)] == [240, 480, 960]
    assert [loss.get_buffer(f"filterbank{i}").shape[1] for i in (5, 6, 7)] == [32, 64, 128]
    assert all(loss.get_buffer(f"filterbank{i}").sum(0).min() > 0 for i in (5, 6, 7))  # no empty band


def test_mel_loss_is_equation_2(wave):
    """Again in float64: torch.stft with windows of unit energy, the mel bank, natural logarithm, mean, sum."""
    other = 0.05 * torch.randn(2, 9600, generator=torch.Generator().manual_seed(1))
    expected = 0.0
    for i in (5, 6, 7):
        width, hop = 15 * 2 ** (i - 1), 15 * 2 ** (i - 2)
        window = torch.hann_window(width, dtype=torch.float64)
        window = window / window.square().sum().sqrt()
        bank = mn.mel_filterbank(24000, width, 2**i, 0.0, 12000.0).double()
        mels = []
        for sound in (wave, other):
            padded = torch.nn.functional.pad(sound.double(), ((width - hop) // 2, (width - hop + 1) // 2), "reflect")
            magnitude = torch.stft(padded, width, hop, window=window, center=False, return_complex=True).abs()
            mels.append((magnitude.transpose(1, 2) @ bank).clamp(min=MEL_FLOOR).log())
        expected += (mels[0] - mels[1]).abs().mean().item()
    assert MultiScaleMelLoss(24000)(wave, other).item() == pytest.approx(expected, rel=1e-5)


def test_wave_loss_of_a_gain_is_its_logarithm(wave):
    loss = WaveSpectrumLoss(24000)(2 * wave, wave)
    torch.testing.assert_close(loss, torch.tensor(math.log(2)), rtol=2e-3, atol=0)


def test_emphasis_follows_the_mel_scale_and_averages_one():
    weight = emphasis(N_FFT, 24000)
    torch.testing.assert_close(weight.mean(), torch.tensor(1.0))
    torch.testing.assert_close(weight[0] / weight[28], torch.tensor(2.0))  # 0 Hz against 700 Hz


def test_coarse_mel_loss_is_blind_to_what_the_group_norm_removes(wave):
    mel = mn.log_mel(wave, torch.hann_window(960), mn.mel_filterbank(24000, 960, 20, 0.0, 12000.0), HOP)
    norm = torch.nn.GroupNorm(1, 20)
    coarse = norm((3 * mel + 5).transpose(1, 2)).transpose(1, 2)
    assert coarse_mel_loss(coarse, mel) < 1e-2
    torch.testing.assert_close(coarse_mel_loss(coarse + 0.5, mel), torch.tensor(0.5), rtol=1e-2, atol=0)


def test_wrapped_distance():
    angle = torch.tensor([0.5, 2 * math.pi - 0.5, -4 * math.pi + 0.25, 3 * math.pi])
    torch.testing.assert_close(wrapped_distance(angle), torch.tensor([0.5, 0.5, 0.25, math.pi]), rtol=0, atol=1e-5)


def test_spectrum_loss_is_zero_for_the_true_spectrum(wave):
    spectrum = true_spectrum(wave)
    magnitude, phase = SpectrumLoss(24000, N_FFT, HOP)(
        spectrum.abs().clamp(min=SPECTRUM_FLOOR).log(), spectrum.angle(), wave
    )
    assert magnitude < 1e-6
    assert phase < 1e-5


def test_phase_loss_ignores_whole_turns_and_the_absolute_phase(wave):
    spectrum, loss = true_spectrum(wave), SpectrumLoss(24000, N_FFT, HOP)
    guess = spectrum.angle() + 0.3 * torch.randn(spectrum.shape, generator=torch.Generator().manual_seed(1))
    turns = torch.randint(-3, 4, spectrum.shape, generator=torch.Generator().manual_seed(2)) * (2 * math.pi)
    expected = loss(spectrum.abs().log(), guess, wave)[1]
    torch.testing.assert_close(loss(spectrum.abs().log(), guess + turns + 1.0, wave)[1], expected, rtol=1e-4, atol=1e-5)


def test_phase_loss_of_a_constant_slip_per_frame(wave):
    spectrum = true_spectrum(wave)
    slip = 0.2 * torch.arange(spectrum.shape[1])[None, :, None]
    weight = spectrum.abs().sqrt()
    expected = 0.2 * weight[:, 1:].mean() / weight.mean()
    torch.testing.assert_close(
        SpectrumLoss(24000, N_FFT, HOP)(spectrum.abs().log(), spectrum.angle() + slip, wave)[1],
        expected,
        rtol=1e-3,
        atol=0,
    )


def test_same_phase_in_every_frame_is_what_the_phase_loss_punishes(wave):
    """The hum: a steady tone rendered with one phase per frame, against the same tone with its natural advance."""
    time = torch.arange(9600) / 24000
    tone = 0.5 * torch.sin(2 * math.pi * 225 * time)[None]  # bin 9
    spectrum, loss = true_spectrum(tone), SpectrumLoss(24000, N_FFT, HOP)
    frozen = spectrum.angle()[:, 20:21].expand_as(spectrum)
    assert loss(spectrum.abs().log(), spectrum.angle(), tone)[1] < 1e-3
    assert loss(spectrum.abs().log(), frozen, tone)[1] > 0.5
