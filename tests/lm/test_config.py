"""config.json of the release: what it may leave out, hold in excess, write in several ways, or get wrong."""

import json

import pytest

from mimo_audio.errors import ModelError
from mimo_audio.lm import LanguageModelConfig

REQUIRED = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 704,
}


def parse(**values: object) -> LanguageModelConfig:
    return LanguageModelConfig.from_dict({**REQUIRED, **values})


def test_released_config_is_read_and_written_unchanged(golden, tmp_path):
    released = json.loads((golden.folder / "config.json").read_text())
    config = LanguageModelConfig.load(golden.folder / "config.json")
    config.save(tmp_path / "config.json")
    assert json.loads((tmp_path / "config.json").read_text()) == released
    assert LanguageModelConfig.load(tmp_path / "config.json") == config


def test_what_is_absent_or_null_is_as_released():
    config = parse(head_dim=None, input_full_attention=None, rope_scaling=None)
    assert config == parse()
    assert config.head_dim == 128
    assert not config.input_full_attention
    assert not config.tie_word_embeddings
    assert config.speech_vocab_size == (1025, 1025, *[129] * 6)
    assert config.speech_zeroemb_idx == (1024, 1024, *[128] * 6)
    assert config.delay_pattern == tuple(range(8))
    assert config.patch_steps == 11
    assert config.patch_decoder.head_dim == config.patch_encoder.head_dim == 16
    assert config.patch_encoder.ffn_dim == 4096


def test_channel_lists_are_strings_lists_or_one_number_for_all():
    config = parse(audio_channels=3, speech_vocab_size=[9, 8, 7], speech_zeroemb_idx="5", delay_pattern=0, head_dim=16)
    assert config.speech_vocab_size == (9, 8, 7)
    assert config.speech_zeroemb_idx == (5, 5, 5)
    assert config.delay_pattern == (0, 0, 0)
    assert parse(**config.to_dict()) == config
    assert config.to_dict()["speech_zeroemb_idx"] == "5-5-5"


def test_unknown_keys_survive_saving(tmp_path):
    config = parse(architectures=["X"], sliding_window=4096, use_sliding_window=False)
    config.save(tmp_path / "config.json")
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["architectures"] == ["X"]
    assert saved["sliding_window"] == 4096


def test_all_problems_in_one_line():
    wrong = {
        "hidden_size": "64",
        "num_hidden_layers": 0,
        "rms_norm_eps": -1,
        "hidden_act": "gelu",
        "tie_word_embeddings": 1,
        "delay_pattern": "0-x",
        "speech_vocab_size": [],
        "rope_theta": 0,
        "vocab_size": 10**400,
        "use_sliding_window": True,
    }
    with pytest.raises(ModelError) as error:
        parse(**wrong)
    message = str(error.value)
    for name in wrong:
        assert f"{name} must be" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_key_value_heads": 3}, "num_attention_heads 4 must be a multiple of num_key_value_heads 3"),
        ({"head_dim": 15}, "head_dim must be even, got 15"),
        ({"local_dim": 1000}, "local_dim 1000 must split into local_attn_heads 64 even parts"),
        ({"input_local_dim": 64}, "input_local_dim 64 must split"),
        ({"delay_pattern": "0-1-2"}, "delay_pattern must have audio_channels 8 entries, got 3"),
        ({"audio_channels": 2}, "speech_vocab_size must have audio_channels 2 entries, got 8"),
        ({"speech_zeroemb_idx": 129}, "speech_zeroemb_idx 129-129-129-129-129-129-129-129 must lie below"),
        ({"speech_vocab_size": 1, "speech_zeroemb_idx": 0}, "speech_vocab_size must be .* from 2 to 65536 .*, got 1"),
        ({"delay_pattern": 1021}, "group_size 4 and the largest of delay_pattern 1021 must be 1024 steps at most"),
        ({"audio_channels": 33, "delay_pattern": 0}, "audio_channels must be an integer from 1 to 32, got 33"),
        ({"local_attn_heads": 2}, "local_dim 1024 must give local_attn_heads 2 a width of 256 at most"),
        ({"delay_pattern": "0--1"}, "delay_pattern must be a list .*, each an integer from 0 .*per audio channel"),
        ({"speech_vocab_size": True}, "speech_vocab_size must be a list .*, got True"),
        ({"group_size": 10**5}, "group_size 100000 and"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4}},
            r"rope_scaling\.type must be default, got 'yarn'; .*\.factor is",
        ),
        ({"rope_scaling": "yarn"}, "rope_scaling must be an object, got 'yarn'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, r"rope_parameters\.rope_type must be default, got 'yarn'"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, r"rope_parameters\.partial_rotary_factor must be 1, got"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, r"rope_parameters\.full_attention is not known"),
        ({"rope_parameters": {"rope_theta": 1e4}, "rope_theta": 2e4}, "rope_theta must be rope_theta 20000.0, got 1"),
        ({"rope_parameters": [1e4]}, "rope_parameters must be an object"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1, got 0.5"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types must be full_attention in every layer"),
        ({"layer_types": 3}, "layer_types must be full_attention in every layer, got 3"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers must be an integer from 1 to 1000"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ModelError, match=message):
        parse(**values)


@pytest.mark.parametrize("other", [{}, {"rope_theta": None}, {"rope_theta": 10000}])
def test_rotary_positions_as_transformers_5_writes_them(other, tmp_path):
    inner = {"rope_theta": 10000.0, "rope_type": "default"}
    config = parse(rope_parameters=inner, layer_types=["full_attention"] * 3, rope_scaling={"type": "default"}, **other)
    assert config.rope_theta == config.backbone.rope_theta == config.patch_decoder.rope_theta == 10000
    assert config.rope_scaling is None
    config.save(tmp_path / "config.json")
    assert LanguageModelConfig.load(tmp_path / "config.json") == config
    assert parse(rope_parameters=None).rope_theta == 640000


@pytest.mark.parametrize("given", [{}, {"input_local_dim": None}, {"input_local_dim": 0}])
def test_without_a_width_the_patch_encoder_is_as_wide_as_the_patch_decoder(given):
    config = parse(local_dim=512, **given)
    assert config.input_local_dim == config.patch_encoder.width == 512
    assert config.patch_encoder.ffn_dim == 2048


def test_missing_keys_are_listed():
    with pytest.raises(ModelError, match="missing hidden_size, intermediate_size, num_hidden_layers"):
        LanguageModelConfig.from_dict({})


def test_the_config_of_a_tokenizer_is_named_as_such(tmp_path):
    (tmp_path / "config.json").write_text('{"d_model": 1280, "vocoder_dim": 256}')
    with pytest.raises(
        ModelError, match=r"config\.json: expected the config of a language model, got that of an audio"
    ):
        LanguageModelConfig.load(tmp_path / "config.json")
