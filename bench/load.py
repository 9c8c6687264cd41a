"""Load on the engine: requests that arrive at random (open loop) or one after another per client (closed loop).

    python bench/load.py --clients 8 --requests 64                   closed loop, in this process
    python bench/load.py --rate 4 --requests 200 --json record.json  open loop, Poisson arrivals per second

An answer counts only if it is complete: as many patches as were asked for, and a finite wave as long as they are. A
player takes each answer's sound in real time from its first sample on; it underruns when it has none left before the
end. The model is a random one whose every group is a patch: what is measured is the engine, not what is said.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from mimo_audio.engine import Engine, Limits, QueueFullError, Request
from mimo_audio.evaluate.environment import environment
from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm.samplers import AUDIO, GREEDY
from mimo_audio.tasks.streams import CHUNKS
from mimo_audio.tasks.voices import Voices
from mimo_audio.tokenizer import AudioTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `bench` itself; the packages come from the environment
PATCH_SECONDS = 0.16


@dataclass(frozen=True)
class Answer:
    """Seconds from the request on: its first sample, its end and every chunk of sound, with the sound's length."""

    first: float
    end: float
    chunks: tuple[tuple[float, float], ...]  # (came at, seconds of sound)

    @property
    def audio(self) -> float:
        """Seconds of sound."""
        return sum(seconds for _, seconds in self.chunks)

    @property
    def starved(self) -> float:
        """Seconds that a player waited for sound after it had begun."""
        played_until, waited = self.first, 0.0
        for came, seconds in self.chunks:
            waited += max(0.0, came - played_until)
            played_until = max(played_until, came) + seconds
        return waited


class Load:
    """An engine with its streams of sound, and prompts that begin like no other."""

    def __init__(self, config: str, slots: int, patches: int, prompt: int, chunks: str) -> None:
        from bench.cases.language_model import MIDDLE, NANO, SPECIAL

        torch.manual_seed(0)
        self.config = {"nano": NANO, "middle": MIDDLE}[config]
        self.model = AudioLanguageModel(self.config, SPECIAL).eval()
        with torch.no_grad():
            self.model.lm_head.weight.zero_()  # every group is a patch
        self.engine = Engine(self.model, slots, queue=4096)
        tokenizer = AudioTokenizer.from_pretrained("nano")
        self.voices = Voices(tokenizer, self.config.audio_channels, self.config.group_size, 4)
        self.rate = tokenizer.config.sampling_rate
        self.patches, self.prompt, self.chunks = patches, prompt, CHUNKS[chunks]

    def request(self, number: int) -> Request:
        """The request with this number."""
        generator = torch.Generator().manual_seed(number)
        frames = self.prompt * self.config.group_size
        codes = [torch.randint(size - 1, (frames,), generator=generator) for size in self.config.speech_vocab_size]
        ids = torch.stack([torch.full((frames,), self.model.special.empty), *codes])
        return Request(ids, Limits(self.patches), GREEDY, AUDIO, number)

    async def ask(self, number: int) -> Answer | None:
        """Runs a request to its end. Raises AssertionError for an answer that is not complete."""
        start = time.perf_counter()
        try:
            handle = self.engine.submit(self.request(number))
        except QueueFullError:
            return None
        voice, pending, sizes, found, samples = self.voices.open(), [], list(self.chunks), [], 0
        try:
            async for group in handle:
                pending.append(group[1:])
                if len(pending) >= sizes[0]:
                    wave = await asyncio.to_thread(voice.push, torch.cat(pending, 1))
                    pending, sizes = [], sizes[1:] or sizes
                    if len(wave):
                        found.append((time.perf_counter() - start, len(wave) / self.rate))
                        samples += len(wave)
                        assert wave.isfinite().all(), f"request {number}: the wave is not finite"
            if pending:
                wave = await asyncio.to_thread(voice.push, torch.cat(pending, 1))
                samples += len(wave)
                found.append((time.perf_counter() - start, len(wave) / self.rate))
            wave = await asyncio.to_thread(voice.finish)
            samples += len(wave)
            found.append((time.perf_counter() - start, len(wave) / self.rate))
        finally:
            voice.close()
        wanted = round(self.patches * PATCH_SECONDS * self.rate)
        assert samples == wanted, f"request {number}: {samples} samples, expected {wanted}"
        return Answer(found[0][0], found[-1][0], tuple(found))

    async def closed(self, clients: int, requests: int) -> list[Answer | None]:
        """So many clients, each asking again when it has its answer."""
        numbers = iter(range(1, requests + 1))

        async def client() -> list[Answer | None]:
            return [await self.ask(number) for number in numbers]

        return [answer for answers in await asyncio.gather(*(client() for _ in range(clients))) for answer in answers]

    async def open(self, rate: float, requests: int) -> list[Answer | None]:
        """Requests that come `rate` a second, whether or not the ones before are answered."""
        arrivals, tasks = random.Random(0), []
        for number in range(1, requests + 1):
            tasks.append(asyncio.create_task(self.ask(number)))
            await asyncio.sleep(arrivals.expovariate(rate))
        return list(await asyncio.gather(*tasks))


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    ranked = sorted(values)
    return {f"p{p}": round(ranked[min(len(ranked) - 1, len(ranked) * p // 100)], 4) for p in (50, 95, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--clients", type=int, default=1, help="closed loop (default: %(default)s)")
    kind.add_argument("--rate", type=float, help="open loop: requests per second")
    parser.add_argument("--requests", type=int, default=16, help="in all (default: %(default)s)")
    parser.add_argument("--patches", type=int, default=30, help="of every answer, 160 ms each (default: %(default)s)")
    parser.add_argument("--prompt", type=int, default=50, help="positions of every prompt (default: %(default)s)")
    parser.add_argument("--config", choices=("nano", "middle"), default="nano")
    parser.add_argument("--chunks", choices=CHUNKS, default="balanced")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--json", type=Path, help="write the record")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    load = Load(arguments.config, arguments.slots, arguments.patches, arguments.prompt, arguments.chunks)
    asyncio.run(load.ask(0))  # what is made once is made
    start, cpu = time.perf_counter(), time.process_time()
    asked = (
        load.closed(arguments.clients, arguments.requests)
        if arguments.rate is None
        else load.open(arguments.rate, arguments.requests)
    )
    answers = asyncio.run(asked)
    passed, cpu = time.perf_counter() - start, time.process_time() - cpu
    good = [answer for answer in answers if answer is not None]
    gaps = [b[0] - a[0] for answer in good for a, b in zip(answer.chunks, answer.chunks[1:], strict=False)]
    record = {
        "load": {name: value for name, value in vars(arguments).items() if name != "json"},
        "environment": environment("cpu"),
        "answered": len(good),
        "refused": len(answers) - len(good),
        "seconds": round(passed, 3),
        "audio_seconds_per_second": round(sum(answer.audio for answer in good) / passed, 2),
        "cpu_seconds_per_audio_second": round(cpu / sum(answer.audio for answer in good), 4),
        "first_sample": percentiles([answer.first for answer in good]),
        "end": percentiles([answer.end for answer in good]),
        "gap": percentiles(gaps),
        "underruns": sum(answer.starved > 0 for answer in good),
        "starved": percentiles([answer.starved for answer in good]),
    }
    print(json.dumps(record, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
