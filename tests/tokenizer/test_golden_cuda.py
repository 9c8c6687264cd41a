"""The tokenizer on a GPU against the golden data: the same tolerances as on the CPU."""

import pytest
import torch
from torch.testing import assert_close

from mimo_audio.tokenizer import AudioTokenizer

CLOSE = {"atol": 5e-5, "rtol": 0}


@pytest.mark.cuda
def test_stages_on_a_gpu(golden, check_codes):
    tokenizer = AudioTokenizer.from_pretrained(golden.folder, device="cuda")
    for clip in golden.clips():
        features = tokenizer.encode_features(clip["mel"])
        assert_close(features.cpu(), clip["features"], **CLOSE)
        check_codes(tokenizer.quantize(clip["features"]).cpu(), clip["codes"], clip["code_margin"])
        assert_close(tokenizer.dequantize(clip["codes"][: golden.n_q]).cpu(), clip["dequant_nq"], **CLOSE)
        assert_close(tokenizer.coarse_mel(clip["dequant_nq"]).cpu(), clip["coarse_mel_nq"], **CLOSE)
        assert_close(tokenizer.decode(clip["codes"][: golden.n_q]).cpu(), clip["wav_nq"], **CLOSE)
        if clip.name != "chirp":
            check_codes(tokenizer.encode(clip["wav"]).cpu(), clip["codes"], clip["code_margin"])


@pytest.mark.cuda
def test_bfloat16_on_a_gpu(golden):
    tokenizer = AudioTokenizer.from_pretrained(golden.folder, device="cuda", dtype=torch.bfloat16)
    clip, arrays = golden.clip(golden.info["bf16"]["clip"]), golden.arrays("bf16")
    codes = clip["codes"][: golden.n_q]
    for name, value in (("features", tokenizer.encode_features(clip["mel"])), ("wav_nq", tokenizer.decode(codes))):
        error, published = ((x.float().cpu() - clip[name]).square().mean().sqrt() for x in (value, arrays[name]))
        assert error <= 1.5 * published, name
