"""Training losses against the published code's numbers and against the definition, written out in float64."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from mimo_audio.errors import LanguageModelError
from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm import losses as losses_module
from mimo_audio.lm.losses import Losses, LossPass, combine, losses, pack
from mimo_audio.released.checkpoint import released_name

from .conftest import FOLDER
from .test_definition import Naive

WEIGHTS = (5.0, 4.0, 2.0, 1.0)


@pytest.fixture(scope="module")
def published() -> tuple[AudioLanguageModel, dict[str, Tensor], dict]:
    """The golden checkpoint, training batches and numbers."""
    model = AudioLanguageModel.from_pretrained(FOLDER / "ckpt" / "A_lm_s0")
    info = json.loads((FOLDER / "A_lm_s0.train.json").read_text())
    return model, load_file(FOLDER / "A_lm_s0.train.safetensors"), info


def of(published, batch: str, **options) -> Losses:
    model, arrays, _ = published
    ids, labels, mask = (arrays[f"{batch}.{name}"] for name in ("input_ids", "labels", "attention_mask"))
    return losses(model, ids, labels, mask.bool(), **options)


@pytest.mark.parametrize("batch", ["b_mix", "b_multi", "b_text", "b_pad3"])
def test_published_losses(published, batch):
    wanted = published[2]["batches"][batch]
    wanted = wanted.get("with_labels_cast_to_int64", wanted)
    found = of(published, batch, zero_empty_embedding=False)
    assert found.total.item() == pytest.approx(wanted["loss"], rel=1e-5)
    assert found.text.item() == pytest.approx(wanted["text_loss"], rel=1e-5)
    assert found.channels.tolist() == pytest.approx(wanted["channel_losses"] or [0] * 8, rel=1e-5)


def test_published_losses_with_other_settings(published):
    switches = published[2]["switches"]
    for name, options in {
        "empty_loss_weight_0.2": {"empty_loss_weight": 0.2},
        "weights_all_1": {"weights": [1] * 9},
        "no_speech_loss": {"weights": [1, *[0] * 8]},
    }.items():
        found = of(published, "b_mix", zero_empty_embedding=False, **options)
        assert found.total.item() == pytest.approx(switches[name]["loss"], rel=1e-5), name
    zeroed = published[2]["b_mix_if_empty_text_embedding_were_zeroed"]
    assert of(published, "b_mix").total.item() == pytest.approx(zeroed, rel=1e-5)


def test_published_gradients(published):
    model, arrays, info = published
    model.zero_grad()
    of(published, "b_mix", zero_empty_embedding=False).total.backward()
    compared = 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        released = released_name(name)
        assert parameter.grad.norm().item() == pytest.approx(info["grad_norms"][released], rel=1e-4), name
        if (wanted := arrays.get(f"b_mix.grad.{released}")) is not None:
            assert (parameter.grad - wanted).norm() <= 1e-4 * wanted.norm(), name
            compared += 1
    assert compared == sum(name.startswith("b_mix.grad.") for name in arrays)


def labels_for(model: AudioLanguageModel, ids: Tensor, seed: int = 0) -> Tensor:
    """Labels of ids, at about two thirds of the positions."""
    size = model.config.group_size
    is_labelled = torch.rand(len(ids), ids.shape[2] // size, generator=torch.Generator().manual_seed(seed)) < 2 / 3
    labels = torch.full_like(ids, -100)
    labels[:, 0, ::size] = torch.where(is_labelled, ids[:, 0, ::size], -100)
    is_patch = is_labelled & (ids[:, 0, ::size] == model.special.empty)
    return torch.where(is_patch.repeat_interleave(size, 1)[:, None] & (torch.arange(labels.shape[1]) > 0)[:, None],
                       ids, labels)  # fmt: skip


def naive_losses(naive: Naive, documents: list[tuple[Tensor, Tensor]], empty_loss_weight: float) -> Tensor:
    """[1 + C] from documents (ids and labels [1 + C, T * G]), one position, frame and codebook at a time."""
    config, size = naive.config, naive.config.group_size
    text, weight, frames = torch.zeros((), dtype=torch.float64), 0.0, 0
    channels = [torch.zeros((), dtype=torch.float64) for _ in range(config.audio_channels)]
    for ids, labels in documents:
        hidden = naive.hidden(ids)
        for t in range(1, len(hidden)):
            label = labels[0, t * size]
            if label == -100:
                continue
            w = empty_loss_weight if label == naive.empty else 1.0
            text = text + w * F.cross_entropy(naive.text_logits(hidden[t - 1]), label)
            weight += w
            if label == naive.empty:
                codes = labels[1:, t * size : (t + 1) * size].T
                _, logits = naive.decode(naive.local_hidden(hidden[t - 1]), codes)
                for (frame, channel), scores in logits.items():
                    channels[channel] = channels[channel] + F.cross_entropy(scores, codes[frame, channel])
                frames += size
    return torch.stack([text / weight, *(total / frames for total in channels)])


@pytest.mark.parametrize("changes", [{}, {"input_local_dim": 8}, {"delay_pattern": "0-3-1", "group_size": 2},
                                     {"head_dim": 10, "local_dim": 20}])  # fmt: skip
def test_losses_and_gradients_are_those_of_the_definition(make_model, random_ids, changes):
    model = make_model(**changes)
    ids = random_ids(model, 2, 12)
    labels = labels_for(model, ids)
    mask = torch.arange(12) >= torch.tensor([[0], [5]])
    columns = [row.repeat_interleave(model.config.group_size) for row in mask]
    kept = [(ids[row][:, where], labels[row][:, where]) for row, where in enumerate(columns)]
    wanted = naive_losses(Naive(model), kept, 0.3)
    total = (wanted * torch.tensor(WEIGHTS)).sum() / sum(WEIGHTS)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    found = losses(model, ids, labels, mask, WEIGHTS, 0.3)
    torch.testing.assert_close(torch.cat([found.text[None], found.channels]), wanted, atol=0, rtol=2e-6)
    torch.testing.assert_close(found.total, total, atol=0, rtol=2e-6)
    found.total.backward()
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        assert parameter.grad is not None
        wanted = torch.zeros_like(parameter) if gradient is None else gradient
        torch.testing.assert_close(
            parameter.grad, wanted, atol=2e-6, rtol=2e-4, msg=lambda m, name=name: f"{name}: {m}"
        )


def packed_case(model, random_ids) -> tuple[Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Two rows of three and two documents with padding between and after, and the documents alone."""
    ids = random_ids(model, 2, 20)
    labels = labels_for(model, ids)
    documents = torch.full((2, 20), -1)
    documents[0, :7], documents[0, 7:8], documents[0, 10:18] = 0, 1, 2
    documents[1, :4], documents[1, 4:20] = 0, 1
    size, alone = model.config.group_size, []
    for row in range(2):
        for number in range(int(documents[row].max()) + 1):
            columns = (documents[row] == number).repeat_interleave(size)
            alone.append((ids[row : row + 1, :, columns], labels[row : row + 1, :, columns]))
    return ids, labels, documents, alone


def gradients_of(model: AudioLanguageModel) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_packed_equals_unpacked(make_model, random_ids):
    model = make_model()
    ids, labels, documents, alone = packed_case(model, random_ids)
    packed = losses(model, ids, labels, documents=documents)
    packed.total.backward()
    together = gradients_of(model)
    model.zero_grad()
    prepared = [pack(model, *pair) for pair in alone]
    counts = [p.counts for p in prepared]
    whole = losses_module.Counts(sum(c.text for c in counts), sum(c.frames for c in counts))
    parts = []
    for document in prepared:  # as micro-batches, divided by the counts of all
        weights = losses_module.default_weights(3)
        parts.append(combine(LossPass(model)(document).sums(document), whole, weights))
        parts[-1].total.backward()
    assert sum(part.total for part in parts).item() == pytest.approx(packed.total.item(), rel=1e-6)
    assert sum(part.text for part in parts).item() == pytest.approx(packed.text.item(), rel=1e-6)
    torch.testing.assert_close(sum(part.channels for part in parts), packed.channels, atol=1e-6, rtol=1e-6)
    for one, other in zip(together, gradients_of(model), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_documents_do_not_see_each_other(make_model, random_ids):
    model = make_model()
    ids, labels, documents, _ = packed_case(model, random_ids)
    labels[0, 0, : 10 * 4] = -100
    before = losses(model, ids, labels, documents=documents)
    ids[0, 0, 0 : 7 * 4 : 4] = 3
    assert losses(model, ids, labels, documents=documents).total == before.total


def test_padding_may_hold_anything_that_is_an_id(make_model, random_ids):
    model = make_model()
    ids, labels, documents, _ = packed_case(model, random_ids)
    before = losses(model, ids, labels, documents=documents)
    is_padding = (documents < 0).repeat_interleave(4, 1)
    for grid in (ids, labels):
        grid[:, 0].masked_fill_(is_padding, 1)
    assert losses(model, ids, labels, documents=documents).total == before.total


def test_the_understanding_stage_leaves_the_patch_decoder_alone(make_model, random_ids, monkeypatch):
    model = make_model()
    ids = random_ids(model, 2, 12)
    labels = labels_for(model, ids)
    text = losses(model, ids, labels).text
    model.patch_decoder.requires_grad_(False)
    monkeypatch.setattr(model.patch_decoder, "forward", None)
    found = losses(model, ids, labels, weights=[1, 0, 0, 0])
    assert found.total == found.text == text
    assert not found.channels.any()
    found.total.backward()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"backbone", "lm_head", "speech_embeddings", "patch_encoder"}


def test_text_logits_in_parts_give_the_same(make_model, random_ids, monkeypatch):
    model = make_model()
    ids = random_ids(model, 2, 12)
    labels = labels_for(model, ids)
    found = []
    for limit in (1 << 27, 3 * model.config.vocab_size):
        monkeypatch.setattr(losses_module, "LOGITS_AT_ONCE", limit)
        model.zero_grad()
        found.append(losses(model, ids, labels))
        found[-1].total.backward()
        found.append(gradients_of(model))
    torch.testing.assert_close(found[0].total, found[2].total, atol=0, rtol=1e-6)
    for one, other in zip(found[1], found[3], strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)


def test_half_precision_and_autocast(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 2, 12)
    labels = labels_for(model, ids)
    exact = losses(model, ids, labels).total.item()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = losses(model, ids, labels).total
    assert mixed.item() == pytest.approx(exact, rel=0.02)
    mixed.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert losses(model.bfloat16(), ids, labels).total.item() == pytest.approx(exact, rel=0.02)


def test_nothing_labelled_is_no_loss(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 1, 6)
    found = losses(model, ids, torch.full_like(ids, -100))
    found.total.backward()
    assert found.total == found.text == 0
    assert not found.channels.any()


def test_what_does_not_fit_is_one_line(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 2, 6)
    labels = labels_for(model, ids)
    text, audio = labels.clone(), labels.clone()
    text[0, 0, 4] = 60
    audio[:, 0, ::4], audio[:, 1:] = model.special.empty, 0
    audio[1, 2, 9] = 7
    pieces = torch.tensor([[0, 0, 1, 1, 0, 0]] * 2)
    for message, arguments in {
        r"labels: expected integers \[2, 4, 24\] as input_ids, got torch.int64 \[2, 4, 20\]": {
            "labels": labels[..., 4:]
        },
        "labels: expected 0 to 59 in the text row, got 60": {"labels": text},
        "labels: expected 0 to 6 in the audio channel 1, got 7": {"labels": audio},
        r"documents: expected integers \[2, 6\], got torch.int64 \[2, 5\]": {"documents": pieces[:, 1:]},
        "documents: expected the positions of a document together": {"documents": pieces},
        "documents: expected at least one position": {"documents": torch.full((2, 6), -1)},
        "documents: expected without an attention_mask": {
            "documents": pieces,
            "attention_mask": torch.ones(2, 6).bool(),
        },
        "weights: expected 4, of the text and of every codebook, got 3": {"weights": [1, 2, 3]},
        "weights: expected none below 0 and one above": {"weights": [0] * 4},
    }.items():
        with pytest.raises(LanguageModelError, match=message):
            losses(model, ids, **{"labels": labels, **arguments})
