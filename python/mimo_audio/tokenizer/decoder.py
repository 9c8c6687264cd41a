"""The decoder: quantized vectors at 25 Hz to a coarse mel at 100 Hz (MiMo-Audio report, section 2.1).

A mirror of the encoder with causal attention. The group norms of its up-convolutions take their statistics over one
whole sequence: decoding it alone is the definition, and batches equal that.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mimo_audio.tokenizer.config import TokenizerConfig
from mimo_audio.tokenizer.packing import GroupNorm, conv_transpose, group_norm
from mimo_audio.tokenizer.transformer import TransformerStack, make_norm
from mimo_audio.tokenizer.vocoder import Vocoder


class UpConvolution(nn.Module):
    """Transposed convolution, then group norm over channels and time, then the causal trim at the right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(inputs, outputs, kernel, stride)
        self.norm = GroupNorm(outputs)
        self.trim = max(0, kernel - stride)

    def output_length(self, length: int) -> int:
        """Frames that so many frames give."""
        return (length - 1) * self.conv.stride[0] + self.conv.kernel_size[0] - self.trim

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Packed [sum(lengths), inputs] -> [sum(output_length), outputs]."""
        y, full = conv_transpose(self.conv, x, lengths)
        return group_norm(self.norm, y, full, [n - self.trim for n in full])


class Decoder(TransformerStack):
    """Up-convolution, causal Transformer, up-convolution to the coarse mel.

    `vocoder` lives here because the release stores it here; forward stops before it.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__(
            width=config.d_model,
            heads=config.decoder_attention_heads,
            ffn_dim=config.decoder_ffn_dim,
            depth=config.decoder_layers,
            window=config.decoder_attn_window_size,
            causal=config.decoder_causal,
            activation=config.activation_function,
            norm=config.ln_type,
            theta=config.rope_theta,
        )
        d, pool = config.d_model, config.avg_pooler
        self.dconv1 = UpConvolution(d, d, pool, pool) if pool > 1 else None
        self.layer_norm = make_norm(config.ln_type, d)
        self.dconv2 = UpConvolution(d, config.n_mels, config.decoder_kernel_size, config.decoder_stride_size)
        self.vocoder = Vocoder(config)

    def output_length(self, length: int) -> int:
        """Coarse mel frames (100 Hz) that so many vectors (25 Hz) give."""
        return self.dconv2.output_length(self.dconv1.output_length(length) if self.dconv1 else length)

    def forward(self, embeddings: Tensor, lengths: Sequence[int]) -> Tensor:
        """Packed embeddings [sum(lengths), d_model] -> coarse mel [sum(output_length), n_mels], each on its own."""
        x = embeddings.to(self.dconv2.conv.weight.dtype)
        if self.dconv1 is not None:
            x = self.dconv1(x, lengths)
            lengths = [self.dconv1.output_length(n) for n in lengths]
        layout = self.layout(lengths, x.device)
        for layer in self.layers:
            x = layer(x, layout)
        return self.dconv2(self.layer_norm(x), lengths)
