"""Codes to wave against the published code, stage by stage: each stage is fed the golden input."""

import torch
from torch import Tensor
from torch.testing import assert_close

CLOSE = {"atol": 5e-5, "rtol": 0}


def test_stages_from_the_first_codebooks(clip):
    check_stages(clip, "nq", clip["codes"][: clip.golden.n_q])


def test_stages_from_all_codebooks(detailed_clip):
    check_stages(detailed_clip, "all", detailed_clip["codes"])


def check_stages(clip, levels, codes):
    tokenizer = clip.golden.tokenizer
    assert_close(tokenizer.dequantize(codes), clip[f"dequant_{levels}"], **CLOSE)
    assert_close(tokenizer.coarse_mel(clip[f"dequant_{levels}"]), clip[f"coarse_mel_{levels}"], **CLOSE)
    if f"wav_{levels}" in clip:
        assert_close(tokenizer.vocode(clip[f"coarse_mel_{levels}"]), clip[f"wav_{levels}"], **CLOSE)
        assert_close(tokenizer.decode(codes), clip[f"wav_{levels}"], **CLOSE)


def test_every_layer(detailed_clip):
    clip = detailed_clip
    decoder, vocoder = clip.golden.tokenizer.decoder, clip.golden.tokenizer.vocoder
    watched = {
        "dec_dconv1": decoder.dconv1,
        **{f"dec_layer{i}": layer for i, layer in enumerate(decoder.layers)},
        "dec_post_norm": decoder.layer_norm,
        "voc_embed": vocoder.embeddings,
        **{f"voc_layer{i}": layer for i, layer in enumerate(vocoder.layers)},
        "voc_post_norm": vocoder.layer_norm,
        "voc_head": vocoder.head.out,
    }
    seen: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _a, out, name=name: seen.update({name: out}))
        for name, module in watched.items()
    ]
    with torch.no_grad():
        decoder(clip["dequant_nq"], [len(clip["dequant_nq"])])
        vocoder(clip["coarse_mel_nq"], [len(clip["coarse_mel_nq"])])
    for hook in hooks:
        hook.remove()
    kept = [name for name in watched if f"inter.{name}" in clip]  # the small set lacks the largest, voc_head
    assert len(kept) >= len(watched) - 1
    for name in kept:
        assert_close(seen[name], clip[f"inter.{name}"], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


def test_few_frames(golden):
    arrays = golden.arrays("decode")
    for count in (1, 2, 3, 5):
        codes = arrays[f"dec{count}.codes"]
        coarse = golden.tokenizer.coarse_mel(golden.tokenizer.dequantize(codes))
        assert_close(coarse, arrays[f"dec{count}.coarse_mel"], **CLOSE)
        assert_close(golden.tokenizer.decode(codes), arrays[f"dec{count}.wav"], **CLOSE)


def test_the_longest_row_of_a_padded_batch(golden):
    arrays, tokenizer = golden.arrays("decode"), golden.tokenizer
    lengths = arrays["dec_batch.lens"].tolist()
    longest = lengths.index(max(lengths))
    with torch.no_grad():
        upsampled = tokenizer.decoder.dconv1(arrays["dec_batch.embeds_packed"], lengths)
    assert_close(upsampled.split([2 * n for n in lengths])[longest], arrays["dec_batch.dconv1"][longest], **CLOSE)
    coarse = tokenizer.coarse_mel_batch(arrays["dec_batch.embeds_packed"].split(lengths))
    assert_close(coarse[longest], arrays["dec_batch.coarse_mel"][longest], **CLOSE)
    assert_close(tokenizer.vocode_batch(coarse)[longest], arrays["dec_batch.wav"][longest], **CLOSE)


def test_streams_decoded_as_a_whole(golden):
    arrays = golden.arrays("decode")
    for name in (key for key in arrays if "full_decode" in key):
        case, row = name.replace("_every7", "").split(".full_decode")
        wave = golden.tokenizer.decode(arrays[f"{case}.codes{row}"])
        assert_close(wave[::7], arrays[name], **CLOSE)


def test_packed_codes_give_the_vectors_of_each(golden):
    arrays = golden.arrays("packed")
    for case in (key.split(".")[0] for key in arrays if key.endswith(".lens")):
        lengths = arrays[f"{case}.out_lens"].tolist()
        vectors = golden.tokenizer.dequantize_batch(arrays[f"{case}.codes"].split(lengths, 1))
        for item, padded in zip(vectors, arrays[f"{case}.dequant_padded"], strict=True):
            assert_close(item, padded[: len(item)], **CLOSE)
