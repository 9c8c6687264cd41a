"""The encoder: log-mel frames at 100 Hz to continuous vectors at 25 Hz (MiMo-Audio report, section 2.1)."""

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from mimo_audio.errors import AudioError
from mimo_audio.tokenizer.config import TokenizerConfig
from mimo_audio.tokenizer.packing import conv
from mimo_audio.tokenizer.quantizer import Quantizer
from mimo_audio.tokenizer.transformer import TransformerStack, make_norm


class Encoder(TransformerStack):
    """Two convolutions (the second halves the rate), Transformer with a skip branch, down-sampling convolution.

    `quantizer` lives here because the release stores it here; forward stops before it.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__(
            width=config.d_model,
            heads=config.encoder_attention_heads,
            ffn_dim=config.encoder_ffn_dim,
            depth=config.encoder_layers,
            window=config.encoder_attn_window_size,
            causal=config.encoder_causal,
            activation=config.activation_function,
            norm=config.ln_type,
            theta=config.rope_theta,
        )
        d, pool = config.d_model, config.avg_pooler
        self.kernel, self.stride, self.pool = config.kernel_size, config.stride_size, pool
        self.skip_layer = config.encoder_skip_layer_id
        self.conv1 = nn.Conv1d(config.n_mels, d, self.kernel, padding=1)
        self.conv2 = nn.Conv1d(d, d, self.kernel, self.stride, padding=1)
        self.layer_norm = make_norm(config.ln_type, d)
        if pool > 1:
            self.down_sample_layer = nn.Sequential(nn.Conv1d(d, d, pool, pool, bias=False))
            self.down_sample_norm = make_norm(config.ln_type, d)
        self.quantizer = Quantizer(config)

    def _conv_lengths(self, length: int) -> tuple[int, int]:
        first = length + 3 - self.kernel
        return first, (first + 2 - self.kernel) // self.stride + 1

    def output_length(self, length: int) -> int:
        """Vectors (25 Hz) that so many mel frames (100 Hz) give."""
        return -(-self._conv_lengths(length)[1] // self.pool)

    def forward(self, mel: Tensor, lengths: Sequence[int]) -> Tensor:
        """Packed mel [sum(lengths), n_mels] -> features [sum(output_length), d_model], every sequence on its own."""
        first, second = zip(*map(self._conv_lengths, lengths), strict=True)
        if min(second) < 1:
            raise AudioError(
                f"mel: {min(lengths)} frames are too few for the encoder's convolutions (kernel {self.kernel})"
            )
        x = F.gelu(conv(self.conv1, mel.to(self.conv1.weight.dtype), lengths, first))
        x = F.gelu(conv(self.conv2, x, first, second))
        layout = self.layout(second, x.device)
        skip = None
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, layout)
            if number == self.skip_layer:
                skip = x
        x = self.layer_norm(x if skip is None else x + skip)
        if self.pool > 1:
            pooled = [-(-n // self.pool) for n in second]
            x = self.down_sample_norm(F.gelu(conv(cast(nn.Conv1d, self.down_sample_layer[0]), x, second, pooled)))
        return x
