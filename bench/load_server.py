"""Load on a running server: requests that arrive at random (open loop) or one after another per client (closed loop).

    mimo-audio serve --port 8000 &
    python bench/load_server.py http://127.0.0.1:8000 --clients 8 --seconds 120
    python bench/load_server.py http://127.0.0.1:8000 --rate 4 --seconds 600 --json record.json

Every request says another text with another seed, so that no cache answers. An answer counts only if it is complete:
it ended in order, with as many samples as it said, and not silence. Underruns are those of a player that takes each
answer's sound in real time from its first sample on. The client's own lag (how late it sent) is in the record.
"""

import argparse
import asyncio
import base64
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `bench` itself; the packages come from the environment
from bench.load import Answer, percentiles

RATE = 24000
WORDS = "one two three four five six seven eight nine ten red green blue north south east west sun rain wind".split()


async def ask(client: httpx.AsyncClient, number: int, seconds: float, chunks: str, key: str | None) -> Answer | str:
    """-> the answer, or why there is none: "503", or what is wrong with it."""
    words = " ".join(random.Random(number).choices(WORDS, k=12))
    body = {"input": words, "seed": number, "max_seconds": seconds, "chunks": chunks}
    body |= {"response_format": "pcm", "stream_format": "sse"}
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    start, found, sound, done = time.perf_counter(), [], b"", None
    try:
        async with client.stream("POST", "/v1/audio/speech", json=body, headers=headers) as answer:
            if answer.status_code != 200:
                return str(answer.status_code)
            async for line in answer.aiter_lines():
                event = json.loads(line[6:]) if line.startswith("data: ") else {}
                if event.get("type") == "speech.audio.delta":
                    piece = base64.b64decode(event["audio"])
                    sound += piece
                    found.append((time.perf_counter() - start, len(piece) / 2 / RATE))
                elif event.get("type") == "speech.audio.done":
                    done = event
                elif "error" in event:
                    return str(event["error"]["code"])
    except httpx.TransportError as error:
        return type(error).__name__
    if done is None:
        return "cut off"
    patches = done["usage"]["output_token_details"]["audio_tokens"]
    if len(sound) % 2 or len(sound) != 2 * patches * RATE * 4 // 25:
        return "not all of its sound"
    if not np.frombuffer(sound, "<i2").any():
        return "silence"
    return Answer(found[0][0], time.perf_counter() - start, tuple(found))


async def drive(arguments: argparse.Namespace) -> tuple[list[Answer | str], list[float]]:
    """All answers, and how many seconds late their requests were sent."""
    until, numbers, lags = time.perf_counter() + arguments.seconds, iter(range(1, 10**9)), []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=arguments.url, timeout=300, limits=limits) as client:

        async def one() -> Answer | str:
            return await ask(client, next(numbers), arguments.max_seconds, arguments.chunks, arguments.key)

        async def closed() -> list[Answer | str]:
            answers = []
            while time.perf_counter() < until:
                answers.append(await one())
                if answers[-1] == "503":
                    await asyncio.sleep(0.5)
            return answers

        if arguments.rate is None:
            groups = await asyncio.gather(*(closed() for _ in range(arguments.clients)))
            return [answer for group in groups for answer in group], lags
        draw, due, tasks = random.Random(0), time.perf_counter(), []
        while due < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            lags.append(time.perf_counter() - due)
            tasks.append(asyncio.create_task(one()))
            due += draw.expovariate(arguments.rate)
        return list(await asyncio.gather(*tasks)), lags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of the server")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--clients", type=int, default=1, help="closed loop (default: %(default)s)")
    kind.add_argument("--rate", type=float, help="open loop: requests per second")
    parser.add_argument("--seconds", type=float, default=120, help="how long requests are sent (default: %(default)s)")
    parser.add_argument("--max-seconds", type=float, default=4.8, help="of every answer (default: %(default)s)")
    parser.add_argument("--chunks", default="balanced")
    parser.add_argument("--key", help="API key")
    parser.add_argument("--json", type=Path, help="write the record")
    arguments = parser.parse_args()
    start = time.perf_counter()
    answers, lags = asyncio.run(drive(arguments))
    passed = time.perf_counter() - start
    good = [answer for answer in answers if isinstance(answer, Answer)]
    gaps = [b[0] - a[0] for answer in good for a, b in zip(answer.chunks, answer.chunks[1:], strict=False)]
    record = {
        "load": {name: value for name, value in vars(arguments).items() if name not in ("json", "key")},
        "answered": len(good),
        "not_answered": dict(Counter(answer for answer in answers if isinstance(answer, str))),
        "seconds": round(passed, 3),
        "audio_seconds_per_second": round(sum(answer.audio for answer in good) / passed, 2),
        "underruns": sum(answer.starved > 0 for answer in good),
    }
    values = {"first_sample": [answer.first for answer in good], "end": [answer.end for answer in good], "gap": gaps}
    values |= {"starved": [answer.starved for answer in good], "lag": lags}
    record |= {name: percentiles(of) for name, of in values.items() if of}
    print(json.dumps(record, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
