"""Recipes: what ships loads, and every wrong value is named in one line with what was expected."""

import json
from pathlib import Path

import pytest

from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.train.dry_run import describe
from mimo_audio.train.recipe import LossWeights, Recipe, RecipeError

from .conftest import write

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("tokenizer-*.json"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_load(path):
    recipe = Recipe.load(path)
    assert recipe.stage1 or recipe.stage2


def full(stage: int) -> Recipe:
    return Recipe.load(next(path for path in RECIPES if path.stem == f"tokenizer-full-stage{stage}"))


def test_the_full_recipes_are_the_reports():
    """Its model (section 2.1), loss weights (10, 1, 1; 1, 1, 2), HiFi-GAN's periods and EnCodec's windows."""
    recipe, other = full(1), full(2)
    assert recipe.model == other.model
    model = recipe.model
    for part in ("encoder", "decoder"):
        assert getattr(model, f"{part}_layers") == 32
        assert getattr(model, f"{part}_attention_heads") == 20
        assert getattr(model, f"{part}_ffn_dim") == 5120
    assert (model.d_model, model.encoder_skip_layer_id) == (1280, 3)
    assert (model.encoder_causal, model.decoder_causal) == (False, True)
    assert (model.vocoder_num_layers, model.vocoder_attention_heads) == (16, 16)
    assert (model.vocoder_dim, model.vocoder_intermediate_dim, model.vocoder_attn_window_size) == (256, 1024, (40, 10))
    assert model.codebook_size == (1024, 1024, *[128] * 18)
    assert (model.sampling_rate, model.hop_length, model.frame_rate, model.n_mels) == (24000, 240, 25, 128)
    assert not model.vocoder_phase_advance
    assert recipe.stage2 is None
    assert other.stage1 is None
    first, second = recipe.stage1, other.stage2
    assert first
    assert second
    assert first.weights == (LossWeights(first_step=0, audio_to_text=10, mel=1, commitment=1),)
    assert second.weights == (LossWeights(first_step=0, mel=1, adversarial=1, feature_matching=2),)
    assert (first.unquantized, first.bypass) == (0, 0)  # the reader, too, sees what is quantized from the first step on
    assert second.discriminators.periods == (2, 3, 5, 7, 11)
    assert second.discriminators.period_channels == (32, 128, 512, 1024, 1024)
    assert second.discriminators.windows == (2048, 1024, 512, 256, 128)
    assert second.discriminators.window_channels == 32


@pytest.mark.parametrize(("stage", "rest"), [(1, "reader 203.2"), (2, "discriminators 41.6")])
def test_the_full_size_can_be_planned_anywhere(stage, rest):
    assert f"model 1284.7, {rest} million" in describe(full(stage), "cpu")


def test_the_nano_recipe_is_a_model_of_eight_megabytes_at_most():
    recipe = Recipe.load(next(path for path in RECIPES if path.stem == "tokenizer-nano"))
    assert recipe.stage1
    assert recipe.stage2
    model = AudioTokenizer(recipe.model)
    weights = sum(p.numel() for p in model.parameters()) * 2  # stored as bfloat16
    assert model.config.codebook_size == (1024, 1024, *[128] * 6)
    books = sum(book.embed.numel() for book in model.quantizer.codebooks) * (4 + 2)
    assert weights + books <= 8e6


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("stage1", "steps"), 2.5, r"stage1\.steps must be an integer from 1 to 1099511627776, got 2\.5"),
        (("stage1", "steps"), True, r"stage1\.steps must be an integer from 1 to 1099511627776, got True"),
        (("stage1", "learning_rate"), "0.1", r"stage1\.learning_rate must be a number from 0 to 1000, got '0\.1'"),
        (("stage1", "bypass"), 1.5, r"stage1\.bypass must be a number from 0 to 1, got 1\.5"),
        (("stage1", "precision"), "float16", 'precision must be "bfloat16" or "float32", got \'float16\''),
        (("stage1", "warmup"), 7, "stage1.warmup must be at most steps, 6, got 7"),
        (("stage1", "weights"), [], r"stage1\.weights must be a list that is not empty, each an object, got \[\]"),
        (("stage1", "weights", 0, "mell"), 1, r"stage1\.weights\[0\] may not have mell, only first_step, .*mel"),
        (("stage1", "weights", 0, "first_step"), 5, r"first_step 0 and then ascending, got \[5, 1\]"),
        (("stage1", "weights", 0, "adversarial"), 1, r"stage1\.weights\[0\]\.adversarial must be 0, as it belongs to"),
        (
            ("stage1", "weights", 0, "audio_to_text"),
            10,
            "stage1.audio_to_text must be an object of sizes, as its weight",
        ),
        (("stage1", "start"), "nano", r"stage1\.unquantized must be 0, as start has codebooks, got 2"),
        (("stage1", "audio_to_text"), 3, "stage1.audio_to_text must be null or an object, got 3"),
        (
            ("stage1", "audio_to_text"),
            {"width": 8},
            r"stage1\.audio_to_text lacks layers, heads, ffn_dim, batch, seconds",
        ),
        (("stage2", "weights", 0, "commitment"), 1, r"stage2\.weights\[0\]\.commitment must be 0"),
        (("stage2", "discriminators", "windows"), [8192], "windows must be at most a crop's 5760 samples, got 8192"),
        (("stage2", "discriminators", "periods"), [2, 0], r"periods\[1\] must be an integer from 1 to 1048576, got 0"),
        (("stage1", "clip"), 0, r"stage1\.clip must be a number above 0, 1000000000 at most, got 0"),
        (("stage1", "seed"), 2**70, r"stage1\.seed must be an integer from 0 to 4611686018427387904, got 1180"),
        (("stage1", "learning_rate"), 1e300, r"stage1\.learning_rate must be a number from 0 to 1000, got 1e\+300"),
        (("stage1", "learning_rate"), float("nan"), r"stage1\.learning_rate must be a number .*, got nan"),
        (("stage1", "weights", 1), {"first_step": 1}, r"one of stage1\.weights\[1\]'s .*mel.* must be above 0, got 0"),
        (("stage2", "discriminators", "windows"), [64, 1022], "prime factors other than 2, 3 and 5, got 1022"),
        (("stage2", "discriminators", "periods"), [2, 20000], "must be at most a crop's 5760 samples, got 20000"),
        (("model", "kernel_size"), 5, r"model\.kernel_size must be 3, which keeps the frames of a crop, got 5"),
        (("model", "decoder_stride_size"), 1, r"model\.decoder_stride_size must be the encoder's .*, 2, got 1"),
        (("model", "decoder_kernel_size"), 1, r"model\.decoder_kernel_size must be at least 2, the stride, got 1"),
        (("model", "d_model"), "wide", "d_model must be an integer from 1 to 1048576, got 'wide'"),
        (("model",), 3, "model must be an object, got 3"),
        (("data",), {}, "data must have folders or manifests with their shares"),
        (("data",), {"x": 0}, r"data\.x must be a number above 0"),
        (("trainin",), {}, "a recipe must have model, data, .* got .*trainin"),
    ],
)
def test_a_wrong_value_is_named(place, value, message, values, tmp_path):
    inside = values
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    with pytest.raises(RecipeError, match=rf"^.*recipe\.json: .*{message}") as error:
        Recipe.load(write(tmp_path, values))
    assert "\n" not in str(error.value)


def test_all_wrong_values_are_named(values, tmp_path):
    values["stage1"]["steps"], values["stage2"]["batch"], values["data"] = 0, 10**400, {"x": -1}
    with pytest.raises(RecipeError, match=r"data\.x must.*; stage1\.steps must.*; stage2\.batch must") as error:
        Recipe.load(write(tmp_path, values))
    assert len(str(error.value)) < 500


def test_a_stage_is_needed(values, tmp_path):
    del values["stage1"], values["stage2"]
    with pytest.raises(RecipeError, match="stage1 or stage2 must be given"):
        Recipe.load(write(tmp_path, values))


def test_a_reader_needs_a_weight(with_text, tmp_path):
    for weights in with_text["stage1"]["weights"]:
        del weights["audio_to_text"]
    with pytest.raises(RecipeError, match=r"a weight of stage1\.audio_to_text must be above 0"):
        Recipe.load(write(tmp_path, with_text))


def test_a_recipe_that_is_no_json_is_an_error(tmp_path):
    (tmp_path / "recipe.json").write_text("{" + json.dumps("model"))
    with pytest.raises(RecipeError, match=r"cannot read .*recipe\.json"):
        Recipe.load(tmp_path / "recipe.json")


def test_a_recipe_that_is_nested_too_deeply_is_an_error(tmp_path):
    (tmp_path / "recipe.json").write_text("[" * 100000)
    with pytest.raises(RecipeError, match=r"cannot read .*recipe\.json: nested too deeply"):
        Recipe.load(tmp_path / "recipe.json")
