"""Does memory grow with the prompts? Pairs of 10^4 to 10^6 prompts through ``llmpatch.pair_workers``, a process each.

    python benchmarks/streaming.py [--prompts 10000,100000,1000000] [--chunk 512]

The prompts are made here, and asked of a tiny random model that says one token, since only the bookkeeping around the model is
measured: a real one adds its own memory, the same for any number of prompts. Then ``draw`` reads the pairs as a build would.
Writes ``--out``: for each size the peak resident memory of the process, seconds, pairs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llmpatch.evals.environment import environment
from llmpatch.files import write_json

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", default="10000,100000,1000000", help="sizes, as 1000,10000")
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/streaming.json"))
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    for count in map(int, options.prompts.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = context.Pipe()
            process = context.Process(target=measure, args=(theirs, Path(folder), count, options.chunk))
            process.start()
            theirs.close()  # so that its failure is not waited for
            rows.append(ours.recv())
            process.join()
        print(rows[-1], flush=True)
    write_json(options.out, {"chunk": options.chunk, "environment": environment(), "rows": rows})


def measure(pipe: Any, folder: Path, count: int, chunk: int) -> None:
    """In a process of its own: make the pairs of so many prompts, draw from them, tell the peak."""
    sys.path.insert(0, str(ROOT / "tests"))
    from llmpatch.learning import MOST_PAIRS
    from llmpatch.pair_shards import draw
    from llmpatch.pair_workers import make_pair_shards
    from llmpatch.progress import Silent
    from llmpatch.recipe import parse_recipe
    from tinymodels import make_tiny

    base = make_tiny(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
    )
    base.model.save_pretrained(folder / "model")
    base.tokenizer.save_pretrained(folder / "model")
    for kind, share in (("harmful", count // 2), ("everyday", count - count // 2)):
        with (folder / f"{kind}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"prompt": f"{kind} {number}"}) + "\n" for number in range(share))
        (folder / f"{kind}_validation.jsonl").write_text(
            json.dumps({"prompt": f"held {kind}"}) + "\n", encoding="utf-8"
        )
    kinds = ("harmful", "everyday")
    sets = {
        kind: {"train": [str(folder / f"{kind}.jsonl")], "validation": [str(folder / f"{kind}_validation.jsonl")]}
        for kind in kinds
    }
    recipe = parse_recipe(
        {
            "name": "bench/streaming", "version": "1.0.0", "summary": "memory", "risk": "toxicity",
            "base": {"name": str(folder / "model")}, "reference": {"kind": "self"}, "decoding": {"max_new_tokens": 1},
            "prompts": sets, "prefix": {"tokens": 4},
            "pairs": {"samples": 2, "judge": "toxicity-words", "margin": 0.0, "winner": 0.0, "max_prompt_tokens": 300},
            "training": {"sft": {"steps": 1, "learning_rate": 0.01}, "dpo": {"steps": 1, "learning_rate": 0.01}},
        }
    )  # fmt: skip
    began = time.perf_counter()
    shards = make_pair_shards(recipe, folder / "pairs", size=chunk, progress=Silent())
    made, made_peak = time.perf_counter() - began, peak()
    pairs, counts = draw(shards, MOST_PAIRS, 0)
    pipe.send(
        {
            "prompts": count, "peak_mib": made_peak, "peak_with_draw_mib": peak(), "seconds": round(made, 1),
            "pairs": sum(found["kept"] for found in counts.values()), "drawn": len(pairs),
        }
    )  # fmt: skip


def peak() -> float:
    """Peak resident memory of this process, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


if __name__ == "__main__":
    main()
