"""Stage 2: what moves and what stays, both networks, where it starts."""

from dataclasses import replace

import pytest
import torch

from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.train.audio_data import Batch
from mimo_audio.train.recipe import Recipe, TrainingError
from mimo_audio.train.tokenizer import read_start, train

from .conftest import load, step, trainer_of, write


def states(trainer) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": tensor.clone()
        for name, module in trainer.stage.modules().items()
        for key, tensor in module.state_dict().items()
    }


def test_decoder_and_discriminators_move_and_the_encoder_stays(values, tmp_path):
    trainer = trainer_of(load(tmp_path, values), stage=2)
    before = states(trainer)
    for i in range(3):
        losses = step(trainer, i)
    after = states(trainer)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith("model.encoder.") for name in moved)
    weights = {name for name, _ in trainer.stage.model.decoder.named_parameters()}
    still = {name for name in weights if f"model.decoder.{name}" not in moved}
    assert not {name for name in still if "weight" in name}
    discriminators = {
        name for name, p in trainer.stage.discriminators.named_parameters() if p.dim() > 1
    }  # no hinge moves a bias
    assert {f"discriminators.{name}" for name in discriminators} <= moved
    assert {"mel", "adversarial", "feature_matching", "discriminator", "discriminator_gradient"} <= losses.keys()


def test_the_generators_gradient_does_not_reach_the_discriminators(values, tmp_path):
    recipe = load(tmp_path, values)
    trainer = trainer_of(recipe, stage=2)
    batch, stage = trainer.data(0), trainer.stage
    gradients = {}
    for scale in (1.0, 100.0):
        weights = (replace(recipe.stage2.weights[0], adversarial=scale),)
        stage.training = replace(recipe.stage2, weights=weights)
        for optimizer in stage.optimizers:
            optimizer.zero_grad()
        stage.backward(0, 0, batch, 1.0)
        gradients[scale] = [
            torch.cat([p.grad.flatten() for p in group if p.grad is not None]) for group in stage.parameter_groups
        ]
    assert torch.equal(gradients[1.0][1], gradients[100.0][1])
    assert not torch.equal(gradients[1.0][0], gradients[100.0][0])


def test_quiet_and_loud_crops_are_scored_alike_and_once(values, tmp_path):
    stage = trainer_of(load(tmp_path, values), stage=2).stage
    waves_seen = []
    stage.discriminators.register_forward_pre_hook(lambda module, waves: waves_seen.append(waves[0]))
    wave = torch.randn(2, 5760, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.02], [0.7]])
    stage.backward(0, 0, Batch(wave), 1.0)
    real, _ = waves_seen
    torch.testing.assert_close(real.square().mean(1), torch.ones(2))
    torch.testing.assert_close(real / wave, torch.tensor([[1 / 0.02], [1 / 0.7]]).expand(2, 5760), rtol=0.05, atol=0)


def test_discriminators_have_no_weight_decay(values, tmp_path):
    trainer = trainer_of(load(tmp_path, values, weight_decay=0.5), stage=2)
    discriminators = {id(p) for p in trainer.stage.discriminators.parameters()}
    groups = [group for optimizer in trainer.stage.optimizers for group in optimizer.param_groups]
    decays = {group["weight_decay"] for group in groups if any(id(p) in discriminators for p in group["params"])}
    assert decays == {0.0}
    assert 0.5 in {group["weight_decay"] for group in groups}


def test_without_adversarial_weights_it_is_reconstruction(values, tmp_path):
    values["stage2"]["weights"] = [{"first_step": 0, "mel": 1}]
    losses = step(trainer_of(load(tmp_path, values), stage=2), 0)
    assert "discriminator" not in losses
    assert losses["loss"] == pytest.approx(losses["mel"])


def test_the_discriminators_win_against_a_generator_that_stands_still(values, tmp_path):
    trainer = trainer_of(load(tmp_path, values, learning_rate=0.0, steps=100), stage=2)
    trainer.stage.optimizers[-1].param_groups[0]["peak"] = 0.02
    batch = trainer.data(0)
    losses = [trainer.step(i, [batch])["discriminator"] for i in range(40)]
    assert losses[0] > 1.5
    assert losses[-1] < 0.75 * losses[0]


def test_both_stages_follow_each_other(recipe_file, tmp_path, caplog):
    caplog.set_level("INFO", "mimo_audio")
    train(Recipe.load(recipe_file), tmp_path / "run", resume=False)
    first, second = (AudioTokenizer.from_pretrained(tmp_path / "run" / name / "model") for name in ("stage1", "stage2"))
    wave = torch.randn(9600, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.encode(wave), second.encode(wave))
    assert not torch.equal(first.decode(first.encode(wave)), second.decode(second.encode(wave)))
    assert caplog.text.count("6/6") == 2


def test_stage_two_can_start_from_a_tokenizer(values, tmp_path):
    recipe = Recipe.load(write(tmp_path, values))
    torch.manual_seed(1)
    model = AudioTokenizer(recipe.model)
    for book in model.quantizer.codebooks:
        book.inited.fill_(1)
    model.save_pretrained(tmp_path / "start")
    train(recipe, tmp_path / "run", resume=False, start=str(tmp_path / "start"))
    trained = AudioTokenizer.from_pretrained(tmp_path / "run" / "stage2" / "model")
    assert torch.equal(trained.encoder.conv1.weight, model.encoder.conv1.weight)
    assert not (tmp_path / "run" / "stage1").exists()


def test_a_run_from_a_tokenizer_resumes_without_naming_it(values, tmp_path):
    recipe = Recipe.load(write(tmp_path, values))
    model = AudioTokenizer(recipe.model)
    for book in model.quantizer.codebooks:
        book.inited.fill_(1)
    model.save_pretrained(tmp_path / "start")
    train(recipe, tmp_path / "run", resume=False, start=str(tmp_path / "start"))
    train(load(tmp_path, values, steps=8), tmp_path / "run", resume=True)
    assert '"step": 8' in (tmp_path / "run" / "stage2" / "log.jsonl").read_text().splitlines()[-1]
    assert not (tmp_path / "run" / "stage1").exists()


def test_a_start_of_other_sizes_is_an_error(recipe_file):
    with pytest.raises(TrainingError, match=r"start nano: expected the recipe's model: d_model 16, got 128"):
        read_start(Recipe.load(recipe_file), "nano")


def test_a_start_without_codebooks_is_an_error(recipe_file, tmp_path):
    recipe = Recipe.load(recipe_file)
    AudioTokenizer(recipe.model).save_pretrained(tmp_path / "start")
    with pytest.raises(TrainingError, match="expected trained codebooks"):
        read_start(recipe, tmp_path / "start")


def test_a_start_needs_a_stage_two(values, tmp_path):
    del values["stage2"]
    with pytest.raises(TrainingError, match="expected a recipe with a stage 2"):
        train(Recipe.load(write(tmp_path, values)), tmp_path / "run", resume=False, start="nano")


def test_bfloat16_trains_both_networks(values, tmp_path):
    trainer = trainer_of(load(tmp_path, values, precision="bfloat16"), stage=2)
    before = states(trainer)
    losses = step(trainer, 0)
    assert all(abs(value) < float("inf") for value in losses.values())
    moved = {name.partition(".")[0] for name, value in states(trainer).items() if not torch.equal(value, before[name])}
    assert moved == set(trainer.stage.modules())
