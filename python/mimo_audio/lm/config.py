"""The language model's configuration: a frozen dataclass that reads and writes the released config.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mimo_audio.errors import ModelError
from mimo_audio.lm.transformer import StackShape
from mimo_audio.released.config import ReleasedConfig, dashed, is_int

if TYPE_CHECKING:
    from typing_extensions import Self

PER_CHANNEL = ("speech_vocab_size", "speech_zeroemb_idx", "delay_pattern")
LARGEST_VOCABULARY = 65536
MOST_CHANNELS, MOST_STEPS, WIDEST_HEAD = 32, 1024, 256  # of the patch_decode op


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(ReleasedConfig):
    """Shape of a MiMo-Audio language model (report, section 2.2); names and defaults are those of the released 7B.

    `speech_vocab_size`, `speech_zeroemb_idx` (the empty codes) and `delay_pattern` have an entry per audio channel; a
    file writes them as "0-1-2" or as one number for all. `local_*` is the patch decoder, `input_local_*` the patch
    encoder, which is causal unless `input_full_attention`; both have `local_attn_heads` heads.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    head_dim: int = 128
    max_position_embeddings: int = 8192
    rope_theta: float = 640000
    rope_scaling: None = None
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    tie_word_embeddings: bool = False
    use_sliding_window: bool = False
    audio_channels: int = 8
    group_size: int = 4
    speech_vocab_size: tuple[int, ...] = (1025, 1025, 129, 129, 129, 129, 129, 129)
    speech_zeroemb_idx: tuple[int, ...] = (1024, 1024, 128, 128, 128, 128, 128, 128)
    delay_pattern: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    local_dim: int = 1024
    local_layers: int = 16
    local_attn_heads: int = 64
    local_ffn_dim: int = 4096
    input_local_dim: int = 1024
    input_local_layers: int = 6
    input_full_attention: bool = False

    choices: ClassVar[Mapping[str, Sequence[str]]] = {"hidden_act": ("silu",)}
    counts: ClassVar[tuple[str, ...]] = ("_layers", "audio_channels")

    @property
    def patch_steps(self) -> int:
        """Steps in which the patch decoder makes one patch (11 in the release)."""
        return self.group_size + max(self.delay_pattern)

    @property
    def backbone(self) -> StackShape:
        """Shape of the backbone's Transformer."""
        return StackShape(
            self.hidden_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.intermediate_size,
            self.rms_norm_eps,
            self.rope_theta,
        )

    @property
    def patch_encoder(self) -> StackShape:
        """Shape of the patch encoder's Transformer."""
        return self._local(self.input_local_dim, self.input_local_layers, 4 * self.input_local_dim)

    @property
    def patch_decoder(self) -> StackShape:
        """Shape of the patch decoder's Transformer."""
        return self._local(self.local_dim, self.local_layers, self.local_ffn_dim)

    def _local(self, width: int, layers: int, ffn_dim: int) -> StackShape:
        heads = self.local_attn_heads
        return StackShape(width, layers, heads, heads, width // heads, ffn_dim, self.rms_norm_eps, self.rope_theta)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Self":
        if "vocoder_dim" in values:
            raise ModelError("expected the config of a language model, got that of an audio tokenizer")
        return super().from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), **{name: dashed(getattr(self, name)) for name in PER_CHANNEL}}

    def expected(self, name: str, annotation: object, value: Any) -> str | None:
        if name in PER_CHANNEL:
            return None if _per_channel(value, 1) else 'integers >= 0 per audio channel ("0-1-2") or one for all'
        if name == "rope_scaling":
            plain = value is None or value in ({"type": "default"}, {"rope_type": "default"})
            return None if plain else "null (no scaling of rotary positions is known here)"
        if name == "use_sliding_window":
            return None if value is False else "false (a sliding window is not known here)"
        return super().expected(name, annotation, value)

    def normalize(self) -> None:
        for name in PER_CHANNEL:
            object.__setattr__(self, name, _per_channel(getattr(self, name), self.audio_channels))

    def contradictions(self) -> list[str]:
        problems = [
            f"{name} must have audio_channels {self.audio_channels} entries, got {len(getattr(self, name))}"
            for name in PER_CHANNEL
            if len(getattr(self, name)) != self.audio_channels
        ]
        if not all(is_int(size, 2, LARGEST_VOCABULARY) for size in self.speech_vocab_size):
            problems.append(
                f"speech_vocab_size must be from 2 to {LARGEST_VOCABULARY}, got {dashed(self.speech_vocab_size)}"
            )
        if any(empty >= size for empty, size in zip(self.speech_zeroemb_idx, self.speech_vocab_size, strict=False)):
            problems.append(
                f"speech_zeroemb_idx {dashed(self.speech_zeroemb_idx)} must lie below "
                f"speech_vocab_size {dashed(self.speech_vocab_size)}"
            )
        if self.audio_channels > MOST_CHANNELS:
            problems.append(f"audio_channels must be from 1 to {MOST_CHANNELS}, got {self.audio_channels}")
        if self.patch_steps > MOST_STEPS:
            problems.append(
                f"group_size {self.group_size} and the largest of delay_pattern {max(self.delay_pattern)} must be "
                f"{MOST_STEPS} steps at most together"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            problems.append(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            problems.append(f"head_dim must be even, got {self.head_dim}")
        problems += [
            f"{name} {width} must split into local_attn_heads {self.local_attn_heads} even parts"
            for name, width in (("local_dim", self.local_dim), ("input_local_dim", self.input_local_dim))
            if width % (2 * self.local_attn_heads)
        ]
        if self.local_dim > WIDEST_HEAD * self.local_attn_heads:
            problems.append(
                f"local_dim {self.local_dim} must give local_attn_heads {self.local_attn_heads} a width of "
                f"{WIDEST_HEAD} at most"
            )
        return problems


def _per_channel(value: Any, channels: int) -> tuple[int, ...] | None:
    """The entries that a config value stands for, one given entry repeated; None if it is no list of integers."""
    if isinstance(value, str):
        parts = value.split("-")
        value = [int(part) for part in parts if part.isascii() and part.isdecimal() and len(part) < 10]
        if len(value) < len(parts):
            return None
    entries = list(value) if isinstance(value, list | tuple) else [value]
    if not entries or not all(is_int(entry, 0) for entry in entries):
        return None
    return tuple(entries * channels if len(entries) == 1 else entries)
