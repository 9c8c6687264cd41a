"""Every norm's epsilon, where it counts: on inputs so small that it is as large as their variance."""

import pytest
import torch

from mimo_audio.lm.transformer import Transformer
from mimo_audio.tokenizer.decoder import UpConvolution
from mimo_audio.tokenizer.transformer import make_norm
from mimo_audio.train.recipe import AudioToText
from mimo_audio.train.text_reader import TextReader

SMALL = 1e-3


@pytest.fixture
def x() -> torch.Tensor:
    return SMALL * torch.randn(5, 64, dtype=torch.float64)


@torch.no_grad()
def test_layer_norm_and_rms_norm_of_the_tokenizer(x):
    """As in the released code: 1e-5 and 1e-6."""
    expected = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(make_norm("LayerNorm", 64).double()(x), expected)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(make_norm("RMSNorm", 64).double()(x), expected)


@torch.no_grad()
def test_group_norm_of_the_up_convolutions(x):
    layer = UpConvolution(64, 8, 3, 2).double()
    layer.conv.bias.zero_()
    y = torch.nn.functional.conv_transpose1d(x.T[None], layer.conv.weight, stride=2)[0].T
    expected = ((y - y.mean()) / (y.var(correction=0) + 1e-5).sqrt())[:-1]
    torch.testing.assert_close(layer(x, [5]), expected)


@torch.no_grad()
def test_rms_norm_of_the_language_models(make_language_model, x):
    """1e-6, or what the config says; the reader of the training's first stage has 1e-6."""
    reader = TextReader(8, AudioToText(width=64, layers=1, heads=2, ffn_dim=64, batch=1, seconds=1))
    stacks = [(reader.backbone.transformer, 1e-6)]
    for eps in (1e-6, 1e-4):
        model = make_language_model(eps)
        stacks += [(model.backbone.transformer, eps), (model.patch_decoder.transformer, eps)]
        stacks += [(model.patch_encoder.transformer, eps)]
    for stack, eps in stacks:
        assert isinstance(stack, Transformer)
        for norm in (stack.norm, stack.layers[0].input_layernorm, stack.layers[0].post_attention_layernorm):
            given = x[:, : norm.weight.numel()]
            expected = given / (given.square().mean(-1, keepdim=True) + eps).sqrt() * norm.weight.double()
            torch.testing.assert_close(norm.double()(given), expected)
        assert stack.shape.eps == eps


@pytest.fixture
def make_language_model():
    from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
    from mimo_audio.text import SpecialTokens

    def make(eps: float) -> AudioLanguageModel:
        config = LanguageModelConfig.from_dict(
            {
                "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 4,
                "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 60, "audio_channels": 2,
                "speech_vocab_size": "11-7", "speech_zeroemb_idx": "10-3", "delay_pattern": "0-1", "local_dim": 16,
                "local_layers": 1, "local_attn_heads": 2, "local_ffn_dim": 24, "input_local_dim": 16,
                "input_local_layers": 1, "rms_norm_eps": eps,
            }
        )  # fmt: skip
        special = SpecialTokens(43, 44, 45, 46, 47, 48, 49, 50, 41, 42, 40)
        return AudioLanguageModel(config, special)

    return make
