"""The tokenizer's input: log-mel frames of a wave, whole or as it streams by."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio.tokenizer.config import TokenizerConfig
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
            self.register_buffer("window", torch.hann_window(config.window_size, dtype=torch.float32), persistent=False)
            self.register_buffer("filterbank", bank, persistent=False)

    def frames(self, wave: Tensor) -> Tensor:
        """wave [N] -> all its frames [1 + N // hop, n_mels]."""
        return mn.log_mel(wave[None], self.window, self.filterbank, self.hop, FLOOR, "center")[0]

    def stream(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Frames [T_i, n_mels] of a wave in blocks [N_i] of any size; together exactly those of the whole."""
        stream = MelStream(self)
        for block in blocks:
            if len(frames := stream.push(block)):
                yield frames
        if len(frames := stream.finish()):
            yield frames


class MelStream:
    """One wave on its way to log-mel frames.

    Keeps the last samples that frames to come can reach, directly or by reflection at the end of the wave.
    """

    def __init__(self, mel: LogMel) -> None:
        self.mel = mel
        self.keep = -(-mel.n_fft // mel.hop)  # in hops
        self.wave = mel.window.new_empty(0)
        self.first = 0  # frame that sample 0 of `wave` is the centre of
        self.done = 0  # frames given

    def push(self, block: Tensor) -> Tensor:
        """The next samples [N] -> the frames [T, n_mels] that no later sample changes, maybe none."""
        mel = self.mel
        self.wave = torch.cat([self.wave, block.to(self.wave)])
        ready = self.first + (len(self.wave) - mel.n_fft // 2) // mel.hop + 1
        if ready <= self.done:
            return self.wave.new_empty(0, mel.filterbank.shape[1])
        frames = mel.frames(self.wave)[self.done - self.first : ready - self.first]
        self.done = ready
        start = max(self.first, ready - self.keep)
        self.wave, self.first = self.wave[(start - self.first) * mel.hop :], start
        return frames

    def finish(self) -> Tensor:
        """The wave ends here -> its last frames [T, n_mels], none of an empty one."""
        if not len(self.wave):
            return self.wave.new_empty(0, self.mel.filterbank.shape[1])
        return self.mel.frames(self.wave)[self.done - self.first :]
