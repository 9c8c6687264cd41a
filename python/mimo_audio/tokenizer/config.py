"""The tokenizer's configuration: a frozen dataclass that reads and writes the released config.json."""

from dataclasses import dataclass
from typing import Annotated, Literal

from mimo_audio.files.schema import Index, Layers, Range, Reads, Size
from mimo_audio.released.config import ReleasedConfig

Frequency = Annotated[float, Range(0, 10**6)]  # Hz
Side = Annotated[int, Range(-1, 1 << 20)]
Sizes = Annotated[
    tuple[Annotated[int, Range(1, 65536)], ...],
    Reads(lambda value: [value] if isinstance(value, int) else value, "or one for all"),
]


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(ReleasedConfig):
    """Shape of a MiMo-Audio-Tokenizer (report, section 2.1); names and defaults are those of the released config.json.

    nfft, window_size and hop_length are in samples; attention windows are [left, right] frames, inclusive, -1 for no
    limit. `codebook_size` may be given short (its last entry repeats) or long (surplus entries are dropped).
    `vocoder_phase_advance` is our addition: the head predicts phases relative to a steady tone at each bin's centre.
    """

    d_model: Size
    encoder_layers: Layers
    encoder_attention_heads: Size
    encoder_ffn_dim: Size
    decoder_layers: Layers
    decoder_attention_heads: Size
    decoder_ffn_dim: Size
    vocoder_dim: Size
    vocoder_intermediate_dim: Size
    vocoder_num_layers: Layers
    vocoder_attention_heads: Size
    num_quantizers: Layers
    codebook_size: Sizes = (1024,)
    sampling_rate: Annotated[int, Range(1000, 1 << 20)] = 24000
    nfft: Size = 960
    window_size: Size = 960
    hop_length: Size = 240
    n_mels: Size = 128
    fmin: Frequency = 0
    fmax: Annotated[float, Range(1, 10**6)] | None = None
    kernel_size: Size = 3
    stride_size: Size = 2
    avg_pooler: Size = 2
    activation_function: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"] = "gelu"
    ln_type: Literal["LayerNorm", "RMSNorm"] = "LayerNorm"
    rope_theta: Annotated[float, Range(1, 10**12)] = 10000
    rope_type: Literal["default"] = "default"
    encoder_causal: bool = False
    encoder_attn_window_size: tuple[Side, Side] = (-1, -1)
    encoder_skip_layer_id: Index | None = None
    decoder_causal: bool = True
    decoder_attn_window_size: tuple[Side, Side] = (-1, -1)
    decoder_kernel_size: Size = 3
    decoder_stride_size: Size = 2
    vocoder_attn_window_size: tuple[Side, Side] = (40, 10)
    vocoder_padding: Literal["same"] = "same"
    vocoder_phase_advance: bool = False

    @property
    def frame_rate(self) -> float:
        """Code frames per second (25 in the release)."""
        return self.sampling_rate / (self.hop_length * self.stride_size * self.avg_pooler)

    def normalize(self) -> None:
        sizes = self.codebook_size + self.codebook_size[-1:] * self.num_quantizers
        object.__setattr__(self, "codebook_size", sizes[: self.num_quantizers])

    def contradictions(self) -> list[str]:
        highest = self.sampling_rate / 2
        problems = [
            f"{width} {getattr(self, width)} must split into {heads} {getattr(self, heads)} even parts"
            for width, heads in (
                ("d_model", "encoder_attention_heads"),
                ("d_model", "decoder_attention_heads"),
                ("vocoder_dim", "vocoder_attention_heads"),
            )
            if getattr(self, width) % (2 * getattr(self, heads))
        ]
        if self.nfft % 2 or self.hop_length > self.nfft:
            problems.append(f"nfft must be even and at least hop_length, got {self.nfft} and {self.hop_length}")
        if self.window_size > self.nfft:
            problems.append(f"window_size {self.window_size} must not exceed nfft {self.nfft}")
        if self.fmin >= (self.fmax or highest) or (self.fmax or 0) > highest:
            problems.append(
                f"fmin {self.fmin:g} must be below fmax {self.fmax}, which must not exceed half of sampling_rate "
                f"{self.sampling_rate}"
            )
        if (self.encoder_skip_layer_id or 0) > self.encoder_layers:
            problems.append(
                f"encoder_skip_layer_id {self.encoder_skip_layer_id} must not exceed "
                f"encoder_layers {self.encoder_layers}"
            )
        return problems
