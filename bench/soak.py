"""A soak of the engine: thousands of random requests, among them bad ones, cancels, slow consumers and deadlines.

    python bench/soak.py                                2,000 requests to a tiny model: half a minute of one idle core
    python bench/soak.py --requests 20000 --seed 7 --json record.json

Requests come from coroutines and threads at once. Each must end as its kind must: with all of its groups, with an error
of its own, cancelled or late with what it had; one in twenty of the whole ones is compared with its tokens alone, bit
for bit. In the end nothing may be left: no page held, no request, no thread, and no more memory than after the first
fifth. Exits with 1 and says what was wrong otherwise.
"""

import argparse
import asyncio
import ctypes
import gc
import json
import random
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from mimo_audio.engine import Engine, Guard, Handle, Limits, QueueFullError, Request, Result, Sampler
from mimo_audio.errors import MimoError
from mimo_audio.evaluate.environment import environment
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.lm.samplers import AUDIO, GREEDY
from mimo_audio.text import SpecialTokens

TINY = LanguageModelConfig(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=16, vocab_size=96, max_position_embeddings=512, local_dim=32, local_layers=2, local_attn_heads=4,
    local_ffn_dim=64, input_local_dim=32, input_local_layers=1, input_full_attention=True,
)  # fmt: skip
SPECIAL = SpecialTokens(1, 2, 0, *range(3, 11))
POISON = 95  # a text token whose embedding is not a number
KINDS = {"whole": 60, "cancelled": 10, "slow": 8, "deadline": 8, "bad": 7, "poisoned": 4, "guarded": 3}
MOST_GROWTH = 16 << 20  # bytes of resident memory: pieces that the allocator cannot give back


class Soak:
    """An engine under fire, and what went wrong."""

    def __init__(self, requests: int, seed: int, slots: int, pages: int) -> None:
        torch.manual_seed(seed)
        self.model = AudioLanguageModel(TINY, SPECIAL).eval()
        with torch.no_grad():
            self.model.lm_head.weight[SPECIAL.empty] += 0.2 * self.model.lm_head.weight.std()  # text and patches mixed
            self.model.backbone.embed_tokens.weight[POISON] = torch.nan
            self.model.lm_head.weight[POISON] = 0
        self.engine = Engine(self.model, slots, pages, page_size=32, queue=16)
        self.seed, self.count = seed, requests
        self.numbers = iter(range(requests))
        self.lock = threading.Lock()
        self.wrong: list[str] = []
        self.ended: Counter[str] = Counter()
        self.whole: list[tuple[int, Tensor]] = []
        self.memory: list[int] = []

    def take(self) -> int | None:
        """The next request's number."""
        with self.lock:
            number = next(self.numbers, None)
            if number is not None and number % max(1, self.count // 20) == 0:
                gc.collect()
                self.memory.append(resident())
            return number

    def kind(self, number: int) -> str:
        """What becomes of a request."""
        return random.Random(f"{self.seed} {number}").choices(list(KINDS), list(KINDS.values()))[0]

    def request(self, number: int) -> Request:
        """The request with this number."""
        draw = random.Random(f"{self.seed} {number} prompt")
        generator = torch.Generator().manual_seed(draw.choice((number, number % 7)))  # many begin alike
        positions, kind = draw.randint(1, 60), self.kind(number)
        text = torch.randint(11, POISON, (60,), generator=generator)
        text[torch.rand(60, generator=generator) < 0.5] = SPECIAL.empty
        codes = [torch.randint(size - 1, (240,), generator=generator) for size in TINY.speech_vocab_size]
        ids = torch.stack([text.repeat_interleave(4), *codes])[:, : 4 * positions]
        if kind == "poisoned":
            ids[0, :4] = POISON
        if kind == "bad":
            return self._bad(ids, draw)
        deadline = draw.uniform(1e-4, 0.2) if kind == "deadline" else None
        new = draw.randint(1, 400 if kind == "guarded" else 24)
        guard = Guard(repeats=2, text=4, patches=4, most_patches=6) if kind == "guarded" else None
        text_sampler = draw.choice((GREEDY, Sampler(0.8, top_p=0.9), Sampler(1.0, top_k=20)))
        audio_sampler = draw.choice((GREEDY, AUDIO, Sampler(1.1, top_k=5)))
        stop = (12,) if kind == "guarded" else ()
        return Request(ids, Limits(new, 0, stop, None, deadline), text_sampler, audio_sampler, number, guard)

    @staticmethod
    def _bad(ids: Tensor, draw: random.Random) -> Request:
        limits = Limits(4)
        kind = draw.randrange(5)
        if kind == 0:
            return Request(ids.float(), limits)
        if kind == 1:
            return Request(ids[1:], limits)
        if kind == 2:
            return Request(ids, Limits(4, stop=(TINY.vocab_size,)))
        if kind == 3:
            return Request(ids.repeat(1, 512), limits)
        return Request(ids.masked_fill(ids >= 0, -1), limits)

    def submit(self, number: int) -> Handle | None:
        """Submits a request; None for a bad one, which must be refused. Raises QueueFullError."""
        kind = self.kind(number)
        try:
            handle = self.engine.submit(self.request(number), buffer=2 if kind == "slow" else 0)
        except QueueFullError:
            raise
        except MimoError as error:
            self.judge(number, None, str(error))
            return None
        if kind == "bad":
            self.wrong.append(f"request {number}: bad, and taken")
        return handle

    def judge(self, number: int, result: Result | None, error: str = "") -> None:
        """Whether a request ended as its kind must."""
        kind, wanted = self.kind(number), self.request(number).limits.max_new
        reason = "refused" if result is None else result.reason
        groups = 0 if result is None else result.ids.shape[1] // 4
        if reason == "error" and groups and result is not None and int(result.ids[0, -1]) == POISON:
            kind, reason = "poisoned", "error"  # by its own hand: the model drew the token
        allowed = {
            "whole": {"length"}, "slow": {"length"}, "cancelled": {"cancelled", "length"},
            "deadline": {"deadline", "length"}, "bad": {"refused"}, "poisoned": {"error"},
            "guarded": {"stop", "length", "repetition"},
        }[kind]  # fmt: skip
        with self.lock:
            self.ended[f"{kind}: {reason}"] += 1
            if reason not in allowed:
                self.wrong.append(f"request {number}: {kind}, ended by {reason} {error or (result and result.error)}")
            if reason == "length" and groups != wanted and kind != "guarded":
                self.wrong.append(f"request {number}: {groups} groups, expected {wanted}")
            if result is not None and kind in ("whole", "slow", "cancelled") and number % 20 == 0:
                self.whole.append((number, result.ids))

    async def client(self) -> None:
        """Asks again as soon as it has its answer."""
        while (number := self.take()) is not None:
            while True:
                try:
                    handle = self.submit(number)
                    break
                except QueueFullError:
                    await asyncio.sleep(0.005)
            if handle is None:
                continue
            leave = random.Random(f"{number} leave").randint(0, 6)
            with_error = None
            try:
                if leave == 0 and self.kind(number) == "cancelled":
                    handle.cancel()
                seen = 0
                async for _ in handle:
                    seen += 1
                    if self.kind(number) == "cancelled" and seen >= leave:
                        handle.cancel()
                    if self.kind(number) == "slow":
                        await asyncio.sleep(0.002)
            except MimoError as error:
                with_error = str(error)
            self.judge(number, handle.result(), with_error or "")

    def thread(self) -> None:
        """A client that waits in a thread of its own, and so drives the engine itself."""
        while (number := self.take()) is not None:
            while True:
                try:
                    handle = self.submit(number)
                    break
                except QueueFullError:
                    time.sleep(0.005)
            if handle is None:
                continue
            for seen, _ in enumerate(_quietly(handle), 1):
                if self.kind(number) == "cancelled" and seen >= 3:
                    handle.cancel()
                if self.kind(number) == "slow":
                    time.sleep(0.002)
            self.judge(number, handle.result())

    async def run(self, coroutines: int, threads: int) -> None:
        """All requests, from so many clients of each sort."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(threads) as pool:
            others = [loop.run_in_executor(pool, self.thread) for _ in range(threads)]
            await asyncio.gather(*(self.client() for _ in range(coroutines)), *others)

    def check(self, threads_before: int) -> None:
        """What must be so afterwards."""
        until = time.perf_counter() + 5
        while threading.active_count() > threads_before and time.perf_counter() < until:
            time.sleep(0.05)
        gc.collect()
        self.memory.append(resident())
        for name, left in (
            ("threads", threading.active_count() - threads_before),
            ("requests", int(self.engine.busy)),
            ("pages held", self.engine.pool.held),
            ("answers too few", self.count - sum(self.ended.values())),
        ):
            if left:
                self.wrong.append(f"left: {left} {name}")
        settled = self.memory[len(self.memory) // 5]
        if self.memory[-1] - settled > MOST_GROWTH:
            self.wrong.append(f"memory: {(self.memory[-1] - settled) >> 20} MiB more than after the first fifth")
        for number, ids in self.whole:
            alone = Engine(self.model, 1, page_size=32).run([self.request(number)])[0]
            if not torch.equal(ids, alone[:, : ids.shape[1]]):
                self.wrong.append(f"request {number}: other tokens than alone")


def _quietly(handle: Handle) -> Iterator[Tensor]:
    with suppress(MimoError):
        yield from handle


def resident() -> int:
    """Bytes of this process in memory now, without what the allocator keeps for each thread that ever was."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # no /proc: the most there ever was
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--slots", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--pages", type=int, default=24, help="of 32 positions, few on purpose (default: %(default)s)")
    parser.add_argument("--coroutines", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the record")
    arguments = parser.parse_args()
    soak = Soak(arguments.requests, arguments.seed, arguments.slots, arguments.pages)
    before, start = threading.active_count(), time.perf_counter()
    asyncio.run(soak.run(arguments.coroutines, arguments.threads))
    soak.check(before)
    record = {
        "soak": {name: value for name, value in vars(arguments).items() if name != "json"},
        "environment": environment("cpu"),
        "seconds": round(time.perf_counter() - start, 1),
        "ended": dict(sorted(soak.ended.items())),
        "compared_with_alone": len(soak.whole),
        "memory_mib": [bytes_ >> 20 for bytes_ in soak.memory],
        "wrong": soak.wrong,
    }
    print(json.dumps(record, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return int(bool(soak.wrong))


if __name__ == "__main__":
    sys.exit(main())
