"""A decoding step on the CPU: the base as llmpatch loads it against the same weights in torch's own layers.

    python benchmarks/layers.py [--base smollm2] [--rounds 15]

packed: oneDNN's packed weights, what a base gets (llmpatch.packed). few rows: the matrix on the left, what a base too large for
copies gets (llmpatch.few_rows), here at every number of rows, so that its limit ``few_rows.MOST_ROWS`` can be judged. Each row
goes one token on behind a patch and a short prompt; all ways by turns, in one process. Packed weights, too, are taken at every
number of rows here. Writes ``--out``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from llmpatch import few_rows, packed
from llmpatch.artifact import load_patch
from llmpatch.bases import load_base
from llmpatch.evals.environment import environment
from llmpatch.evals.stats import median
from llmpatch.few_rows import read_fast
from llmpatch.files import write_json
from llmpatch.packed import pack, unpack
from llmpatch.prefix import backbone, head_logits, prefix_cache, repeat_cache

WAYS = {"torch": unpack, "few rows": read_fast, "packed": pack}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--patch", type=Path, default=Path("patches/smollm2/refusal"))
    parser.add_argument("--rows", default="1,2,4,8,16,32,64")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/layers.json"))
    options = parser.parse_args()
    base, patch = load_base(options.base), torch.tensor(load_patch(options.patch).embeddings)
    few_rows.MOST_ROWS, packed.LEAST_ROWS = 1 << 20, 1
    cache = prefix_cache(base, patch, base.chat_ids("How do I bake bread?"))
    found = [measure(base, cache, int(rows), options.rounds) for rows in options.rows.split(",")]
    told = {"base": options.base, "rounds": options.rounds, "rows": found, "environment": environment()}
    write_json(options.out, told)
    print(json.dumps(told, indent=1))


def measure(base: Any, cache: Any, rows: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step each way, the ratio round by round, and how far apart their probabilities are."""
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    said: dict[str, torch.Tensor] = {}
    for number in range(rounds + 1):
        for name, switch in sorted(WAYS.items(), reverse=bool(number % 2)):
            unpack(base.model)
            switch(base.model)
            step(base, cache, rows, number)  # weights are packed here
            began = time.perf_counter()
            logits = step(base, cache, rows, number)
            times[name] += [time.perf_counter() - began] if number else []
            said[name] = logits.softmax(-1)
    others = [name for name in WAYS if name != "torch"]
    return {
        "rows": rows,
        "ms": {name: round(1e3 * statistics.median(one), 2) for name, one in times.items()},
        "torch_over": {
            name: median([a / b for a, b in zip(times["torch"], times[name], strict=True)]).json() for name in others
        },
        "largest_difference_of_a_probability": {
            name: float((said["torch"] - said[name]).abs().max()) for name in others
        },
    }


def step(base: Any, cache: Any, rows: int, number: int) -> torch.Tensor:
    """Logits of one token more for each row."""
    mine = repeat_cache(cache, rows)
    with torch.no_grad():
        hidden = backbone(base)(
            input_ids=torch.full((rows, 1), 100 + number), use_cache=True, **{base.cache_keyword: mine}
        ).last_hidden_state
        return head_logits(base, hidden[:, -1])


if __name__ == "__main__":
    main()
