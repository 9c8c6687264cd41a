"""What people run, against the published way of computing it: same weights, same threads, both in turns in one process.

    python bench/published.py [--tokenizer middle|nano|released|FOLDER] [--dtype float32|bfloat16] [--threads 1]
                              [--only encode] [--seconds 10] [--json out.json]

The other side is a stand-in for the published code, module for module in plain torch with torch's own attention where
that code calls flash-attention, and streams by decoding their context again (`RedecodingDecoder`); the language model
is bench/step_by_step.py. Results are compared before anything is timed. "middle" is a tokenizer of 59 million
parameters with random weights, and the language model of 230 million of bench/cases/language_model.py.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `bench` itself; the packages come from the environment

import mimo_audio_native  # noqa: E402
from bench.cases.language_model import cases as language_model_cases  # noqa: E402
from bench.cases.tokenizer import RELEASED, plain_torch  # noqa: E402
from bench.run import machine, measure  # noqa: E402
from mimo_audio.tokenizer import AudioTokenizer  # noqa: E402
from mimo_audio.tokenizer.config import TokenizerConfig  # noqa: E402
from mimo_audio.tokenizer.streaming import RedecodingDecoder, StreamDecoder  # noqa: E402
from mimo_audio_native import reference  # noqa: E402

MIDDLE = TokenizerConfig(
    d_model=512,
    encoder_layers=8,
    encoder_attention_heads=8,
    encoder_ffn_dim=2048,
    encoder_skip_layer_id=3,
    decoder_layers=8,
    decoder_attention_heads=8,
    decoder_ffn_dim=2048,
    vocoder_dim=256,
    vocoder_intermediate_dim=1024,
    vocoder_num_layers=8,
    vocoder_attention_heads=16,
    num_quantizers=8,
    codebook_size=(1024, 1024, 128),
)
SECONDS, STREAM_SECONDS, CHUNK, CODEBOOKS = 30, 20, 20, 8


@dataclass(frozen=True)
class Row:
    """ours and published: runs to time; published is None where there is nothing to compare with."""

    name: str
    ours: Callable[[], Any]
    published: Callable[[], Any] | None
    check: Callable[[Any, Any], None]
    wanted: dict[str, float] | None = None  # ratio by dtype


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None = None,
    left: int = -1,
    right: int = -1,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
) -> Tensor:
    """window_attention of one sequence by torch's own attention: causal where it may, else under a mask."""
    if cos is not None and sin is not None:
        q, k = reference.rotary(q, k, cos[: len(q)], sin[: len(q)])
    row = torch.arange(len(q))
    distance = row - row[:, None]
    seen = ((distance >= -left) | torch.tensor(left < 0)) & ((distance <= right) | torch.tensor(right < 0))
    causal = left < 0 and right == 0
    y = F.scaled_dot_product_attention(
        *(t.transpose(0, 1)[None] for t in (q, k, v)),
        attn_mask=None if causal or (left < 0 and right < 0) else seen,
        is_causal=causal,
    )
    return y[0].transpose(0, 1)


def as_published(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same call in plain torch."""

    def plain() -> Any:
        with plain_torch(), mock.patch.object(mimo_audio_native, "window_attention", attention):
            return run()

    return plain


def load(name: str) -> AudioTokenizer:
    if name not in ("middle", "released"):
        return AudioTokenizer.from_pretrained(name)
    torch.manual_seed(0)
    return AudioTokenizer(MIDDLE if name == "middle" else RELEASED).eval()


def tokenizer_rows(tokenizer: AudioTokenizer, dtype: torch.dtype) -> Iterator[Row]:
    generator = torch.Generator().manual_seed(0)
    rate = tokenizer.config.frame_rate
    codebooks = min(CODEBOOKS, tokenizer.config.num_quantizers)
    sizes = tokenizer.config.codebook_size[:codebooks]
    wave = 0.1 * torch.randn(SECONDS * tokenizer.sample_rate, generator=generator)

    def codes(seconds: int) -> Tensor:
        frames = int(seconds * rate)
        return torch.stack([torch.randint(size, (frames,), generator=generator) for size in sizes])

    def same_codes(ours: Tensor, other: Tensor) -> None:
        share = (ours == other).double().mean().item()
        assert share > (0.999 if dtype == torch.float32 else 0.3), f"{share:.2%} of the codes are equal"

    def near(ours: Tensor, other: Tensor) -> None:
        error = float((ours - other).norm() / other.norm())
        assert error < (1e-3 if dtype == torch.float32 else 0.2), f"relative error {error:.1e}"

    def as_long(ours: Tensor, other: Tensor) -> None:
        """Streams differ by the statistics of their norms: tests compare their values."""
        assert ours.shape == other.shape
        assert ours.isfinite().all()

    offline, streamed = codes(SECONDS), codes(STREAM_SECONDS)

    def encode() -> Tensor:
        return tokenizer.encode(wave, n_q=codebooks)

    def decode() -> Tensor:
        return tokenizer.decode(offline)

    def stream() -> Tensor:
        with StreamDecoder(tokenizer, n_q=codebooks) as decoder:
            waves = [decoder.push(chunk) for chunk in streamed.split(CHUNK, 1)]
            return torch.cat([*waves, decoder.finish()])

    def stream_again() -> Tensor:
        decoder = RedecodingDecoder(tokenizer)
        chunks = streamed.split(CHUNK, 1)
        return torch.cat([decoder.push(chunk, last=chunk is chunks[-1]) for chunk in chunks])

    yield Row("encode 30 s", encode, as_published(encode), same_codes, {"float32": 1.4, "bfloat16": 1.8})
    yield Row("decode 30 s", decode, as_published(decode), near, {"float32": 1.5, "bfloat16": 2.0})
    yield Row(
        "stream 20 s in chunks of 20", stream, as_published(stream_again), as_long, {"float32": 4.0, "bfloat16": 4.0}
    )
    open_stream = StreamDecoder(tokenizer, n_q=codebooks)
    yield Row("a frame of a stream", lambda: open_stream.push(streamed[:, :1]), None, as_long)


def rows(arguments: argparse.Namespace, dtype: torch.dtype) -> Iterator[Row]:
    yield from tokenizer_rows(load(arguments.tokenizer).to(dtype), dtype)
    wanted = {"lm_prefill": {"float32": 1.2, "bfloat16": 1.5}, "lm_patch": {"float32": 2.2, "bfloat16": 3.5}}
    for case in language_model_cases("cpu", dtype):
        kind, size = case.name.split("/")
        if size == "middle":
            yield Row(case.name, case.native, case.reference, case.check, wanted.get(kind))


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", default="middle", help="middle, nano, released or a folder (default: middle)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose names contain it")
    parser.add_argument("--seconds", type=float, default=10.0, help="measuring time per side of a row")
    parser.add_argument("--cpu-time", action="store_true", help="the process's CPU time, for a busy machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    counter = time.process_time if arguments.cpu_time else time.perf_counter

    def clock(run: Callable[[], Any]) -> float:
        start = counter()
        run()
        return counter() - start

    found = []
    for row in rows(arguments, getattr(torch, arguments.dtype)):
        if arguments.only not in row.name:
            continue
        sides = {"ours": row.ours}
        if row.published is not None:
            row.check(row.ours(), row.published())
            sides["published"] = row.published
        times, runs = measure(sides, clock, arguments.seconds)
        line: dict[str, Any] = {"name": row.name, "runs": runs, **{f"{side}_s": t for side, t in times.items()}}
        if row.published is not None:
            line["ratio"] = times["published"] / times["ours"]
            line["wanted"] = (row.wanted or {}).get(arguments.dtype)
        found.append(line)
        print({key: round(value, 5) if isinstance(value, float) else value for key, value in line.items()}, flush=True)
    record = {
        "machine": machine("cpu"),
        "tokenizer": arguments.tokenizer,
        "dtype": arguments.dtype,
        "threads": arguments.threads,
        "clock": "CPU time" if arguments.cpu_time else "wall time",
        "seed": 0,
        "published": "stand-in in plain torch",
        "rows": found,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
