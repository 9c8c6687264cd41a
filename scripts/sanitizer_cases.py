"""Runs every CUDA kernel once on small and odd sizes: what compute-sanitizer watches (scripts/gpu_check.sh)."""

import torch

import mimo_audio_native as mn


def main() -> None:
    torch.manual_seed(0)
    device = "cuda"
    codebooks = [torch.randn(size, 40, device=device) for size in (70, 33, 16)]
    for count in (0, 1, 67):
        x = torch.randn(count, 40, device=device, requires_grad=True)
        mn.rvq_decode(mn.rvq_encode(x.detach(), codebooks), codebooks)
        quantized, _, commitment, _, _ = mn.rvq_quantize(x, codebooks)
        (quantized.sum() + commitment.sum()).backward()

    window = torch.hann_window(96, device=device)
    wave = torch.randn(2, 1001, device=device, requires_grad=True)
    filterbank = mn.mel_filterbank(24000, 96, 10).to(device)
    for padding in ("center", "same"):
        mn.stft(wave, window, 96, 24, padding).abs().sum().backward()
        mn.log_mel(wave, window, filterbank, 24, 1e-5, padding).sum().backward()
    spectrum = torch.randn(2, 9, 49, 2, device=device)
    mn.istft(torch.view_as_complex(spectrum).requires_grad_(), window, 24).sum().backward()
    bounds = torch.tensor([0, 1, 1, 12], dtype=torch.int32, device=device)
    head = torch.randn(12, 98, device=device, requires_grad=True)
    mn.vocoder_head(head, window, 24, bounds).sum().backward()

    angles = torch.arange(12, device=device)[:, None] * torch.rand(8, device=device)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        q, k, v = (torch.randn(12, 2, 16, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
        for left, right in ((4, 2), (-1, 0), (-1, -1)):
            mn.window_attention(q, k, v, bounds, left, right, angles.cos(), angles.sin()).float().sum().backward()
        for frames in (4, 6, 12):
            patches = [t.view(-1, frames, 2, 16) for t in (q, k, v)]
            mn.patch_attention(*patches, angles.cos(), angles.sin(), causal=frames == 6).float().sum().backward()

    angles = torch.arange(5, device=device)[:, None] * torch.rand(4, device=device)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for batch, dim, embed_dim in ((1, 16, 16), (5, 21, 9)):

            def weight(*sizes: int, dtype: torch.dtype = dtype) -> torch.Tensor:
                return torch.randn(sizes, device=device, dtype=dtype)

            attention = [t for rows in (16, 8, 8) for t in (weight(rows, dim), weight(rows))]
            ffn = [weight(13, dim), weight(13, dim), weight(dim, 13)]
            layer = [weight(dim), *attention, weight(dim, 16), weight(dim), *ffn]
            heads, embeddings = ([weight(size, width) for size in (7, 33)] for width in (dim, embed_dim))
            projection = None if embed_dim == dim else weight(dim, embed_dim)
            stack = (layer, weight(dim), heads, embeddings, projection, angles.cos(), angles.sin(), 2, 1e-6)
            row = torch.arange(batch, device=device)
            sampler = (row * 0.5, row.int(), row * 0.0 + 0.9, row, row)
            mn.patch_decode(weight(batch, dim), *stack, [0, 32], [0, 2], 3, *sampler)
            tokens = torch.zeros(batch, 3, 2, dtype=torch.int64, device=device)
            mn.delayed_sampling(weight(batch, dim), heads, embeddings, [0, 32], [0, 2], 2, tokens, *sampler)
            for vocabulary, top_k in ((7, 0), (5003, 50)):
                temperature, _, *rest = sampler
                mn.sample(weight(batch, vocabulary), temperature, (row * 0 + top_k).int(), *rest)
            for length, padding in ((0, None), (300, row * 60)):
                cache = weight(1, 2, batch, 1, length + 2, 8)
                turns = torch.arange(length + 1, device=device)[:, None] * torch.rand(4, device=device)
                tables = (turns.cos(), turns.sin())
                mn.backbone_step(weight(batch, dim), layer, weight(dim), cache, length, padding, *tables, 2, 1e-6)
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
