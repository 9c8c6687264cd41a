"""Measures how far streams are from offline results on real speech: bench/results/streaming_deviation.json.

    python bench/streaming_deviation.py clip.wav... [--model nano] [--json out.json]

Sound is compared with the offline decoding of the same codes: SNR in dB (of the whole and of the first second), PESQ-WB
and STOI, means and worst clips. Codes are compared with the offline codes of the same wave. Use speech that the model
has not seen and that does not ship with the package: the prior statistics come from that.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `bench` itself; the packages come from the environment

from bench.run import machine  # noqa: E402
from mimo_audio.evaluate.metrics import pesq_wb, stoi  # noqa: E402
from mimo_audio.files import audio  # noqa: E402
from mimo_audio.tokenizer import AudioTokenizer  # noqa: E402
from mimo_audio.tokenizer.streaming import RedecodingDecoder, StreamDecoder, StreamEncoder  # noqa: E402
from mimo_audio.tokenizer.streaming import prior as priors  # noqa: E402

FIRM = 1e12  # frames: statistics that no stream changes
LOOK_AHEADS = (None, 0, 1, 2, 3, 4, 6, 8, 16, 24, 40)
PRIORS = (1e-6, 0.5, 1, 2, 4, 8, 16, FIRM)
WARM_UPS = (12, 25, 50)
PUBLISHED_CHUNK = 4
# look_ahead, step, context
ENCODERS = [*((n, 4, 100) for n in (0, 2, 4, 8, 12, 16, 24, 32)), (12, 1, 100), (12, 25, 100), (12, 4, 50), (12, 4, 12)]


def streamed(tokenizer: AudioTokenizer, codes: Tensor, **settings: Any) -> Tensor:
    stream = StreamDecoder(tokenizer, n_q=len(codes), **settings)
    return torch.cat([stream.push(codes), stream.finish()])


def frozen(tokenizer: AudioTokenizer, codes: Tensor, warm_up: int) -> Tensor:
    """With running statistics that no longer change after `warm_up` frames."""
    prior = [replace(one, frames=1e-6) for one in priors.speech_statistics(tokenizer)]
    stream = StreamDecoder(tokenizer, n_q=len(codes), prior=prior)
    first = stream.push(codes[:, :warm_up])
    for name in ("dconv1.sums", "dconv2.sums"):
        stream.state[name].mul_(FIRM)
    return torch.cat([first, stream.push(codes[:, warm_up:]), stream.finish()])


def redecoded(tokenizer: AudioTokenizer, codes: Tensor) -> Tensor:
    stream = RedecodingDecoder(tokenizer)
    *chunks, last = codes.split(PUBLISHED_CHUNK, 1)
    return torch.cat([*map(stream.push, chunks), stream.push(last, last=True)])


def snr(wave: Tensor, reference: Tensor) -> float:
    noise = (wave - reference).square().sum().clamp(min=1e-20)
    return 10 * torch.log10(reference.square().sum() / noise).item()


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.mean(values), "worst": min(values)}


def compared(waves: Sequence[Tensor], references: Sequence[Tensor], rate: int) -> dict[str, dict[str, float]]:
    pairs = list(zip(waves, references, strict=True))
    arrays = [(wave.numpy(), reference.numpy()) for wave, reference in pairs]
    return {
        "snr": summary([snr(wave, reference) for wave, reference in pairs]),
        "first_second_snr": summary([snr(wave[:rate], reference[:rate]) for wave, reference in pairs]),
        "pesq_wb": summary([pesq_wb(reference, wave, rate) or 0.0 for wave, reference in arrays]),
        "stoi": summary([stoi(reference, wave, rate) or 0.0 for wave, reference in arrays]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "streaming_deviation.json")
    arguments = parser.parse_args()
    tokenizer = AudioTokenizer.from_pretrained(arguments.model)
    rate = tokenizer.config.sampling_rate
    waves = [audio.read(clip, rate) for clip in arguments.clips]
    codes = [tokenizer.encode(wave) for wave in waves]
    offline = [tokenizer.decode(one) for one in codes]
    speech = priors.speech_statistics(tokenizer)

    def exact(one: Tensor) -> list[priors.Statistics]:
        return [replace(statistic, frames=FIRM) for statistic in priors.statistics(tokenizer, [one])]

    def row(name: str, waves: Sequence[Tensor]) -> dict[str, Any]:
        scores = compared(waves, offline, rate)
        print(f"{name:40}", *(f"{key} {s['mean']:.4g} ({s['worst']:.4g})" for key, s in scores.items()), flush=True)
        return {"name": name, **scores}

    look_ahead = []
    for frames in LOOK_AHEADS:
        delay = StreamDecoder(tokenizer, look_ahead=frames).delay / rate
        given = [streamed(tokenizer, one, prior=exact(one), look_ahead=frames) for one in codes]
        known = row(f"look-ahead {frames}, offline statistics", given)
        own = row(f"look-ahead {frames}", [streamed(tokenizer, one, look_ahead=frames) for one in codes])
        look_ahead.append({**own, "look_ahead": frames, "delay_s": delay, "offline_statistics": known})
    norms = []
    for frames in PRIORS:
        prior = [replace(statistic, frames=frames) for statistic in speech]
        sound = [streamed(tokenizer, one, prior=prior) for one in codes]
        norms.append({**row(f"prior counts {frames:g} frames", sound), "prior_frames": frames})
    for frames in WARM_UPS:
        sound = [frozen(tokenizer, one, frames) for one in codes]
        norms.append({**row(f"frozen after {frames} frames", sound), "warm_up": frames})
    published = row("re-decoding", [redecoded(tokenizer, one) for one in codes])
    encoders = []
    for ahead, step, context in ENCODERS:
        found = []
        for wave in waves:
            stream = StreamEncoder(tokenizer, look_ahead=ahead, step=step, context=context)
            found.append(torch.cat([stream.push(wave), stream.finish()], 1))
        equal = torch.stack([(a == b).double().mean(1) for a, b in zip(found, codes, strict=True)]).mean(0)
        scores = row(f"encoder {ahead}, {step}, {context}", [tokenizer.decode(one) for one in found])
        encoders.append({"look_ahead": ahead, "step": step, "context": context, "equal": equal.tolist(), **scores})
    record = {
        "machine": machine("cpu"),
        "model": arguments.model,
        "clips": [{"name": p.name, "seconds": len(w) / rate} for p, w in zip(arguments.clips, waves, strict=True)],
        "look_ahead": look_ahead,
        "norms": norms,
        "redecoding": published,
        "encoder": encoders,
    }
    arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
