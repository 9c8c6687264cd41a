"""The language model against the published code: every stage, the patch decoder's steps, padded batches, bfloat16."""

import pytest
import torch
from torch import Tensor

from mimo_audio.lm import AudioLanguageModel, groups

HIDDEN, TEXT_LOGITS, LOCAL_LOGITS = 5e-5, 3e-4, 1e-4  # absolute, float32


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


@torch.no_grad()
def test_every_stage_of_the_patch_encoder(golden):
    model = golden.model
    patches = groups.split(golden["input_ids"], model.config.group_size)[0]
    is_patch = patches[:, 0, 0] == model.special.empty
    frames = model.speech_embeddings(patches[:, 1:].mT)
    close(frames[is_patch], golden["input_local_in"][is_patch], HIDDEN)
    close(model.patch_encoder.frames(golden["input_local_in"]), golden["input_local_out"], HIDDEN)
    close(model.embed(golden["input_ids"]), golden["input_embeds"], HIDDEN)


@torch.no_grad()
def test_every_layer_of_the_backbone(golden):
    outputs: list[Tensor] = []
    backbone = golden.model.backbone
    hooks = [
        layer.register_forward_hook(lambda *call: outputs.append(call[2])) for layer in backbone.transformer.layers
    ]
    hidden = backbone(golden["input_embeds"])
    for hook in hooks:
        hook.remove()
    for index, output in enumerate(outputs):
        close(output, golden[f"hidden_layer{index}"], HIDDEN)
    assert f"hidden_layer{len(outputs)}" not in golden.arrays
    close(hidden, golden["hidden_final"], HIDDEN)


@torch.no_grad()
def test_outputs_of_a_pass(golden):
    output = golden.model(golden["input_ids"])
    close(output.hidden, golden["hidden_final"], HIDDEN)
    close(output.text_logits, golden["text_logits_all"], TEXT_LOGITS)
    close(output.local_hidden, golden["local_hidden_all"], HIDDEN)
    close(output.text_logits[:, -1:], golden["prefill_text_logits"], TEXT_LOGITS)
    close(output.local_hidden[:, -1:], golden["prefill_local_hidden"], HIDDEN)


@torch.no_grad()
def test_steps_of_the_patch_decoder(golden):
    model = golden.model
    local_hidden = golden["local_hidden_all"][0, golden.info["local_positions"]]
    tokens = golden["local.tokens"].long()
    assert torch.equal(model.patch_decode(local_hidden), tokens)
    inputs = model.patch_decoder.step_inputs(local_hidden, tokens, model.speech_embeddings)
    close(inputs, golden["local.step_embeds"], HIDDEN)
    close(model.patch_decoder.step_hidden(inputs), golden["local.step_hidden"], HIDDEN)
    logits = model.patch_decoder(local_hidden, tokens, model.speech_embeddings)
    for channel, scores in enumerate(logits):
        close(scores, golden[f"local.logits_c{channel}"], LOCAL_LOGITS)


@torch.no_grad()
def test_padded_batch(golden):
    model, mask = golden.model, golden["batch.attention_mask"]
    close(model(golden["batch.input_ids"], mask).hidden[mask], golden["batch.hidden_final"][mask], HIDDEN)
    if "batch.input_embeds" in golden.arrays:
        close(model.embed(golden["batch.input_ids"])[mask], golden["batch.input_embeds"][mask], HIDDEN)


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_a_cache_read_in_pieces(golden, padded):
    model = golden.model
    ids, expected = (golden[f"batch.{name}" if padded else name] for name in ("input_ids", "hidden_final"))
    mask = golden["batch.attention_mask"] if padded else torch.ones(expected.shape[:2], dtype=torch.bool)
    embeds, cache = model.embed(ids), model.new_cache(len(ids))
    first, second = 48, 51
    hidden = [
        model.backbone(embeds[:, :first], mask[:, :first], cache),
        model.backbone(embeds[:, first:second], cache=cache),
    ]
    hidden += [model.backbone(step, cache=cache) for step in embeds[:, second:].split(1, 1)]
    close(torch.cat(hidden, 1)[mask], expected[mask], HIDDEN)
    assert cache.length == embeds.shape[1]


@torch.no_grad()
def test_states_from_which_generation_went_on(golden):
    model = golden.model
    prompt, new = golden["gen_free.prompt_ids"], golden["gen_free.new_ids"]
    count = new.shape[1] // model.config.group_size
    output = model(torch.cat([prompt, new], 1)[None])
    close(output.local_hidden[0, -count - 1 : -1], golden["gen_free.local_hidden"], HIDDEN)
    if "gen_free.text_logits" in golden.arrays:
        close(output.text_logits[0, -count - 1 : -1], golden["gen_free.text_logits"], TEXT_LOGITS)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_to_float32_as_the_published_bfloat16(golden, dtype):
    model = AudioLanguageModel.from_pretrained(golden.folder, dtype=dtype)
    output = model(golden["input_ids"])
    for name, actual, exact in (
        ("input_embeds", model.embed(golden["input_ids"]), golden["input_embeds"]),
        ("hidden_final", output.hidden, golden["hidden_final"]),
        ("text_logits_last", output.text_logits[:, -1], golden["text_logits_all"][:, -1]),
        ("local_hidden_last", output.local_hidden[:, -1], golden["local_hidden_all"][:, -1]),
    ):
        assert actual.dtype == dtype
        published = (golden[f"bf16.{name}"].float() - exact).square().mean().sqrt()
        assert (actual.float() - exact).square().mean().sqrt() <= 1.5 * published, name
    local_hidden = golden["local_hidden_all"][0, golden.info["local_positions"]]
    assert model.patch_decode(local_hidden).shape == golden["local.tokens"].shape
