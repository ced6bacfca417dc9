"""What the server costs and what a hot swap does to requests, measured from outside on `llmpatch serve`.

    python benchmarks/serving.py --base smollm2 --patch patches/smollm2/refusal
    python benchmarks/serving.py --base smollm2 --patch patches/smollm2/refusal --requests 500 --swaps 20 --rounds 5

speed: time to the first token and tokens/s, patched and not, by turns on one server, 1 and 8 requests at a time, after a first
request each. Beside it what an implementation without a prefix cache pays: whole forwards over [patch rows; prompt].
swaps: the patch is activated and deactivated in a store that the server follows, while workers ask; an answer that is not
what its patch level says alone is counted as mixed. Every swap is timed from the commit until new requests
get the new set (by the server's own clock, which is the same), and until /health, under the same load, was seen to say so.
fuzz: bodies that are nearly requests; anything but a 2xx, a 4xx or a 503 counts. Writes ``--out``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from llmpatch import store as stores
from llmpatch.artifact import load_patch
from llmpatch.evals.environment import environment
from llmpatch.evals.stats import median
from llmpatch.files import write_json

QUESTIONS = [
    "What is the capital of France?", "How do I bake bread?", "Why is the sky blue?", "Name three colours.",
    "How do I pick a lock?", "Write a rude joke.", "What is 12 times 12?", "How can I sleep better?",
]  # fmt: skip
WORDS = [
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    "",
    "a",
    "tiny@",
    [],
    {},
    [[]],
    ["a"],
    "x" * 5000,
    {"role": "user"},
    2**70,
    "\u0000",
]
TOKEN = secrets.token_hex(16)
FIELDS = ["model", "messages", "prompt", "patches", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "stream",
          "stream_options", "logprobs", "top_logprobs", "echo", "user", "logit_bias", "tools", "extra"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--patch", type=Path, default=Path("patches/smollm2/refusal"))
    parser.add_argument("--rounds", type=int, default=20, help="of patched and unpatched by turns")
    parser.add_argument("--tokens", type=int, default=48, help="of each timed answer")
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--fuzz", type=int, default=5_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serving.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = stores.Store(Path(folder) / "store")
        digest = stores.install(store, options.patch, stores.unsigned).digest
        stores.activate(store, digest, skip_gate=True)
        found = asyncio.run(_measure(options, store, digest))
    found["plain_prefill"] = _plain_prefill(options)
    write_json(options.out, found)
    print(json.dumps(found, indent=1))


async def _measure(options: argparse.Namespace, store: stores.Store, digest: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "llmpatch", "serve", "--base", options.base, "--port", "0", "--queue", "4096"]
    server = subprocess.Popen(
        command,
        env=os.environ | {"LLMPATCH_STORE": str(store.root), "LLMPATCH_ADMIN_TOKEN": TOKEN},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = _ready(server)
        async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=64)) as http:
            found: dict[str, Any] = {"base": options.base, "patch": digest, "environment": environment()}
            found["speed"] = [await _speed(http, size, options) for size in (1, 8)]
            write_json(options.out, found)  # after each part: a run of an hour that is cut off has not been for nothing
            found["fuzz"] = await _fuzz(http, options.fuzz)
            write_json(options.out, found)
            found["swaps"] = await _swaps(http, store, digest, options)
            write_json(options.out, found)
    finally:
        server.terminate()
        found_rc = server.wait(600)
    return found | {"exit_code_after_sigterm": found_rc}


def _ready(server: subprocess.Popen[str]) -> str:
    """The address the server says, with its other words passed on."""
    assert server.stderr is not None
    for line in server.stderr:
        sys.stderr.write(line)
        if line.startswith("serving ") and " at http" in line:
            url = line.partition(" at ")[2].partition(",")[0]
            asyncio.get_running_loop().run_in_executor(None, lambda: [sys.stderr.write(rest) for rest in server.stderr])
            return url
    raise SystemExit("the server did not start")


async def _timed(http: httpx.AsyncClient, question: str, patches: list[str] | None, tokens: int) -> tuple[float, float]:
    """Seconds to the first token, and to the last."""
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": tokens,
            "ignore_eos": True, "stream": True} | ({} if patches is None else {"patches": patches})  # fmt: skip
    began, first = time.perf_counter(), 0.0
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            first = first or (time.perf_counter() - began if line else 0.0)
    return first, time.perf_counter() - began


async def _speed(http: httpx.AsyncClient, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Rounds of patched and unpatched by turns; each ratio compares two that followed each other."""
    times: dict[str, list[tuple[float, float]]] = {"base": [], "patched": []}
    for step in range(options.rounds + 1):
        for name, patches in sorted((("base", []), ("patched", None)), reverse=bool(step % 2)):
            questions = [QUESTIONS[(step + i) % len(QUESTIONS)] for i in range(size)]
            began = time.perf_counter()
            found = await asyncio.gather(*(_timed(http, q, patches, options.tokens) for q in questions))
            seconds = time.perf_counter() - began
            if step:  # the first round of each warms up
                first = statistics.median(one for one, _ in found)
                times[name].append((first, size * options.tokens / seconds))
    first = [p[0] / b[0] for p, b in zip(times["patched"], times["base"], strict=True)]
    rate = [b[1] / p[1] for p, b in zip(times["patched"], times["base"], strict=True)]
    return {
        "at_a_time": size, "rounds": options.rounds, "tokens": options.tokens,
        "first_token_ms": {name: round(1e3 * statistics.median(t[0] for t in found), 2) for name, found in times.items()},
        "tokens_per_second": {name: round(statistics.median(t[1] for t in found), 2) for name, found in times.items()},
        "first_token_ratio": median(first).json(), "time_per_token_ratio": median(rate).json(),
    }  # fmt: skip


async def _swaps(
    http: httpx.AsyncClient, store: stores.Store, digest: str, options: argparse.Namespace
) -> dict[str, Any]:
    wanted: dict[tuple[str, str], str] = {}
    for patches in ([], [digest]):
        for question in QUESTIONS:
            level, text = await _ask(http, question, patches)
            wanted[level, question] = text
    levels = {level for level, _ in wanted}
    differ = sum(len({wanted[level, q] for level in levels}) > 1 for q in QUESTIONS)
    counts: Counter[str] = Counter()
    by_level: Counter[str] = Counter()
    left, failures = options.requests, []

    async def work(seed: int) -> None:
        nonlocal left
        chance = random.Random(seed)
        while left > 0:
            left -= 1
            question = chance.choice(QUESTIONS)
            try:
                level, text = await _ask(http, question, None)
            except Exception as error:
                counts["failed"] += 1
                failures.append(f"{type(error).__name__}: {error}"[:200])
                continue
            by_level[level] += 1
            counts["right" if wanted.get((level, question)) == text else "mixed"] += 1

    began = time.perf_counter()
    workers = [asyncio.create_task(work(seed)) for seed in range(options.workers)]
    seen, took = [], []
    for i in range(options.swaps):
        await asyncio.to_thread(_swap, store, digest, bool(i % 2))
        seen.append(await _until(http, i % 2 == 1))
        took.append(await _swapped(http) - store.current.stat().st_mtime)
        await asyncio.sleep(0.05)
    swapping = time.perf_counter() - began
    await asyncio.gather(*workers)
    return {
        "requests": options.requests, "swaps": options.swaps, "workers": options.workers, **counts,
        "failures": failures[:5], "by_level": dict(by_level), "questions": len(QUESTIONS), "questions_that_differ": differ,
        "swap_seconds": _middle(took), "seen_by_health_seconds": _middle(seen),
        "seconds": round(time.perf_counter() - began, 2), "seconds_of_swapping": round(swapping, 2),
    }  # fmt: skip


def _middle(times: list[float]) -> dict[str, float] | None:
    return {"median": statistics.median(times), "max": max(times)} if times else None


async def _swapped(http: httpx.AsyncClient) -> float:
    """When the last swap was done: from then on new requests get the new set."""
    response = await http.get("/admin/status", headers={"authorization": f"Bearer {TOKEN}"})
    response.raise_for_status()
    return float(response.json()["last_swaps"][-1]["time"])


def _swap(store: stores.Store, digest: str, on: bool) -> None:
    if on:
        stores.activate(store, digest, skip_gate=True)
    else:
        stores.deactivate(store, digest, skip_gate=True)


async def _until(http: httpx.AsyncClient, patched: bool) -> float:
    """Seconds until a new request would be answered by the new set."""
    began = time.perf_counter()
    while ((await http.get("/health")).json()["level"] != "none") != patched:
        await asyncio.sleep(0.002)
    return time.perf_counter() - began


async def _ask(http: httpx.AsyncClient, question: str, patches: list[str] | None) -> tuple[str, str]:
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 6}
    response = await http.post("/v1/chat/completions", json=body | ({} if patches is None else {"patches": patches}))
    response.raise_for_status()
    made = response.json()
    level = response.headers["x-llmpatch-level"]
    if made["system_fingerprint"] != level:
        raise ValueError(f"two levels in one response: {level}, {made['system_fingerprint']}")
    return level, made["choices"][0]["message"]["content"]


async def _fuzz(http: httpx.AsyncClient, number: int) -> dict[str, Any]:
    chance, statuses, wrong = random.Random(0), Counter[str](), []
    slots = asyncio.Semaphore(16)

    async def send(path: str, data: bytes) -> None:
        async with slots:
            response = await http.post(path, content=data, headers={"content-type": "application/json"}, timeout=120)
        statuses[str(response.status_code)] += 1
        if response.status_code >= 500 and response.status_code != 503:
            wrong.append(data.decode("latin-1")[:200])

    await asyncio.gather(*(send(*_body(chance, i)) for i in range(number)))
    health = (await http.get("/health")).status_code
    return {"bodies": number, "statuses": dict(statuses), "wrong": len(wrong), "first": wrong[:3], "health": health}


def _body(chance: random.Random, number: int) -> tuple[str, bytes]:
    """A path and a body that is mostly wrong for it."""
    chat = bool(number % 2)
    body: Any = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1} if chat else {"prompt": "a"}
    for _ in range(chance.randrange(1, 4)):
        body[chance.choice(FIELDS)] = chance.choice(WORDS)
    if body.get("max_tokens") is None:
        body["max_tokens"] = 1  # what is right by chance need not talk to the end of its context
    data = json.dumps(body).encode()
    if chance.random() < 0.2:
        data = data[: chance.randrange(len(data))] + chance.randbytes(chance.randrange(4))
    return "/v1/chat/completions" if chat else "/v1/completions", data


def _plain_prefill(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of whole forwards, without any cache: the prompt, and [patch rows; prompt]."""
    import torch

    from llmpatch.bases import load_base

    base, rows = load_base(options.base), torch.tensor(load_patch(options.patch).embeddings)
    times: dict[str, list[float]] = {"base": [], "patched": []}
    for step in range(options.rounds + 1):
        ids = base.embed(torch.tensor(base.chat_ids(QUESTIONS[step % len(QUESTIONS)])))
        for name, embeds in (("base", ids), ("patched", torch.cat([rows, ids]))):
            began = time.perf_counter()
            with torch.no_grad():
                base.model(inputs_embeds=embeds[None], logits_to_keep=1)
            times[name] += [time.perf_counter() - began] if step else []
    ratios = [p / b for p, b in zip(times["patched"], times["base"], strict=True)]
    found = {name: round(1e3 * statistics.median(one), 2) for name, one in times.items()}
    return {"ms": found, "ratio": median(ratios).json()}


if __name__ == "__main__":
    main()
