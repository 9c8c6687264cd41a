"""The language model's prefill, one patch, and whole generation, against the published way of running it.

Random weights at two sizes: nano (3 million parameters), where calls cost more than arithmetic, and middle (230
million), where reading weights costs most; the full 7B does not fit a laptop in float32. Outside the patch decoder both
sides leave matrix products to torch. Greedy on both, so that the check is equality of tokens.

A GPU also gets the released 7B in half precision (random weights made there): what people wait for. A text token, a
patch with its place in the backbone (one 160 ms of sound) for 1, 8 and 64 rows, the prefill of 1,000 positions, and the
first sound after a prompt of 100 positions, through a stream of the released tokenizer that is open.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

import mimo_audio_native as mn
from bench.case import Case
from bench.compiled import CompiledPatch
from bench.step_by_step import Cache, StepByStep
from mimo_audio import engine
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.lm.samplers import GREEDY
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
CONTEXT = 1000  # positions before the timed one, released size
PATCH_SECONDS = 0.16


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    for name, config in (("nano", NANO), ("middle", MIDDLE)):
        yield from _cases(name, config, device, dtype)
    if device == "cuda" and dtype.itemsize == 2:
        yield from _released(device, dtype)


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
        return step_by_step().patch(hidden())[0]

    def generate() -> Tensor:
        return engine.generate(model(), prompt(), NEW_PATCHES)

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


@cache
def _released_model(device: str, dtype: torch.dtype) -> AudioLanguageModel:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # float32 weights would be 30 GB for a moment
    try:
        torch.manual_seed(0)
        with torch.device(device):
            model = AudioLanguageModel(RELEASED, SPECIAL).eval()
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every group is a patch
    return model


def _released(device: str, dtype: torch.dtype) -> Iterator[Case]:
    size, local, encoder = RELEASED.backbone, RELEASED.patch_decoder, RELEASED.patch_encoder
    model = partial(_released_model, device, dtype)

    def ids(patches: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        frames = patches * RELEASED.group_size
        codes = [torch.randint(rows - 1, (frames,), generator=generator) for rows in RELEASED.speech_vocab_size]
        return torch.stack([torch.full((frames,), SPECIAL.empty), *codes])[None].to(device)

    @torch.no_grad()
    def prefill(count: int, capacity: int) -> tuple[Tensor, object]:
        cache = model().new_cache(capacity=capacity)
        return model().backbone(model().embed(ids(count)), cache=cache)[:, -1], cache

    @torch.no_grad()
    def plain_prefill() -> Tensor:
        plain, cache = StepByStep(model()), []
        return plain.stack("model", size, plain.embed(ids(CONTEXT)), cache, True)[:, -1]

    @cache
    def state(batch: int) -> tuple[Tensor, object, Tensor]:
        """hidden [B, H], a cache with CONTEXT positions of noise, rows."""
        torch.manual_seed(0)
        cache = model().new_cache(batch, CONTEXT + 1)
        cache.room.normal_()
        cache.length = CONTEXT
        return torch.randn(batch, size.width, device=device, dtype=dtype), cache, torch.arange(batch, device=device)

    @torch.no_grad()
    def position(batch: int, patch: bool) -> Tensor:
        """What a session does for every group, for a batch."""
        hidden, cache, rows = state(batch)
        lm = model()
        logits = lm.lm_head(hidden).float()
        assert logits.isfinite().all()
        text = mn.sample(logits, *GREEDY.rows(batch, hidden.device), rows, rows)
        if patch:
            codes = lm.patch_decode(lm.patch_decoder.input(hidden), GREEDY, rows, rows).transpose(1, 2)
        else:
            text = text + 1  # a word
            codes = torch.tensor(RELEASED.speech_zeroemb_idx, device=device)[:, None].expand(batch, -1, 4)
        group = torch.cat([text[:, None, None].expand(-1, 1, RELEASED.group_size), codes], 1)
        out = lm.backbone(lm.embed_groups(group.unsqueeze(1)), cache=cache)[:, -1]
        cache.truncate(CONTEXT)
        return out

    @torch.no_grad()
    def position_on_the_device(batch: int) -> Tensor:
        """The same without a decision of the host, text or patch: what a CUDA graph can hold."""
        hidden, cache, rows = state(batch)
        lm = model()
        greedy = GREEDY.rows(batch, hidden.device)
        text = mn.sample(lm.lm_head(hidden).float(), *greedy, rows, rows)
        codes = lm.patch_decode(lm.patch_decoder.input(hidden), GREEDY, rows, rows)
        patches = lm.patch_encoder(lm.speech_embeddings(codes))
        embeds = torch.where((text == SPECIAL.empty)[:, None], patches, lm.backbone.embed_tokens(text))
        transformer = lm.backbone.transformer
        tables = transformer.rotary(CONTEXT + 1, hidden.device)
        lengths = torch.full_like(rows, CONTEXT)
        return mn.backbone_step(
            embeds,
            transformer.tensors(),
            transformer.norm.weight,
            cache.room,
            CONTEXT,
            None,
            *tables,
            size.heads,
            size.eps,
            lengths,
        )

    @cache
    def plain_state(batch: int) -> tuple[StepByStep, Cache]:
        return StepByStep(model()), [
            (pair[0, ..., :CONTEXT, :], pair[1, ..., :CONTEXT, :]) for pair in state(batch)[1].room
        ]

    @torch.no_grad()
    def plain_position(batch: int, patch: bool) -> Tensor:
        (plain, caches), hidden = plain_state(batch), state(batch)[0]
        text = plain.linear("lm_head", hidden).argmax(-1)
        if patch:
            assert bool((text == plain.empty).all())
            codes = plain.patch(hidden).transpose(1, 2)
        else:
            text = text + 1
            codes = torch.tensor(RELEASED.speech_zeroemb_idx, device=device)[:, None].expand(batch, -1, 4)
        group = torch.cat([text[:, None, None].expand(-1, 1, RELEASED.group_size), codes], 1)
        return plain.stack("model", size, plain.embed(group), list(caches), True)[:, -1]

    def compiled_position(batch: int) -> Callable[[], Tensor]:
        made: list[Callable[[], Tensor]] = []

        def run() -> Tensor:
            if not made:
                hidden, cache, _ = state(batch)
                made.append(CompiledPatch(StepByStep(model()), cache.room, CONTEXT).graph(hidden))
            return made[0]()

        return run

    def close(native: Tensor, plain: Tensor) -> None:
        error = (native - plain).float().square().mean().sqrt().item()
        assert error < 0.1, f"root mean square error {error:.1e}"

    def sane(native: Tensor, plain: Tensor) -> None:  # rounding changes a code, and with it all that follows
        assert native.shape == plain.shape
        assert native.isfinite().all()

    block = size.layers * size.width * (2 * size.head_dim * (size.heads + size.kv_heads) + 3 * size.ffn_dim)
    head = size.width * RELEASED.vocab_size
    patch_weights = RELEASED.patch_steps * local.layers * local.width * (4 * local.width + 3 * local.ffn_dim)
    patch_weights += encoder.layers * encoder.width * (4 * encoder.width + 3 * encoder.ffn_dim)
    cached = 2 * size.layers * size.kv_heads * CONTEXT * size.head_dim
    yield Case(
        name="lm_prefill/released_1000",
        native=lambda: prefill(CONTEXT, CONTEXT)[0],
        reference=plain_prefill,
        check=close,
        flops=2.0 * block * CONTEXT,
        audio=CONTEXT * PATCH_SECONDS,
        graph=False,
    )
    yield Case(
        name="lm_text/released_x1",
        native=partial(position, 1, False),
        reference=partial(plain_position, 1, False),
        check=close,
        bytes=float(dtype.itemsize * (block + head + cached)),
        graph=False,
    )
    for batch, wanted in ((1, 6.5e-3), (8, None), (64, 64 * PATCH_SECONDS / 800)):
        yield Case(
            name=f"lm_patch/released_x{batch}",
            native=partial(position, batch, True),
            reference=partial(plain_position, batch, True),
            check=sane,
            bytes=float(dtype.itemsize * (block + head + patch_weights + batch * cached)),
            cuda_seconds=wanted,
            audio=batch * PATCH_SECONDS,
            compiled=compiled_position(batch) if batch != 8 else None,
            capture=partial(position_on_the_device, batch),
        )
    try:
        from bench.cases.tokenizer import RELEASED as TOKENIZER
        from mimo_audio.tokenizer import AudioTokenizer
        from mimo_audio.tokenizer.streaming import StreamDecoder
    except ModuleNotFoundError:  # soundfile, soxr: without them there is no tokenizer, and no first sound
        return

    @cache
    def tokenizer() -> AudioTokenizer:
        torch.manual_seed(0)
        with torch.device(device):
            return AudioTokenizer(TOKENIZER).to(device, dtype).eval()

    @cache
    def open_stream() -> StreamDecoder:
        return StreamDecoder(
            tokenizer(), n_q=RELEASED.audio_channels, step=RELEASED.group_size, look_ahead=2, context=250
        )

    @torch.no_grad()
    def first_audio() -> Tensor:
        hidden, _ = prefill(PROMPT_PATCHES, PROMPT_PATCHES)
        lm = model()
        row = torch.zeros(1, dtype=torch.int64, device=device)
        text = mn.sample(lm.lm_head(hidden).float(), *GREEDY.rows(1, hidden.device), row, row)
        assert int(text) == SPECIAL.empty
        codes = lm.patch_decode(lm.patch_decoder.input(hidden))[0].T  # [C, G]
        return open_stream().copy().push(codes)

    @torch.no_grad()
    def plain_first_audio() -> Tensor:
        plain = StepByStep(model())
        cache: Cache = []
        hidden = plain.stack("model", size, plain.embed(ids(PROMPT_PATCHES)), cache, True)[:, -1]
        assert int(plain.linear("lm_head", hidden).argmax(-1)) == plain.empty
        return tokenizer().decode(plain.patch(hidden)[0].T)[:1560]  # what a stream with this look-ahead knows by then

    yield Case(
        name="lm_first_audio/released",
        native=first_audio,
        reference=plain_first_audio,
        check=sane,
        cuda_seconds=80e-3,
        graph=False,
    )
