"""The inverse STFT over streams: what frames add to samples that later frames share is carried over to the next step.

"same" padding: frame t covers samples t hop - trim .. t hop - trim + n_fft, and a sample is divided by the sum of the
squared windows of the frames that cover it. A step gives the samples that no later frame reaches.
"""

import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio.tokenizer.streaming.state import State
from mimo_audio.tokenizer.vocoder import MAX_MAGNITUDE, InverseSTFT


class StreamingISTFT:
    """`istft` for the spectra of a step, whose samples are `trim` samples behind the start of its frames."""

    def __init__(self, istft: InverseSTFT, state: State) -> None:
        self.istft, n_fft = istft, len(istft.window)
        self.trim = (n_fft - istft.hop) // 2
        state.add("istft.carry", (2, n_fft - istft.hop), torch.float32)  # of the signal and of the envelope

    def step(self, x: Tensor, state: State, position: Tensor, end: Tensor, active: Tensor | None) -> Tensor:
        """x [B, n, n_fft + 2] log-magnitudes and phases -> samples [B, n * hop] float32.

        position [B]: the number of the first frame in its stream; end [B]: frames of the stream.
        """
        istft, carry = self.istft, state["istft.carry"]
        return mn.stream_istft(
            x.float(), istft.window, istft.advance, carry, position, end, active, istft.hop, MAX_MAGNITUDE
        )
