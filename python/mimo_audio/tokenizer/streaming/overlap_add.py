"""The inverse STFT over streams: what frames add to samples that later frames share is carried over to the next step.

"same" padding: frame t covers samples t hop - trim .. t hop - trim + n_fft, and a sample is divided by the sum of the
squared windows of the frames that cover it. A step gives the samples that no later frame reaches.
"""

import torch
from torch import Tensor

from mimo_audio.tokenizer.streaming.state import State
from mimo_audio.tokenizer.vocoder import MAX_MAGNITUDE, InverseSTFT


class StreamingISTFT:
    """`istft` for `frames` spectra a step; the samples of a step are `trim` samples behind the start of its frames."""

    def __init__(self, istft: InverseSTFT, state: State, frames: int) -> None:
        self.istft, self.frames, self.n_fft = istft, frames, len(istft.window)
        self.trim = (self.n_fft - istft.hop) // 2
        state.add("istft.carry", (2, self.n_fft - istft.hop), torch.float32)  # of the signal and of the envelope

    def step(self, x: Tensor, state: State, position: Tensor, end: Tensor, active: Tensor | None) -> Tensor:
        """x [B, frames, n_fft + 2] log-magnitudes and phases -> samples [B, frames * hop] float32.

        position [B, frames]: the frame's number in its stream; end [B]: frames of the stream.
        """
        hop, window = self.istft.hop, self.istft.window
        log_magnitude, phase = x.float().chunk(2, -1)
        if self.istft.advance is not None:
            phase = phase + self.istft.advance[position % len(self.istft.advance)]
        signal = torch.fft.irfft(torch.polar(log_magnitude.exp().clamp(max=MAX_MAGNITUDE), phase), self.n_fft) * window
        pieces = torch.stack([signal, window.square().expand_as(signal)], 1)  # [B, 2, frames, n_fft]
        exists = (position >= 0) & (position < end[:, None])
        pieces = torch.where(exists[:, None, :, None], pieces, 0)
        carry = state["istft.carry"]
        total = pieces.new_zeros(len(x), 2, self.frames * hop + carry.shape[2])
        total[:, :, : carry.shape[2]] = carry
        for i in range(self.frames):
            total[:, :, i * hop : i * hop + self.n_fft] += pieces[:, :, i]
        state.update("istft.carry", active, total[:, :, self.frames * hop :])
        wave, envelope = total[:, :, : self.frames * hop].unbind(1)
        return wave / envelope.clamp(min=torch.finfo(torch.float32).tiny)
