"""Definition of the short-time Fourier transform and its inverse in plain torch.

Padding "center" reflects n_fft // 2 samples at both ends (T = 1 + L // hop frames, the tokenizer's log-mel); "same"
reflects (n_fft - hop) / 2 (T = L // hop frames, the vocoder and the training losses).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def _reflect(length: int, left: int, right: int, device: torch.device) -> Tensor:
    """Indices [left + length + right] of reflect padding; folds as often as a short signal needs, unlike F.pad."""
    index = torch.arange(-left, length + right, device=device)
    if length == 1:
        return torch.zeros_like(index)
    period = 2 * (length - 1)
    index = index % period
    return torch.where(index < length, index, period - index)


def frame_count(length: int, n_fft: int, hop: int, padding: str) -> int:
    """Frames of a signal of `length` samples."""
    return 1 + length // hop if padding == "center" else length // hop


def _frames(wave: Tensor, n_fft: int, hop: int, padding: str) -> Tensor:
    length = wave.shape[-1]
    count = frame_count(length, n_fft, hop, padding)
    if count == 0:
        return wave.new_zeros((len(wave), 0, n_fft))
    left, right = (
        (n_fft // 2, n_fft // 2) if padding == "center" else ((n_fft - hop) // 2, n_fft - hop - (n_fft - hop) // 2)
    )
    padded = wave[:, _reflect(length, left, right, wave.device)]
    return padded.unfold(-1, n_fft, hop)[:, :count]


def _centred(window: Tensor, n_fft: int) -> Tensor:
    left = (n_fft - len(window)) // 2
    return F.pad(window, (left, n_fft - len(window) - left))


def stft(wave: Tensor, window: Tensor, n_fft: int, hop: int, padding: str = "center") -> Tensor:
    """wave [B, L], window [W <= n_fft] (zero-padded around its centre) -> complex spectrum [B, T, n_fft // 2 + 1]."""
    frames = _frames(wave, n_fft, hop, padding) * _centred(window, n_fft)
    if frames.numel() == 0:  # which rfft does not take
        return torch.complex(frames, frames)[..., : n_fft // 2 + 1]
    return torch.fft.rfft(frames)


def overlap_add(frames: Tensor, window: Tensor, hop: int) -> Tensor:
    """Windowed overlap-add with "same" padding. frames [B, T, n_fft], window [n_fft] -> wave [B, T * hop].

    Divides by the overlap-added squared window, then trims (n_fft - hop) / 2 samples at both ends.
    """
    _, count, n_fft = frames.shape
    total = (count - 1) * hop + n_fft

    def add(pieces: Tensor) -> Tensor:  # [B, T, n_fft] -> [B, total]
        return F.fold(pieces.transpose(1, 2), (1, total), (1, n_fft), stride=(1, hop))[:, 0, 0]

    envelope = add(window.square().expand(1, count, n_fft))
    left = (n_fft - hop) // 2
    return (add(frames * window))[:, left : left + count * hop] / envelope[:, left : left + count * hop]


def istft(spectrum: Tensor, window: Tensor, hop: int) -> Tensor:
    """Inverse of stft(padding="same"). spectrum complex [B, T, n_fft // 2 + 1], window [n_fft] -> wave [B, T * hop]."""
    if spectrum.numel() == 0:  # which irfft does not take
        return window.new_zeros((len(spectrum), spectrum.shape[1] * hop))
    return overlap_add(torch.fft.irfft(spectrum, len(window)), window, hop)
