"""Ablations: one recipe, one key varied, some seeds; each cell trains a patch and scores it on validation prompts.

    python benchmarks/ablations.py recipes/smollm2-refusal.yaml --ablation tokens
    python benchmarks/ablations.py recipes/smollm2-refusal.yaml --vary training.dpo.beta=0.1,0.3,1 --seeds 0,1,2
    python benchmarks/ablations.py recipes/smollm2-refusal.yaml --name teacher --vary reference.path=one.jsonl,other.jsonl
    python benchmarks/ablations.py recipes/smollm2-refusal.yaml --vary noise=0,0.1,0.3 --vary filter=on,off --eval 40

The first --vary is the axis of the plot, a second one gives its lines. Beside the keys of a recipe there are three of our own:

    stages    both; sft: without DPO; sft-long: without DPO, with DPO's steps given to SFT
    filter    on; off: also pairs that are good or bad alike (never those where M' is worse, or says nothing)
    noise     the share of M's answers to harmful prompts that M' is made to give: a weak teacher

A seed changes batches, random starts and which answers are noise; what the models said stays the same. --eval N also asks the
first N prompts of each test set. A cell is kept in --run under the digest of its recipe, so a killed run goes on; results are
written after every cell to --out/NAME.json, which scripts/make_results.py shows.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from llmpatch.bases import Base, load_base
from llmpatch.building import digests_of, recipe_files
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.evals import System, evaluate
from llmpatch.evals.environment import environment
from llmpatch.evals.side_by_side import side_by_side
from llmpatch.files import digest_json, read_bytes, write_json, write_jsonl
from llmpatch.learning import read_prompts, train_prefix
from llmpatch.pairing import ask_base, open_models, sample_pairs
from llmpatch.pairs import summarise
from llmpatch.progress import Progress, console
from llmpatch.recipe import Recipe, load_recipe, override
from llmpatch.references import collect, open_reference
from llmpatch.references.local import TransformersReference
from llmpatch.reporting.results.benchmarks import ABLATIONS
from llmpatch.validation import validated_by

OURS = ("stages", "filter", "noise")
MAX_CELL_BYTES = 1 << 22


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--ablation", action="append", default=[], choices=list(ABLATIONS))
    parser.add_argument("--vary", action="append", default=[], metavar="KEY=V1,V2")
    parser.add_argument("--name", help="of the result of --vary; by default its keys")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--eval", type=int, default=0, metavar="N")
    parser.add_argument("--run", type=Path, help="by default runs/NAME-OF-THE-RECIPE, as `llmpatch build` has it")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ablations"))
    options = parser.parse_args()
    try:
        run_all(options)
    except LlmpatchError as error:
        parser.exit(error.exit_code, f"error: {error}\n  hint: {error.hint}\n")


def run_all(options: argparse.Namespace) -> None:
    """Every ablation that was asked for, one after another."""
    recipe = override(load_recipe(options.recipe), options.assignments)
    wanted: dict[str, Sequence[str]] = {name: ABLATIONS[name].varied for name in options.ablation}
    if options.vary:
        keys = [text.partition("=")[0] for text in options.vary]
        wanted[options.name or "-".join(key.rpartition(".")[2] for key in keys)] = options.vary
    seeds = _values(f"seeds={options.seeds}")[1]
    if recipe.joint or not recipe.training.pairs_weight:
        raise UsageError(f"{recipe.name} is not trained on pairs of its own alone", hint="vary the recipe of one risk")
    grids = {name: _grid(recipe, varied, seeds) for name, varied in wanted.items()}  # all checked before any is trained
    if not grids or not all(isinstance(seed, int) for seed in seeds):
        raise UsageError(
            "nothing to vary, or a seed that is no number", hint="give --ablation or --vary, and --seeds 0,1,2"
        )
    base = load_base(recipe.base.name, recipe.base.revision)
    for name, (axes, cells) in grids.items():
        _ablation(name, axes, cells, recipe, base, options)


def _values(text: str) -> tuple[str, list[Any]]:
    """The key of ``KEY=V1,V2`` and its values, read as a YAML list."""
    key, sign, values = text.partition("=")
    try:
        found = yaml.safe_load(f"[{values}]")
    except yaml.YAMLError:
        found = []
    if not sign or not key or not found:
        raise UsageError(f"{text!r} varies nothing", hint="write KEY=V1,V2 as training.dpo.beta=0.1,0.3")
    return key.strip(), found


def _grid(
    recipe: Recipe, varied: Sequence[str], seeds: list[int]
) -> tuple[list[tuple[str, list[Any]]], list[dict[str, Any]]]:
    """Axes and cells; every cell's recipe is valid.

    Raises:
        UsageError: more than two keys, a key varied twice, or a file that a cell's recipe names is not there.
        RecipeError: a key or value that the recipe does not take.
    """
    axes = [_values(text) for text in varied]
    if len(axes) > 2 or len({key for key, _ in axes}) != len(axes):
        raise UsageError(f"{len(axes)} keys are varied", hint="vary one key, or two different ones")
    lines = axes[1][1] if len(axes) > 1 else [None]
    cells = [{"value": v, "line": line, "seed": s} for line in lines for v in axes[0][1] for s in seeds]
    for cell in cells:
        digests_of(recipe_files(_cell_recipe(recipe, axes, cell)[0]))
    return axes, cells


def _cell_recipe(recipe: Recipe, axes: list[tuple[str, list[Any]]], cell: dict[str, Any]) -> tuple[Recipe, float]:
    """The recipe of a cell, and the share of noise in it."""
    assignments, noise = [f"seed={cell['seed']}"], 0.0
    for (key, _), value in zip(axes, (cell["value"], cell["line"]), strict=False):
        if key == "noise":
            noise = value
        elif key not in OURS:
            assignments.append(f"{key}={json.dumps(value)}")
    for (key, _), value in zip(axes, (cell["value"], cell["line"]), strict=False):
        if key in OURS and key != "noise":
            assignments += _of_ours(override(recipe, assignments), key, value)  # of the steps that another axis says
    if not isinstance(noise, (int, float)) or not 0 <= noise <= 1:
        raise UsageError(f"noise {noise!r} is no share", hint="give numbers from 0 to 1")
    return override(recipe, assignments), float(noise)


def _of_ours(recipe: Recipe, key: str, value: Any) -> list[str]:
    both = recipe.training.sft.steps + recipe.training.dpo.steps
    value = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value  # YAML's own reading
    meanings = {
        ("stages", "both"): [],
        ("stages", "sft"): ["training.dpo.steps=0"],
        ("stages", "sft-long"): ["training.dpo.steps=0", f"training.sft.steps={both}"],
        ("filter", "on"): [],
        ("filter", "off"): ["pairs.margin=0", "pairs.winner=0"],
    }
    if (key, value) not in meanings:
        known = ", ".join(v for k, v in meanings if k == key)
        raise UsageError(f"{key} cannot be {value!r}", hint=f"known: {known}")
    return meanings[key, value]


def _ablation(
    name: str,
    axes: list[tuple[str, list[Any]]],
    cells: list[dict[str, Any]],
    recipe: Recipe,
    base: Base,
    options: argparse.Namespace,
) -> None:
    folder = options.run or Path("runs") / recipe.name.replace("/", "-")
    progress, done = console(), []
    for number, cell in enumerate(cells, start=1):
        changed, noise = _cell_recipe(recipe, axes, cell)
        # What answers and scores depend on, as the shards and the checkpoint below have it.
        behind = [
            TransformersReference(base, changed.decoding).identity(),
            validated_by(changed, read_prompts(changed).validation),
        ]
        files = digests_of(recipe_files(changed))
        identity = digest_json([changed.digest(), files, noise, options.eval, asdict(base.fingerprint), behind])[:24]
        path = folder / "cells" / f"{identity}.json"
        if not path.exists():
            write_json(path, _train(changed, noise, base, folder, folder / "cells" / identity, options.eval, progress))
        done.append({**cell, **json.loads(read_bytes(path, limit=MAX_CELL_BYTES))})
        score = done[-1]["validation"].get("score")
        print(f"{name} {number}/{len(cells)}: {cell} score {score}")
        found = {
            "name": name, "axes": [{"key": key, "values": values} for key, values in axes],
            "recipe": recipe.name, "recipe_digest": recipe.digest(), "risk": recipe.risk, "base": base.name,
            "eval_limit": options.eval, "complete": number == len(cells), "environment": environment(), "cells": done,
        }  # fmt: skip
        write_json(options.out / f"{name}.json", found)


def _train(
    recipe: Recipe, noise: float, base: Base, shared: Path, folder: Path, limit: int, progress: Progress
) -> dict[str, Any]:
    """One cell: its pairs, its prefix, its figures."""
    prompts, flipped = read_prompts(recipe), []
    if noise:
        recipe, flipped = _noisy(recipe, noise, base, shared, progress)
    pairs, dropped = sample_pairs(recipe, open_models(recipe, base), prompts.train, shared, progress)
    result = train_prefix(recipe, base, pairs, prompts.validation, folder, progress)
    looked = {f"{row['stage']} step {row['step']}": row["validation"] for row in result.history if "validation" in row}
    found: dict[str, Any] = {
        "validation": looked.get(result.best_at, {}),
        "best_at": result.best_at, "seconds": round(result.seconds, 1), "pairs": summarise(pairs, dropped),
        "noise_trained_on": sum(p.kind == "harmful" and p.prompt in flipped for p in pairs), "noise": len(flipped),
    }  # fmt: skip
    if limit:
        section = recipe.evaluation
        evidence = evaluate(
            base, [System("M"), System("M+", prefix=result.rows)], suite=section.suite, limit=limit,
            max_new_tokens=section.max_new_tokens, samples=section.samples, store=shared / "evals", progress=progress,
        )  # fmt: skip
        table = side_by_side(evidence)
        found["figures"] = {
            column.title: table.rows["M+"][column.key] for column in table.columns if column.group != "latency"
        }
    return found


def _noisy(recipe: Recipe, share: float, base: Base, shared: Path, progress: Progress) -> tuple[Recipe, set[str]]:
    """The recipe with a teacher that gives M's own answer to some harmful prompts, and which prompts those are."""
    limit = recipe.pairs.max_prompt_tokens
    train = read_prompts(recipe).train
    short = [p for p in train if len(base.prompt_ids(p.text, raw=p.form == "raw")) <= limit]
    own = {
        p.id: found[0]
        for p, found in zip(short, ask_base(recipe, base, short, shared / "answers", progress), strict=True)
    }
    harmful = [p for p in short if p.kind == "harmful"]
    told = collect(open_reference(recipe.reference, recipe.decoding), harmful, shared / "answers", progress=progress)
    chosen = random.Random(recipe.seed).sample(range(len(harmful)), round(share * len(harmful)))
    flipped = {harmful[i].text for i in chosen}
    rows = []
    for prompt, answer in zip(harmful, told, strict=True):
        said = own[prompt.id] if prompt.text in flipped else answer
        # As whole answers: cut ones would be left out whatever the filter is, and then no noise would ever be trained on.
        finish = "stop" if prompt.text in flipped else said.finish
        rows.append({"prompt": prompt.text, "completion": said.text, "finish": finish})
    path = shared / "noise" / f"{digest_json(rows)[:24]}.jsonl"
    if not path.exists():
        write_jsonl(path, rows)
    return override(recipe, [f"reference={json.dumps({'kind': 'recorded', 'path': str(path)})}"]), flipped


if __name__ == "__main__":
    main()
