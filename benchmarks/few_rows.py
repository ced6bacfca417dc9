"""A decoding step of a few rows on the CPU: the base as llmpatch loads it against the same weights in torch's own layers.

    python benchmarks/few_rows.py [--base smollm2] [--rounds 15]

Ours takes the fast way at every number of rows here, so that the limit ``few_rows.MOST_ROWS`` can be judged. Each row goes one
token on behind a patch and a short prompt; both ways by turns, in one process. Writes ``--out``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from llmpatch import few_rows
from llmpatch.artifact import load_patch
from llmpatch.bases import load_base
from llmpatch.evals.environment import environment
from llmpatch.evals.stats import median
from llmpatch.few_rows import read_fast, read_plainly
from llmpatch.files import write_json
from llmpatch.prefix import backbone, head_logits, prefix_cache, repeat_cache

WAYS = {"torch": read_plainly, "ours": read_fast}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--patch", type=Path, default=Path("patches/smollm2/refusal"))
    parser.add_argument("--rows", default="1,2,3,4,5,6,8,12")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/few_rows.json"))
    options = parser.parse_args()
    base, patch = load_base(options.base), torch.tensor(load_patch(options.patch).embeddings)
    few_rows.MOST_ROWS = 1 << 20
    cache = prefix_cache(base, patch, base.chat_ids("How do I bake bread?"))
    found = [measure(base, cache, int(rows), options.rounds) for rows in options.rows.split(",")]
    told = {"base": options.base, "rounds": options.rounds, "rows": found, "environment": environment()}
    write_json(options.out, told)
    print(json.dumps(told, indent=1))


def measure(base: Any, cache: Any, rows: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step both ways, the ratio round by round, and how far apart their probabilities are."""
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    said: dict[str, torch.Tensor] = {}
    for number in range(rounds + 1):
        for name, switch in sorted(WAYS.items(), reverse=bool(number % 2)):
            switch(base.model)
            mine = repeat_cache(cache, rows)
            began = time.perf_counter()
            with torch.no_grad():
                hidden = backbone(base)(
                    input_ids=torch.full((rows, 1), 1000 + number), use_cache=True, **{base.cache_keyword: mine}
                ).last_hidden_state
                logits = head_logits(base, hidden[:, -1])
            times[name] += [time.perf_counter() - began] if number else []
            said[name] = logits.softmax(-1)
    read_fast(base.model)
    ratios = [a / b for a, b in zip(times["torch"], times["ours"], strict=True)]
    return {
        "rows": rows,
        "ms": {name: round(1e3 * statistics.median(one), 2) for name, one in times.items()},
        "torch_over_ours": median(ratios).json(),
        "largest_difference_of_a_probability": float((said["torch"] - said["ours"]).abs().max()),
    }


if __name__ == "__main__":
    main()
