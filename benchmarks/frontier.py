"""The frontier of refusal against over-refusal: the patch, its own checkpoints and mixes, M', and LoRA r16.

    python benchmarks/frontier.py --recipe recipes/smollm2-refusal.yaml --run runs/refusal --lora-steps 200

LoRA is trained on the same pairs (``RUN/pairs.jsonl``) with the same losses. Other patches (``--patch DIR``, as built
with other mixes or KL weights by ``--set``) are measured beside. Writes ``RUN/frontier.json``: per system the share of
refused prompts of each kind with its interval.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from llmpatch.artifact import load_patch
from llmpatch.baselines import LoraSettings, train_lora
from llmpatch.bases import load_base
from llmpatch.evals import System, evaluate, load_recorded
from llmpatch.files import read_jsonl, write_json
from llmpatch.pairs import Pair, encode
from llmpatch.progress import console
from llmpatch.recipe import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/smollm2-refusal.yaml"))
    parser.add_argument("--run", type=Path, default=Path("runs/refusal"))
    parser.add_argument("--patch", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--lora-steps", type=int, default=200)
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--lora-rate", type=float, default=5e-4)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    base = load_base(recipe.base.name, recipe.base.revision)
    import torch

    systems: list[Any] = [System("M")]
    for assignment in options.patch:
        name, _, folder = assignment.partition("=")
        systems.append(System(name, prefix=torch.tensor(load_patch(folder).embeddings)))
    notes: dict[str, Any] = {}
    if options.lora_steps:
        data = encode(base, [Pair(**row) for row in read_jsonl(options.run / "pairs.jsonl")])
        started = time.perf_counter()
        settings = LoraSettings(
            options.lora_rank, options.lora_steps, options.lora_rate, recipe.training.sft.batch_size
        )
        t = recipe.training
        tuned, parameters = train_lora(
            base, data, settings, kl_weight=t.kl_weight, mix=t.mix, seed=recipe.seed, progress=console()
        )
        name = f"LoRA r{options.lora_rank}"
        notes[name] = {
            "parameters": parameters,
            "steps": options.lora_steps,
            "seconds": round(time.perf_counter() - started, 1),
        }
        systems.append(System(name, base=tuned))
    if recipe.evaluation.reference:
        systems.append(System("M'", recorded=load_recorded(Path(recipe.evaluation.reference))))
    evidence = evaluate(
        base,
        systems,
        suite=recipe.evaluation.suite,
        limit=options.limit,
        max_new_tokens=recipe.evaluation.max_new_tokens,
        store=options.run / "evals",
        progress=console(),
    )
    write_json(options.run / "frontier.json", {"kinds": evidence["kinds"], "sets": evidence["sets"], "notes": notes})
    for name in [s.name for s in systems]:
        rates = {kind: entry["systems"].get(name, {}).get("refusal") for kind, entry in evidence["kinds"].items()}
        print(name, {k: next(iter(v.values())) if v else None for k, v in rates.items()}, notes.get(name, ""))


if __name__ == "__main__":
    main()
