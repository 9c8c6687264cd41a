"""The language model's configuration: a frozen dataclass that reads and writes the released config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mimo_audio.errors import ModelError
from mimo_audio.files.schema import Index, Layers, Range, Reads, Size
from mimo_audio.lm.transformer import StackShape
from mimo_audio.released.config import ReleasedConfig, dashed

if TYPE_CHECKING:
    from typing_extensions import Self

PER_CHANNEL = ("speech_vocab_size", "speech_zeroemb_idx", "delay_pattern")
MOST_STEPS, WIDEST_HEAD = 1024, 256  # of the patch_decode op


def _entries(value: Any) -> Any:
    """The numbers of "0-1-2" or of one number; anything else as it is."""
    if isinstance(value, str):
        parts = value.split("-")
        digits = all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts)
        return [int(part) for part in parts] if digits else value
    return [value] if isinstance(value, int) else value


PER_CHANNEL_FORM = Reads(_entries, 'per audio channel, also "0-1-2" or one for all')
Vocabularies = Annotated[tuple[Annotated[int, Range(2, 65536)], ...], PER_CHANNEL_FORM]
Indices = Annotated[tuple[Index, ...], PER_CHANNEL_FORM]


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(ReleasedConfig):
    """Shape of a MiMo-Audio language model (report, section 2.2); names and defaults are those of the released 7B.

    `speech_vocab_size`, `speech_zeroemb_idx` (the empty codes) and `delay_pattern` have an entry per audio channel; a
    file writes them as "0-1-2" or as one number for all. `local_*` is the patch decoder, `input_local_*` the patch
    encoder, which is causal unless `input_full_attention`; both have `local_attn_heads` heads.
    """

    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Size
    num_key_value_heads: Size
    vocab_size: Size
    head_dim: Size = 128
    max_position_embeddings: Size = 8192
    rope_theta: Annotated[float, Range(1, 10**12)] = 640000
    rope_scaling: Literal[None] = None
    rms_norm_eps: Annotated[float, Range(0, 1)] = 1e-6
    hidden_act: Literal["silu"] = "silu"
    tie_word_embeddings: bool = False
    use_sliding_window: Literal[False] = False
    audio_channels: Annotated[int, Range(1, 32)] = 8  # the most of the patch_decode op
    group_size: Size = 4
    speech_vocab_size: Vocabularies = (1025, 1025, 129, 129, 129, 129, 129, 129)
    speech_zeroemb_idx: Indices = (1024, 1024, 128, 128, 128, 128, 128, 128)
    delay_pattern: Indices = (0, 1, 2, 3, 4, 5, 6, 7)
    local_dim: Size = 1024
    local_layers: Layers = 16
    local_attn_heads: Size = 64
    local_ffn_dim: Size = 4096
    input_local_dim: Index = 0  # or null: that of local_dim
    input_local_layers: Layers = 6
    input_full_attention: bool = False

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

    def normalize(self) -> None:
        object.__setattr__(self, "input_local_dim", self.input_local_dim or self.local_dim)
        for name in PER_CHANNEL:
            entries = getattr(self, name)
            object.__setattr__(self, name, entries * self.audio_channels if len(entries) == 1 else entries)

    def contradictions(self) -> list[str]:
        heads, vocabularies, empty = self.local_attn_heads, self.speech_vocab_size, self.speech_zeroemb_idx
        problems = [
            f"{name} must have audio_channels {self.audio_channels} entries, got {len(getattr(self, name))}"
            for name in PER_CHANNEL
            if len(getattr(self, name)) != self.audio_channels
        ]
        if any(code >= size for code, size in zip(empty, vocabularies, strict=False)):
            problems.append(
                f"speech_zeroemb_idx {dashed(empty)} must lie below speech_vocab_size {dashed(vocabularies)}"
            )
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
            f"{name} {width} must split into local_attn_heads {heads} even parts"
            for name, width in (("local_dim", self.local_dim), ("input_local_dim", self.input_local_dim))
            if width % (2 * heads)
        ]
        if self.local_dim > WIDEST_HEAD * heads:
            problems.append(
                f"local_dim {self.local_dim} must give local_attn_heads {heads} a width of {WIDEST_HEAD} at most"
            )
        return problems
