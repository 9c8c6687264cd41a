"""The training loop: it learns, it resumes exactly, it leaves a model that loads, it fails with one line."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.train.recipe import Recipe, RecipeError
from mimo_audio.train.tokenizer import Trainer, schedule, train

LOSSES = ("loss", "mel", "commitment", "coarse", "magnitude", "phase", "wave")


def read_log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def with_training(recipe: Recipe, **changes) -> Recipe:
    return Recipe(recipe.model, recipe.data, replace(recipe.training, **changes))


def test_resuming_equals_an_uninterrupted_run(recipe_file, tmp_path):
    recipe = Recipe.load(recipe_file)
    whole = Trainer(recipe)
    expected = [whole.step(i) for i in range(6)]
    first = Trainer(recipe)
    for i in range(4):  # across the start of the codebooks at step 2
        first.step(i)
    first.save(tmp_path, 4)
    second = Trainer(recipe)
    assert second.load(tmp_path) == 4
    assert [second.step(i) for i in (4, 5)] == expected[4:]
    for module, other in ((whole.model, second.model), (whole.average, second.average)):
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


def test_the_loss_falls_on_one_batch(recipe_file):
    recipe = with_training(
        Recipe.load(recipe_file), learning_rate=0.01, steps=60, unquantized=20, quantizer_dropout=0.0
    )
    trainer = Trainer(recipe)
    batch = trainer.data(0)
    trainer.__dict__["data"] = lambda step: batch
    losses = [trainer.step(i) for i in range(1, 41)]
    assert losses[-1]["magnitude"] < 0.7 * losses[0]["magnitude"]
    assert losses[-1]["mel"] < 0.7 * losses[0]["mel"]
    assert all(math.isfinite(step[name]) for step in losses for name in LOSSES)


def test_codebooks_start_at_their_step_and_move(recipe_file):
    trainer = Trainer(with_training(Recipe.load(recipe_file), quantizer_dropout=0.0))
    book = trainer.model.quantizer.codebooks[0]
    assert trainer.step(1)["commitment"] == 0
    assert book.inited == 0
    assert trainer.step(2)["commitment"] > 0
    assert book.inited == 1
    before = book.embed.clone()
    trainer.step(3)
    assert not torch.equal(book.embed, before)


def test_a_run_leaves_a_log_and_a_model_that_loads(recipe_file, tmp_path, capsys):
    before = signal.getsignal(signal.SIGINT)
    train(Recipe.load(recipe_file), tmp_path / "run", resume=False)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(RecipeError, match="holds a run"):
        train(Recipe.load(recipe_file), tmp_path / "run", resume=False)
    log = read_log(tmp_path / "run")
    assert [record["step"] for record in log] == [2, 4, 6]
    assert all(name in log[-1] for name in LOSSES)
    assert len(log[-1]["perplexity"]) == 2
    assert "6/6" in capsys.readouterr().out
    model = AudioTokenizer.from_pretrained(tmp_path / "run" / "model")
    codes = model.encode(torch.randn(4800, generator=torch.Generator().manual_seed(0)))
    assert codes.shape[0] == 2
    assert model.decode(codes).isfinite().all()
    assert not list((tmp_path / "run").rglob("*.partial*"))


def test_interrupting_saves_and_resuming_finishes(recipe_file, tmp_path):
    recipe = json.loads(recipe_file.read_text())
    recipe["training"] |= {"steps": 100_000, "checkpoint_every": 100_000}
    recipe_file.write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "mimo_audio.train.tokenizer", "--config", recipe_file, "--out", tmp_path / "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    assert "2/100000" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    stopped = int(output.split("stopped after step ")[1].split(";")[0])
    recipe["training"]["steps"] = stopped + 2
    recipe_file.write_text(json.dumps(recipe))
    train(Recipe.load(recipe_file), tmp_path / "run", resume=True)
    assert read_log(tmp_path / "run")[-1]["step"] == stopped + 2


def test_a_loss_that_is_not_finite_stops_the_run(recipe_file):
    trainer = Trainer(Recipe.load(recipe_file))
    trainer.__dict__["data"] = lambda step: torch.full((2, 6 * 960), torch.nan)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    with pytest.raises(RecipeError, match="step 0: the loss is nan"):
        trainer.step(0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())


def test_the_learning_rate_rises_and_falls():
    rates = [schedule(step, 10, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.02


def test_a_recipe_with_a_wrong_key_says_which_are_expected(recipe_file):
    recipe = json.loads(recipe_file.read_text())
    recipe["training"]["learning_rat"] = recipe["training"].pop("learning_rate")
    recipe_file.write_text(json.dumps(recipe))
    with pytest.raises(RecipeError, match=r"training: expected the keys .*learning_rate.*got .*learning_rat"):
        Recipe.load(recipe_file)


def test_bfloat16_trains_like_float32(recipe_file):
    losses = {}
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(with_training(Recipe.load(recipe_file), precision=precision, quantizer_dropout=0.0))
        losses[precision] = [trainer.step(i)["magnitude"] for i in range(5)]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_weights_change_at_their_step(recipe_file):
    trainer = Trainer(Recipe.load(recipe_file))
    assert "mel" not in trainer.step(0)
    assert trainer.step(1)["mel"] > 0


def test_weights_must_start_at_step_zero(recipe_file):
    recipe = json.loads(recipe_file.read_text())
    recipe["training"]["weights"][0]["first_step"] = 5
    recipe_file.write_text(json.dumps(recipe))
    with pytest.raises(RecipeError, match=r"expected first_step 0 and then ascending, got \[5, 1\]"):
        Recipe.load(recipe_file)


def test_the_shipped_recipe_is_a_model_of_eight_megabytes_at_most():
    path = Path(__file__).parents[2] / "recipes" / "tokenizer-nano.json"
    model = AudioTokenizer(Recipe.load(path).model)
    weights = sum(p.numel() for p in model.parameters()) * 2  # stored as bfloat16
    assert model.config.codebook_size == (1024, 1024, *[128] * 6)
    books = sum(book.embed.numel() for book in model.quantizer.codebooks) * (4 + 2)
    assert weights + books <= 8e6
