"""What a patch costs in the server, and what bodies that are nearly requests do to it, measured from outside on `llmpatch serve`.

    python benchmarks/serving.py --base smollm2 --patch patches/smollm2/refusal
    python benchmarks/serving.py --parts fuzz --fuzz 500

speed: time to the first token, time per further token, tokens/s, patched and not, by turns on one server, 1 and 8 requests at a
time, after a first request each. without_cache: what the same patch costs where its rows are computed again for every request, as
whole forwards over [patch rows; prompt] and as PEFT's prompt tuning in its own `generate`. fuzz: bodies that are nearly requests;
anything but a 2xx, a 4xx or a 503 counts. A part replaces its own figures in ``--out``, and all others where base, patch or
machine are not the same. Load, hot swaps and memory: soak.py; bodies made from the OpenAPI description: `make fuzz`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from llmpatch.artifact import load_patch
from llmpatch.evals.environment import environment
from llmpatch.evals.stats import median
from llmpatch.files import write_json
from served import QUESTIONS, served

PARTS = ("speed", "fuzz", "without_cache")
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
FIELDS = ["model", "messages", "prompt", "patches", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "stream",
          "stream_options", "logprobs", "top_logprobs", "echo", "user", "logit_bias", "tools", "extra"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--patch", type=Path, default=Path("patches/smollm2/refusal"))
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=20, help="of patched and unpatched by turns")
    parser.add_argument("--tokens", type=int, default=48, help="of each timed answer")
    parser.add_argument("--fuzz", type=int, default=5_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serving.json"))
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    about = {"base": options.base, "patch": load_patch(options.patch).digest, "environment": environment()}
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    found = about | ({part: kept[part] for part in PARTS if part in kept} if about.items() <= kept.items() else {})
    if {"speed", "fuzz"} & set(parts):
        asyncio.run(_ask_server(options, parts, found))
    if "without_cache" in parts:
        found["without_cache"] = _without_cache(options)
    write_json(options.out, found)
    print(json.dumps(found, indent=1))


async def _ask_server(options: argparse.Namespace, parts: list[str], found: dict[str, Any]) -> None:
    async with served(options.base, options.patch) as server:
        if "speed" in parts:
            found["speed"] = [await _speed(server.http, size, options) for size in (1, 8)]
            write_json(options.out, found)  # after each part: a long run that is cut off has not been for nothing
        if "fuzz" in parts:
            found["fuzz"] = await _fuzz(server.http, options.fuzz)


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
    times: dict[str, list[tuple[float, float, float]]] = {"base": [], "patched": []}
    for step in range(options.rounds + 1):
        for name, patches in sorted((("base", []), ("patched", None)), reverse=bool(step % 2)):
            questions = [QUESTIONS[(step + i) % len(QUESTIONS)] for i in range(size)]
            began = time.perf_counter()
            found = await asyncio.gather(*(_timed(http, q, patches, options.tokens) for q in questions))
            seconds = time.perf_counter() - began
            if step:  # the first round of each warms up
                first = statistics.median(one for one, _ in found)
                token = statistics.median((last - one) / (options.tokens - 1) for one, last in found)
                times[name].append((first, token, size * options.tokens / seconds))
    first, token = ([p[i] / b[i] for p, b in zip(times["patched"], times["base"], strict=True)] for i in (0, 1))
    return {
        "at_a_time": size, "rounds": options.rounds, "tokens": options.tokens,
        "first_token_ms": {name: round(1e3 * statistics.median(t[0] for t in found), 2) for name, found in times.items()},
        "token_ms": {name: round(1e3 * statistics.median(t[1] for t in found), 2) for name, found in times.items()},
        "tokens_per_second": {name: round(statistics.median(t[2] for t in found), 2) for name, found in times.items()},
        "first_token_ratio": median(first).json(), "time_per_token_ratio": median(token).json(),
    }  # fmt: skip


async def _fuzz(http: httpx.AsyncClient, number: int) -> dict[str, Any]:
    chance, statuses, wrong = random.Random(0), Counter[str](), []
    slots = asyncio.Semaphore(16)

    async def send(path: str, data: bytes) -> None:
        try:
            async with slots:
                response = await http.post(
                    path, content=data, headers={"content-type": "application/json"}, timeout=120
                )
        except httpx.HTTPError as error:
            statuses[type(error).__name__] += 1
            wrong.append(data.decode("latin-1")[:200])
            return
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


def _without_cache(options: argparse.Namespace) -> dict[str, Any]:
    """Ratios patched / not of implementations that compute the patch's rows anew: whole forwards, and PEFT's generate.

    PEFT's `generate` also repeats the rows at every step on this transformers: its text is wrong, its time is what users see.
    """
    import torch
    from peft import PeftModel

    from llmpatch.bases import load_base

    base, rows = load_base(options.base), torch.tensor(load_patch(options.patch).embeddings)
    tuned = PeftModel.from_pretrained(load_base(options.base).model, options.patch)
    tokens = options.tokens

    def forward(question: str, patched: bool) -> None:
        embeds = base.embed(torch.tensor(base.chat_ids(question)))
        embeds = torch.cat([rows, embeds]) if patched else embeds
        base.model(inputs_embeds=embeds[None], logits_to_keep=1)

    def generate(question: str, patched: bool, count: int) -> None:
        ids = torch.tensor([base.chat_ids(question)])
        model: Any = tuned if patched else base.model
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count,
                       min_new_tokens=count, pad_token_id=0)  # fmt: skip

    return {
        "re_prefill_first_token": _by_turns(options.rounds, forward),
        "peft_first_token": _by_turns(options.rounds, lambda q, patched: generate(q, patched, 1)),
        "peft_answer": {"tokens": tokens} | _by_turns(options.rounds, lambda q, patched: generate(q, patched, tokens)),
    }


def _by_turns(rounds: int, work: Callable[[str, bool], None]) -> dict[str, Any]:
    """Milliseconds of both, and the median of the ratios of neighbours."""
    import torch

    times: dict[bool, list[float]] = {False: [], True: []}
    with torch.no_grad():
        for step in range(rounds + 1):
            for patched in (False, True) if step % 2 else (True, False):
                began = time.perf_counter()
                work(QUESTIONS[step % len(QUESTIONS)], patched)
                times[patched] += [time.perf_counter() - began] if step else []
    ratios = [p / b for p, b in zip(times[True], times[False], strict=True)]
    names = {False: "base", True: "patched"}
    return {
        "ms": {names[patched]: round(1e3 * statistics.median(one), 2) for patched, one in times.items()},
        "ratio": median(ratios).json(),
    }


if __name__ == "__main__":
    main()
