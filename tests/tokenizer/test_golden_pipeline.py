"""Whole paths against the published code: wave to codes beyond 60 s, long decoding, bfloat16."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mimo_audio.tokenizer import AudioTokenizer


def golden_codes(golden, case: str) -> Tensor:
    """Codes [n_q, T]; the language model's padding to whole patches, which repeats the last frame, is still there."""
    return golden.arrays("pipeline")[f"{case}.lm_codes"].T


def test_clips_end_to_end(clip, check_codes):
    if clip.name == "chirp":  # see test_wave_to_codes
        return
    codes = clip.golden.tokenizer.encode(clip["wav"], n_q=clip.golden.n_q)
    expected = golden_codes(clip.golden, clip.name)
    check_codes(codes, expected[:, : codes.shape[1]], clip["code_margin"][: len(codes)])
    assert 0 <= expected.shape[1] - codes.shape[1] < 4


@pytest.mark.parametrize("case", ["exact", "long_even", "long_odd"])
def test_long_waves_are_encoded_in_segments(golden, case, check_codes, code_margin):
    tokenizer, wave = golden.tokenizer, golden.long_wave(case)
    mel = tokenizer.log_mel(wave)
    assert len(mel) == golden.info["long"][case]["mel_frames"]
    features = tokenizer.encode_features(mel)
    codes = tokenizer.quantize(features, golden.n_q)
    # As published, a second segment shorter than the first is contaminated unless its length is a multiple of four
    # frames; the definition here is each segment alone.
    count = 1500 if case == "long_odd" else codes.shape[1]
    expected = golden_codes(golden, case)[:, :count]
    margin = code_margin(features[:count], expected, tokenizer.quantizer.embeddings(golden.n_q))
    check_codes(codes[:, :count], expected, margin)


def test_features_at_the_end_of_a_segment(golden):
    expected = golden.arrays("pipeline")["long_odd.segment1_last20_features_packed"]
    mel = golden.tokenizer.log_mel(golden.long_wave("long_odd"))[:6000]
    # Rotary angles near position 3000 carry a rounding of 2e-4, hence twice the usual tolerance.
    assert_close(golden.tokenizer.encode_features(mel)[-20:], expected, atol=1e-4, rtol=0)


def test_long_codes_are_decoded_in_pieces(golden):
    arrays = golden.arrays("pipeline")
    if "decode1600.every101" not in arrays:  # one checkpoint of the full set has it
        return
    clip = golden.clip(golden.info["decode1600"]["codes"].split(".")[0])
    codes = clip["codes"][: golden.n_q]
    wave = golden.tokenizer.decode(codes.repeat(1, -(-1600 // codes.shape[1]))[:, :1600])
    around = arrays["decode1600.around_boundary"]
    start = golden.info["decode1600"]["boundary_sample"] - len(around) // 2
    assert_close(wave[start : start + len(around)], around, atol=5e-5, rtol=0)
    assert_close(wave[::101], arrays["decode1600.every101"], atol=5e-5, rtol=0)


def test_bfloat16_is_as_close_to_float32_as_the_published_code(golden):
    tokenizer = AudioTokenizer.from_pretrained(golden.folder, dtype=torch.bfloat16)
    clip, arrays = golden.clip(golden.info["bf16"]["clip"]), golden.arrays("bf16")
    codes = clip["codes"][: golden.n_q]
    ours = {
        "features": tokenizer.encode_features(clip["mel"]),
        "dequant_nq": tokenizer.dequantize(codes),
        "coarse_mel_nq": tokenizer.coarse_mel(tokenizer.dequantize(codes)),
        "wav_nq": tokenizer.decode(codes),
    }
    for name, value in ours.items():
        error, published = ((x.float() - clip[name]).square().mean().sqrt() for x in (value, arrays[name]))
        assert error <= 1.5 * published, name


def test_bfloat16_codebooks_as_published(golden):
    tokenizer = AudioTokenizer.from_pretrained(golden.folder)
    exact = tokenizer.quantizer.embeddings()
    tokenizer.quantizer.round_codebooks()
    assert not torch.equal(tokenizer.quantizer.embeddings()[0], exact[0])
    codes = golden.clip(golden.info["bf16"]["clip"])["codes"][: golden.n_q]
    expected = sum(codebook.bfloat16().float()[index] for codebook, index in zip(exact, codes, strict=False))
    assert_close(tokenizer.dequantize(codes), expected, atol=1e-6, rtol=0)
    # The published code sums in bfloat16 as well.
    published = golden.arrays("bf16")["dequant_nq"]
    assert_close(tokenizer.dequantize(codes), published, atol=0.03, rtol=0)
