"""Steps of both stages against the definition in float64: losses, gradients and state after each of three."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mimo_audio.train.tokenizer import Trainer

from . import definition as d
from .conftest import RECIPE, load, trainer_of

CROP = 6
MODEL = {
    **RECIPE["model"], "encoder_layers": 2, "num_quantizers": 3, "codebook_size": [16, 8, 8],
    "vocoder_attn_window_size": [7, 3],
}  # fmt: skip
SETTINGS = {"micro_batches": 2, "clip": 0.25, "steps": 9, "warmup": 2, "weight_decay": 0.3, "average": 0.15}


def wide(module: torch.nn.Module) -> d.Tensors:
    return {name: tensor.detach().double().clone() for name, tensor in module.state_dict().items()}


def close(ours: Tensor, exact: Tensor, relative: float, what: str) -> None:
    """The L2 distance of two tensors, relative to the second."""
    error, size = float((ours - exact).detach().norm()), float(exact.detach().norm())
    assert error <= relative * size + 1e-12, f"{what}: differs by {error:.2g} of {size:.2g}"


def randomise(trainer: Trainer) -> None:
    """Blocks start as identities, through which no gradient flows: every weight gets its say."""
    generator = torch.Generator().manual_seed(5)
    for module in trainer.stage.modules().values():
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    trainer.average.load_state_dict(trainer.stage.model.state_dict())


def is_inner(name: str, parameter: Tensor) -> bool:
    return ".layers." in f".{name}" and parameter.dim() == 2


def average_of(before: d.Tensors, now: d.Tensors, step: int) -> d.Tensors:
    decay = min(SETTINGS["average"], (1 + step) / (10 + step))
    return {name: decay * before[name] + (1 - decay) * tensor for name, tensor in now.items()}


def check_moves(
    module: torch.nn.Module, before: d.Tensors, gradients: d.Tensors, descent: d.Descent, lr: float
) -> None:
    """The module's parameters moved as the definition moves them by the gradients."""
    for name, after in descent(before, gradients, lr).items():
        ours = module.get_parameter(name).detach().double() - before[name]
        inner = descent.muon(name, after)
        close(ours, after - before[name], 0.02 if inner else 2e-3, f"move of {name}")  # bfloat16 inside Muon


def test_stage_1_is_its_definition(with_text, tmp_path):
    with_text["model"] = MODEL
    with_text["stage1"] |= {"unquantized": 1, "seed": 10}  # then step 1 uses two codebooks and step 2 all three
    trainer = trainer_of(load(tmp_path, with_text, **SETTINGS))
    randomise(trainer)
    stage, settings = trainer.stage, {**with_text["stage1"], **SETTINGS}
    descents = [d.Descent(settings["weight_decay"], (0.9, 0.98), is_inner) for _ in range(2)]
    books: list[d.Tensors] = []
    for step in range(3):
        if step == 2:
            for r, book in enumerate(stage.model.quantizer.codebooks):  # an entry of every layer is about to die
                book.cluster_size[r + 1] = 1e-3
                books[r]["cluster_size"][r + 1] = 1e-3
        model, reader, average = wide(stage.model), wide(stage.reader), wide(trainer.average)
        leaves = {
            f"{kind}/{n}": p.requires_grad_() for kind, ps in (("m", model), ("r", reader)) for n, p in ps.items()
        }
        batches = [trainer.data(step, micro_batch) for micro_batch in range(2)]
        if step == 1:
            crops = torch.cat([trainer.data(1 + i).crops for i in range(24)]).double()
            with torch.no_grad():
                features = torch.cat([d.encode(model, MODEL, d.log_mel(wave, 20)) for wave in crops])
            books = d.kmeans(features, MODEL["codebook_size"], d.seeded(settings["seed"], 1))
        weights, seen, totals = d.weights_at(settings, step), [], {}
        for micro_batch, batch in enumerate(batches):
            waves = batch.crops.double()
            mels = [d.log_mel(wave, 20) for wave in waves]
            utterances = [d.encode(model, MODEL, d.log_mel(wave.double(), 20)) for wave in batch.utterances]
            features = torch.cat([*(d.encode(model, MODEL, mel) for mel in mels), *utterances])
            rows, losses, quantized = len(waves) * CROP, {}, features
            decoder_input = features[:rows]
            if step >= 1:
                count = d.levels(settings, step, 3)
                quantized, codes, commitment = d.quantize(features, [book["embed"] for book in books[:count]])
                seen.append((features.detach(), codes))
                losses["commitment"] = commitment.mean()
                draws = torch.rand(2, generator=d.seeded(settings["seed"], step, micro_batch))
                decoder_input = torch.where(
                    (draws < settings["bypass"]).repeat_interleave(CROP)[:, None], decoder_input, quantized[:rows]
                )
            sounds = quantized[rows:].split([len(one) for one in utterances])
            losses["audio_to_text"] = d.text_loss(reader, 2, sounds, batch.texts)
            rebuilt, _ = d.reconstruction(model, MODEL, decoder_input.unflatten(0, (2, CROP)), waves, mels, step >= 1)
            losses |= rebuilt
            losses["loss"] = d.weighted(losses, weights)
            (losses["loss"] / 2).backward()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + float(value.detach()) / 2
        gradients, norm = d.clipped({n: p.grad for n, p in leaves.items() if p.grad is not None}, settings["clip"])

        found = trainer.step(step, batches)

        revived = d.move_books(books, seen, CROP * 2, d.seeded(settings["seed"], step)) if seen else 0
        assert found.pop("revived", 0) == revived
        assert step < 2 or revived >= 3
        assert found == pytest.approx({**totals, "gradient": norm}, rel=2e-4)
        assert found["gradient"] > 4 * settings["clip"]
        lr = settings["learning_rate"] * d.rate(step, 2, 9)
        kinds = zip("mr", (stage.model, stage.reader), (model, reader), descents, strict=True)
        for kind, module, before, descent in kinds:
            named = dict(module.named_parameters())
            for name, parameter in named.items():
                close(parameter.grad, gradients[f"{kind}/{name}"], 2e-3, f"step {step}: gradient of {name}")
            check_moves(module, before, {n: p.grad.double() for n, p in named.items()}, descent, lr)
        for r, book in enumerate(books):
            for name, tensor in book.items():
                ours = stage.model.quantizer.codebooks[r].get_buffer(name)
                close(ours, tensor, 1e-3, f"step {step}: {name} of codebook {r}")
                book[name] = ours.double()  # so that roundings do not add up
        now = wide(stage.model)
        averaged = trainer.average.state_dict()
        for name, tensor in average_of(average, now, step).items():
            close(averaged[name], tensor, 1e-6, f"step {step}: average of {name}")


def test_stage_2_is_its_definition(values, tmp_path):
    values["model"] = MODEL
    trainer = trainer_of(load(tmp_path, values, **SETTINGS), stage=2)
    randomise(trainer)
    stage, settings = trainer.stage, {**values["stage2"], **SETTINGS}
    descents = (
        d.Descent(settings["weight_decay"], (0.9, 0.98), is_inner),
        d.Descent(0.0, (0.5, 0.9), lambda name, p: False),
    )
    stage.training = replace(stage.training, quantizer_dropout=0.9)
    settings["quantizer_dropout"] = 0.9
    shape = settings["discriminators"]
    for step in range(3):
        model, discriminators, average = wide(stage.model), wide(stage.discriminators), wide(trainer.average)
        books = [model[f"encoder.quantizer.codebooks.{r}.embed"] for r in range(3)]
        trained = {n: p.requires_grad_() for n, p in model.items() if n.startswith("decoder.") and "window" not in n}
        trained_discriminators = {
            n: p.requires_grad_() for n, p in discriminators.items() if not n.endswith(("_u", "_v"))
        }
        batches = [trainer.data(step, micro_batch) for micro_batch in range(2)]
        batches[1].crops[1] *= 1e-4  # all but silent: judged no louder than a hundred times as loud
        totals: dict[str, float] = {}
        sums = [{n: torch.zeros_like(p) for n, p in ps.items()} for ps in (trained, trained_discriminators)]
        for batch in batches:
            waves = batch.crops.double()
            mels = [d.log_mel(wave, 20) for wave in waves]
            with torch.no_grad():
                features = torch.cat([d.encode(model, MODEL, mel) for mel in mels])
                quantized, *_ = d.quantize(features, books[: d.levels(settings, step, 3)])
            losses, decoded = d.reconstruction(model, MODEL, quantized.unflatten(0, (2, CROP)), waves, mels, True)
            gain = 1 / waves.square().mean(1, keepdim=True).sqrt().clamp(min=1e-2)
            real, fake = (
                d.discriminate(discriminators, shape, gain * waves),
                d.discriminate(discriminators, shape, gain * decoded),
            )
            losses |= {"adversarial": d.adversarial(fake), "feature_matching": d.feature_matching(real, fake)}
            losses["loss"] = losses["mel"] + losses["adversarial"] + 2 * losses["feature_matching"]  # eq. 7
            losses["discriminator"] = d.hinge(real, fake)
            for total, name, parameters in zip(
                sums, ("loss", "discriminator"), (trained, trained_discriminators), strict=True
            ):
                for one, gradient in zip(
                    total.values(),
                    torch.autograd.grad(losses[name] / 2, list(parameters.values()), retain_graph=True),
                    strict=True,
                ):
                    one += gradient
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + float(value.detach()) / 2
        (ours, norm), (theirs, their_norm) = (d.clipped(one, settings["clip"]) for one in sums)

        found = trainer.step(step, batches)

        assert found == pytest.approx({**totals, "gradient": norm, "discriminator_gradient": their_norm}, rel=5e-4)
        share = d.rate(step, 2, 9)
        for module, before, gradients, descent, lr in (
            (stage.model, model, ours, descents[0], settings["learning_rate"]),
            (stage.discriminators, discriminators, theirs, descents[1], settings["discriminator_learning_rate"]),
        ):
            named = dict(module.named_parameters())
            for name, gradient in gradients.items():
                close(named[name].grad, gradient, 2e-3, f"step {step}: gradient of {name}")
            check_moves(module, before, {n: named[n].grad.double() for n in gradients}, descent, lr * share)
        now = wide(stage.discriminators)
        norms = {n: t for n, t in discriminators.items() if n.endswith(("_u", "_v"))}
        expected = {**now, **norms}
        d.iterate(expected)
        for name in norms:
            close(now[name], expected[name], 1e-4, f"step {step}: {name}")
        now = wide(stage.model)
        for name, tensor in now.items():
            if name.startswith("encoder."):
                assert torch.equal(tensor, model[name].detach()), name
        averaged = trainer.average.state_dict()
        for name, tensor in average_of(average, now, step).items():
            close(averaged[name], tensor, 1e-6, f"step {step}: average of {name}")
