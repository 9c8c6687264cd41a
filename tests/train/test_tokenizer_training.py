"""The training loop in stage 1: it learns, it resumes exactly, it leaves a model that loads, it fails with one line."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from mimo_audio.cli import main
from mimo_audio.errors import AudioError, ModelError
from mimo_audio.files.output import OutputError
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.train import checkpoint
from mimo_audio.train.audio_data import Batch
from mimo_audio.train.log import TrainingLog
from mimo_audio.train.loop import run, stop_requests
from mimo_audio.train.recipe import Recipe, TrainingError
from mimo_audio.train.starting_point import schedule
from mimo_audio.train.tokenizer import train

from .conftest import load, step, trainer_of, write

LOSSES = ("loss", "mel", "commitment", "coarse", "magnitude", "phase", "wave")


def read_log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def without_stage2(values):
    return {name: value for name, value in values.items() if name != "stage2"}


@pytest.mark.parametrize("number", [1, 2])
def test_resuming_equals_an_uninterrupted_run(number, with_text, tmp_path):
    recipe = load(tmp_path, with_text)
    whole = trainer_of(recipe, number)
    expected = [step(whole, i) for i in range(6)]
    first = trainer_of(recipe, number)
    for i in range(4):  # across the start of the codebooks at step 2
        step(first, i)
    first.save(tmp_path / "run", 4)
    torch.manual_seed(99)  # the second one's own weights must not matter
    second = trainer_of(recipe, number)
    assert second.load(tmp_path / "run") == 4
    assert [step(second, i) for i in (4, 5)] == expected[4:]
    modules, others = ({**t.stage.modules(), "average": t.average} for t in (whole, second))
    for name, module in modules.items():
        resumed = others[name].state_dict()
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, resumed[key]), f"{name}.{key}"


def test_the_loss_falls_on_one_batch(values, tmp_path):
    recipe = load(tmp_path, values, learning_rate=0.01, steps=60, quantizer_dropout=0.0)
    trainer = trainer_of(recipe)
    batch = trainer.data(0)
    losses = [trainer.step(i, [batch]) for i in range(1, 41)]
    assert losses[-1]["magnitude"] < 0.7 * losses[0]["magnitude"]
    assert losses[-1]["mel"] < 0.7 * losses[0]["mel"]
    assert all(math.isfinite(values[name]) for values in losses[1:] for name in LOSSES)


def test_codebooks_start_at_their_step_and_move(values, tmp_path):
    trainer = trainer_of(load(tmp_path, values, quantizer_dropout=0.0))
    book = trainer.stage.model.quantizer.codebooks[0]
    assert "commitment" not in step(trainer, 1)
    assert book.inited == 0
    assert step(trainer, 2)["commitment"] > 0
    assert book.inited == 1
    before = book.embed.clone()
    step(trainer, 3)
    assert not torch.equal(book.embed, before)


def test_stage_one_goes_on_from_a_tokenizer(values, tmp_path):
    """Its weights and codebooks, not new ones; a run that has begun no longer needs it."""
    train(load(tmp_path, values), tmp_path / "first", resume=False)
    start = tmp_path / "first" / "stage1" / "model"
    before = AudioTokenizer.from_pretrained(start).state_dict()
    values = without_stage2(values)
    values["stage1"] |= {"start": str(start), "unquantized": 0, "learning_rate": 0.0, "weight_decay": 0.0, "steps": 3}
    train(Recipe.load(write(tmp_path, values)), tmp_path / "run", resume=False)
    after = AudioTokenizer.from_pretrained(tmp_path / "run" / "stage1" / "model").state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if ".codebooks." not in name} <= same
    moved = [name for name in before if name.endswith(".embed_avg") and name not in same]
    assert len(moved) == 2
    for name in moved:  # averages of decay 0.99: three steps later most of each is as it was
        assert (before[name] - after[name]).norm() < 0.5 * before[name].norm()
    start.rename(tmp_path / "elsewhere")
    values["stage1"]["steps"] = 4
    train(Recipe.load(write(tmp_path, values)), tmp_path / "run", resume=True)


def test_parts_are_averaged(values, tmp_path):
    """Two equal micro-batches of a step do what one of them does."""
    once, twice = (trainer_of(load(tmp_path, values, micro_batches=n, quantizer_dropout=0.0)) for n in (1, 2))
    batch = once.data(0)
    one, two = once.step(0, [batch]), twice.step(0, [batch, batch])
    assert two == pytest.approx(one, rel=1e-5)
    for (name, a), b in zip(once.stage.model.named_parameters(), twice.stage.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name, rtol=1e-3, atol=1e-4)


def test_a_run_leaves_a_log_and_a_model_that_loads(values, tmp_path, caplog):
    caplog.set_level("INFO", "mimo_audio")
    recipe = Recipe.load(write(tmp_path, without_stage2(values)))
    before = signal.getsignal(signal.SIGINT)
    train(recipe, tmp_path / "run", resume=False)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(TrainingError, match="holds a run"):
        train(recipe, tmp_path / "run", resume=False)
    folder = tmp_path / "run" / "stage1"
    log = read_log(folder)
    assert [record["step"] for record in log] == [2, 4, 6]
    assert all(name in log[-1] for name in LOSSES)
    assert len(log[-1]["perplexity"]) == 2
    assert "6/6" in caplog.text
    model = AudioTokenizer.from_pretrained(folder / "model")
    codes = model.encode(torch.randn(4800, generator=torch.Generator().manual_seed(0)))
    assert codes.shape[0] == 2
    assert model.decode(codes).isfinite().all()
    assert not list((tmp_path / "run").rglob("*.partial*"))


def test_tensorboard_gets_curves_and_sounds(values, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(Recipe.load(write(tmp_path, without_stage2(values))), tmp_path / "run", resume=False)
    events = EventAccumulator(str(tmp_path / "run" / "stage1" / "tensorboard"))
    events.Reload()
    assert {"loss", "magnitude", "perplexity/0", "steps_per_second"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6]
    assert {"original", "decoded"} <= set(events.Tags()["audio"])


def start_long_run(values, tmp_path, **changes) -> subprocess.Popen:
    """A run of very many steps in a process of its own, two steps old."""
    values["stage1"] |= {"steps": 100_000, "checkpoint_every": 100_000, **changes}
    path = write(tmp_path, without_stage2(values))
    command = [sys.executable, "-m", "mimo_audio", "train", "tokenizer", "--config", path, "--out", tmp_path / "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    wait_for(process, "2/100000")
    return process


def wait_for(process: subprocess.Popen, text: str) -> None:
    """Until a line of its output holds the text; fails if the process ends before."""
    assert process.stdout is not None
    if not any(text in line for line in process.stdout):
        pytest.fail(f"ended with {process.wait(60)} before it said {text}")


def test_interrupting_saves_and_resuming_finishes(values, tmp_path):
    process = start_long_run(values, tmp_path)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    stopped = int(output.split("stopped after step ")[1].split(";")[0])
    values["stage1"]["steps"] = stopped + 2
    train(Recipe.load(write(tmp_path, without_stage2(values))), tmp_path / "run", resume=True)
    assert read_log(tmp_path / "run" / "stage1")[-1]["step"] == stopped + 2


def test_killing_loses_only_the_steps_since_the_last_checkpoint(values, tmp_path):
    process = start_long_run(values, tmp_path, checkpoint_every=1, log_every=1 + 1)
    wait_for(process, "12/100000")
    process.kill()
    process.communicate(timeout=60)
    folder = tmp_path / "run" / "stage1"
    values["stage1"]["steps"] = 40
    trainer = trainer_of(load(tmp_path, values))
    saved = trainer.load(folder)
    assert saved >= 10
    train(Recipe.load(write(tmp_path, without_stage2(values))), tmp_path / "run", resume=True)
    steps = [record["step"] for record in read_log(folder)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 40


def test_a_loss_that_is_not_finite_stops_the_run(values, tmp_path):
    trainer = trainer_of(load(tmp_path, values))
    before = {name: tensor.clone() for name, tensor in trainer.stage.model.state_dict().items()}
    with pytest.raises(TrainingError, match="step 0: coarse is nan; the last checkpoint is intact"):
        trainer.step(0, [Batch(torch.full((2, 6 * 960), torch.nan))])
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.stage.model.state_dict().items())


@pytest.mark.parametrize("number", [1, 2])
def test_features_that_are_not_finite_stop_the_run(number, values, tmp_path):
    trainer = trainer_of(load(tmp_path, values), number)
    with pytest.raises(TrainingError, match="step 3: the encoder's features are not finite; the last checkpoint is"):
        trainer.step(3, [Batch(torch.full((2, 6 * 960), torch.nan))])


def test_a_gradient_that_is_not_finite_stops_the_run(values, tmp_path):
    trainer = trainer_of(load(tmp_path, values))
    parameter = next(iter(trainer.stage.model.parameters()))
    parameter.register_hook(lambda gradient: gradient * torch.inf)
    before = {name: tensor.clone() for name, tensor in trainer.stage.model.state_dict().items()}
    with pytest.raises(TrainingError, match=r"step 0: gradient is (nan|inf)"):
        step(trainer, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.stage.model.state_dict().items())


def test_a_bad_recording_stops_the_run_and_is_named(values, tones, tmp_path):
    soundfile.write(tones / "0.wav", np.full(12000, np.nan, np.float32), 24000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"0\.wav: expected finite samples, got NaN or infinity"):
        train(Recipe.load(write(tmp_path, without_stage2(values))), tmp_path / "run", resume=False)


def test_a_recording_that_goes_bad_loses_no_step(values, tones, tmp_path):
    recipe = Recipe.load(write(tmp_path, without_stage2(values) | {"stage1": values["stage1"] | {"steps": 40}}))
    trainer = trainer_of(recipe)
    whole = trainer.data

    def reads(step: int, micro_batch: int = 0) -> Batch:
        if step == 2:
            raise AudioError("x.wav: gone")
        return whole(step, micro_batch)

    trainer.data = reads
    with pytest.raises(AudioError, match=r"x\.wav: gone"):
        run(trainer, tmp_path / "run", 0)
    assert trainer_of(recipe).load(tmp_path / "run") == 2


def test_a_full_disk_is_one_error_of_the_log_too(tmp_path):
    with TrainingLog(tmp_path, 0, 10) as log:
        os.close(log.file)
        log.file = os.open("/dev/full", os.O_WRONLY)
        log.add({"loss": 1.0})
        with pytest.raises(OutputError, match=r"log\.jsonl: cannot write, No space left"):
            log.write(1, {})


def test_a_record_is_the_mean_of_the_steps_that_had_a_value(tmp_path, caplog):
    caplog.set_level("INFO", "mimo_audio")
    with TrainingLog(tmp_path, 0, 10) as log:
        log.add({"loss": 1.0})
        log.add({"loss": 2.0, "mel": 0.000123456})
        log.write(2, {})
    (record,) = read_log(tmp_path)
    assert record["loss"] == 1.5
    assert record["mel"] == 0.00012346
    assert " left" in caplog.text


def test_a_second_interrupt_ends_at_once():
    with stop_requests() as asked:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert asked.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_checkpoint_is_on_the_disk_before_it_takes_its_place(values, tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: events.append("sync") or sync(file))
    monkeypatch.setattr(os, "replace", lambda a, b: events.append(Path(b).name) or replace(a, b))
    trainer_of(load(tmp_path, values)).save(tmp_path / "run", 1)
    assert events[-2:] == ["sync", "checkpoint.safetensors"]


def test_a_full_disk_keeps_the_last_checkpoint(values, tmp_path):
    trainer = trainer_of(load(tmp_path, values))
    trainer.save(tmp_path / "run", 1)
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"model\.safetensors: cannot write, .*too large"):
            trainer.save(tmp_path / "run", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
    assert trainer.load(tmp_path / "run") == 1


@pytest.mark.parametrize("noted", ["[", "[" * 100_000, "{}", '{"step": "x"}', "3"])
def test_a_checkpoint_with_a_damaged_note_is_an_error(noted, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "checkpoint.safetensors", {"training": noted})
    for read in (checkpoint.recipe_of, lambda path: checkpoint.load(path, {}, [])):
        with pytest.raises(ModelError, match=r"cannot resume from .*checkpoint\.safetensors"):
            read(tmp_path / "checkpoint.safetensors")


def test_a_checkpoint_of_another_shape_is_an_error(values, tmp_path, capsys):
    train(Recipe.load(write(tmp_path, without_stage2(values))), tmp_path / "run", resume=False)
    values["model"]["d_model"] = 32
    path = write(tmp_path, without_stage2(values))
    command = ["train", "tokenizer", "--config", str(path), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*command, "--resume"]) == 2
    error = capsys.readouterr().err
    assert "cannot resume from" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("stage1", "learning_rate"), 0.1, r"stage1\.learning_rate: expected 0\.003, got 0\.1 \(only steps, workers"),
        (("stage1", "weights", 1, "mel"), 3, r"stage1\.weights\[1\]\.mel: expected 1\.0, got 3\.0"),
        (("stage1", "micro_batches"), 2, r"stage1\.micro_batches: expected 1, got 2"),
        (("model", "encoder_causal"), True, r"model\.encoder_causal: expected False, got True"),
    ],
)
def test_a_changed_recipe_is_refused_by_name(place, value, message, values, tmp_path):
    values = without_stage2(values)
    train(Recipe.load(write(tmp_path, values)), tmp_path / "run", resume=False)
    inside = values
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    values["stage1"]["steps"] = 8
    with pytest.raises(TrainingError, match=f"cannot resume from .*stage1/checkpoint.safetensors: {message}"):
        train(Recipe.load(write(tmp_path, values)), tmp_path / "run", resume=True)
    assert read_log(tmp_path / "run" / "stage1")[-1]["step"] == 6


def test_what_may_change_in_a_run_is_said(values, tmp_path, caplog):
    caplog.set_level("INFO", "mimo_audio")
    values = without_stage2(values)
    train(Recipe.load(write(tmp_path, values)), tmp_path / "run", resume=False)
    values["stage1"] |= {"steps": 8, "workers": 1, "log_every": 1, "checkpoint_every": 8}
    caplog.clear()
    train(Recipe.load(write(tmp_path, values)), tmp_path / "run", resume=True)
    first = caplog.messages[0]
    assert first == "stage1.steps 8, until now 6: the learning rate follows the new length"
    assert [record["step"] for record in read_log(tmp_path / "run" / "stage1")] == [2, 4, 6, 7, 8]


def test_nothing_of_stage_one_may_change_once_stage_two_has_begun(values, tmp_path):
    train(Recipe.load(write(tmp_path, values)), tmp_path / "run", resume=False)
    values["stage1"]["steps"] = 8
    with pytest.raises(TrainingError, match=r"stage1\.steps: expected 6, got 8 \(nothing may change once stage 2"):
        train(Recipe.load(write(tmp_path, values)), tmp_path / "run", resume=True)


def test_there_must_be_something_to_resume(recipe_file, tmp_path):
    with pytest.raises(TrainingError, match="holds no run to continue"):
        train(Recipe.load(recipe_file), tmp_path / "run", resume=True)


def test_the_learning_rate_rises_and_falls():
    rates = [schedule(step, 10, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.02


def test_bfloat16_trains_like_float32(values, tmp_path):
    losses = {}
    for precision in ("float32", "bfloat16"):
        trainer = trainer_of(load(tmp_path, values, precision=precision, quantizer_dropout=0.0))
        losses[precision] = [step(trainer, i)["magnitude"] for i in range(5)]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_weights_change_at_their_step(values, tmp_path):
    trainer = trainer_of(load(tmp_path, values))
    assert "mel" not in step(trainer, 0)
    assert step(trainer, 1)["mel"] > 0


def test_a_dry_run_says_what_a_run_costs(recipe_file, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "tokenizer", "--config", str(recipe_file), "--dry-run", "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    recipe = Recipe.load(recipe_file)
    weights = sum(p.numel() for p in AudioTokenizer(recipe.model).parameters()) / 1e6
    assert f"model {weights:.1f} million; {weights:.1f} million trained" in output
    assert output.count("steps per hour") == output.count("3 recordings") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.json", "tones"]
