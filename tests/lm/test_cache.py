"""The key-value cache: read in pieces, padded, grown, cut, what it gives is what a pass without it gives."""

import pytest
import torch
from torch import Tensor

from mimo_audio.errors import LanguageModelError
from mimo_audio.lm.cache import CHUNK


def read(model, embeds: Tensor, cache, pieces, mask: Tensor | None = None) -> Tensor:
    """Hidden states of embeds [B, T, H] read piece by piece; the mask is for the first piece."""
    hidden = []
    for index, piece in enumerate(embeds.split(list(pieces), 1)):
        own = mask[:, : piece.shape[1]] if mask is not None and index == 0 else None
        hidden.append(model.backbone(piece, own, cache))
    return torch.cat(hidden, 1)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [(12,), (1,) * 12, (5, 7), (1, 4, 1, 6), (11, 1)])
def test_pieces_are_as_the_whole(make_model, random_ids, pieces):
    model = make_model()
    embeds = model.embed(random_ids(model, 2, 12))
    hidden = read(model, embeds, model.new_cache(2), pieces)
    torch.testing.assert_close(hidden, model.backbone(embeds), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [(12,), (6, 1, 1, 4), (7, 5)])
def test_left_padded_rows_are_as_alone(make_model, random_ids, pieces):
    model = make_model()
    embeds = model.embed(random_ids(model, 3, 12))
    padding = [0, 5, 2]
    mask = torch.arange(12) >= torch.tensor(padding)[:, None]
    hidden = read(model, embeds, model.new_cache(3), pieces, mask)
    assert hidden.isfinite().all()
    for row, start in enumerate(padding):
        alone = model.backbone(embeds[row : row + 1, start:])
        torch.testing.assert_close(hidden[row : row + 1, start:], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_growth(make_model, random_ids):
    model = make_model()
    embeds = model.embed(random_ids(model, 1, 2 * CHUNK + 9))
    cache = model.new_cache()
    assert cache.capacity == 0
    hidden = read(model, embeds, cache, (CHUNK - 1, 1, 1, CHUNK - 1, 9))
    torch.testing.assert_close(hidden, model.backbone(embeds), atol=1e-5, rtol=0)
    assert cache.length == 2 * CHUNK + 9 <= cache.capacity <= model.config.max_position_embeddings
    assert model.new_cache(capacity=70).capacity >= 70


@torch.no_grad()
def test_memory_that_runs_out_while_growing(make_model, random_ids, monkeypatch):
    """The cache is then as it was, and grows when there is memory again."""
    model = make_model()
    embeds = model.embed(random_ids(model, 1, CHUNK + 5))
    cache = model.new_cache()
    hidden = read(model, embeds[:, :CHUNK], cache, (CHUNK,))

    def short(capacity: int) -> Tensor:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_room", short)
        with pytest.raises(torch.OutOfMemoryError):
            model.backbone(embeds[:, CHUNK:], cache=cache)
    assert (cache.length, cache.capacity) == (CHUNK, CHUNK)
    hidden = torch.cat([hidden, read(model, embeds[:, CHUNK:], cache, (5,))], 1)
    torch.testing.assert_close(hidden, model.backbone(embeds), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_step_writes_in_place(make_model, random_ids):
    model = make_model()
    embeds = model.embed(random_ids(model, 1, 9))
    cache = model.new_cache()
    read(model, embeds[:, :3], cache, (3,))
    room = cache.room.data_ptr()
    read(model, embeds[:, 3:], cache, (1,) * 6)
    assert room == cache.room.data_ptr()


@torch.no_grad()
def test_truncate(make_model, random_ids):
    model = make_model()
    first, second = (model.embed(random_ids(model, 1, 8, seed=seed)) for seed in (1, 2))
    cache = model.new_cache()
    read(model, first, cache, (8,))
    cache.truncate(3)
    crossed = torch.cat([first[:, :3], second], 1)
    torch.testing.assert_close(read(model, second, cache, (2, 6)), model.backbone(crossed)[:, 3:], atol=1e-5, rtol=0)
    cache.truncate(0)
    assert cache.length == 0
    torch.testing.assert_close(read(model, second, cache, (8,)), model.backbone(second), atol=1e-5, rtol=0)
    for wrong in (-1, 9):
        with pytest.raises(LanguageModelError, match=f"length: expected 0 to 8 positions, got {wrong}"):
            cache.truncate(wrong)


@torch.no_grad()
def test_padding_is_forgotten_with_the_positions(make_model, random_ids):
    model = make_model()
    embeds = model.embed(random_ids(model, 2, 6))
    cache = model.new_cache(2)
    read(model, embeds, cache, (6,), torch.arange(6) >= torch.tensor([[3], [0]]))
    cache.truncate(0)
    torch.testing.assert_close(read(model, embeds, cache, (6,)), model.backbone(embeds), atol=1e-5, rtol=0)


def test_a_full_cache_refuses_and_stays_usable(make_model, random_ids):
    model = make_model(max_position_embeddings=10)
    embeds = model.embed(random_ids(model, 1, 10)).detach()
    cache = model.new_cache()
    hidden = read(model, embeds[:, :8], cache, (8,))
    with pytest.raises(LanguageModelError, match="positions: expected at most the context of 10, got 11"):
        model.backbone(embeds[:, :3], cache=cache)
    assert cache.length == 8
    hidden = torch.cat([hidden, read(model, embeds[:, 8:], cache, (2,))], 1)
    torch.testing.assert_close(hidden, model.backbone(embeds), atol=1e-5, rtol=0)


def test_masks_that_a_cache_cannot_keep(make_model, random_ids):
    model = make_model()
    embeds = model.embed(random_ids(model, 1, 4))
    for mask in ([True, True, True, False], [True, False, True, True], [False] * 4):
        with pytest.raises(LanguageModelError, match="expected False only at the left"):
            model.backbone(embeds, torch.tensor([mask]), model.new_cache())
    cache = model.new_cache()
    model.backbone(embeds, cache=cache)
    with pytest.raises(LanguageModelError, match="got 4 positions in the cache"):
        model.backbone(embeds, torch.tensor([[False, True, True, True]]), cache)


def test_inference_mode_and_plain_code_may_share_a_model_and_a_cache(make_model, random_ids):
    model = make_model(rope_theta=12345.0)  # whose rotary tables no other test has made
    ids = random_ids(model, 1, 6)
    with torch.inference_mode():
        cache = model.new_cache()
        model.backbone(model.embed(ids)[:, :3], cache=cache)
    hidden = model.backbone(model.embed(ids)[:, 3:], cache=cache)
    assert not hidden.requires_grad
    output = model(ids)
    torch.testing.assert_close(hidden, output.hidden[:, 3:].detach(), atol=1e-5, rtol=0)
    output.text_logits.sum().backward()
