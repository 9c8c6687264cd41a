"""Ops as people call them: under autocast, with defaults, with leading dimensions, with plain numbers."""

import pytest
import torch

import mimo_audio_native as mn

WINDOW, BANK = torch.hann_window(96), mn.mel_filterbank(24000, 96, 10)
CODEBOOKS = [torch.randn(8, 16), torch.randn(4, 16)]
FLOAT32_OPS = {  # of x [2, 784]
    "log_mel": lambda x: mn.log_mel(x, WINDOW.to(x.device), BANK.to(x.device), 24),
    "stft": lambda x: torch.view_as_real(mn.stft(x, WINDOW.to(x.device), 96, 24)),
    "istft": lambda x: torch.ops.mimo.istft(x.view(2, 4, 2, 98)[:, :, :, ::2].mT, WINDOW.to(x.device), 24),
    "vocoder_head": lambda x: mn.vocoder_head(x.view(16, 98), WINDOW.to(x.device), 24),
    "rvq_quantize": lambda x: mn.rvq_quantize(x.view(98, 16), [c.to(x.device) for c in CODEBOOKS])[0],
    "rvq_encode": lambda x: mn.rvq_encode(x.view(98, 16), [c.to(x.device) for c in CODEBOOKS]),
}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("name", FLOAT32_OPS)
def test_searches_and_spectra_are_float32_under_autocast(name, device) -> None:
    x, call = torch.randn(2, 784, device=device).bfloat16(), FLOAT32_OPS[name]
    wanted = call(x.float())
    with torch.autocast(device, torch.bfloat16):
        got = call(x)
    assert got.dtype == wanted.dtype
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_kept_tables_are_taken_under_autocast(device) -> None:
    books, tables = [c.to(device) for c in CODEBOOKS], mn.RvqTables()
    x = torch.randn(98, 16, device=device)
    wanted = mn.rvq_encode(x, books)
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(mn.rvq_encode(x, books, tables), wanted)
        assert torch.equal(mn.rvq_encode(x.bfloat16(), books, tables), mn.rvq_encode(x.bfloat16().float(), books))
        assert torch.is_autocast_enabled(device)


def test_gradients_pass_through_autocast() -> None:
    layer, x = torch.nn.Linear(16, 16), torch.randn(6, 16)
    with torch.autocast("cpu", torch.bfloat16):
        quantized, _, commitment, *_ = mn.rvq_quantize(layer(x), CODEBOOKS)
        (quantized.square().sum() + commitment.sum()).backward()
    assert quantized.dtype == torch.float32
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("op", ["window_attention", "patch_attention"])
def test_attention_keeps_its_dtype_under_autocast(op) -> None:
    q = torch.randn(8, 4, 2, 16).bfloat16()
    q = q.flatten(0, 1) if op == "window_attention" else q
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(getattr(mn, op)(q, q, q), getattr(mn, op)(q, q, q))
        assert getattr(mn, op)(q, q, q).dtype == torch.bfloat16


def test_the_ops_themselves_have_the_functions_defaults() -> None:
    ops, wave, q = torch.ops.mimo, torch.randn(2, 480), torch.randn(12, 2, 16)
    assert torch.equal(ops.log_mel(wave, WINDOW, BANK, 24), mn.log_mel(wave, WINDOW, BANK, 24))
    assert torch.equal(torch.view_as_complex(ops.stft(wave, WINDOW, 96, 24)), mn.stft(wave, WINDOW, 96, 24))
    x = torch.randn(5, 98)
    assert torch.equal(ops.vocoder_head(x, WINDOW, 24), mn.vocoder_head(x, WINDOW, 24))
    assert torch.equal(ops.window_attention(q, q, q)[0], mn.window_attention(q, q, q))
    patches = q.view(3, 4, 2, 16)
    assert torch.equal(ops.patch_attention(patches, patches, patches), mn.patch_attention(patches, patches, patches))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_spectra_take_any_leading_dimensions(lead) -> None:
    wave = torch.randn(*lead, 480, dtype=torch.float64)
    rows = wave.reshape(-1, 480)
    window, bank = WINDOW.double(), BANK.double()
    for call in (lambda w: mn.stft(w, window, 96, 24), lambda w: mn.log_mel(w, window, bank, 24)):
        got, wanted = call(wave), call(rows)
        assert got.shape == (*lead, *wanted.shape[1:])
        assert torch.equal(got.reshape(wanted.shape), wanted)
    assert torch.autograd.gradcheck(
        lambda w: mn.stft(w, window, 96, 24), torch.randn(*lead, 120, dtype=torch.float64, requires_grad=True)
    )


def test_sample_takes_plain_numbers() -> None:
    logits = torch.randn(5, 50)
    assert torch.equal(mn.sample(logits), logits.argmax(1))
    rows = torch.ones(5, dtype=torch.int64)
    drawn = mn.sample(logits, 0.8 * torch.ones(5), 7 * rows.int(), 0.9 * torch.ones(5), 3 * rows, 4 * rows)
    assert torch.equal(mn.sample(logits, 0.8, 7, 0.9, seeds=3, offsets=4), drawn)
