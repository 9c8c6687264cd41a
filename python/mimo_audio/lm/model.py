"""AudioLanguageModel: text and audio patches in, text and audio patches out (MiMo-Audio report, section 2.2)."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from shutil import copyfile

import torch
from torch import Tensor, nn

from mimo_audio.errors import LanguageModelError, ModelError, first_line
from mimo_audio.files.output import atomic_output
from mimo_audio.lm import groups, quantized
from mimo_audio.lm.backbone import Backbone
from mimo_audio.lm.cache import KeyValueCache
from mimo_audio.lm.config import LanguageModelConfig
from mimo_audio.lm.patch_decoder import PatchDecoder
from mimo_audio.lm.patch_encoder import PatchEncoder, SpeechEmbeddings
from mimo_audio.lm.quantized import Quantization
from mimo_audio.lm.samplers import GREEDY, Sampler
from mimo_audio.lm.transformer import Linear
from mimo_audio.released import checkpoint, hub
from mimo_audio.text import SpecialTokens, TextTokenizer

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "generation_config.json",
)


@dataclass(frozen=True)
class LanguageModelOutput:
    """What a forward pass gives for every position, each of the model's dtype."""

    hidden: Tensor  # [B, T, H], after the final norm
    text_logits: Tensor  # [B, T, V] of the next position's text token
    local_hidden: Tensor  # [B, T, D_local], from which the patch decoder would make the next position's patch


class AudioLanguageModel(nn.Module):
    """Reads and writes token grids [1 + C, T * G] (see `mimo_audio.lm.groups`) of T positions.

    `special` holds the ids of the special tokens; the model itself uses that of <|empty|>, the text id of patches.
    `text_folder` is where the text tokenizer's files are, which `save_pretrained` copies.
    """

    def __init__(self, config: LanguageModelConfig, special: SpecialTokens, text_folder: Path | None = None) -> None:
        super().__init__()
        self.config = config
        self.special = special
        self.text_folder = text_folder
        self.backbone = Backbone(config.backbone, config.vocab_size)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.backbone.embed_tokens.weight
        self.speech_embeddings = SpeechEmbeddings(
            config.speech_vocab_size, config.speech_zeroemb_idx, config.input_local_dim
        )
        self.patch_encoder = PatchEncoder(
            config.patch_encoder, config.group_size, config.hidden_size, config.input_full_attention
        )
        self.patch_decoder = PatchDecoder(
            config.patch_decoder,
            config.hidden_size,
            config.input_local_dim,
            config.speech_vocab_size,
            config.group_size,
            config.delay_pattern,
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of activations, caches and all weights that are not quantised."""
        return self.backbone.transformer.norm.weight.dtype

    @classmethod
    def from_pretrained(
        cls,
        folder: str | PathLike[str],
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        quantize: str | Quantization | None = None,
    ) -> "AudioLanguageModel":
        """Loads a folder in the released layout: config.json, safetensors (one or sharded), the text tokenizer's files.

        A release's name, XiaomiMiMo/MiMo-Audio-7B-Base for example, is looked for in the local hub cache.
        dtype float32, bfloat16 or float16. quantize "int8" or "int4" (groups of 32) makes matrices small while they are
        loaded (`mimo_audio.lm.quantized`); those of a folder that `mimo-audio quantize` wrote are, and stay in its
        files' mapped pages on the CPU. Raises ModelError with one line that says what is wrong with the folder,
        listing every tensor that does not fit.
        """
        if dtype not in DTYPES:
            raise ModelError(f"dtype: expected {', '.join(map(str, DTYPES))}, got {dtype}")
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # torch built without CUDA answers with an assertion
            raise ModelError(f"device: cannot use {device}: {first_line(error)}") from error
        path = hub.find_folder(folder, "language model")
        config = LanguageModelConfig.load(path / "config.json")
        weights = checkpoint.locate(path)
        special = TextTokenizer.load(path, config.vocab_size).special
        stored, wanted = Quantization.of(config.extra), Quantization.named(quantize)
        if stored and wanted and (stored.bits, stored.group) != (wanted.bits, wanted.group):
            raise ModelError(f"quantize: expected {path} unquantised or {wanted}, got {stored}")
        if (stored or wanted) and torch.device(device).type != "cpu":
            raise ModelError(f"device: expected cpu for quantised weights, got {device}")
        try:
            with torch.device("meta"):
                model = cls(config, special, path)
            if stored:
                quantized.expect(model, stored)
                checkpoint.load(model, weights, device, dtype)
            elif wanted:
                checkpoint.load(model, weights, device, dtype, quantized.converter(model, wanted))
                quantized.note(model, wanted)
            else:
                checkpoint.load(model, weights, device, dtype)
        except (RuntimeError, MemoryError) as error:
            raise ModelError(f"{path}: cannot build a model of these sizes: {first_line(error)}") from error
        return model.eval()

    def save_pretrained(self, folder: str | PathLike[str], shard_bytes: int = checkpoint.SHARD_BYTES) -> None:
        """Writes a folder that `from_pretrained` reads, each file whole or not at all. Raises OutputError.

        Weights of more than `shard_bytes` are split.
        """
        path = Path(folder)
        checkpoint.save_folder(self, path, shard_bytes)
        self.config.save(path / "config.json")
        if self.text_folder is not None and self.text_folder.resolve() != path.resolve():
            for name in TEXT_FILES:
                if (self.text_folder / name).is_file():
                    with atomic_output(path / name, force=True) as partial:
                        copyfile(self.text_folder / name, partial)

    def embed(self, input_ids: Tensor) -> Tensor:
        """input_ids [B, 1 + C, T * G] -> inputs of the backbone [B, T, H]. Raises LanguageModelError."""
        groups.check("input_ids", input_ids, self.config, self.special.empty, batched=True)
        return self.embed_groups(groups.split(input_ids.to(self.device, torch.int64), self.config.group_size))

    def embed_groups(self, grouped: Tensor) -> Tensor:
        """`embed` of ids that are known to be good, as groups [B, T, 1 + C, G] on the model's device."""
        text = grouped[:, :, 0, 0]
        is_patch = text == self.special.empty
        embeds = self.backbone.embed_tokens(text)
        codes = grouped[:, :, 1:].transpose(2, 3)[is_patch]  # [P, G, C]
        if len(codes) or torch.is_grad_enabled():  # in training every parameter takes part in every pass
            patches = self.patch_encoder(self.speech_embeddings(codes))
            embeds = embeds.masked_scatter(is_patch.unsqueeze(-1), patches.to(embeds.dtype))
        return embeds

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> LanguageModelOutput:
        """input_ids [B, 1 + C, T * G], attention_mask [B, T] bool (False: padding) -> outputs for every position.

        Raises LanguageModelError.
        """
        embeds = self.embed(input_ids)
        if attention_mask is not None:
            _check_tensor("attention_mask", attention_mask, torch.bool, list(embeds.shape[:2]))
            attention_mask = attention_mask.to(self.device)
        hidden = self.backbone(embeds, attention_mask)
        return LanguageModelOutput(hidden, self.lm_head(hidden), self.patch_decoder.input(hidden))

    def patch_decode(
        self,
        local_hidden: Tensor,
        sampler: Sampler | None = None,
        seeds: Tensor | None = None,
        offsets: Tensor | None = None,
    ) -> Tensor:
        """local_hidden [B, D_local] -> codes [B, G, C] int64 of a patch per row, never empty ones.

        Without a sampler greedy. seeds and offsets [B] int64 (default 0): of each row's request and of the group within
        it; the same pair draws the same codes in any batch. Raises LanguageModelError.
        """
        width = self.config.local_dim
        is_tensor = isinstance(local_hidden, Tensor)
        if not is_tensor or not local_hidden.is_floating_point() or list(local_hidden.shape[1:]) != [width]:
            raise LanguageModelError(f"local_hidden: expected floating-point [batch, {width}], {_got(local_hidden)}")
        rows = len(local_hidden)
        for name, given in (("seeds", seeds), ("offsets", offsets)):
            if given is not None:
                _check_tensor(name, given, torch.int64, [rows])
        zeros = torch.zeros(rows, dtype=torch.int64, device=self.device)
        try:
            return self.patch_decoder.decode(
                local_hidden.to(self.device, self.dtype),
                self.speech_embeddings,
                *(GREEDY if sampler is None else sampler).rows(rows, self.device),
                zeros if seeds is None else seeds.to(self.device),
                zeros if offsets is None else offsets.to(self.device),
            )
        except RuntimeError as error:
            if "cannot be sampled" not in str(error):
                raise
            raise LanguageModelError(
                "the patch decoder's logits are not finite: local_hidden or the model's weights are damaged"
            ) from error

    def new_cache(self, batch: int = 1, capacity: int = 0) -> KeyValueCache:
        """An empty cache for `backbone(embeds, cache=...)` with room for `capacity` positions; it grows when full."""
        limit = self.config.max_position_embeddings
        return KeyValueCache(self.config.backbone, batch, limit, self.dtype, self.device, capacity)


def _check_tensor(name: str, tensor: Tensor, dtype: torch.dtype, shape: list[int]) -> None:
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype or list(tensor.shape) != shape:
        raise LanguageModelError(f"{name}: expected {dtype} {shape}, {_got(tensor)}")


def _got(given: object) -> str:
    return "got " + (f"{given.dtype} {list(given.shape)}" if isinstance(given, Tensor) else type(given).__name__)
