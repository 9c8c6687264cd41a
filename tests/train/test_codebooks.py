"""Codebooks: the k-means start finds clusters, averages follow the data, unused entries come back."""

import pytest
import torch

import mimo_audio_native as mn
from mimo_audio.tokenizer.config import TokenizerConfig
from mimo_audio.tokenizer.quantizer import Quantizer
from mimo_audio.train import codebooks

WIDTH = 4


def make_quantizer(*sizes: int) -> Quantizer:
    config = TokenizerConfig(
        d_model=WIDTH, encoder_layers=1, encoder_attention_heads=1, encoder_ffn_dim=4, decoder_layers=1,
        decoder_attention_heads=1, decoder_ffn_dim=4, vocoder_dim=4, vocoder_intermediate_dim=4, vocoder_num_layers=1,
        vocoder_attention_heads=1, num_quantizers=len(sizes), codebook_size=sizes,
    )  # fmt: skip
    return Quantizer(config)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def clusters(count: int, per_cluster: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Well separated centres [count, WIDTH] and vectors close around them."""
    centres = 10 * torch.randn(count, WIDTH, generator=generator)
    noise = 0.01 * torch.randn(count * per_cluster, WIDTH, generator=generator)
    return centres, centres.repeat(per_cluster, 1) + noise


def test_kmeans_finds_the_clusters(generator):
    centres, vectors = clusters(5, 200, generator)
    quantizer = make_quantizer(16)
    codebooks.start(quantizer, vectors, generator)
    assert torch.cdist(centres, quantizer.codebooks[0].embed).min(1).values.max() < 0.05
    assert quantizer.codebooks[0].inited == 1


def test_start_of_later_codebooks_is_on_residuals(generator):
    vectors = torch.randn(2000, WIDTH, generator=generator)
    quantizer = make_quantizer(16, 16, 16)
    codebooks.start(quantizer, vectors, generator)
    errors = []
    for levels in (1, 2, 3):
        embeddings = quantizer.embeddings(levels)
        decoded = mn.rvq_decode(mn.rvq_encode(vectors, embeddings), embeddings)
        errors.append(float((decoded - vectors).square().mean()))
    assert errors[0] < 0.5
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]


def test_start_needs_fewer_vectors_than_entries(generator):
    quantizer = make_quantizer(16)
    codebooks.start(quantizer, torch.randn(3, WIDTH, generator=generator), generator)
    assert quantizer.codebooks[0].embed.isfinite().all()


def test_update_is_the_exponential_average(generator):
    """Of data that has moved: at the vectors the start was made from, every decay would give the same."""
    vectors = torch.randn(64, WIDTH, generator=generator)
    quantizer = make_quantizer(4)
    codebooks.start(quantizer, vectors, generator)
    vectors = 2 * vectors[:40] + 1
    book = quantizer.codebooks[0]
    size, total = book.cluster_size.clone(), book.embed_avg.clone()
    _, codes, _, counts, sums = mn.rvq_quantize(vectors, quantizer.embeddings())
    assert codebooks.update(quantizer, vectors, codes, counts, sums, generator) == 0
    expected_size, expected_total = 0.99 * size + 0.01 * counts, 0.99 * total + 0.01 * sums
    torch.testing.assert_close(book.cluster_size, expected_size)
    torch.testing.assert_close(book.embed, expected_total / expected_size[:, None])


def test_entries_follow_moving_data(generator):
    centres, vectors = clusters(4, 50, generator)
    quantizer = make_quantizer(12)
    codebooks.start(quantizer, vectors, generator)
    moved = vectors + 0.5
    for _ in range(400):
        _, codes, _, counts, sums = mn.rvq_quantize(moved, quantizer.embeddings())
        codebooks.update(quantizer, moved, codes, counts, sums, generator)
    assert torch.cdist(centres + 0.5, quantizer.codebooks[0].embed).min(1).values.max() < 0.05


def test_an_unused_entry_comes_back_as_a_vector_of_the_batch(generator):
    vectors = torch.randn(256, WIDTH, generator=generator)
    quantizer = make_quantizer(8)
    codebooks.start(quantizer, vectors, generator)
    book = quantizer.codebooks[0]
    book.embed[3], book.embed_avg[3], book.cluster_size[3] = 1e3, 1e-3, 1e-6  # far from everything, and long unused
    _, codes, _, counts, sums = mn.rvq_quantize(vectors, quantizer.embeddings())
    assert codebooks.update(quantizer, vectors, codes, counts, sums, generator) == 1
    assert (book.embed[3] == vectors).all(1).any()
    codes = mn.rvq_encode(vectors, quantizer.embeddings())
    assert (codes == 3).any()


def test_revival_scales_with_usage(generator):
    """Many entries and small batches leave each entry below one vector per step; none of them may count as dead."""
    vectors = torch.randn(512, WIDTH, generator=generator)
    quantizer = make_quantizer(256)
    codebooks.start(quantizer, vectors, generator)
    revived = 0
    for _ in range(50):
        batch = vectors[torch.randperm(len(vectors), generator=generator)[:32]]  # 1/8 vector per entry and step
        _, codes, _, counts, sums = mn.rvq_quantize(batch, quantizer.embeddings())
        revived += codebooks.update(quantizer, batch, codes, counts, sums, generator)
    assert quantizer.codebooks[0].cluster_size.mean() < 2
    assert revived < 10


def test_codebooks_beyond_the_used_levels_stay(generator):
    vectors = torch.randn(64, WIDTH, generator=generator)
    quantizer = make_quantizer(4, 4)
    codebooks.start(quantizer, vectors, generator)
    before = quantizer.codebooks[1].embed.clone()
    _, codes, _, counts, sums = mn.rvq_quantize(vectors, quantizer.embeddings(1))
    codebooks.update(quantizer, vectors, codes, counts, sums, generator)
    assert torch.equal(quantizer.codebooks[1].embed, before)


def test_encoding_follows_every_change_of_the_codebooks(generator, monkeypatch):
    """The quantizer keeps tables of its codebooks (used on CUDA): each way to change an entry must make them again."""
    made = []
    make_tables = torch.ops.mimo.rvq_tables
    monkeypatch.setattr(torch.ops.mimo, "rvq_tables", lambda books: made.append(len(books)) or make_tables(books))
    vectors = torch.randn(64, WIDTH, generator=generator)
    quantizer = make_quantizer(4, 4)

    def averages() -> None:
        _, codes, _, counts, sums = quantizer(vectors)
        codebooks.update(quantizer, vectors, codes, counts, sums, generator)

    def whole_state() -> None:
        quantizer.load_state_dict({name: value + 1 for name, value in quantizer.state_dict().items()})

    changes = [
        lambda: codebooks.start(quantizer, vectors, generator),
        averages,
        whole_state,
        quantizer.round_codebooks,
        lambda: quantizer.codebooks[1].embed.copy_(vectors[:4]),
    ]
    for change in changes:
        change()
        made.clear()
        for levels in (None, 1, 2):
            assert torch.equal(quantizer.encode(vectors, levels), mn.rvq_encode(vectors, quantizer.embeddings(levels)))
        assert made == [2], change


def test_perplexity_counts_the_entries_in_use():
    quantizer = make_quantizer(8)
    quantizer.codebooks[0].cluster_size = torch.tensor([2.0, 2, 2, 2, 0, 0, 0, 0])
    assert codebooks.perplexity(quantizer.codebooks[0]) == pytest.approx(4)
