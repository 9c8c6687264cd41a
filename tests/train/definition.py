"""The tokenizer and its training again, in plain float64 torch: what a step's losses, gradients and state must be.

Written from the report (MiMo-Audio, section 2.1, eq. 1 to 7) and the notes on the released format, dense and one
sequence at a time; it shares no code with the package, and no random draws but those of numpy and torch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = dict[str, Tensor]
RATE = 24000


# Spectra


@lru_cache
def mel_bank(size: int, bands: int) -> Tensor:
    """Triangles of peak 1, evenly spaced on the HTK scale from 0 to 12 kHz: [size / 2 + 1, bands]."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    corner = [700 * (10 ** (top * i / (bands + 1) / 2595) - 1) for i in range(bands + 2)]
    bank = torch.zeros(size // 2 + 1, bands, dtype=torch.float64)
    for k in range(size // 2 + 1):
        f = k * RATE / size
        for m in range(bands):
            low, centre, high = corner[m : m + 3]
            bank[k, m] = max(0.0, min((f - low) / (centre - low), (high - f) / (high - centre)))
    return bank


def hann(size: int) -> Tensor:
    return 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(size, dtype=torch.float64) / size)


def spectrum(wave: Tensor, window: Tensor, size: int, hop: int, centred: bool = False) -> Tensor:
    """wave [N] -> complex [T, size / 2 + 1]; reflected by half a frame, or by what makes T = N / hop."""
    side = size // 2 if centred else (size - hop) // 2
    padded = F.pad(wave[None], (side, side if centred else size - hop - side), "reflect")[0]
    return torch.stft(padded, size, hop, len(window), window, center=False, return_complex=True).T


def log_mel(wave: Tensor, bands: int) -> Tensor:
    """The tokenizer's input: wave [N] -> [N / 240, bands]."""
    magnitude = spectrum(wave, hann(960), 960, 240, centred=True).abs()
    return (magnitude @ mel_bank(960, bands)).clamp(min=1e-7).log()[: len(wave) // 240]


# Tokenizer


def layer_norm(p: Tensors, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * p[f"{name}.weight"] + p[f"{name}.bias"]


def group_norm(p: Tensors, name: str, x: Tensor) -> Tensor:
    """Over channels and time of x [T, C]."""
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


def rotary(x: Tensor) -> Tensor:
    """x [T, H, D], rotate-half, base 10000."""
    half = x.shape[-1] // 2
    rate = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = (torch.arange(len(x), dtype=torch.float64)[:, None] * rate)[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, seen: Tensor) -> Tensor:
    """q, k, v [T, heads * D], seen [T, T] bool -> [T, heads * D]."""
    q, k, v = (t.unflatten(1, (heads, -1)) for t in (q, k, v))
    scores = torch.einsum("thd,shd->hts", rotary(q), rotary(k)) / math.sqrt(q.shape[-1])
    return torch.einsum("hts,shd->thd", scores.masked_fill(~seen, -math.inf).softmax(-1), v).flatten(1)


def linear(p: Tensors, name: str, x: Tensor) -> Tensor:
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def block(p: Tensors, name: str, x: Tensor, heads: int, seen: Tensor) -> Tensor:
    n = layer_norm(p, f"{name}.self_attn_layer_norm", x)
    q, k, v = (linear(p, f"{name}.self_attn.{part}_proj", n) for part in "qkv")
    x = x + linear(p, f"{name}.self_attn.out_proj", attention(q, k, v, heads, seen))
    hidden = linear(p, f"{name}.fc1", layer_norm(p, f"{name}.final_layer_norm", x))
    return x + linear(p, f"{name}.fc2", 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))))


def window(length: int, left: int, right: int) -> Tensor:
    """Which keys a query sees, -1: all."""
    at = torch.arange(length)
    behind, ahead = at[:, None] - at, at - at[:, None]
    return ((left < 0) | (behind <= left)) & ((right < 0) | (ahead <= right))


def encode(p: Tensors, c: Mapping, mel: Tensor) -> Tensor:
    """mel [T, bands] -> features [T / 4, d]; of a config with one layer, whose output is the skip branch's too."""
    x = F.gelu(F.conv1d(mel.T[None], p["encoder.conv1.weight"], p["encoder.conv1.bias"], padding=1))
    x = F.gelu(F.conv1d(x, p["encoder.conv2.weight"], p["encoder.conv2.bias"], 2, 1))[0].T
    skip = None
    for i in range(c["encoder_layers"]):
        x = block(p, f"encoder.layers.{i}", x, c["encoder_attention_heads"], window(len(x), -1, -1))
        skip = x if i + 1 == c["encoder_skip_layer_id"] else skip
    x = layer_norm(p, "encoder.layer_norm", x if skip is None else x + skip)
    x = F.gelu(F.conv1d(x.T[None], p["encoder.down_sample_layer.0.weight"], stride=2))[0].T
    return layer_norm(p, "encoder.down_sample_norm", x)


def decode(p: Tensors, c: Mapping, quantized: Tensor) -> Tensor:
    """quantized [T, d] -> coarse mel [4 T, bands]."""

    def up(name: str, x: Tensor) -> Tensor:
        y = F.conv_transpose1d(x.T[None], p[f"{name}.conv.weight"], p[f"{name}.conv.bias"], 2)[0].T
        return group_norm(p, f"{name}.norm", y)[: 2 * len(x)]

    x = up("decoder.dconv1", quantized)
    for i in range(c["decoder_layers"]):
        x = block(p, f"decoder.layers.{i}", x, c["decoder_attention_heads"], window(len(x), -1, 0))
    return up("decoder.dconv2", layer_norm(p, "decoder.layer_norm", x))


def vocoder_spectrum(p: Tensors, c: Mapping, coarse: Tensor) -> tuple[Tensor, Tensor]:
    """coarse [T, bands] -> log-magnitude and phase [T, 481]; phases advance by a tone's at each bin's centre."""
    x = linear(p, "decoder.vocoder.embeddings", coarse)
    for i in range(c["vocoder_num_layers"]):
        seen = window(len(x), *c["vocoder_attn_window_size"])
        x = block(p, f"decoder.vocoder.layers.{i}", x, c["vocoder_attention_heads"], seen)
    log_magnitude, phase = linear(p, "decoder.vocoder.head.out", layer_norm(p, "decoder.vocoder.layer_norm", x)).chunk(
        2, -1
    )
    frame, k = torch.arange(len(x))[:, None], torch.arange(481)
    return log_magnitude, phase + 2 * math.pi * (frame * k * 240 % 960) / 960


def synthesise(log_magnitude: Tensor, phase: Tensor) -> Tensor:
    """[T, 481] each -> wave [240 T]: inverse STFT over the squared window's sum."""
    frames = torch.fft.irfft(torch.polar(log_magnitude.exp().clamp(max=100), phase), 960) * hann(960)
    wave, envelope = torch.zeros(2, 240 * (len(frames) + 3), dtype=torch.float64)
    for i, frame in enumerate(frames):
        wave = wave + F.pad(frame, (240 * i, len(wave) - 240 * i - 960))
        envelope = envelope + F.pad(hann(960).square(), (240 * i, len(wave) - 240 * i - 960))
    return wave[360:-360] / envelope[360:-360]


# Losses


def l1(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean()


def emphasis(size: int) -> Tensor:
    weight = 1 / (700 + torch.arange(size // 2 + 1, dtype=torch.float64) * RATE / size)
    return weight / weight.mean()


def mel_loss(wave: Tensor, target: Tensor) -> Tensor:
    """Eq. 2, as a mean."""
    total = torch.zeros((), dtype=torch.float64)
    for bands, width, hop in ((32, 240, 120), (64, 480, 240), (128, 960, 480)):
        unit = hann(width) / hann(width).square().sum().sqrt()
        bank = mel_bank(width, bands)
        a, b = ((spectrum(x, unit, width, hop).abs() @ bank).clamp(min=1e-3).log() for x in (wave, target))
        total = total + l1(a, b)
    return total


def wave_loss(wave: Tensor, target: Tensor) -> Tensor:
    a, b = ((spectrum(x, hann(720), 1024, 180).abs().square() + 1e-4).log() / 2 for x in (wave, target))
    return ((a - b).abs() * emphasis(1024)).mean()


def coarse_loss(coarse: Tensor, mel: Tensor) -> Tensor:
    target = mel.clamp(min=math.log(1e-2))
    return l1(coarse, (target - target.mean()) / target.std().clamp(min=1e-3))


def spectrum_losses(pairs: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(log-magnitude, phase, true wave) of every crop -> magnitude and phase loss."""
    truth = torch.stack([spectrum(wave, hann(960), 960, 240) for *_, wave in pairs])
    log_magnitude, phase = (torch.stack(parts) for parts in list(zip(*pairs, strict=True))[:2])
    magnitude = ((log_magnitude - truth.abs().clamp(min=1e-2).log()).abs() * emphasis(960)).mean()
    error, weight = torch.polar(torch.ones_like(phase), phase - truth.angle()), truth.abs().sqrt()
    over_time = (error[:, 1:] * error[:, :-1].conj()).angle().abs() * weight[:, 1:]
    over_bins = (error[:, :, 1:] * error[:, :, :-1].conj()).angle().abs() * weight[:, :, 1:]
    return magnitude, (over_time.mean() + over_bins.mean()) / weight.mean()


def reconstruction(
    p: Tensors, c: Mapping, quantized: Tensor, waves: Tensor, mels: Sequence[Tensor], synthesised: bool
) -> tuple[Tensors, Tensor]:
    """quantized [B, T, d] -> losses, decoded waves [B, N]."""
    coarse = [decode(p, c, one) for one in quantized]
    spectra = [vocoder_spectrum(p, c, one) for one in coarse]
    magnitude, phase = spectrum_losses([(*s, wave) for s, wave in zip(spectra, waves, strict=True)])
    losses = {
        "coarse": torch.stack([coarse_loss(a, b) for a, b in zip(coarse, mels, strict=True)]).mean(),
        "magnitude": magnitude,
        "phase": phase,
    }
    decoded = torch.stack([synthesise(*s) for s in spectra])
    if synthesised:
        for name, loss in (("mel", mel_loss), ("wave", wave_loss)):
            losses[name] = torch.stack([loss(a, b) for a, b in zip(decoded, waves, strict=True)]).mean()
    return losses, decoded


def text_loss(p: Tensors, heads: int, vectors: Sequence[Tensor], texts: Sequence[str]) -> Tensor:
    """Eq. 1, as a mean over bytes: a causal Transformer reads vectors [T, d], a mark (256) and the bytes; 257 ends."""

    def rms_norm(name: str, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * p[f"{name}.weight"]

    losses = []
    for sound, text in zip(vectors, texts, strict=True):
        codes = torch.tensor([256, *text.encode(), 257])
        x = torch.cat((linear(p, "project", sound), p["backbone.embed_tokens.weight"][codes[:-1]]))
        for i in range(len({name.split(".")[3] for name in p if "transformer.layers" in name})):
            name = f"backbone.transformer.layers.{i}"
            n = rms_norm(f"{name}.input_layernorm", x)
            q, k, v = (linear(p, f"{name}.self_attn.{part}_proj", n) for part in "qkv")
            x = x + linear(p, f"{name}.self_attn.o_proj", attention(q, k, v, heads, window(len(x), -1, 0)))
            n = rms_norm(f"{name}.post_attention_layernorm", x)
            gate = linear(p, f"{name}.mlp.gate_proj", n)
            x = x + linear(p, f"{name}.mlp.down_proj", gate * gate.sigmoid() * linear(p, f"{name}.mlp.up_proj", n))
        logits = linear(p, "head", rms_norm("backbone.transformer.norm", x))[len(sound) :]
        losses.append(-logits.log_softmax(-1)[torch.arange(len(logits)), codes[1:]])
    return torch.cat(losses).mean()


# Codebooks


def quantize(features: Tensor, books: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """features [N, d] -> quantized, straight through; codes [R, N]; commitment [R] (eq. 3)."""
    residual, codes, commitment = features, [], []
    for book in books:
        chosen = (residual.detach()[:, None] - book).square().sum(-1).argmin(1)
        codes.append(chosen)
        commitment.append((residual - book[chosen]).square().mean())
        residual = residual - book[chosen]
    return features - residual.detach(), torch.stack(codes), torch.stack(commitment)


def counts_and_sums(residual: Tensor, codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    one_hot = F.one_hot(codes, size).double()
    return one_hot.sum(0), one_hot.T @ residual


def draw(population: int, count: int, generator: torch.Generator) -> Tensor:
    if count <= population:
        return torch.randperm(population, generator=generator)[:count]
    return torch.randint(population, (count,), generator=generator)


def kmeans(features: Tensor, sizes: Sequence[int], generator: torch.Generator) -> list[Tensors]:
    """The start of the codebooks, each on what those before leave over."""
    books, residual = [], features
    for size in sizes:
        entries = residual[draw(len(residual), size, generator)]
        for _ in range(12):
            nearest = (residual[:, None] - entries).square().sum(-1).argmin(1)
            counts, sums = counts_and_sums(residual, nearest, size)
            entries = sums / counts.clamp(min=1)[:, None]
            empty = counts == 0
            entries[empty] = residual[draw(len(residual), int(empty.sum()), generator)]
        nearest = (residual[:, None] - entries).square().sum(-1).argmin(1)
        counts, _ = counts_and_sums(residual, nearest, size)
        usage = counts.clamp(min=0.05 * len(residual) / size)
        books.append({"embed": entries, "cluster_size": usage, "embed_avg": entries * usage[:, None]})
        residual = residual - entries[nearest]
    return books


def move_books(
    books: Sequence[Tensors], micro_batches: Sequence[tuple[Tensor, Tensor]], crops: int, generator: torch.Generator
) -> int:
    """EMA of decay 0.99 over all (features, codes) of a step; below 5% of the mean use an entry starts again.

    It does as a residual of the first micro-batch's `crops` rows. -> how many did.
    """
    residuals, revived = [features for features, _ in micro_batches], 0
    for r in range(len(micro_batches[0][1])):
        book, old = books[r], books[r]["embed"].clone()
        found = [counts_and_sums(x, codes[r], len(old)) for x, (_, codes) in zip(residuals, micro_batches, strict=True)]
        counts, sums = (torch.stack(one).sum(0) for one in zip(*found, strict=True))
        book["cluster_size"] = 0.99 * book["cluster_size"] + 0.01 * counts
        book["embed_avg"] = 0.99 * book["embed_avg"] + 0.01 * sums
        book["embed"] = book["embed_avg"] / book["cluster_size"].clamp(min=1e-6)[:, None]
        mean = book["cluster_size"].mean()
        unused = book["cluster_size"] < 0.05 * mean
        if unused.any():
            fresh = residuals[0][:crops][draw(crops, int(unused.sum()), generator)]
            book["embed"][unused], book["cluster_size"][unused] = fresh, 0.5 * mean
            book["embed_avg"][unused] = 0.5 * mean * fresh
            revived += int(unused.sum())
        residuals = [x - old[codes[r]] for x, (_, codes) in zip(residuals, micro_batches, strict=True)]
    return revived


# Discriminators


def normalised(p: Tensors, layer: str) -> Tensor:
    """A weight over its largest singular value, as the power iteration has it."""
    stem = f"{layer}.parametrizations.weight"
    weight, u, v = p[f"{stem}.original"], p[f"{stem}.0._u"], p[f"{stem}.0._v"]
    return weight / (u @ weight.flatten(1) @ v)


def iterate(p: Tensors) -> None:
    """One power iteration of every layer."""
    for name in [name for name in p if name.endswith("._u")]:
        weight = p[name.replace("0._u", "original")].detach().flatten(1)
        u = F.normalize(weight @ p[name.replace("_u", "_v")], dim=0)
        p[name], p[name.replace("_u", "_v")] = u, F.normalize(weight.T @ u, dim=0)


def discriminate(p: Tensors, shape: Mapping, waves: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
    """waves [B, N] -> scores and activations, multi-period (HiFi-GAN), then multi-scale STFT (EnCodec)."""
    results = []
    for number, period in enumerate(shape["periods"]):
        x = F.pad(waves[:, None], (0, -waves.shape[1] % period), "reflect")
        x = x.unflatten(2, (x.shape[2] // period, period))
        last = len(shape["period_channels"]) - 1
        activations = []
        for i in range(last + 1):
            layer = f"discriminators.{number}.layers.{i}"
            stride = (3 if i < last else 1, 1)
            x = F.conv2d(x, normalised(p, layer), p[f"{layer}.bias"], stride, (2, 0))
            x = torch.where(x > 0, x, 0.1 * x)
            activations.append(x)
        layer = f"discriminators.{number}.score"
        results.append((F.conv2d(x, normalised(p, layer), p[f"{layer}.bias"], padding=(1, 0)), activations))
    for number, size in enumerate(shape["windows"], len(shape["periods"])):
        unit = hann(size) / hann(size).square().sum().sqrt()
        spectra = torch.stack([spectrum(wave, unit, size, size // 4, centred=True) for wave in waves])
        x = torch.stack((spectra.real, spectra.imag), 1)
        activations = []
        settings = [((1, 1), (1, 4), 1), *(((1, 2), (d, 4), (d, 1)) for d in (1, 2, 4)), ((1, 1), (1, 1), 1)]
        for i, (stride, padding, dilation) in enumerate(settings):
            layer = f"discriminators.{number}.layers.{i}"
            x = F.conv2d(x, normalised(p, layer), p[f"{layer}.bias"], stride, padding, dilation)
            x = torch.where(x > 0, x, 0.2 * x)
            activations.append(x)
        layer = f"discriminators.{number}.score"
        results.append((F.conv2d(x, normalised(p, layer), p[f"{layer}.bias"], padding=1), activations))
    return results


def hinge(real: Sequence, fake: Sequence) -> Tensor:
    """Eq. 4."""
    return sum(
        (1 - a).clamp(min=0).mean() + (1 + b).clamp(min=0).mean() for (a, _), (b, _) in zip(real, fake, strict=True)
    ) / len(real)


def adversarial(fake: Sequence) -> Tensor:
    """Eq. 5."""
    return -sum(score.mean() for score, _ in fake) / len(fake)


def feature_matching(real: Sequence, fake: Sequence) -> Tensor:
    """Eq. 6."""
    return sum(
        sum(l1(x, y.detach()) for x, y in zip(b, a, strict=True)) / len(a)
        for (_, a), (_, b) in zip(real, fake, strict=True)
    ) / len(real)


# Steps


def seeded(*numbers: int) -> torch.Generator:
    state = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state // 2)


def levels(stage: Mapping, step: int, books: int) -> int:
    """All codebooks, or for a share of the steps any smaller number of them."""
    generator = seeded(stage["seed"], step)
    if float(torch.rand((), generator=generator, dtype=torch.float32)) < stage["quantizer_dropout"]:
        return int(torch.randint(1, books, (), generator=generator))
    return books


def rate(step: int, warmup: int, steps: int) -> float:
    """Share of the learning rate."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def weights_at(stage: Mapping, step: int) -> Mapping:
    return [weights for weights in stage["weights"] if weights["first_step"] <= step][-1]


def weighted(losses: Tensors, weights: Mapping) -> Tensor:
    return sum(weights.get(name, 0) * value for name, value in losses.items())


class Descent:
    """Muon for matrices inside the Transformers, AdamW for the rest; with gradients given, from zero moments."""

    def __init__(
        self, decay: float, betas: tuple[float, float], muon: Callable[[str, Tensor], bool], decay_vectors: bool = False
    ) -> None:
        self.decay, self.betas, self.muon, self.decay_vectors = decay, betas, muon, decay_vectors
        self.first: Tensors = {}
        self.second: Tensors = {}
        self.count = 0

    def __call__(self, parameters: Tensors, gradients: Tensors, lr: float) -> Tensors:
        """The parameters afterwards."""
        self.count += 1
        moved = {}
        for name, gradient in gradients.items():
            p, (b1, b2) = parameters[name].detach(), self.betas
            b1 = 0.95 if self.muon(name, p) else b1
            m = self.first[name] = b1 * self.first.get(name, torch.zeros_like(p)) + (1 - b1) * gradient
            decayed = p * (1 - lr * self.decay) if p.dim() > 1 or self.decay_vectors else p
            if self.muon(name, p):
                update = newton_schulz(0.05 * gradient + 0.95 * m)
                moved[name] = decayed - lr * 0.2 * math.sqrt(max(p.shape)) * update
                continue
            v = self.second[name] = b2 * self.second.get(name, torch.zeros_like(p)) + (1 - b2) * gradient.square()
            m, v = m / (1 - b1**self.count), v / (1 - b2**self.count)
            moved[name] = decayed - lr * m / (v.sqrt() + 1e-8)
        return moved


def newton_schulz(x: Tensor) -> Tensor:
    """Five rounds of the quintic that takes singular values near 1 (Muon), in bfloat16, which moves them by a tenth."""
    wide = (x.T if len(x) > x.shape[1] else x).bfloat16()
    wide = wide / wide.norm()
    for _ in range(5):  # fused products, as the roundings matter
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), wide, beta=3.4445)
    return (wide.T if len(x) > x.shape[1] else wide).double()


def clipped(gradients: Tensors, most: float) -> tuple[Tensors, float]:
    """Gradients of at most this norm together, and the norm before."""
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
    return {name: g * min(1.0, most / norm) for name, g in gradients.items()}, norm
