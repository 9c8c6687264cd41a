"""The tokenizer's configuration: a frozen dataclass that reads and writes the released config.json."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from mimo_audio.errors import ModelError
from mimo_audio.files import atomic_output

CHOICES = {
    "activation_function": ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"),
    "ln_type": ("LayerNorm", "RMSNorm"),
    "rope_type": ("default",),
    "vocoder_padding": ("same",),
}


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Shape of a MiMo-Audio-Tokenizer (report, section 2.1); names and defaults are those of the released config.json.

    nfft, window_size and hop_length are in samples; attention windows are [left, right] frames, inclusive, -1 for no
    limit. `codebook_size` may be given short (its last entry repeats) or long (surplus entries are dropped).
    `vocoder_phase_advance` is our addition: the head predicts phases relative to a steady tone at each bin's centre.
    `extra` holds the keys of a file that mean nothing to this code, so that saving keeps them. Raises ModelError with
    one line that lists everything wrong.
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
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = [
            f"{f.name} must be {expected}, got {getattr(self, f.name)!r}"
            for f in fields(self)
            if (expected := _expected(f.name, f.type, getattr(self, f.name)))
        ]
        problems = problems or _contradictions(self)
        if problems:
            raise ModelError("config: " + "; ".join(problems))
        sizes = [self.codebook_size] if isinstance(self.codebook_size, int) else list(self.codebook_size)
        sizes += sizes[-1:] * self.num_quantizers
        object.__setattr__(self, "codebook_size", tuple(sizes[: self.num_quantizers]))
        for name in WINDOWS:
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def frame_rate(self) -> float:
        """Code frames per second (25 in the release)."""
        return self.sampling_rate / (self.hop_length * self.stride_size * self.avg_pooler)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TokenizerConfig":
        """The configuration in an already parsed config.json; a null counts as absent. Raises ModelError."""
        known = {f.name: f for f in fields(cls) if f.name != "extra"}
        given = {name: value for name, value in values.items() if name in known and value is not None}
        missing = [name for name, f in known.items() if f.default is MISSING and name not in given]
        if missing:
            raise ModelError(f"config: missing {', '.join(missing)}")
        return cls(**given, extra={name: value for name, value in values.items() if name not in known})

    @classmethod
    def load(cls, path: Path) -> "TokenizerConfig":
        """Reads a released config.json. Raises ModelError if it cannot be read or does not describe a tokenizer."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"cannot read {path}: {error}") from error
        if not isinstance(values, dict):
            raise ModelError(f"{path}: expected a JSON object, got {type(values).__name__}")
        try:
            return cls.from_dict(values)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Everything a released config.json holds, keys unknown to this code included."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}
        return {**self.extra, **lists}

    def save(self, path: Path) -> None:
        """Writes config.json, whole or not at all. Raises OutputError."""
        with atomic_output(path, force=True) as partial:
            partial.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")


LARGEST, MOST_LAYERS = 1 << 20, 1000  # far beyond any tokenizer, and small enough to fail at once
WINDOWS = ("encoder_attn_window_size", "decoder_attn_window_size", "vocoder_attn_window_size")


def _is_int(value: object, low: int, high: int = LARGEST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _expected(name: str, annotation: object, value: Any) -> str | None:
    """What the value of a key should have been, None if it is fine."""
    if name in CHOICES:
        return None if value in CHOICES[name] else " or ".join(map(repr, CHOICES[name]))
    if name in WINDOWS:
        fine = isinstance(value, list | tuple) and len(value) == 2 and all(_is_int(side, -1) for side in value)
        return None if fine else f"[left, right] with integers from -1 to {LARGEST}"
    if name == "codebook_size":
        sizes = value if isinstance(value, list | tuple) else [value]
        return None if sizes and all(_is_int(size, 1, 65536) for size in sizes) else "integers from 1 to 65536"
    if annotation is int:
        high = MOST_LAYERS if name.endswith(("_layers", "num_quantizers")) else LARGEST
        return None if _is_int(value, 1, high) else f"an integer from 1 to {high}"
    if annotation is bool:
        return None if isinstance(value, bool) else "true or false"
    if name == "encoder_skip_layer_id":
        return None if value is None or _is_int(value, 0) else "null or an integer >= 0"
    if annotation in (float, float | None):
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
        return None if number or (value is None and name == "fmax") else "a number >= 0"
    return None


def _contradictions(config: TokenizerConfig) -> list[str]:
    """Values that are fine alone but not together."""
    problems = []
    for width, heads in (
        ("d_model", "encoder_attention_heads"),
        ("d_model", "decoder_attention_heads"),
        ("vocoder_dim", "vocoder_attention_heads"),
    ):
        if getattr(config, width) % (2 * getattr(config, heads)):
            problems.append(
                f"{width} {getattr(config, width)} must split into {heads} {getattr(config, heads)} even parts"
            )
    if config.nfft % 2 or config.hop_length > config.nfft:
        problems.append(f"nfft must be even and at least hop_length, got {config.nfft} and {config.hop_length}")
    if config.window_size > config.nfft:
        problems.append(f"window_size {config.window_size} must not exceed nfft {config.nfft}")
    if config.fmin >= (config.sampling_rate / 2 if config.fmax is None else config.fmax):
        problems.append(f"fmin {config.fmin} must be below fmax {config.fmax}")
    if (config.encoder_skip_layer_id or 0) > config.encoder_layers:
        problems.append(
            f"encoder_skip_layer_id {config.encoder_skip_layer_id} must not exceed "
            f"encoder_layers {config.encoder_layers}"
        )
    return problems
