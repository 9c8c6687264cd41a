"""What the language model promises for any checkpoint: what it ignores, batches, gradients, precision, bad input."""

import math

import pytest
import torch

from mimo_audio.engine import generate
from mimo_audio.errors import GenerationError, LanguageModelError
from mimo_audio.lm.samplers import Sampler


@torch.no_grad()
def test_the_rows_of_empty_ids_are_never_read(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 1, 12)
    expected, local_hidden = model(ids), torch.randn(2, 16)
    patches = model.patch_decode(local_hidden)
    model.backbone.embed_tokens.weight[model.special.empty] = math.nan
    for table, empty in zip(model.speech_embeddings.tables(), model.config.speech_zeroemb_idx, strict=True):
        table[empty] = math.nan
    assert torch.equal(model(ids).text_logits, expected.text_logits)
    assert torch.equal(model.patch_decode(local_hidden), patches)


@torch.no_grad()
def test_what_stands_beside_a_text_token_is_ignored(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 1, 12, patches=0.5)
    beside = torch.ones_like(ids, dtype=torch.bool)
    beside[:, 0, ::4] = False
    beside[:, 1:] &= (ids[:, :1, ::4] != model.special.empty).repeat_interleave(4, 2)
    changed = ids.masked_fill(beside, 10**6)
    assert not torch.equal(changed, ids)
    assert torch.equal(model(changed).hidden, model(ids).hidden)


@torch.no_grad()
@pytest.mark.parametrize("patches", [0.0, 0.5, 1.0])
def test_rows_of_a_batch_are_as_alone(make_model, random_ids, patches):
    model = make_model()
    ids = random_ids(model, 3, 20, patches)
    together = model(ids)
    for row in range(3):
        alone = model(ids[row : row + 1])
        torch.testing.assert_close(together.hidden[row], alone.hidden[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(together.text_logits[row], alone.text_logits[0], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_are_as_alone(make_model, random_ids, side):
    model = make_model()
    ids = random_ids(model, 3, 20)
    lengths = torch.tensor([[20], [7], [1]])
    position = torch.arange(20)
    mask = position >= 20 - lengths if side == "left" else position < lengths
    hidden = model(ids, mask).hidden
    assert hidden.isfinite().all()
    for row in range(3):
        alone = model(ids[row : row + 1, :, mask[row].repeat_interleave(4)]).hidden[0]
        torch.testing.assert_close(hidden[row, mask[row]], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_positions_depend_on_earlier_ones_only(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 1, 20)
    other = torch.cat([ids[..., :40], random_ids(model, 1, 10, seed=1)], 2)
    torch.testing.assert_close(model(other).hidden[:, :10], model(ids).hidden[:, :10], atol=1e-6, rtol=0)
    assert (model(other).hidden[:, 10] - model(ids).hidden[:, 10]).abs().max() > 0.01


def test_narrow_and_wide_integers_are_read_alike(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 1, 6)
    for dtype in (torch.int16, torch.int32):
        assert torch.equal(model.embed(ids.to(dtype)), model.embed(ids))


@pytest.mark.parametrize("patches", [0.0, 0.5, 1.0])
def test_every_parameter_takes_part_in_training(make_model, random_ids, patches):
    model = make_model(input_local_dim=8).train()
    ids = random_ids(model, 2, 10, patches)
    output = model(ids, torch.arange(10) < torch.tensor([[10], [6]]))
    codes = torch.stack([torch.randint(size, (20, 4)) for size in (11, 7, 9)], -1)
    logits = model.patch_decoder(output.local_hidden.flatten(0, 1), codes, model.speech_embeddings)
    (output.text_logits.square().mean() + sum(scores.square().mean() for scores in logits)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        unused = name.startswith({0.0: "patch_encoder", 1.0: "backbone.embed_tokens"}.get(patches, "nothing"))
        assert unused == (not parameter.grad.any()), name


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(make_model, random_ids, dtype):
    model = make_model()
    ids = random_ids(model, 2, 10)
    exact = model(ids)
    rounded = model.to(dtype)(ids)
    for name in ("hidden", "text_logits", "local_hidden"):
        assert getattr(rounded, name).dtype == dtype
        error = (getattr(rounded, name).float() - getattr(exact, name)).square().mean().sqrt()
        assert error < 0.03 * getattr(exact, name).square().mean().sqrt()


def test_patches_depend_on_seed_and_offset_and_never_on_the_batch(make_model):
    model, sampler = make_model(), Sampler(temperature=1.0)
    local_hidden = torch.randn(40, 16)
    seeds, offsets = torch.arange(40), torch.arange(40) % 7
    together = model.patch_decode(local_hidden, sampler, seeds, offsets)
    alone = [
        model.patch_decode(local_hidden[i : i + 1], sampler, seeds[i : i + 1], offsets[i : i + 1]) for i in range(40)
    ]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together, model.patch_decode(local_hidden, sampler, seeds + 1, offsets))
    assert not torch.equal(together, model.patch_decode(local_hidden, sampler, seeds, offsets + 1))
    for channel, (size, empty) in enumerate(
        zip(model.config.speech_vocab_size, model.config.speech_zeroemb_idx, strict=True)
    ):
        codes = together[..., channel]
        assert ((codes >= 0) & (codes < size) & (codes != empty)).all()


def test_no_patches_from_no_rows(make_model):
    assert make_model().patch_decode(torch.empty(0, 16)).shape == (0, 4, 3)


def test_generate_gives_the_groups_of_the_session(make_model, random_ids):
    model = make_model()
    prompt = random_ids(model, 1, 6)[0]
    new = generate(model, prompt, 5)
    assert new.shape == (4, 20)
    assert torch.equal(generate(model, prompt, 3), new[:, :12])
    assert torch.equal(generate(model, prompt, 5, stop=[int(new[0, 0])]), new[:, :4])
    drawn = generate(model, prompt, 5, text_sampler=Sampler(1.0), audio_sampler=Sampler(1.0), seed=3)
    assert not torch.equal(drawn, new)
    with pytest.raises(GenerationError, match="max_new"):
        generate(model, prompt, 0)


def one(value: int, row: int = 0, column: int = 0):
    """Changes one id of ids whose first group is a patch."""

    def change(ids):
        ids[0, row, column] = value
        return ids

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: ids[0], r"expected \[batch, 4, groups \* 4\] with at least one group, got shape \[4, 24\]"),
        (lambda ids: ids[:, :3], r"got shape \[1, 3, 24\]"),
        (lambda ids: ids[:, :, :-1], r"got shape \[1, 4, 23\]"),
        (lambda ids: ids[:, :, :0], r"got shape \[1, 4, 0\]"),
        (lambda ids: ids[:0], r"got shape \[0, 4, 24\]"),
        (lambda ids: ids.float(), r"expected an integer tensor \[batch, 4, groups \* 4\], got torch\.float32"),
        (lambda ids: ids.tolist(), "expected an integer tensor .*, got list"),
        (lambda ids: ids.repeat(1, 1, 101), "expected at most the context of 600 groups, got 606"),
        (one(-100), "expected text ids from 0 to 59 where a group starts, got -100"),
        (one(60), "expected text ids from 0 to 59 where a group starts, got 60"),
        (one(11, row=1), "expected codes from 0 to 10 in audio channel 0, got 11"),
        (one(-1, row=3, column=2), "expected codes from 0 to 8 in audio channel 2, got -1"),
    ],
)
def test_ids_that_are_none(make_model, random_ids, change, message):
    model = make_model()
    ids = random_ids(model, 1, 6, patches=1.0)
    expected = model.embed(ids)
    with pytest.raises(LanguageModelError, match=f"^input_ids: .*{message}") as error:
        model(change(ids.clone()))
    assert "\n" not in str(error.value)
    assert torch.equal(model.embed(ids), expected)


@pytest.mark.parametrize(
    "mask", [torch.ones(1, 5), torch.ones(1, 6), torch.ones(2, 6).bool(), torch.ones(6).bool(), [True] * 6]
)
def test_masks_that_do_not_fit(make_model, random_ids, mask):
    model = make_model()
    with pytest.raises(LanguageModelError, match=r"attention_mask: expected torch\.bool \[1, 6\], got"):
        model(random_ids(model, 1, 6), mask)


def test_states_that_cannot_be_decoded(make_model):
    model = make_model()
    for wrong in (torch.zeros(16), torch.zeros(()), torch.zeros(1, 17), torch.zeros(1, 16, dtype=torch.int64), [0.0]):
        with pytest.raises(LanguageModelError, match=r"local_hidden: expected floating-point \[batch, 16\], got"):
            model.patch_decode(wrong)
    with pytest.raises(LanguageModelError, match=r"seeds: expected torch\.int64 \[2\], got torch\.int64 \[1\]"):
        model.patch_decode(torch.zeros(2, 16), seeds=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(LanguageModelError, match=r"offsets: expected torch\.int64 \[2\], got torch\.float32 \[2\]"):
        model.patch_decode(torch.zeros(2, 16), offsets=torch.zeros(2))
