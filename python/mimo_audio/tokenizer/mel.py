"""The tokenizer's input: log-mel frames of a wave, whole or as it streams by."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio.config import TokenizerConfig
from mimo_audio.tokenizer.precision import Float32Module

FLOOR = 1e-7


class LogMel(Float32Module):
    """Natural log of the HTK mel magnitudes, centred frames with reflect padding, float32."""

    window: Tensor  # [window_size]
    filterbank: Tensor  # [nfft // 2 + 1, n_mels]

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.hop, self.n_fft = config.hop_length, config.nfft
        with torch.device("cpu"):
            bank = mn.mel_filterbank(config.sampling_rate, self.n_fft, config.n_mels, config.fmin, config.fmax)
            self.register_buffer("window", torch.hann_window(config.window_size), persistent=False)
            self.register_buffer("filterbank", bank, persistent=False)

    def _frames(self, wave: Tensor) -> Tensor:
        return mn.log_mel(wave[None], self.window, self.filterbank, self.hop, FLOOR, "center")[0]

    def stream(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Frames [T_i, n_mels] of a wave that arrives in blocks [N_i] of any size; together exactly those of the whole.

        Keeps the last samples that frames to come can reach, directly or by reflection at the end of the wave.
        """
        keep = -(-self.n_fft // self.hop)  # in hops
        wave = self.window.new_empty(0)
        first = 0  # frame that sample 0 of `wave` is the centre of
        done = 0  # frames given
        for block in blocks:
            wave = torch.cat([wave, block.to(self.window)])
            ready = first + (len(wave) - self.n_fft // 2) // self.hop + 1
            if ready > done:
                yield self._frames(wave)[done - first : ready - first]
                done = ready
                start = max(first, done - keep)
                wave, first = wave[(start - first) * self.hop :], start
        if len(wave) and (rest := self._frames(wave)[done - first :]).numel():
            yield rest
