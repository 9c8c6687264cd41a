"""config.json of the release: what it may leave out, hold in excess, or get wrong."""

import json

import pytest

from mimo_audio.errors import ModelError
from mimo_audio.files.output import OutputError
from mimo_audio.tokenizer.config import TokenizerConfig

REQUIRED = {
    "d_model": 64,
    "encoder_layers": 4,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 256,
    "decoder_layers": 4,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 256,
    "vocoder_dim": 32,
    "vocoder_intermediate_dim": 128,
    "vocoder_num_layers": 3,
    "vocoder_attention_heads": 4,
    "num_quantizers": 5,
}


def parse(**values: object) -> TokenizerConfig:
    return TokenizerConfig.from_dict({**REQUIRED, **values})


def test_codebook_sizes_short_long_and_missing():
    assert parse(codebook_size=[1024, 1024, 128]).codebook_size == (1024, 1024, 128, 128, 128)
    assert parse(codebook_size=[64] * 9).codebook_size == (64,) * 5
    assert parse(codebook_size=256).codebook_size == (256,) * 5
    assert parse().codebook_size == parse(codebook_size=None).codebook_size == (1024,) * 5


def test_null_and_absent_keys():
    config = parse(encoder_skip_layer_id=None, fmax=None, ln_type=None)
    assert config.encoder_skip_layer_id is None
    assert config.fmax is None
    assert config.ln_type == "LayerNorm"
    assert not config.vocoder_phase_advance
    assert parse().frame_rate == 25


def test_unknown_keys_survive_saving(tmp_path):
    config = parse(model_type="mimo_audio_tokenizer", something={"new": [1]}, vocoder_phase_advance=True)
    config.save(tmp_path / "config.json")
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["something"] == {"new": [1]}
    assert saved["encoder_attn_window_size"] == [-1, -1]
    assert TokenizerConfig.load(tmp_path / "config.json") == config


def test_released_config_is_read_and_written_unchanged(golden, tmp_path):
    released = json.loads((golden.folder / "config.json").read_text())
    config = TokenizerConfig.load(golden.folder / "config.json")
    config.save(tmp_path / "config.json")
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {name: saved[name] for name in released} == released
    assert set(saved) - set(released) == {"vocoder_phase_advance"}


def test_all_problems_in_one_line():
    with pytest.raises(ModelError) as error:
        parse(
            d_model="64", nfft=0, ln_type="BatchNorm", encoder_attn_window_size=[1], codebook_size=[], decoder_causal=1
        )
    message = str(error.value)
    for name in ("d_model", "nfft", "ln_type", "encoder_attn_window_size", "codebook_size", "decoder_causal"):
        assert f"{name} must be" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_model": 66}, "d_model 66 must split into encoder_attention_heads 4 even parts"),
        ({"vocoder_dim": 20}, "vocoder_dim 20"),
        ({"hop_length": 2000}, "at least hop_length"),
        ({"window_size": 1000}, "window_size 1000 must not exceed nfft 960"),
        ({"fmin": 9000, "fmax": 8000}, "fmin 9000 must be below fmax 8000"),
        ({"encoder_skip_layer_id": 5}, "encoder_skip_layer_id 5 must not exceed encoder_layers 4"),
        ({"encoder_skip_layer_id": -1}, "null or an integer"),
        ({"rope_type": "yarn"}, 'rope_type must be "default"'),
        ({"fmax": "high"}, "fmax must be null or a number"),
        ({"fmax": 10**400}, r"fmax must be null or a number from 1 to 1000000, got 10{39}\.\.\.0{40}$"),
        ({"fmax": 10**5000}, "fmax must be null or a number from 1 to 1000000, got a huge int"),
        ({"fmax": 1e-300}, "fmax must be null or a number from 1 to 1000000, got 1e-300"),
        ({"fmax": 12001}, "fmax 12001.0, which must not exceed half of sampling_rate 24000"),
        ({"fmin": float("nan")}, "fmin must be a number from 0 to 1000000, got nan"),
        ({"rope_theta": 0}, "rope_theta must be a number from 1 to 1000000000000, got 0"),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_theta must be a number from 1"),
        ({"sampling_rate": 1}, "sampling_rate must be an integer from 1000"),
        ({"codebook_size": [1024, 0]}, r"codebook_size must be a list .* \(or one for all\), got \[1024, 0\]"),
        ({"num_quantizers": 0}, "num_quantizers must be an integer from 1 to 1000, got 0"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ModelError, match=message):
        parse(**values)


def test_missing_keys_are_listed():
    with pytest.raises(ModelError, match="missing d_model, encoder_layers"):
        TokenizerConfig.from_dict({})


@pytest.mark.parametrize("text", ["{", "[1]", "\x00", "[" * 100000, '{"fmax": 1' + "0" * 5000 + "}"])
def test_unreadable_files(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        TokenizerConfig.load(tmp_path / "config.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ModelError, match="cannot read"):
        TokenizerConfig.load(tmp_path / "binary.json")


def test_unwritable_place(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        parse().save(tmp_path / "file" / "config.json")
