"""What hours of load and hundreds of hot swaps do to requests and to memory, measured from outside on `llmpatch serve`.

    python benchmarks/soak.py --minutes 30 --swaps 200 --requests 10000
    python benchmarks/soak.py --minutes 1 --swaps 10 --requests 100

load: more and more workers ask at once, each its next question when it has its answer; the smallest number with nearly the best
rate is kept. Under that load the patch is activated and deactivated in the store that the server follows. An answer is right if
it is what its patch level says when nothing else runs, mixed if it is what the other one says; neither is what rounds another way
in company. Some streams are left by their client in the middle. Every swap is timed from the commit until new requests get the
new set (by the server's own clock, which is the same one); both sets are among the eight that a server keeps computed. Memory is
resident memory of the server; what it has when a third of the time is over starts its growth. Writes ``--out`` as it goes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from llmpatch.evals.environment import environment
from llmpatch.files import write_json
from served import QUESTIONS, Served, served

LENGTHS = (1, 6, 12, 24)  # tokens of an answer: what arrives together does not leave together
LEAVE = 0.02  # share of requests that are streams whose client leaves after the first words
EVERY = 5.0  # seconds between two looks at the memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--patch", type=Path, default=Path("patches/smollm2/refusal"))
    parser.add_argument("--minutes", type=float, default=30, help="at least")
    parser.add_argument("--requests", type=int, default=10_000, help="at least")
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--workers", type=int, help="at once; found by trying unless given")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/soak.json"))
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=1))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    async with served(options.base, options.patch) as server:
        wanted = await _alone(server)
        found: dict[str, Any] = {"base": options.base, "patch": server.digest, "environment": environment()}
        found["rates"] = {} if options.workers else await _rates(server)
        workers = options.workers or _enough(found["rates"])
        await Soak(server, wanted, workers, options, found).run()
    write_json(options.out, found)
    return found


async def _alone(server: Served) -> dict[tuple[str, str, int], str]:
    """What each set says to each question when nothing else runs."""
    wanted = {}
    for patches in ([], [server.digest]):
        for question, tokens in _asked():
            level, text = await server.ask(question, patches, tokens)
            wanted[level, question, tokens] = text
    return wanted


def _asked() -> list[tuple[str, int]]:
    return [(question, LENGTHS[i % len(LENGTHS)]) for i, question in enumerate(QUESTIONS)]


async def _rates(server: Served, seconds: float = 15) -> dict[int, float]:
    """Requests answered in a second, by the number of workers."""
    rates = {}
    for workers in (1, 2, 4, 8, 16, 32):
        answered, until = 0, time.monotonic() + seconds

        async def work(seed: int, until: float = until) -> None:
            nonlocal answered
            chance = random.Random(seed)
            while time.monotonic() < until:
                question, tokens = chance.choice(_asked())
                await server.ask(question, None, tokens)
                answered += 1

        began = time.monotonic()
        await asyncio.gather(*(work(seed) for seed in range(workers)))
        rates[workers] = round(answered / (time.monotonic() - began), 2)
    return rates


def _enough(rates: dict[int, float]) -> int:
    """The smallest number of workers within 5 % of the best rate."""
    return min(workers for workers, rate in rates.items() if rate >= 0.95 * max(rates.values()))


class Soak:
    """One run of load: what was counted so far, written as it goes."""

    def __init__(
        self,
        server: Served,
        wanted: dict[tuple[str, str, int], str],
        workers: int,
        options: argparse.Namespace,
        found: dict[str, Any],
    ):
        self.server, self.wanted, self.workers, self.options, self.found = server, wanted, workers, options, found
        self.counts, self.by_level = Counter[str](), Counter[str]()
        self.failures: list[str] = []
        self.swaps: list[float] = []
        self.memory: list[tuple[float, int]] = []
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began

    @property
    def over(self) -> bool:
        """Whether time, requests and swaps are all reached."""
        done = self.counts.total() >= self.options.requests and len(self.swaps) >= self.options.swaps
        return done and self.seconds >= 60 * self.options.minutes

    async def run(self) -> None:
        """All of it; what goes wrong in one part ends the others."""
        async with asyncio.TaskGroup() as together:
            together.create_task(self._watch())
            together.create_task(self._swap())
            for seed in range(self.workers):
                together.create_task(self._work(seed))
        self._write()

    async def _work(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.over:
            question, tokens = chance.choice(_asked())
            try:
                if chance.random() < LEAVE:
                    await self._leave(question)
                    self.counts["left by the client"] += 1
                    continue
                level, text = await self.server.ask(question, None, tokens)
            except Exception as error:  # whatever it was, it is a failed request, and the load goes on
                self.counts["failed"] += 1
                self.failures.append(f"{type(error).__name__}: {error}"[:200])
                continue
            self.by_level[level] += 1
            self.counts[self._judge(level, question, tokens, text)] += 1

    def _judge(self, level: str, question: str, tokens: int, text: str) -> str:
        if self.wanted.get((level, question, tokens)) == text:
            return "right"
        others = {said for (of, q, _), said in self.wanted.items() if q == question and of != level}
        return "mixed" if text in others or level not in {of for of, _, _ in self.wanted} else "neither"

    async def _leave(self, question: str) -> None:
        body = {"messages": [{"role": "user", "content": question}], "max_tokens": 200, "stream": True}
        async with self.server.http.stream("POST", "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for _ in response.aiter_lines():
                return

    async def _swap(self) -> None:
        pause = max(0.05, 60 * self.options.minutes / max(1, self.options.swaps))
        for number in range(self.options.swaps):
            next_one = asyncio.create_task(asyncio.sleep(pause))
            on = number % 2 == 1
            await asyncio.to_thread(self.server.swap, on)
            committed = self.server.store.current.stat().st_mtime
            self.swaps.append(await self._swapped(on) - committed)
            await next_one

    async def _swapped(self, on: bool) -> float:
        """When new requests began to get the set that was swapped in."""
        async with asyncio.timeout(60):
            while True:
                status = await self.server.status()
                if (status["active"] != "none") == on:
                    return float(status["last_swaps"][-1]["time"])
                await asyncio.sleep(0.01)

    async def _watch(self) -> None:
        while not self.over:
            self.memory.append((self.seconds, self.server.memory()))
            self._write()
            await asyncio.sleep(EVERY)

    def _write(self) -> None:
        after = [size for when, size in self.memory if when >= self.seconds / 3]
        self.found["soak"] = {
            "workers": self.workers, "seconds": round(self.seconds, 1), "requests": self.counts.total(), **self.counts,
            "failures": self.failures[:5], "by_level": dict(self.by_level),
            "questions_that_differ": self._differ(), "swaps": len(self.swaps),
            "swap_seconds": _spread(self.swaps),
            "memory_mib": None if len(after) < 2 else {
                "start": round(self.memory[0][1] / 2**20, 1), "warm": round(after[0] / 2**20, 1),
                "end": round(after[-1] / 2**20, 1), "highest": round(max(after) / 2**20, 1),
                "growth": round(after[-1] / after[0] - 1, 5),
            },
        }  # fmt: skip
        write_json(self.options.out, self.found)

    def _differ(self) -> int:
        """Questions on which the two sets do not say the same: only these can be seen to be mixed."""
        return sum(
            len({text for (_, q, _), text in self.wanted.items() if q == question}) > 1 for question, _ in _asked()
        )


def _spread(times: list[float]) -> dict[str, float] | None:
    if len(times) < 2:
        return None
    hundredths = statistics.quantiles(times, n=100, method="inclusive")
    return {"median": round(hundredths[49], 5), "p95": round(hundredths[94], 5), "max": round(max(times), 5)}


if __name__ == "__main__":
    main()
