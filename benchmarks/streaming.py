"""Pairs of many prompts (``llmpatch.pair_workers``): does memory grow with them, and what does a second process bring?

    python benchmarks/streaming.py [--prompts 10000,100000,1000000] [--workers 5]

Memory: the prompts are made here, and asked of a tiny random model that says one token, since only the bookkeeping around the
model is measured: a real one adds its own memory, the same for any number of prompts. Then ``draw`` reads the pairs as a build
would. A process each; its peak is told. Workers: the first prompts of the official refusal recipe on its real base, by one
process with one thread and by two, loading included, ``--workers`` times each in turn. Writes ``--out``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llmpatch.evals.environment import environment
from llmpatch.files import write_json
from memory import resident

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", default="10000,100000,1000000", help="sizes, as 1000,10000; empty for none")
    parser.add_argument("--workers", type=int, default=5, help="rounds of one process and two")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/smollm2-refusal.yaml"))
    parser.add_argument("--each", type=int, default=48, help="prompts of each kind for that")
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/streaming.json"))
    options = parser.parse_args()
    found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    if options.prompts or options.workers:
        found["environment"] = environment()
    if options.prompts:
        sizes = [int(size) for size in options.prompts.split(",")]
        found |= {"chunk": options.chunk, "rows": [grown(size, options.chunk) for size in sizes]}
        write_json(options.out, found)
    if rows := found.get("rows"):  # pairs and the draw of a build
        found["memory_largest_over_smallest"] = round(rows[-1]["peak_with_draw_mib"] / rows[0]["peak_with_draw_mib"], 3)
        write_json(options.out, found)
    if options.workers:
        found["workers"] = side_by_side(options.recipe, options.each, options.workers)
        write_json(options.out, found)


def grown(count: int, chunk: int) -> dict[str, Any]:
    """One size, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = context.Pipe()
        process = context.Process(target=measure, args=(theirs, Path(folder), count, chunk))
        process.start()
        theirs.close()  # so that its failure is not waited for
        try:
            row: dict[str, Any] = ours.recv()
        except EOFError:
            raise SystemExit(
                f"error: the process of {count} prompts ended before it told its peak: see above"
            ) from None
        process.join()
    print(row, flush=True)
    return row


def side_by_side(path: Path, each: int, rounds: int) -> dict[str, Any]:
    """Seconds for the same prompts by one process and by two, each process with one thread."""
    import torch

    from llmpatch.evals.stats import median
    from llmpatch.pair_workers import make_pair_shards
    from llmpatch.progress import Silent
    from llmpatch.recipe import load_recipe, override

    torch.set_num_threads(1)  # a second process has the other core; both leave theirs out of OpenMP's hands
    os.environ["OMP_NUM_THREADS"] = "1"
    kinds = ("harmful", "borderline", "everyday")
    recipe = override(load_recipe(path), [f"prompts.{kind}.limit={each}" for kind in kinds])
    chunk = max(1, each * len(kinds) // 4)  # two for each of two
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers in seconds:
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                make_pair_shards(recipe, Path(folder) / "pairs", size=chunk, workers=workers, progress=Silent())
                seconds[workers].append(time.perf_counter() - began)
        print({count: round(found[-1], 1) for count, found in seconds.items()}, flush=True)
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    return {
        "recipe": str(path), "prompts": each * len(kinds), "rounds": rounds,
        "seconds": {str(count): round(statistics.median(found), 1) for count, found in seconds.items()},
        "one_over_two": median(ratios).json(),
    }  # fmt: skip


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
            "base": {"name": str(folder / "model")}, "reference": {"kind": "self"},
            "decoding": {"max_new_tokens": 1, "temperature": 1.0},
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
    return round(resident("VmHWM") / 2**20, 1)


if __name__ == "__main__":
    main()
