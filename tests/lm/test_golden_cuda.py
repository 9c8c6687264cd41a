"""The language model on a GPU against the golden data: the same tolerances as on the CPU, the same tokens."""

import pytest
import torch
from torch.testing import assert_close

from mimo_audio.engine import generate
from mimo_audio.lm import AudioLanguageModel


@pytest.mark.cuda
def test_a_pass_and_generation_on_a_gpu(golden):
    model = AudioLanguageModel.from_pretrained(golden.folder, device="cuda")
    with torch.no_grad():
        output = model(golden["input_ids"].long())
        embeds = model.embed(golden["input_ids"].long())
    assert_close(embeds.cpu(), golden["input_embeds"], atol=5e-5, rtol=0)
    assert_close(output.hidden.cpu(), golden["hidden_final"], atol=5e-5, rtol=0)
    assert_close(output.text_logits.cpu(), golden["text_logits_all"], atol=3e-4, rtol=0)
    positions = golden.info["local_positions"]
    tokens = model.patch_decode(golden["local_hidden_all"][0, positions])
    assert torch.equal(tokens.cpu(), golden["local.tokens"].long())
    options = golden.info["generate"]["gen_stop"]
    new = generate(model, golden["gen_stop.prompt_ids"].long(), options["max_new"], stop=options["stop"])
    assert torch.equal(new, golden["gen_stop.new_ids"].long())


@pytest.mark.cuda
def test_bfloat16_on_a_gpu(golden):
    model = AudioLanguageModel.from_pretrained(golden.folder, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        hidden = model(golden["input_ids"].long()).hidden.float().cpu()
    error = (hidden - golden["hidden_final"]).square().mean().sqrt().item()
    assert error <= 1.5 * golden.info["bf16_vs_fp32"]["hidden_final_rms_err"]
