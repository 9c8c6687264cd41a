"""AudioTokenizer as a whole: batches equal single items, long input, streams, gradients, bad input."""

import pytest
import torch
from torch.testing import assert_close

import mimo_audio_native as mn
from mimo_audio.errors import AudioError, CodesError, MimoError, ModelError
from mimo_audio.tokenizer import AudioTokenizer, model
from mimo_audio.tokenizer.streaming import StreamDecoder, StreamEncoder

VARIANTS = [
    {},
    {"ln_type": "RMSNorm", "encoder_skip_layer_id": None},
    {"avg_pooler": 1, "encoder_causal": True},
    {"avg_pooler": 3, "kernel_size": 5, "decoder_kernel_size": 5},
    {"encoder_attn_window_size": (8, 8), "decoder_attn_window_size": (16, 0), "vocoder_phase_advance": True},
    {"window_size": 800, "fmin": 40, "fmax": 9000, "decoder_kernel_size": 2, "decoder_causal": False},
]


def randomised(tokenizer: AudioTokenizer) -> AudioTokenizer:
    """Norms and biases as trained ones are: not ones and zeros."""
    for parameter in tokenizer.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.5)
    return tokenizer


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(changes) or "release")
def test_batches_equal_single_items(make_tokenizer, changes):
    tokenizer = randomised(make_tokenizer(**changes))
    waves = [torch.randn(n) * 0.1 for n in (5000, 2400, 7777, 5000, 1440)]
    mels = tokenizer.log_mel_batch(waves)
    features = tokenizer.encode_features_batch(mels)
    codes = tokenizer.quantize_batch(features, 3)
    embeddings = tokenizer.dequantize_batch(codes)
    coarse = tokenizer.coarse_mel_batch(embeddings)
    decoded = tokenizer.decode_batch(codes)
    for i, wave in enumerate(waves):
        assert_close(tokenizer.log_mel(wave), mels[i])
        assert_close(tokenizer.encode_features(mels[i]), features[i], atol=1e-5, rtol=1e-5)
        assert torch.equal(tokenizer.quantize(features[i], 3), codes[i])
        assert torch.equal(tokenizer.dequantize(codes[i]), embeddings[i])
        assert_close(tokenizer.coarse_mel(embeddings[i]), coarse[i], atol=1e-5, rtol=1e-5)
        assert_close(tokenizer.vocode(coarse[i]), decoded[i], atol=1e-4, rtol=1e-4)
        assert_close(tokenizer.decode(codes[i]), decoded[i], atol=1e-4, rtol=1e-4)
    assert all(torch.equal(*pair) for pair in zip(tokenizer.encode_batch(waves, n_q=3), codes, strict=True))
    assert all(torch.equal(tokenizer.encode(w, n_q=3), c) for w, c in zip(waves, codes, strict=True))


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(changes) or "release")
def test_lengths_follow_the_format(make_tokenizer, changes):
    tokenizer = make_tokenizer(**changes)
    config = tokenizer.config
    for samples in (960, 1199, 1200, 5000):
        frames = 1 + samples // 240
        mel = tokenizer.log_mel(torch.randn(samples))
        assert mel.shape == (frames, config.n_mels)
        half = (frames + 5 - 2 * config.kernel_size) // config.stride_size + 1
        count = -(-half // config.avg_pooler)
        codes = tokenizer.quantize(tokenizer.encode_features(mel))
        assert codes.shape == (4, count)
        expected = count * config.avg_pooler * config.decoder_stride_size * config.hop_length
        assert tokenizer.decode(codes).shape == (expected,)


def test_waves_shorter_than_a_frame(make_tokenizer):
    tokenizer = make_tokenizer()
    for samples in (1, 2, 239, 240, 480, 481):
        codes = tokenizer.encode(torch.full((samples,), 0.1))
        assert codes.shape[1] == 1
        assert tokenizer.decode(codes).isfinite().all()


def test_silence_and_clipped_waves(make_tokenizer):
    tokenizer = make_tokenizer()
    for wave in (torch.zeros(4800), torch.randn(4800).sign() * 3):
        assert tokenizer.decode(tokenizer.encode(wave)).isfinite().all()


@pytest.fixture
def short_segments(monkeypatch):
    """Segments of 1 s instead of 60 s; the golden tests have those."""
    monkeypatch.setattr(model, "SEGMENT_MEL_FRAMES", 100)
    monkeypatch.setattr(model, "SEGMENT_CODE_FRAMES", 25)
    monkeypatch.setattr(model, "BLOCK_SAMPLES", 24000)


@pytest.mark.usefixtures("short_segments")
def test_long_input_is_a_set_of_pieces_done_alone(make_tokenizer):
    tokenizer = make_tokenizer()
    mel = torch.randn(1234, 20)
    pieces = [tokenizer.encode_features(piece) for piece in mel.split(100)]
    assert_close(tokenizer.encode_features(mel), torch.cat(pieces), atol=1e-5, rtol=1e-5)
    codes = torch.randint(0, 8, (4, 310))
    waves = [tokenizer.decode(piece) for piece in codes.split(25, 1)]
    assert_close(tokenizer.decode(codes), torch.cat(waves), atol=1e-4, rtol=1e-4)


def test_mel_of_a_stream_is_that_of_the_whole(make_tokenizer):
    mel = make_tokenizer().mel
    for total in (1, 479, 480, 481, 1000, 2400, 9999):
        wave = torch.randn(total)
        whole = mn.log_mel(wave[None], mel.window, mel.filterbank, 240, 1e-7, "center")[0]
        for size in (1, 100, 240, 479, 700, 5000):
            if total / size < 3000:
                streamed = torch.cat(list(mel.stream(wave.split(size))))
                assert_close(streamed, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("short_segments")
def test_a_stream_is_encoded_as_it_arrives(make_tokenizer):
    tokenizer = make_tokenizer()
    wave = torch.randn(24000 * 5) * 0.1
    taken = 0

    def blocks():
        nonlocal taken
        for block in wave.split(2400):
            taken += 1
            yield block

    stream = tokenizer.encode_blocks(blocks(), 2)
    first = next(stream)
    assert first.shape == (2, 25)
    assert taken <= 12  # nothing beyond the segment, a tenth of it and a block is held
    assert torch.equal(torch.cat([first, *stream], 1), tokenizer.encode(wave, n_q=2))


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize(("frames", "passes"), [(99, 1), (101, 1), (109, 1), (110, 2), (205, 2), (210, 3)])
def test_a_short_last_segment_costs_no_pass(make_tokenizer, frames, passes):
    """It shares that of the segment before, and is encoded as alone."""
    tokenizer = make_tokenizer()
    lengths = []
    tokenizer.encoder.register_forward_pre_hook(lambda _, args: lengths.append(args[1]))
    wave = torch.randn((frames - 1) * 240) * 0.1
    codes = tokenizer.encode(wave)
    assert len(lengths) == passes
    assert [n for part in lengths for n in part] == [100] * (frames // 100) + [frames % 100] * (frames % 100 > 0)
    alone = [tokenizer.quantize(tokenizer.encode_features(part)) for part in tokenizer.log_mel(wave).split(100)]
    assert torch.equal(codes, torch.cat(alone, 1))


def test_gradients_reach_every_parameter(make_tokenizer):
    tokenizer = randomised(make_tokenizer()).train()
    lengths = [16, 9]
    features = tokenizer.encoder(torch.randn(sum(lengths), 20), lengths)
    quantized, codes, commitment, counts, sums = tokenizer.quantizer(features)
    out_lengths = [tokenizer.encoder.output_length(n) for n in lengths]
    assert counts.sum() == codes.numel()
    assert sums.shape == (len(counts), 16)
    coarse = tokenizer.decoder(quantized, out_lengths)
    coarse_lengths = [tokenizer.decoder.output_length(n) for n in out_lengths]
    log_magnitude, phase = tokenizer.vocoder.spectrum(coarse, coarse_lengths)
    wave = tokenizer.vocoder.synthesize(log_magnitude, phase, coarse_lengths)
    assert wave.shape == (sum(tokenizer.vocoder.output_length(n) for n in coarse_lengths),)
    (wave.square().mean() + coarse.square().mean() + commitment.sum()).backward()
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_codebooks_windows_and_mel_stay_float32(make_tokenizer):
    tokenizer = make_tokenizer()
    before = [embedding.clone() for embedding in tokenizer.quantizer.embeddings()]
    tokenizer.to(torch.bfloat16)
    assert all(torch.equal(*pair) for pair in zip(before, tokenizer.quantizer.embeddings(), strict=True))
    assert tokenizer.mel.filterbank.dtype == tokenizer.vocoder.head.istft.window.dtype == torch.float32
    assert {parameter.dtype for parameter in tokenizer.parameters()} == {torch.bfloat16}
    codes = tokenizer.encode(torch.randn(4800))
    assert tokenizer.decode(codes).dtype == torch.float32


def test_a_wave_may_have_a_dimension_for_its_channel(make_tokenizer):
    """[1, N], as torchaudio loads it."""
    tokenizer = make_tokenizer()
    assert tokenizer.sample_rate == tokenizer.config.sampling_rate
    wave = torch.randn(5000) * 0.1
    codes = tokenizer.encode(wave, 16000)
    for one in (tokenizer.encode(wave[None], 16000), tokenizer.encode_batch([wave[None]], 16000)[0]):
        assert torch.equal(one, codes)
    assert torch.equal(tokenizer.log_mel(wave[None]), tokenizer.log_mel(wave))
    blocks = [block[None] for block in wave.split(700)]
    assert torch.equal(torch.cat(list(tokenizer.encode_blocks(blocks)), 1), tokenizer.encode(wave))
    with StreamEncoder(tokenizer) as stream, StreamEncoder(tokenizer) as other:
        assert torch.equal(stream.push(wave[None]), other.push(wave))
        assert torch.equal(stream.finish(), other.finish())


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (torch.zeros(0), "at least one sample"),
        (torch.zeros(2, 100), r"one channel, \[samples\] or \[1, samples\], got shape \[2, 100\]"),
        (torch.tensor(0.5), "one channel"),
        (torch.tensor([0.0, float("nan")]), "NaN or infinity"),
        (torch.tensor([float("inf")]), "NaN or infinity"),
        (torch.zeros(100, dtype=torch.int16), "floating-point tensor"),
        ([0.1, 0.2], "got list"),
    ],
)
def test_bad_waves(make_tokenizer, wave, message):
    tokenizer = make_tokenizer()
    for method in (tokenizer.encode, tokenizer.log_mel):
        with pytest.raises(AudioError, match=f"^wave: .*{message}"):
            method(wave)
    with pytest.raises(AudioError, match=message):
        tokenizer.encode_batch([torch.zeros(500), wave])


def test_bad_sample_rates(make_tokenizer):
    tokenizer = make_tokenizer()
    with pytest.raises(AudioError, match=r"sample_rate: .* got -5"):
        tokenizer.encode(torch.zeros(100), sample_rate=-5)
    for encode in (tokenizer.encode, lambda wave, **rate: tokenizer.encode_batch([wave], **rate)):
        with pytest.raises(AudioError, match=r"sample_rate: .* got 0"):
            encode(torch.zeros(100), sample_rate=0)
    with pytest.raises(AudioError, match="at least one sample at 24000 Hz, got none"):
        tokenizer.encode(torch.zeros(1), sample_rate=192000)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(5, 3, dtype=torch.int64), r"1 to 4 codebooks .* got shape \[5, 3\]"),
        (torch.zeros(0, 3, dtype=torch.int64), r"got shape \[0, 3\]"),
        (torch.zeros(4, 0, dtype=torch.int64), "at least one frame"),
        (torch.zeros(3, dtype=torch.int64), r"got shape \[3\]"),
        (torch.zeros(4, 3), "integer tensor"),
        (torch.full((2, 3), 8), r"0 \.\. 7 in codebook 1, got 8"),
        (torch.full((1, 3), 16), r"0 \.\. 15 in codebook 0, got 16"),
        (torch.full((1, 3), -1), "codebook 0, got -1"),
    ],
)
def test_bad_codes(make_tokenizer, codes, message):
    tokenizer = make_tokenizer()
    for method in (tokenizer.decode, tokenizer.dequantize):
        with pytest.raises(CodesError, match=f"^codes: .*{message}"):
            method(codes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_not_finite_is_not_quantized(make_tokenizer, value):
    tokenizer = make_tokenizer()
    features = torch.randn(7, 16)
    features[5, 3] = value
    with pytest.raises(AudioError, match="features: expected finite numbers, got NaN or infinity"):
        tokenizer.quantize(features)


def test_bad_stage_inputs(make_tokenizer):
    tokenizer = make_tokenizer()
    for method, name, width in (
        (tokenizer.encode_features, "mel", 20),
        (tokenizer.quantize, "features", 16),
        (tokenizer.coarse_mel, "embeddings", 16),
        (tokenizer.vocode, "coarse", 20),
    ):
        for bad in (torch.zeros(3, width + 1), torch.zeros(0, width), torch.zeros(width)):
            with pytest.raises(MimoError, match=rf"^{name}: expected \[frames, {width}\]"):
                method(bad)
    with pytest.raises(CodesError, match=r"n_q: .* got -1"):
        tokenizer.quantize(torch.zeros(3, 16), -1)
    with pytest.raises(CodesError, match="one number of codebooks in a batch"):
        tokenizer.decode_batch([torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 3, dtype=torch.int64)])
    with pytest.raises(AudioError, match="too few for the encoder's convolutions"):
        make_tokenizer(kernel_size=7).encode_features(torch.zeros(3, 20))


def test_other_precisions_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"dtype: expected torch\.float32 or torch\.bfloat16, got torch\.int32"):
        AudioTokenizer.from_pretrained(tmp_path, dtype=torch.int32)


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_torchs_default_dtype_changes_nothing(default):
    wave = 0.1 * torch.randn(9600)
    expected = AudioTokenizer.from_pretrained("nano")
    codes = expected.encode(wave)
    sound = expected.decode(codes)
    streamed = StreamDecoder(expected).push(codes)
    torch.set_default_dtype(default)
    try:
        loaded = AudioTokenizer.from_pretrained("nano")
        for (name, tensor), wanted in zip(loaded.state_dict().items(), expected.state_dict().values(), strict=True):
            assert tensor.dtype == wanted.dtype, name
            assert torch.equal(tensor, wanted), name
        assert torch.equal(loaded.encode(wave), codes)
        assert torch.equal(loaded.decode(codes), sound)
        assert torch.equal(StreamDecoder(loaded).push(codes), streamed)
        with StreamEncoder(loaded) as stream:
            assert torch.cat([stream.push(wave), stream.finish()], 1).shape == codes.shape
    finally:
        torch.set_default_dtype(torch.float32)
