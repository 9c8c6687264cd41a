"""Discriminators and their losses: values by hand, norms at one, what sees what."""

import pytest
import torch
from torch import nn

from mimo_audio.tokenizer.discriminators import (
    Discriminators,
    DiscriminatorShape,
    PeriodDiscriminator,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)

SHAPE = DiscriminatorShape(periods=(2, 5), period_channels=(2, 4, 4), windows=(128, 64), window_channels=3)


@pytest.fixture
def discriminators() -> Discriminators:
    torch.manual_seed(0)
    return Discriminators(SHAPE)


def wave(seed: int = 0, batch: int = 2, length: int = 481) -> torch.Tensor:
    return torch.randn(batch, length, generator=torch.Generator().manual_seed(seed))


def judgement(score: float, *activations: float):
    return torch.full((2, 1, 3, 1), score), [torch.full((2, 4), float(a)) for a in activations]


def test_every_sub_discriminator_scores_every_item(discriminators):
    results = discriminators(wave())
    assert len(results) == 4
    assert [len(activations) for _, activations in results] == [3, 3, 5, 5]
    assert all(len(scores) == 2 and scores.shape[1] == 1 for scores, _ in results)


def test_items_of_a_batch_are_scored_alone(discriminators):
    one, both = discriminators(wave()[:1]), discriminators(wave())
    for (alone, _), (together, _) in zip(one, both, strict=True):
        torch.testing.assert_close(alone, together[:1])


def test_a_period_discriminator_sees_columns_alone():
    """Without the columns' mixing, what changes at phase 1 of period 5 moves the scores of column 1 only."""
    torch.manual_seed(0)
    discriminator = PeriodDiscriminator(5, (4, 4)).eval()
    before, changed = wave(length=480), wave(length=480)
    changed[:, 1::5] += 1
    difference = (discriminator(before)[0] - discriminator(changed)[0]).abs().amax((0, 1, 2))
    assert difference[1] > 0
    assert difference[[0, 2, 3, 4]].max() == 0


def test_a_wave_that_does_not_fill_its_rows_is_reflected():
    torch.manual_seed(0)
    discriminator = PeriodDiscriminator(7, (4, 4)).eval()
    short = wave(length=480)
    full = torch.cat((short, short[:, -4:-1].flip(1)), 1)  # 483 = 69 * 7
    torch.testing.assert_close(discriminator(short)[0], discriminator(full)[0])


def test_norms_are_one_in_every_layer(discriminators):
    for _ in range(50):
        discriminators.iterate_norms()
    layers = [module for module in discriminators.modules() if isinstance(module, nn.Conv2d)]
    assert len(layers) == 2 * 4 + 2 * 6
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_passes_do_not_move_the_norms(discriminators):
    before = {name: tensor.clone() for name, tensor in discriminators.state_dict().items()}
    discriminators(wave())
    assert all(torch.equal(tensor, before[name]) for name, tensor in discriminators.state_dict().items())
    discriminators.iterate_norms()
    assert not discriminators.training


def test_hinge_losses_by_hand():
    real, fake = [judgement(0.25), judgement(2.0)], [judgement(-3.0), judgement(-0.5)]
    assert discriminator_loss(real, fake).item() == pytest.approx((0.75 + 0 + 0 + 0.5) / 2)
    assert adversarial_loss(fake).item() == pytest.approx((3 + 0.5) / 2)


def test_every_fake_score_pulls_the_generator_equally():
    """Equation 5 is -mean D(x^): no margin, as the discriminator's side has."""
    scores = torch.tensor([2.0, 0.0, -3.0], requires_grad=True)
    adversarial_loss([(scores, [])]).backward()
    torch.testing.assert_close(scores.grad, torch.full((3,), -1 / 3))


def test_feature_matching_is_a_mean_of_means():
    """A sub-discriminator with many layers counts as much as one with few."""
    real, fake = [judgement(0, 1, 1, 1), judgement(0, 5)], [judgement(0, 2, 1, 1), judgement(0, 3)]
    assert feature_matching_loss(real, fake).item() == pytest.approx((1 / 3 + 2) / 2)


def test_feature_matching_sums_in_float32_and_copies_nothing_to_it():
    real, fake = (torch.full((4, 1000), value, dtype=torch.bfloat16, requires_grad=True) for value in (1.0, 1.25))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        loss = feature_matching_loss([(real, [real])], [(fake, [fake])])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.25)
    assert {tensor.dtype for tensor in kept if tensor.numel() > 1} == {torch.bfloat16}


def test_feature_matching_pulls_the_fake_only():
    real, fake = wave(0).requires_grad_(), wave(1).requires_grad_()
    torch.manual_seed(0)
    discriminators = Discriminators(SHAPE)
    feature_matching_loss(discriminators(real), discriminators(fake)).backward()
    assert real.grad is None
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0


def test_discriminators_learn_to_tell_apart(discriminators):
    optimizer = torch.optim.AdamW(discriminators.parameters(), 0.01, weight_decay=0)
    real, fake = 0.5 * wave(0, 8), 0.5 * wave(1, 8).cumsum(1)
    first = discriminator_loss(discriminators(real), discriminators(fake)).item()
    for _ in range(40):
        loss = discriminator_loss(discriminators(real), discriminators(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        discriminators.iterate_norms()
    assert loss.item() < 0.5 * first
