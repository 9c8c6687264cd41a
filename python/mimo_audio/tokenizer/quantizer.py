"""Residual vector quantization with the codebooks of the release (MiMo-Audio report, section 2.1)."""

import torch
from torch import Tensor, nn

import mimo_audio_native as mn
from mimo_audio.tokenizer.config import TokenizerConfig
from mimo_audio.tokenizer.precision import Float32Module


class Codebook(Float32Module):
    """One layer's entries and the state of their exponential moving average; buffers, as no gradient trains them."""

    inited: Tensor  # [1], 1 once the entries are initialised
    cluster_size: Tensor  # [K], average count of vectors per entry
    embed: Tensor  # [K, d_model], the entries
    embed_avg: Tensor  # [K, d_model], average sum of vectors per entry

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("inited", torch.zeros(1, dtype=torch.float32))
        self.register_buffer("cluster_size", torch.zeros(size, dtype=torch.float32))
        self.register_buffer(
            "embed", torch.empty(size, width, dtype=torch.float32).uniform_(-1, 1) * (3 / width) ** 0.5
        )
        self.register_buffer("embed_avg", self.embed.clone())


class Quantizer(nn.Module):
    """R codebooks, each quantizing what those before it left over; float32 whatever the model's precision."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.tables = mn.RvqTables()
        self.codebooks = nn.ModuleList(Codebook(size, config.d_model) for size in config.codebook_size)

    def embeddings(self, n_q: int | None = None) -> list[Tensor]:
        """Entries [K_r, d_model] of the first n_q codebooks; None or 0 means all, more than there are is clipped."""
        return [codebook.get_buffer("embed") for codebook in self.codebooks][: n_q or None]

    def encode(self, features: Tensor, n_q: int | None = None) -> Tensor:
        """features [N, d_model] -> codes [n_q, N] int64."""
        return mn.rvq_encode(features.float(), self.embeddings(n_q), self.tables)

    def decode(self, codes: Tensor) -> Tensor:
        """codes [R', N] of the first R' codebooks -> the sum of their entries [N, d_model] float32."""
        return mn.rvq_decode(codes, self.embeddings(len(codes)))

    def forward(self, features: Tensor, n_q: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The training form: `mimo_audio_native.rvq_quantize` of features [N, d_model] with the first n_q codebooks.

        -> quantized [N, d_model] (straight-through gradient), codes [n_q, N], commitment [n_q], counts [sum K],
        sums [sum K, d_model].
        """
        return mn.rvq_quantize(features.float(), self.embeddings(n_q))

    def round_codebooks(self, dtype: torch.dtype = torch.bfloat16) -> None:
        """Rounds the entries through `dtype`, as published inference does: for comparing codes with it."""
        for codebook in self.codebooks:
            codebook.embed = codebook.embed.to(dtype).float()
