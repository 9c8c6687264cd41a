"""The whole tokenizer at the released size (1.2B parameters, random weights), native ops against plain torch.

Most of its time is matrix products that both sides leave to torch: the ratio shows what the ops are worth to a user.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest import mock

import torch

import mimo_audio_native
from bench.case import Case
from mimo_audio.tokenizer import AudioTokenizer, products
from mimo_audio.tokenizer.config import TokenizerConfig
from mimo_audio_native import reference

RELEASED = TokenizerConfig(
    d_model=1280,
    encoder_layers=32,
    encoder_attention_heads=20,
    encoder_ffn_dim=5120,
    encoder_skip_layer_id=3,
    decoder_layers=32,
    decoder_attention_heads=20,
    decoder_ffn_dim=5120,
    vocoder_dim=256,
    vocoder_intermediate_dim=1024,
    vocoder_num_layers=16,
    vocoder_attention_heads=16,
    num_quantizers=20,
    codebook_size=(1024, 1024, 128),
)
# A Transformer block of width d has 12 d^2 weights, each a multiply-add (two operations) per frame; encoder and decoder
# see 50 frames per second of audio, the vocoder 100.
FLOPS_PER_SECOND = 2 * 12 * (32 * 50 * 1280**2)
VOCODER_FLOPS_PER_SECOND = 2 * 12 * (16 * 100 * 256**2)


@contextmanager
def plain_torch() -> Iterator[None]:
    """Replaces every native op by its definition, packed weights by plain ones."""
    definitions = {name: getattr(reference, name) for name in {*reference.__all__} & {*mimo_audio_native.__all__}}
    with mock.patch.multiple(mimo_audio_native, **definitions), mock.patch.object(products, "MOST", 0):
        yield


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    seconds = 60 if device == "cuda" else 4

    @cache
    def tokenizer() -> AudioTokenizer:
        torch.manual_seed(0)
        with torch.device(device):
            return AudioTokenizer(RELEASED).to(device, dtype).eval()

    @cache
    def wave() -> torch.Tensor:
        return 0.1 * torch.randn(24000 * seconds, generator=torch.Generator().manual_seed(0)).to(device)

    @cache
    def codes() -> torch.Tensor:
        return tokenizer().encode(wave(), n_q=8)

    def encode() -> torch.Tensor:
        return tokenizer().encode(wave(), n_q=8)

    def decode() -> torch.Tensor:
        return tokenizer().decode(codes())

    def with_plain_torch(run):
        def reference_run() -> torch.Tensor:
            with plain_torch():
                return run()

        return reference_run

    def same_codes(native: torch.Tensor, plain: torch.Tensor) -> None:
        # White noise through random weights has near ties; a flip in one layer changes the layers after it.
        agreement, wanted = (native[0] == plain[0]).float().mean().item(), 0.97 if dtype == torch.float32 else 0.9
        assert agreement > wanted, f"first codebook agrees in {agreement:.1%} of the frames"

    def same_wave(native: torch.Tensor, plain: torch.Tensor) -> None:
        limit = 1e-3 if dtype == torch.float32 else 0.1
        error = (native - plain).square().mean().sqrt() / plain.square().mean().sqrt()
        assert error < limit, f"relative error {error:.1e}"

    wanted_seconds = seconds / 4000 if dtype.itemsize == 2 else None
    yield Case(
        name=f"tokenizer_encode/{seconds}s",
        native=encode,
        reference=with_plain_torch(encode),
        check=same_codes,
        flops=FLOPS_PER_SECOND * seconds,
        cuda_seconds=wanted_seconds,
    )
    yield Case(
        name=f"tokenizer_decode/{seconds}s",
        native=decode,
        reference=with_plain_torch(decode),
        check=same_wave,
        flops=(FLOPS_PER_SECOND + VOCODER_FLOPS_PER_SECOND) * seconds,
        cuda_seconds=wanted_seconds,
    )
