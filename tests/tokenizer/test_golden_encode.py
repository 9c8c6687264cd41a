"""Wave to codes against the published code, stage by stage: each stage is fed the golden input."""

import torch
from torch import Tensor
from torch.testing import assert_close

import mimo_audio_native as mn
from mimo_audio.tokenizer import packing

CLOSE = {"atol": 5e-5, "rtol": 0}


def check_mel(mel: Tensor, expected: Tensor) -> None:
    assert mel.shape == expected.shape
    magnitude, reference = mel.exp(), expected.exp()
    assert ((magnitude - reference).abs() <= 2e-5 * reference.amax(1, keepdim=True)).all()


def test_mel(clip):
    check_mel(clip.golden.tokenizer.log_mel(clip["wav"]), clip["mel"])


def test_mel_constants(golden):
    arrays = golden.mel_constants
    config = golden.tokenizer.config
    bank = mn.mel_filterbank(config.sampling_rate, config.nfft, config.n_mels, config.fmin, config.fmax)
    assert_close(bank, arrays["mel_fb"], atol=1e-6, rtol=0)
    assert_close(golden.tokenizer.mel.window, arrays["mel_window"], atol=1e-7, rtol=0)
    for name in {key.split(".")[0] for key in arrays if key.startswith("short")}:
        check_mel(golden.tokenizer.log_mel(arrays[f"{name}.wav"]), arrays[f"{name}.mel"])


def test_features(clip):
    assert_close(clip.golden.tokenizer.encode_features(clip["mel"]), clip["features"], **CLOSE)


def test_codes_of_golden_features(clip, check_codes):
    tokenizer = clip.golden.tokenizer
    codes = tokenizer.quantize(clip["features"])
    check_codes(codes, clip["codes"], clip["code_margin"])
    assert torch.equal(tokenizer.quantize(clip["features"], 3), codes[:3])
    assert torch.equal(tokenizer.quantize(clip["features"], 0), codes)
    assert torch.equal(tokenizer.quantize(clip["features"], 99), codes)


def test_codes_of_golden_mel(clip, check_codes):
    tokenizer = clip.golden.tokenizer
    check_codes(tokenizer.quantize(tokenizer.encode_features(clip["mel"])), clip["codes"], clip["code_margin"])


def test_wave_to_codes(clip, check_codes):
    # A chirp's empty bands hold rounding noise, which the log amplifies; its stages are compared above.
    if clip.name != "chirp":
        check_codes(clip.golden.tokenizer.encode(clip["wav"]), clip["codes"], clip["code_margin"])


def test_the_margins_are_those_of_the_codebooks(clip, code_margin):
    codebooks = clip.golden.tokenizer.quantizer.embeddings()
    assert_close(
        code_margin(clip["features"], clip["codes"], codebooks).float(), clip["code_margin"], atol=1e-4, rtol=0
    )


def test_every_layer(detailed_clip):
    clip = detailed_clip
    encoder, mel = clip.golden.tokenizer.encoder, clip["mel"]
    seen: dict[str, Tensor] = {}
    hooks = [
        encoder.layers[i].register_forward_hook(lambda _m, _a, out, i=i: seen.update({f"enc_layer{i}": out}))
        for i in range(len(encoder.layers))
    ]
    hooks.append(
        encoder.layer_norm.register_forward_hook(
            lambda _m, args, out: seen.update(enc_pre_norm=args[0], enc_post_norm=out)
        )
    )
    hooks.append(encoder.down_sample_norm.register_forward_hook(lambda _m, args, _o: seen.update(enc_pool=args[0].T)))
    with torch.no_grad():
        encoder(mel, [len(mel)])
        first = packing.conv(encoder.conv1, mel, [len(mel)], [len(mel)])
        halved = [(len(mel) - 1) // 2 + 1]
        second = packing.conv(encoder.conv2, torch.nn.functional.gelu(first), [len(mel)], halved)
    for hook in hooks:
        hook.remove()
    seen.update(enc_conv1_pre_gelu=first.T, enc_conv2_pre_gelu=second.T)
    for name, value in seen.items():
        assert_close(value, clip[f"inter.{name}"], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


def test_packed_batch_equals_each_alone(golden, check_codes, code_margin):
    arrays = golden.arrays("packed")
    cases = [key.split(".")[0] for key in arrays if key.endswith(".lens")]
    assert "odd" in cases
    for case in cases:
        check_packed(golden.tokenizer, arrays, case, check_codes, code_margin)


def check_packed(tokenizer, arrays, case, check_codes, code_margin):
    features = tokenizer.encode_features_batch(arrays[f"{case}.mel_packed"].split(arrays[f"{case}.lens"].tolist()))
    assert [len(item) for item in features] == arrays[f"{case}.out_lens"].tolist()
    expected = arrays[f"{case}.features_solo"]
    assert_close(torch.cat(features), expected, **CLOSE)
    # The golden codes are those of the batch as published; the definition's are those of the golden features.
    definition = tokenizer.quantize(expected)
    margin = code_margin(expected, definition, tokenizer.quantizer.embeddings())
    check_codes(torch.cat(tokenizer.quantize_batch(features), 1), definition, margin)
    same = (definition == arrays[f"{case}.codes"]).all(0)
    longest = arrays[f"{case}.out_lens"].argmax()
    start = int(arrays[f"{case}.out_lens"][:longest].sum())
    assert same[start : start + len(features[longest])].all()


def test_mels_of_one_to_seven_frames(golden):
    arrays = golden.arrays("packed")
    for count in range(1, 8):
        features = golden.tokenizer.encode_features(arrays[f"frames{count}.mel"])
        assert_close(features, arrays[f"frames{count}.features"], **CLOSE)
        assert torch.equal(golden.tokenizer.quantize(features).int(), arrays[f"frames{count}.codes"])
