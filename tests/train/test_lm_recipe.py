"""Recipes of language-model training: what ships is the report's, wrong values are one line, dry runs."""

import json
from pathlib import Path

import pytest
import torch

from mimo_audio.cli import main
from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm.losses import LossPass, pack
from mimo_audio.train.flops import step_flops
from mimo_audio.train.lm_dry_run import Cluster, describe
from mimo_audio.train.lm_recipe import LanguageModelRecipe
from mimo_audio.train.recipe import RecipeError

from ..lm.conftest import SPECIAL, tiny_config
from .lm_source import STAGE, RandomSource

RECIPES = Path(__file__).parents[2] / "recipes"


def test_shipped_recipes_are_table_3_of_the_report():
    pretraining = LanguageModelRecipe.load(RECIPES / "lm-full-pretraining.json")
    first, second = pretraining.stages.values()
    (post,) = LanguageModelRecipe.load(RECIPES / "lm-full-post-training.json").stages.values()
    for stage, rates, batch, tokens, schedule in (
        (first, (2e-4, 3e-5, 0), 16.8e6, 2.6e12, "constant"),
        (second, (2e-4, 3e-5, 2e-4), 16.8e6, 5e12, "cosine"),
        (post, (5e-5, 1e-5, 5e-5), 2.1e6, 100e9, "cosine"),
    ):
        found = stage.learning_rates
        assert (found.patch_encoder, found.backbone, found.patch_decoder) == rates
        positions = stage.rows * stage.context * stage.micro_batches
        assert positions == pytest.approx(batch, rel=0.01)
        assert positions * stage.steps == pytest.approx(tokens, rel=0.01)
        assert (stage.schedule, stage.warmup, stage.context) == (schedule, 0.01, 8192)
    assert first.weights(8) == (1, 0, 0, 0, 0, 0, 0, 0, 0)
    assert second.weights(8) == post.weights(8) == (100, 12, 8, 6, 4, 2, 2, 1, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pretraining"}, 'stages.joint.kind must be "understanding" or'),
        ({"learning_rates": {"backbone": 1}}, "stages.joint.learning_rates lacks patch_encoder"),
        ({"steps": 0}, "stages.joint.steps must be an integer from 1"),
        ({"kind": "understanding"}, "learning_rates.patch_decoder must be absent"),
        ({"loss_weights": [0, 0]}, "loss_weights must have one above 0"),
        ({"betas": [0.9, 1.0]}, "betas must be below 1"),
        ({"lora": {"rank": 0}}, "stages.joint.lora.rank must be an integer from 1"),
    ],
)
def test_wrong_values_are_named(changes, message, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"start": "x", "stages": {"joint": {**STAGE, **changes}}}))
    with pytest.raises(RecipeError, match="^" + str(path)) as caught:
        LanguageModelRecipe.load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_begins_with_a_folder_or_from_scratch():
    for values in ({"start": "x", "model": {}, "text_tokenizer": "y"}, {"model": {}}, {}):
        with pytest.raises(RecipeError, match="either start or model and text_tokenizer"):
            LanguageModelRecipe.from_dict({**values, "stages": {"joint": STAGE}})
    context = {**STAGE, "context": 601}
    with pytest.raises(RecipeError, match="context must be at most max_position_embeddings, 600, got 601"):
        LanguageModelRecipe.from_dict(
            {"model": tiny_config().to_dict(), "text_tokenizer": "y", "stages": {"joint": context}}
        )


def test_operations_are_those_of_the_products():
    """Counted by torch over a forward pass, with attention by its definition; the backward pass takes twice as many."""
    model = AudioLanguageModel(tiny_config(head_dim=10, local_dim=20, input_local_dim=16), SPECIAL)  # no op has 10
    batch = RandomSource(model, 2, 24).batch(0, 0)
    packed = pack(model, batch.input_ids, batch.labels, batch.documents)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        LossPass(model)(packed)
    # What the definition of causal attention computes beyond the pairs that count is the only difference.
    wanted, found = counter.get_total_flops() * 3, step_flops(model, packed, True)
    assert 0.85 * wanted < found <= wanted


def test_a_dry_run_says_what_a_run_costs(tmp_path, capsys):
    recipe = RECIPES / "lm-full-pretraining.json"
    assert main(["train", "lm", "--config", str(recipe), "--dry-run", "--gpus", "8"]) == 0
    text = capsys.readouterr().out
    assert "backbone 7622.6" in text
    assert text.count("<- the recipe's") == 2
    assert "days on 8 H100" in text
    half, whole = (describe(LanguageModelRecipe.load(recipe), Cluster(gpus=n)) for n in (8, 16))
    days = [float(report.split("time        ")[1].split(" days")[0]) for report in (half, whole)]
    assert days[0] == pytest.approx(2 * days[1], rel=0.01)
