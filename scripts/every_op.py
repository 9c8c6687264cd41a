"""Calls of every native op on small, odd and empty sizes: what is run under checkers that watch memory and threads.

    compute-sanitizer python scripts/every_op.py              every CUDA kernel on a GPU (scripts/gpu_check.sh)
    python scripts/every_op.py --compare rvq_encode           the same, each result against the CPU kernel's
    python scripts/every_op.py --device emulator --shuffle 3  the same kernels on the CPU (scripts/emulator_asan.sh)

tests/ops/test_every_op.py holds every op to the rules that all share with the same calls.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import mimo_audio_native as mn

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Call:
    """torch.ops.mimo.<op>(*arguments), which writes to the arguments of these numbers."""

    name: str  # "op/what"
    arguments: tuple
    writes: tuple[int, ...] = ()

    @property
    def op(self) -> str:
        """The op's name."""
        return self.name.split("/")[0]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to compute."""
        return self.name.endswith("empty")


def calls(device: str) -> Iterator[Call]:
    """All of them, with tensors on `device`; the same numbers on every device."""
    torch.manual_seed(0)
    for call in (
        *_rvq(),
        *_spectral(),
        *_turns(),
        *_attention(),
        *_sampling(),
        *_quantized(),
        *_decoding(),
        *_streams(),
    ):
        yield Call(call.name, tuple(_move(argument, device) for argument in call.arguments), call.writes)


def _move(argument, device: str):
    if isinstance(argument, list):
        return [_move(item, device) for item in argument]
    return argument.to(device) if isinstance(argument, Tensor) else argument


def _count(number: int) -> str:
    return str(number) if number else "empty"


def _rvq() -> Iterator[Call]:
    for dtype in (torch.float32, torch.float64):
        codebooks = [torch.randn(size, 40, dtype=dtype) for size in (70, 33, 16)]
        yield Call(f"rvq_tables/{dtype}".replace("torch.", ""), (codebooks,))
        for count in (0, 1, 12, 30, 67, 300):  # every form of the search, one and several pieces of training's sort
            at = f"{dtype}/{_count(count)}".removeprefix("torch.")
            x, grad = torch.randn(2, count, 40, dtype=dtype)
            codes = torch.stack([torch.randint(len(entries), (count,)) for entries in codebooks])
            yield Call(f"rvq_encode/{at}", (x, codebooks))
            yield Call(f"rvq_decode/{at}", (codes, codebooks))
            yield Call(f"rvq_quantize/{at}", (x, codebooks))
            gradients = (grad, torch.randn(3, dtype=dtype))
            yield Call(f"rvq_quantize_backward/{at}", (*gradients, x, codes, codebooks))


def _spectral() -> Iterator[Call]:
    for n_fft, hop in ((96, 24), (30, 7), (960, 240)):
        window, bins = torch.hann_window(n_fft) + 0.1, n_fft // 2 + 1
        bank = mn.mel_filterbank(24000, n_fft, 10)
        for batch in (0, 2):
            at = f"{n_fft}/{_count(batch)}"
            wave, spectrum = torch.randn(batch, 9 * hop), torch.randn(batch, 9, bins, 2)
            for padding, frames in (("center", 10), ("same", 9)):
                grads = torch.randn(batch, frames, bins, 2), torch.randn(batch, frames, 10)
                here, mel = f"{padding}/{at}", (wave, window, bank, hop, 1e-5, padding)
                yield Call(f"stft/{here}", (wave, window, n_fft, hop, padding))
                yield Call(f"stft_backward/{here}", (grads[0], window, n_fft, hop, padding, 9 * hop))
                yield Call(f"log_mel/{here}", mel)
                yield Call(f"log_mel_backward/{here}", (grads[1], *mel))
            yield Call(f"istft/{at}", (spectrum, window, hop))
            yield Call(f"istft_backward/{at}", (wave, window, hop))
        for bounds in ([0], [0, 1, 1, 12], None):
            rows = 12 if bounds is None else bounds[-1]
            head, grad = torch.randn(rows, n_fft + 2), torch.randn(rows * hop)
            rest = (head, window, hop, None if bounds is None else torch.tensor(bounds), 100.0)
            at = f"{n_fft}/{'one' if bounds is None else _count(rows)}"
            yield Call(f"vocoder_head/{at}", rest)
            yield Call(f"vocoder_head_backward/{at}", (grad, *rest))


def _rotary(positions: int, width: int) -> tuple[Tensor, Tensor]:
    angles = torch.arange(positions)[:, None] * torch.rand(width // 2)
    return angles.cos(), angles.sin()


def _turns() -> Iterator[Call]:
    for dtype in (torch.float32, torch.float64, *HALVES):
        for rows, width in ((0, 16), (37, 16), (37, 6), (3, 256)):  # 16 bytes at a time and one element
            q, k = torch.randn(2, rows, 5, width).to(dtype), torch.randn(2, rows, 2, width).to(dtype)
            at = f"{dtype}/{width}/{_count(rows)}".removeprefix("torch.")
            yield Call(f"rotary/{at}", (q, k, *_rotary(rows, width)))
            yield Call(f"rotary/own/{at}", (q, k, *(t.expand(2, -1, -1) for t in _rotary(rows, width)), True))


def _attention() -> Iterator[Call]:
    for dtype in (torch.float32, torch.float64, *HALVES):
        for rows, width in ((0, 16), (37, 16), (37, 72)):
            q, k, v, grad = torch.randn(4, rows, 2, width).to(dtype)
            bounds = torch.tensor([0, rows // 3, rows // 3, rows], dtype=torch.int32)
            for left, right in ((4, 2), (-1, 0), (-1, -1)):
                at = f"{dtype}/{left},{right}/{width}/{_count(rows)}".removeprefix("torch.")
                rest = (bounds, left, right, *_rotary(37, width), None)
                forward = torch.ops.mimo.window_attention(q, k, v, *rest)
                yield Call(f"window_attention/{at}", (q, k, v, *rest))
                yield Call(f"window_attention_backward/{at}", (grad, q, k, v, *forward, *rest))
        for patches, frames, width in ((0, 4, 16), (3, 4, 16), (5, 6, 24), (2, 16, 128)):
            q, k, v, grad = torch.randn(4, patches, frames, 2, width).to(dtype)
            at = f"{dtype}/{frames}x{width}/{_count(patches)}".removeprefix("torch.")
            rest = (*_rotary(frames, width), frames == 6, None)
            yield Call(f"patch_attention/{at}", (q, k, v, *rest))
            yield Call(f"patch_attention_backward/{at}", (grad, q, k, v, *rest))


def _sampler(batch: int) -> tuple[Tensor, ...]:
    """Temperature (0 in the first row), top-k (all), top-p, seeds, offsets."""
    row = torch.arange(batch)
    return row * 0.5, (row * 0).int(), row * 0.0 + 0.9, row, row


def _sampling() -> Iterator[Call]:
    for dtype in (torch.float32, *HALVES):
        for batch, vocabulary, top_k in ((0, 7, 0), (1, 7, 0), (5, 1025, 3), (2, 9001, 600)):
            temperature, k, *rest = _sampler(batch)
            logits = 3 * torch.randn(batch, vocabulary).to(dtype)
            at = f"{dtype}/{vocabulary}/{_count(batch)}".removeprefix("torch.")
            yield Call(f"sample/{at}", (logits, temperature, k + top_k, *rest, 2))


def _quantized() -> Iterator[Call]:
    for dtype in (torch.float32, *HALVES):
        for count, rows, columns in ((0, 16, 128), (1, 37, 128), (3, 16, 256)):
            x, bias = torch.randn(count, columns).to(dtype), torch.randn(rows).to(dtype)
            for bits, group in ((8, 32), (4, 32), (4, 128)):
                weight = mn.quantize_weight(torch.randn(rows, columns), bits, group)
                at = f"{dtype}/{bits}x{group}/{columns}/{_count(count)}".removeprefix("torch.")
                yield Call(f"quantized_linear/{at}", (x, weight, bias))


def _decoding() -> Iterator[Call]:
    for dtype in (torch.float32, *HALVES):
        for batch, dim, embed_dim in ((0, 16, 16), (1, 16, 16), (5, 21, 9), (3, 64, 64)):

            def weight(*sizes: int, dtype: torch.dtype = dtype) -> Tensor:
                return (torch.randn(sizes) * sizes[-1] ** -0.5).to(dtype)

            def block(q: int, k: int, ffn: int, dim: int = dim, weight=weight) -> list[Tensor]:
                attention = [t for rows in (q, k, k) for t in (weight(rows, dim), weight(rows))]
                gated = [weight(ffn, dim), weight(ffn, dim), weight(dim, ffn)]
                return [weight(dim), *attention, weight(dim, q), weight(dim), *gated]

            layer = block(16, 8, 13)
            heads, embeddings = ([weight(size, width) for size in (7, 33)] for width in (dim, embed_dim))
            projection = None if embed_dim == dim else weight(dim, embed_dim)
            hidden, sampler = weight(batch, dim), _sampler(batch)
            at = f"{dtype}/{dim}/{_count(batch)}".removeprefix("torch.")
            stack = (layer, weight(dim), heads, embeddings, projection, *_rotary(5, 8), 2, 1e-6)
            yield Call(f"patch_decode/{at}", (hidden, *stack, [0, 32], [0, 2], 3, *sampler))
            if dim == 64:
                small = [mn.quantize_weight(t, 4) if t.dim() == 2 else t for t in block(64, 32, 96)]
                arguments = (small, *stack[1:5], *_rotary(5, 32), *stack[7:], [0, 32], [0, 2], 3, *sampler)
                yield Call(f"patch_decode/int4/{at}", (hidden, *arguments))
                room = torch.randn(1, 2, batch, 1, 12, 32).to(dtype)
                step = (hidden, small, weight(dim), room, 9, None, *_rotary(10, 32), 2, 1e-6)
                yield Call(f"backbone_step/int4/{at}", step, (3,))
            tokens = torch.zeros(batch, 3, 2, dtype=torch.int64)
            step = (hidden, heads, embeddings, [0, 32], [0, 2], 2, tokens, *sampler)
            yield Call(f"delayed_sampling/{at}", step, (6,))
            rows = torch.arange(batch)
            for length, padding, lengths in ((0, None, None), (300, rows * 60, None), (301, rows * 7, 300 - rows * 60)):
                cache = torch.randn(1, 2, batch, 1, length + 2, 8).to(dtype)
                step = (hidden, layer, weight(dim), cache, length, padding, *_rotary(length + 1, 8), 2, 1e-6, lengths)
                yield Call(f"backbone_step/{dtype}/{length}/{dim}/{_count(batch)}".replace("torch.", ""), step, (3,))
            pool = torch.randn(1, 2, 5 * batch + 1, 1, 13, 8).to(dtype)
            pages = torch.randperm(5 * batch).view(batch, 5).int()
            step = (hidden, layer, weight(dim), pool, 64, None, *_rotary(65, 8), 2, 1e-6, 64 - rows * 9, pages)
            yield Call(f"backbone_step/{dtype}/pages/{dim}/{_count(batch)}".replace("torch.", ""), step, (3,))
            frames, one = torch.arange(batch), torch.zeros(batch, 1, dtype=torch.int32)  # that see each other
            room = torch.randn(1, 2, 1, 1, 8, 8).to(dtype)
            seen = (frames, one, torch.full_like(frames, 6))
            step = (hidden, layer, weight(dim), room, 6, None, *_rotary(7, 8), 2, 1e-6, *seen)
            yield Call(f"backbone_step/{dtype}/ends/{dim}/{_count(batch)}".replace("torch.", ""), step, (3,))
            bias = None if dim == 16 else weight(33)
            yield Call(f"linear/{dtype}/{dim}/{_count(batch)}".replace("torch.", ""), (hidden, weight(33, dim), bias))


WITHOUT_CUDA_KERNELS = {"stream_layers", "stream_up_convolution", "stream_istft"}  # nothing to emulate


def _streams() -> Iterator[Call]:
    for dtype in (torch.float32, *HALVES):
        for batch in (0, 1, 3):
            at = f"{dtype}/{_count(batch)}".removeprefix("torch.")

            def weight(*sizes: int, dtype: torch.dtype = dtype) -> Tensor:
                return (torch.randn(sizes) * sizes[-1] ** -0.5).to(dtype)

            position, end = torch.arange(batch) + 9, torch.full((batch,), 100)
            active = None if batch == 1 else position != 10
            square, wide = [weight(12, 12), weight(12)], [weight(20, 12), weight(20), weight(12, 20), weight(12)]
            block = [*[weight(12)] * 2, *square, weight(12, 12), *square * 2, *[weight(12)] * 2, *wide]
            room, behind = torch.zeros(batch, 2, 2, 3, 12, 4).to(dtype), torch.randn(batch, 2, 12).to(dtype)
            rest = (torch.rand(2).double(), position, end, active, 4, 1, "gelu", 1e-5)
            layers = (torch.randn(batch, 4, 12).to(dtype), block * 2, [2, 0], room, behind, *rest)
            yield Call(f"stream_layers/{at}", layers, (3, 4))
            state = (torch.randn(batch, 1, 9), torch.randn(batch, 2, 9), torch.rand(batch, 3).double() + 9)
            norm = (weight(9), weight(9), weight(9), *state, position, end, active)
            yield Call(
                f"stream_up_convolution/{at}",
                (torch.randn(batch, 4, 12).to(dtype), weight(12, 9, 3), *norm, 2, 2, 0.9, 1e-5),
                (5, 6, 7),
            )
            carry = torch.rand(batch, 2, 72)
            istft = (torch.randn(batch, 4, 98), torch.hann_window(96) + 0.1, torch.randn(3, 49), carry)
            if dtype == torch.float32:
                yield Call(f"stream_istft/{at}", (*istft, position, end, active, 24, 100.0), (3,))


ALLOWED = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def difference(call: Call, device: str, ops) -> str:
    """What of the call's results on `device` is not the CPU kernel's, or "": integers equal, the rest near in norm."""

    def results(arguments: tuple, ops) -> list[Tensor]:
        found = getattr(ops, call.op)(*arguments)
        written = [arguments[number] for number in call.writes]
        return [*([found] if isinstance(found, Tensor) else found), *written]

    def copied(argument, device: str):
        moved = _move(argument, device)
        return moved.clone() if isinstance(moved, Tensor) else moved

    allowed = max(
        (ALLOWED[a.dtype] for a in call.arguments if isinstance(a, Tensor) and a.dtype in ALLOWED), default=0.0
    )
    there = results(tuple(copied(argument, device) for argument in call.arguments), ops)
    here = results(tuple(copied(argument, "cpu") for argument in call.arguments), torch.ops.mimo)
    for number, (got, wanted) in enumerate(zip(there, here, strict=True)):
        got = got.cpu()
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            return f"result {number}: {got.dtype} {list(got.shape)}, expected {wanted.dtype} {list(wanted.shape)}"
        if not got.is_floating_point():
            if not torch.equal(got, wanted):
                return f"result {number}: {(got != wanted).sum()} of {got.numel()} integers differ"
            continue
        finite = wanted.isfinite()
        if not torch.equal(got.isfinite(), finite):
            return f"result {number}: not finite elsewhere"
        a, b = got[finite].double(), wanted[finite].double()
        error = float((a - b).norm() / b.norm().clamp(min=1e-30))
        if len(a) and not error <= allowed:
            return f"result {number}: relative error {error:.1e}, allowed {allowed:.0e}"
    return ""


def compare(device: str, ops, wanted: list[str]) -> None:
    """Prints every call that differs from the CPU's; the rest of an op's calls follow a failure too."""
    where, count, differ = "cuda" if device == "cuda" else "cpu", 0, 0
    for call in calls("cpu"):
        if call.op == "rvq_tables" or (wanted and call.op not in wanted):  # tables are of the CUDA kernels alone
            continue
        if device == "emulator" and call.op in WITHOUT_CUDA_KERNELS:
            continue
        count += 1
        try:
            said = difference(call, where, ops)
        except Exception as error:
            said = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        if said:
            differ += 1
            print(f"{call.name}: {said}", flush=True)
    print(f"every_op: {count} calls compared on {device}, {differ} differ")
    if differ:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("op", nargs="*", help="only these ops")
    parser.add_argument("--device", choices=["cuda", "cpu", "emulator"], default="cuda")
    parser.add_argument("--compare", action="store_true", help="with the CPU kernels; exit status 1 if one differs")
    parser.add_argument("--shuffle", type=int, default=0, help="emulator: seeds 1 to this of the order of threads")
    parser.add_argument("--modules", help="emulator: the folder of the _emulator to take")
    arguments = parser.parse_args()
    ops = torch.ops.mimo
    if arguments.device == "emulator":
        if arguments.modules:
            mn.__path__.insert(0, arguments.modules)
        from mimo_audio_native import _emulator

        ops = torch.ops.mimo_emu
    if arguments.compare:
        compare(arguments.device, ops, arguments.op)
        return
    done = set()
    for seed in range(arguments.shuffle + 1):
        if arguments.device == "emulator":
            _emulator.shuffle_threads(seed)
        for call in calls("cuda" if arguments.device == "cuda" else "cpu"):
            if arguments.device == "emulator" and call.op in WITHOUT_CUDA_KERNELS:
                continue
            if not arguments.op or call.op in arguments.op:
                getattr(ops, call.op)(*call.arguments)
                done.add(call.name)
    if arguments.device == "cuda":
        torch.cuda.synchronize()
    print(f"every_op: {len(done)} calls of {len({name.split('/')[0] for name in done})} ops, device {arguments.device}")


if __name__ == "__main__":
    main()
