"""The vocoder: coarse mel at 100 Hz to the waveform (MiMo-Audio report, section 2.1).

Vocos with a sliding-window Transformer as its backbone: predict log-magnitude and phase, invert the STFT.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import mimo_audio_native as mn
from mimo_audio.tokenizer.config import TokenizerConfig
from mimo_audio.tokenizer.packing import cumulative, positions
from mimo_audio.tokenizer.precision import Float32Module
from mimo_audio.tokenizer.transformer import TransformerStack, make_norm

MAX_MAGNITUDE = 100.0


def phase_advance(n_fft: int, hop: int) -> Tensor:
    """Phase that a tone at each bin's centre gains from frame 0 to frame t: [P, n_fft / 2 + 1], period P in t.

    2 pi k hop t / n_fft, reduced modulo 2 pi in integers, so that frame a million is as exact as frame 0.
    """
    frame = torch.arange(n_fft // math.gcd(hop, n_fft), dtype=torch.int64)
    turns = torch.outer(frame * hop, torch.arange(n_fft // 2 + 1)) % n_fft
    return (turns.double() * (2 * math.pi / n_fft)).float()


class InverseSTFT(Float32Module):
    """The window of the inverse STFT and the steady-tone phases, float32."""

    window: Tensor  # [n_fft]
    advance: Tensor | None  # [P, n_fft / 2 + 1]

    def __init__(self, n_fft: int, hop: int, advance: bool) -> None:
        super().__init__()
        self.hop = hop
        self.register_buffer("window", torch.hann_window(n_fft, dtype=torch.float32))
        with torch.device("cpu"):
            self.register_buffer("advance", phase_advance(n_fft, hop) if advance else None, persistent=False)

    def absolute_phase(self, phase: Tensor, lengths: Sequence[int]) -> Tensor:
        """The spectrum's phase from the head's, packed [T, bins]: adds the advance where the config asks for it."""
        if self.advance is None:
            return phase
        return phase + self.advance[positions(lengths, phase.device) % len(self.advance)]

    def forward(self, log_magnitude: Tensor, phase: Tensor, lengths: Sequence[int]) -> Tensor:
        """Packed log-magnitude and phase [T, bins] -> waves back to back [T * hop] float32."""
        x = torch.cat([log_magnitude, phase], -1)
        return mn.vocoder_head(x, self.window, self.hop, cumulative(lengths, x.device), MAX_MAGNITUDE)


class Head(nn.Module):
    """Linear layer to log-magnitude and phase, and their inverse STFT."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.out = nn.Linear(config.vocoder_dim, config.nfft + 2)
        self.istft = InverseSTFT(config.nfft, config.hop_length, config.vocoder_phase_advance)


class Vocoder(TransformerStack):
    """Linear layer, Transformer that sees a window of frames, head."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__(
            width=config.vocoder_dim,
            heads=config.vocoder_attention_heads,
            ffn_dim=config.vocoder_intermediate_dim,
            depth=config.vocoder_num_layers,
            window=config.vocoder_attn_window_size,
            causal=False,
            activation=config.activation_function,
            norm=config.ln_type,
            theta=config.rope_theta,
        )
        self.embeddings = nn.Linear(config.n_mels, config.vocoder_dim, bias=False)
        self.layer_norm = make_norm(config.ln_type, config.vocoder_dim)
        self.head = Head(config)

    def output_length(self, length: int) -> int:
        """Samples that so many frames (100 Hz) give."""
        return length * self.head.istft.hop

    def spectrum(self, coarse: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Packed coarse mel [T, n_mels] -> log-magnitude and phase [T, n_fft / 2 + 1] float32, before the inverse STFT.

        Magnitudes are not yet clipped; the phase (radians, not wrapped) includes the steady-tone advance, if any.
        """
        x = self.embeddings(coarse.to(self.embeddings.weight.dtype))
        layout = self.layout(lengths, x.device)
        for layer in self.layers:
            x = layer(x, layout)
        log_magnitude, phase = self.head.out(self.layer_norm(x)).float().chunk(2, -1)
        return log_magnitude, self.head.istft.absolute_phase(phase, lengths)

    def synthesize(self, log_magnitude: Tensor, phase: Tensor, lengths: Sequence[int]) -> Tensor:
        """Inverse STFT of every sequence's spectrum [T, n_fft / 2 + 1] -> waves back to back [T * hop] float32."""
        return self.head.istft(log_magnitude, phase, lengths)

    def forward(self, coarse: Tensor, lengths: Sequence[int]) -> Tensor:
        """Packed coarse mel [sum(lengths), n_mels] -> waves [sum(lengths) * hop] float32, every sequence on its own."""
        return self.synthesize(*self.spectrum(coarse, lengths), lengths)
