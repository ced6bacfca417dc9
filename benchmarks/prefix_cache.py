"""Answers of an evaluation with the shared prefix cache, against the rows and the template's start read again for every prompt.

    python benchmarks/prefix_cache.py [--prompts 64] [--rounds 7]

Both ways run llmpatch's own loop on the same short prompts, by turns in one process; in the second each row of a batch reads the
prefix and the head itself, as a script without the cache does. transformers' ``generate`` on the same embeddings stands beside
them. Greedy; the texts of both ways are compared. Writes ``--out``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch as replaced

import torch

from llmpatch import generation
from llmpatch.artifact import load_patch
from llmpatch.bases import Base, load_base
from llmpatch.evals.environment import environment
from llmpatch.evals.stats import median
from llmpatch.files import write_json
from llmpatch.prefix import backbone, common_head
from llmpatch.prompts import load_prompts
from llmpatch.recipe import DecodingSection

Way = Callable[[], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--patch", default="patches/smollm2/refusal")
    parser.add_argument("--source", type=Path, default=Path("data/prompts/harmful_validation.jsonl"))
    parser.add_argument("--prompts", type=int, default=64, help="the shortest ones")
    parser.add_argument("--new-tokens", default="8,24", help="lengths of the answers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/prefix_cache.json"))
    options = parser.parse_args()
    base, rows = load_base(options.base), torch.tensor(load_patch(options.patch).embeddings)
    texts = sorted((prompt.text for prompt in load_prompts(options.source)), key=len)[: options.prompts]
    ids = [base.prompt_ids(text) for text in texts]
    found = [measure(base, rows, ids, int(count), options.rounds) for count in options.new_tokens.split(",")]
    told = {
        "base": options.base, "patch": options.patch, "virtual_tokens": len(rows), "head": len(common_head(ids)),
        "prompts": len(texts), "median_prompt": statistics.median(len(one) - len(common_head(ids)) for one in ids),
        "rounds": options.rounds, "answers": found, "environment": environment(),
    }  # fmt: skip
    write_json(options.out, told)
    print(json.dumps(told, indent=1))


def measure(base: Base, rows: torch.Tensor, ids: list[list[int]], count: int, rounds: int) -> dict[str, Any]:
    """Seconds of each way, and of the others over the shared cache, round by round."""
    ways: dict[str, Way] = {
        "shared": lambda: ours(base, rows, ids, count),
        "read again": lambda: read_again(base, rows, ids, count),
        "transformers": lambda: theirs(base, rows, ids, count),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    said: dict[str, list[str]] = {}
    for number in range(rounds + 1):
        for name, way in sorted(ways.items(), reverse=bool(number % 2)):
            began = time.perf_counter()
            said[name] = way()
            seconds[name] += [time.perf_counter() - began] if number else []  # the first round warms up
    same = {name: sum(a == b for a, b in zip(said["shared"], said[name], strict=True)) for name in ways}
    return {
        "new_tokens": count,
        "seconds": {name: round(statistics.median(found), 3) for name, found in seconds.items()},
        "over_shared": {
            name: median([a / b for a, b in zip(found, seconds["shared"], strict=True)]).json()
            for name, found in seconds.items()
            if name != "shared"
        },
        "same_texts": {name: number for name, number in same.items() if name != "shared"},
    }


def ours(base: Base, rows: torch.Tensor, ids: list[list[int]], count: int) -> list[str]:
    """As evaluations ask."""
    found = generation.generate_ids(base, ids, decoding=DecodingSection(max_new_tokens=count), prefix=rows)
    return [answers[0].text for _, answers in sorted(found, key=lambda answered: answered[0])]


def read_again(base: Base, rows: torch.Tensor, ids: list[list[int]], count: int) -> list[str]:
    """The same loop, but for every batch a cache that each of its rows has filled itself."""
    from transformers import DynamicCache

    start = torch.cat([rows, base.embed(torch.tensor(common_head(ids)))])

    def filled(_: Any, batch: int) -> Any:
        cache = DynamicCache(config=base.model.config)
        with torch.no_grad():
            embeds = start.expand(batch, -1, -1)
            backbone(base)(inputs_embeds=embeds, use_cache=True, **{base.cache_keyword: cache})
        return cache

    with replaced.object(generation, "repeat_cache", filled):
        return ours(base, rows, ids, count)


def theirs(base: Base, rows: torch.Tensor, ids: list[list[int]], count: int) -> list[str]:
    """Transformers' ``generate`` on rows and prompt as embeddings, left-padded, as many at a time."""
    texts: list[str] = []
    for begin in range(0, len(ids), generation.BATCH_SIZE):
        part = ids[begin : begin + generation.BATCH_SIZE]
        width = max(map(len, part)) + len(rows)
        embeds = torch.zeros(len(part), width, base.hidden_size)
        mask = torch.zeros(len(part), width, dtype=torch.long)
        for row, sequence in enumerate(part):
            whole = torch.cat([rows, base.embed(torch.tensor(sequence))])
            embeds[row, -len(whole) :], mask[row, -len(whole) :] = whole, 1
        with torch.no_grad():
            said = base.model.generate(
                inputs_embeds=embeds, attention_mask=mask, max_new_tokens=count, do_sample=False,
                pad_token_id=base.eos_ids[0],
            )  # fmt: skip
        texts += [base.decode(one.tolist()) for one in said]
    return texts


if __name__ == "__main__":
    main()
