"""The tokenizer's configuration: a frozen dataclass that reads and writes the released config.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mimo_audio.released.config import LARGEST, ReleasedConfig, is_int

WINDOWS = ("encoder_attn_window_size", "decoder_attn_window_size", "vocoder_attn_window_size")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(ReleasedConfig):
    """Shape of a MiMo-Audio-Tokenizer (report, section 2.1); names and defaults are those of the released config.json.

    nfft, window_size and hop_length are in samples; attention windows are [left, right] frames, inclusive, -1 for no
    limit. `codebook_size` may be given short (its last entry repeats) or long (surplus entries are dropped).
    `vocoder_phase_advance` is our addition: the head predicts phases relative to a steady tone at each bin's centre.
    """

    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_layers: int
    decoder_attention_heads: int
    decoder_ffn_dim: int
    vocoder_dim: int
    vocoder_intermediate_dim: int
    vocoder_num_layers: int
    vocoder_attention_heads: int
    num_quantizers: int
    codebook_size: tuple[int, ...] = (1024,)
    sampling_rate: int = 24000
    nfft: int = 960
    window_size: int = 960
    hop_length: int = 240
    n_mels: int = 128
    fmin: float = 0
    fmax: float | None = None
    kernel_size: int = 3
    stride_size: int = 2
    avg_pooler: int = 2
    activation_function: str = "gelu"
    ln_type: str = "LayerNorm"
    rope_theta: float = 10000
    rope_type: str = "default"
    encoder_causal: bool = False
    encoder_attn_window_size: tuple[int, int] = (-1, -1)
    encoder_skip_layer_id: int | None = None
    decoder_causal: bool = True
    decoder_attn_window_size: tuple[int, int] = (-1, -1)
    decoder_kernel_size: int = 3
    decoder_stride_size: int = 2
    vocoder_attn_window_size: tuple[int, int] = (40, 10)
    vocoder_padding: str = "same"
    vocoder_phase_advance: bool = False

    choices: ClassVar[Mapping[str, Sequence[str]]] = {
        "activation_function": ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"),
        "ln_type": ("LayerNorm", "RMSNorm"),
        "rope_type": ("default",),
        "vocoder_padding": ("same",),
    }
    counts: ClassVar[tuple[str, ...]] = ("_layers", "num_quantizers")

    @property
    def frame_rate(self) -> float:
        """Code frames per second (25 in the release)."""
        return self.sampling_rate / (self.hop_length * self.stride_size * self.avg_pooler)

    def expected(self, name: str, annotation: object, value: Any) -> str | None:
        if name in WINDOWS:
            fine = isinstance(value, list | tuple) and len(value) == 2 and all(is_int(side, -1) for side in value)
            return None if fine else f"[left, right] with integers from -1 to {LARGEST}"
        if name == "codebook_size":
            sizes = value if isinstance(value, list | tuple) else [value]
            return None if sizes and all(is_int(size, 1, 65536) for size in sizes) else "integers from 1 to 65536"
        if name == "encoder_skip_layer_id":
            return None if value is None or is_int(value, 0) else "null or an integer >= 0"
        if name == "fmax":
            return None if value is None else super().expected(name, float, value)
        return super().expected(name, annotation, value)

    def normalize(self) -> None:
        sizes = [self.codebook_size] if isinstance(self.codebook_size, int) else list(self.codebook_size)
        sizes += sizes[-1:] * self.num_quantizers
        object.__setattr__(self, "codebook_size", tuple(sizes[: self.num_quantizers]))
        for name in WINDOWS:
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def contradictions(self) -> list[str]:
        problems = []
        for width, heads in (
            ("d_model", "encoder_attention_heads"),
            ("d_model", "decoder_attention_heads"),
            ("vocoder_dim", "vocoder_attention_heads"),
        ):
            if getattr(self, width) % (2 * getattr(self, heads)):
                problems.append(
                    f"{width} {getattr(self, width)} must split into {heads} {getattr(self, heads)} even parts"
                )
        if self.nfft % 2 or self.hop_length > self.nfft:
            problems.append(f"nfft must be even and at least hop_length, got {self.nfft} and {self.hop_length}")
        if self.window_size > self.nfft:
            problems.append(f"window_size {self.window_size} must not exceed nfft {self.nfft}")
        if self.fmin >= (self.sampling_rate / 2 if self.fmax is None else self.fmax):
            problems.append(f"fmin {self.fmin} must be below fmax {self.fmax}")
        if (self.encoder_skip_layer_id or 0) > self.encoder_layers:
            problems.append(
                f"encoder_skip_layer_id {self.encoder_skip_layer_id} must not exceed "
                f"encoder_layers {self.encoder_layers}"
            )
        return problems
