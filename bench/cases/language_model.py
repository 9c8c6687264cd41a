"""The language model's prefill, one patch, and whole generation, against the published way of running it.

Random weights at two sizes: nano (3 million parameters), where calls cost more than arithmetic, and middle (230
million), where reading weights costs most; the full 7B does not fit a laptop in float32. Outside the patch decoder both
sides leave matrix products to torch. Greedy on both, so that the check is equality of tokens.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from bench.case import Case
from bench.step_by_step import StepByStep
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.text import SpecialTokens

NANO = LanguageModelConfig(
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=32,
    vocab_size=512,
    local_dim=128,
    local_layers=3,
    local_attn_heads=4,
    local_ffn_dim=512,
    input_local_dim=128,
    input_local_layers=2,
    input_full_attention=True,
)
MIDDLE = LanguageModelConfig(
    hidden_size=1024,
    intermediate_size=2816,
    num_hidden_layers=8,
    num_attention_heads=16,
    num_key_value_heads=4,
    head_dim=64,
    vocab_size=32000,
    local_dim=512,
    local_layers=8,
    local_attn_heads=32,
    local_ffn_dim=2048,
    input_local_dim=512,
    input_local_layers=6,
    input_full_attention=True,
)
RELEASED = LanguageModelConfig(
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=151680,
)
SPECIAL = SpecialTokens(1, 2, 0, *range(3, 11))  # <|empty|> is 0: what an all-zero head chooses
PROMPT_PATCHES, NEW_PATCHES = 100, 20


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    for name, config in (("nano", NANO), ("middle", MIDDLE)):
        yield from _cases(name, config, device, dtype)


def _cases(name: str, config: LanguageModelConfig, device: str, dtype: torch.dtype) -> Iterator[Case]:
    @cache
    def model() -> AudioLanguageModel:
        torch.manual_seed(0)
        model = AudioLanguageModel(config, SPECIAL).to(device, dtype).eval()
        with torch.no_grad():
            model.lm_head.weight.zero_()  # every group is a patch
        return model

    @cache
    def step_by_step() -> StepByStep:
        return StepByStep(model())

    @cache
    def prompt() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        frames = PROMPT_PATCHES * config.group_size
        codes = [torch.randint(size - 1, (frames,), generator=generator) for size in config.speech_vocab_size]
        return torch.stack([torch.full((frames,), SPECIAL.empty), *codes]).to(device)

    def same_ids(native: Tensor, plain: Tensor) -> None:
        assert native.shape == plain.shape
        if dtype == torch.float32:  # narrower types round differently step by step, and one token changes all after it
            assert torch.equal(native.cpu(), plain.cpu()), "greedy tokens differ"

    def same_hidden(native: Tensor, plain: Tensor) -> None:
        error = (native - plain).float().square().mean().sqrt().item()
        assert error < (1e-5 if dtype == torch.float32 else 0.05), f"root mean square error {error:.1e}"

    @torch.no_grad()
    def prefill() -> Tensor:
        cache = model().new_cache(capacity=PROMPT_PATCHES)
        return model().backbone(model().embed(prompt()[None]), cache=cache)[:, -1]

    @torch.no_grad()
    def plain_prefill() -> Tensor:
        return step_by_step().prefill(prompt())[0]

    @cache
    def hidden() -> Tensor:
        return prefill()

    def patch() -> Tensor:
        return model().patch_decode(model().patch_decoder.input(hidden()))[0]

    @torch.no_grad()
    def plain_patch() -> Tensor:
        return step_by_step().patch(hidden())

    def generate() -> Tensor:
        return model().generate(prompt(), NEW_PATCHES)

    @torch.no_grad()
    def plain_generate() -> Tensor:
        return step_by_step().generate(prompt(), NEW_PATCHES)

    size = config.backbone
    weights = size.layers * size.width * (2 * size.head_dim * (size.heads + size.kv_heads) + 3 * size.ffn_dim)
    local = config.patch_decoder
    local_bytes = local.layers * local.width * (4 * local.width + 3 * local.ffn_dim) * dtype.itemsize
    yield Case(
        name=f"lm_prefill/{name}",
        native=prefill,
        reference=plain_prefill,
        check=same_hidden,
        flops=2.0 * weights * PROMPT_PATCHES,
    )
    yield Case(
        name=f"lm_patch/{name}",
        native=patch,
        reference=plain_patch,
        check=same_ids,
        bytes=float(config.patch_steps * local_bytes),
    )
    yield Case(
        name=f"lm_generate/{name}",
        native=generate,
        reference=plain_generate,
        check=same_ids,
        target=2.0,
    )
