"""What a run starts from and how its learning rate goes, by hand."""

import math

import pytest
import torch

from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.config import TokenizerConfig
from mimo_audio.train.starting_point import initialise, make_optimizers, schedule

from .conftest import RECIPE


@pytest.fixture
def model() -> AudioTokenizer:
    torch.manual_seed(0)
    model = AudioTokenizer(TokenizerConfig.from_dict({**RECIPE["model"], "vocoder_phase_advance": False}))
    initialise(model)
    return model


def test_the_learning_rate_step_by_step():
    """Ten steps up in equal parts, then half a cosine from the peak down to a hundredth at step 100."""
    for step in range(10):
        assert schedule(step, 10, 100) == pytest.approx((step + 1) / 10)
    for step, share in ((10, 0.0), (32.5, 0.25), (55, 0.5), (100, 1.0), (150, 1.0)):
        assert schedule(step, 10, 100) == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)
    assert schedule(55, 10, 100) == pytest.approx(0.505)
    assert schedule(100, 10, 100) == pytest.approx(0.01)
    assert schedule(0, 0, 1) == pytest.approx(1)


@torch.no_grad()
def test_every_block_starts_as_an_identity(model):
    for stack in (model.encoder, model.decoder, model.vocoder):
        x = torch.randn(6, stack.layers[0].fc2.out_features)
        stack.layers[0].self_attn.out_proj.bias.zero_()
        stack.layers[0].fc2.bias.zero_()
        torch.testing.assert_close(stack.layers[0](x, stack.layout([6], x.device)), x)


@torch.no_grad()
def test_the_heads_frames_start_as_pulses_in_mid_frame(model):
    head = model.vocoder.head.out
    log_magnitude, phase = head.bias.chunk(2)
    frame = torch.fft.irfft(torch.polar(log_magnitude.exp(), phase))
    assert len(frame) == 960
    assert int(frame.abs().argmax()) == 480
    assert frame.abs().max() > 20 * frame.abs().median()
    assert head.weight.std() == pytest.approx(0.02, rel=0.05)


@torch.no_grad()
def test_speech_enters_the_encoder_about_normalised(model):
    """Log-mels of speech lie around -6 with a spread of 4: the first convolution takes them to 0 and 1."""
    conv = model.encoder.conv1
    quiet = torch.full((1, conv.in_channels, 5), -6.0)
    assert conv(quiet)[0, :, 1:-1].abs().max() < 1e-5
    torch.manual_seed(0)
    plain = AudioTokenizer(model.config).encoder.conv1
    torch.testing.assert_close(conv.weight, plain.weight / 4)


def test_muon_has_the_matrices_inside_the_transformers_and_adamw_the_rest(model):
    muon, adamw = make_optimizers(model, 0.1, 0.5)
    names = {id(p): name for name, p in model.named_parameters()}
    inner = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    decayed, plain = ({names[id(p)] for p in group["params"]} for group in adamw.param_groups)
    matrices = {name for name, p in model.named_parameters() if ".layers." in name and p.dim() == 2}
    assert inner == matrices
    assert len(inner) == 3 * 6
    assert decayed | plain == set(names.values()) - inner
    assert plain == {name for name, p in model.named_parameters() if p.dim() == 1}
    assert [group["weight_decay"] for group in (*muon.param_groups, *adamw.param_groups)] == [0.5, 0.5, 0.0]
    assert adamw.param_groups[0]["betas"] == (0.9, 0.98)
