"""Definition of the log-mel spectrogram in plain torch (MiMo-Audio report, section 2.1: the tokenizer's input)."""

from torch import Tensor

from mimo_audio_native.reference.stft import stft


def log_mel(
    wave: Tensor, window: Tensor, filterbank: Tensor, hop: int, floor: float = 1e-7, padding: str = "center"
) -> Tensor:
    """Natural logarithm of the mel-weighted magnitude spectrum, at least log(floor).

    wave [B, L], window [W], filterbank [n_fft // 2 + 1, n_mels] -> [B, T, n_mels].
    """
    n_fft = 2 * (filterbank.shape[0] - 1)
    return (stft(wave, window, n_fft, hop, padding).abs() @ filterbank).clamp(min=floor).log()
