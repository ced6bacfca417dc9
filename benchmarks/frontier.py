"""The frontier of refusal against over-refusal: the patch, its checkpoints and variants, M', and LoRA on the same pairs.

    python benchmarks/frontier.py --run runs/refusal --patch "M+"=patches/smollm2/refusal \
        --prefix "M+, DPO 125"=runs/refusal/prefixes/dpo-00125.safetensors --lora 80,160

LoRA is trained on the same pairs (``RUN/pairs.jsonl``) with the same losses, by SFT and DPO steps as given. Variants are
prefixes of other checkpoints, mixes or KL weights (``llmpatch build --set``). Writes ``--out``: per system the share of
refused prompts of each kind with its interval; ``--add`` keeps earlier points that were measured alike. The report of the
patch shows it (``make docs``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmpatch.artifact import load_patch
from llmpatch.baselines import LoraSettings, train_lora
from llmpatch.bases import Base, load_base
from llmpatch.evals import System, evaluate, load_recorded
from llmpatch.evals.environment import environment
from llmpatch.files import read_jsonl, write_json
from llmpatch.judges import open_judge
from llmpatch.pairs import Pair, encode
from llmpatch.progress import console
from llmpatch.recipe import Recipe, load_recipe, override
from merging import different, settings

JUDGE = "refusal-head"
_ELSEWHERE = "leave --add out, measure as then, or write elsewhere (--out)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/smollm2-refusal.yaml"))
    parser.add_argument("--run", type=Path, default=Path("runs/refusal"))
    parser.add_argument("--patch", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--prefix", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--recorded", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--lora", metavar="SFT,DPO", help="train LoRA for so many steps of each stage")
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--lora-rate", type=float, default=5e-4)
    parser.add_argument("--add", action="store_true", help="keep the points of --out that this run does not measure")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/frontier.json"))
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    base = load_base(recipe.base.name, recipe.base.revision)
    wanted = {
        "judge": JUDGE,
        "base": asdict(base.fingerprint),
        **settings(
            recipe.evaluation.suite, [open_judge(JUDGE)], limit=options.limit,
            max_new_tokens=recipe.evaluation.max_new_tokens,
        ),
    }  # fmt: skip
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.add else {"points": []}
    if keys := different({"judge": kept.get("judge", JUDGE), **kept.get("settings", {})}, wanted):
        parser.error(f"{options.out} was measured with other {', '.join(keys)}: {_ELSEWHERE}")
    systems = [System("M"), *_given(options)]
    notes: dict[str, Any] = {}
    if options.lora:
        tuned, notes = _lora(recipe, base, options)
        systems.append(System(tuned.name.removeprefix(f"{base.name}+"), base=tuned))
    evidence = evaluate(
        base,
        systems,
        suite=recipe.evaluation.suite,
        judges=[open_judge(JUDGE)],
        limit=options.limit,
        max_new_tokens=recipe.evaluation.max_new_tokens,
        priced=False,
        store=options.run / "evals",
        progress=console(),
    )
    points = []
    for system in systems:
        kinds = {kind: entry["systems"].get(system.name) for kind, entry in evidence["kinds"].items()}
        if all(kinds.values()):
            rates = {kind: found["refusal"][JUDGE] for kind, found in kinds.items()}
            points.append(
                {"name": system.name, "refusal": rates["harmful"], "over_refusal": rates["borderline"]}
                | {"everyday": rates["everyday"], **notes.get(system.name, {})}
            )
            print(system.name, {kind: round(rate["value"], 3) for kind, rate in rates.items()})
    if options.add:
        if other := other_numbers(kept["points"], points):
            parser.error(f"{options.out}, {other}: another number of prompts than in this run: {_ELSEWHERE}")
        if "settings" not in kept:
            print(
                f"{options.out} does not say how its points were measured; only judge and numbers of prompts were compared"
            )
            wanted = {}
        points = list({p["name"]: p for p in [*kept["points"], *points]}.values())  # in the order of the earlier ones
    told = {"settings": wanted} if wanted else {}  # of all points, or of none
    write_json(options.out, {"judge": JUDGE, **told, "environment": environment(), "points": points})


def other_numbers(kept: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]]) -> str:
    """The first earlier point of other numbers of prompts than this run's; empty where there is none."""
    for point in kept:
        for kind in ("refusal", "over_refusal", "everyday"):
            if any(point[kind]["n"] != new[kind]["n"] for new in made):
                return str(point["name"])
    return ""


def _given(options: argparse.Namespace) -> list[System]:
    """The systems named on the command line."""
    from safetensors.torch import load_file

    pairs = [
        [text.rpartition("=")[::2] for text in given] for given in (options.patch, options.prefix, options.recorded)
    ]
    return [
        *[System(name, prefix=load_patch(folder).prefix()) for name, folder in pairs[0]],
        *[System(name, prefix=load_file(file)["prompt_embeddings"]) for name, file in pairs[1]],
        *[System(name, recorded=load_recorded(Path(file))) for name, file in pairs[2]],
    ]


def _lora(recipe: Recipe, base: Base, options: argparse.Namespace) -> tuple[Base, dict[str, Any]]:
    """A LoRA of the recipe's pairs and losses, and what it took."""
    sft, dpo = (int(steps) for steps in options.lora.split(","))
    recipe = override(recipe, [f"training.sft.steps={sft}", f"training.dpo.steps={dpo}"])
    data = encode(base, [Pair(**row) for row in read_jsonl(options.run / "pairs.jsonl")])
    settings = LoraSettings(options.lora_rank, options.lora_rate)
    kept = options.run / f"lora-{options.lora_rank}-{sft}-{dpo}.safetensors"
    tuned, parameters, seconds = train_lora(
        base, data, settings, recipe.training, seed=recipe.seed, keep=kept, progress=console()
    )
    name = tuned.name.removeprefix(f"{base.name}+")
    return tuned, {name: {"parameters": parameters, "steps": [sft, dpo], "seconds": seconds}}


if __name__ == "__main__":
    main()
