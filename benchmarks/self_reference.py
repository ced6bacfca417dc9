"""How much of the gap to M' is closed by a patch whose base was its own reference (``reference: {kind: self}``).

    python benchmarks/self_reference.py recipes/smollm2-toxicity.yaml=patches/smollm2/toxicity \
        recipes/smollm2-gender-bias.yaml=patches/smollm2/gender-bias

Such a recipe has no recorded M'. What stood for it in training is made here for the test prompts: of ``pairs.samples`` fresh
continuations by the base the best one by the pairs' judge, or the worst one rewritten where the recipe rewrites; as many of
those per prompt, and as long, as the patch's evidence has. They are judged as all others, by the test's judge. A patch may go
beyond them: it learns from the difference of two continuations, not only from the better one. Everything sampled stays in
--run. Writes --out; scripts/make_results.py shows it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmpatch.answers import Answer
from llmpatch.artifact import Patch, load_patch
from llmpatch.bases import Base, load_base
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.evals import System, evaluate
from llmpatch.evals.environment import created, environment
from llmpatch.evals.prompt_sets import load_suite
from llmpatch.files import write_json
from llmpatch.judges import open_judge
from llmpatch.pairing import ask_base
from llmpatch.pairs import own_reference
from llmpatch.progress import Progress, console
from llmpatch.prompts import Prompt
from llmpatch.recipe import Recipe, load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("made", nargs="+", metavar="RECIPE=PATCH")
    parser.add_argument("--limit", type=int, help="prompts of each set; by default as in the evidence")
    parser.add_argument("--samples", type=int, help="continuations per prompt; by default as in the evidence")
    parser.add_argument(
        "--keep", action="store_true", help="the risks that --out has of an earlier run, but those measured now"
    )
    parser.add_argument("--run", type=Path, default=Path("runs/self-reference"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/self_reference.json"))
    options = parser.parse_args()
    try:
        compare(options)
    except LlmpatchError as error:
        parser.exit(error.exit_code, f"error: {error}\n  hint: {error.hint}\n")


def compare(options: argparse.Namespace) -> None:
    """Measure each, and keep what is done."""
    earlier = json.loads(options.out.read_text(encoding="utf-8"))["risks"] if options.keep else {}
    found: dict[str, Any] = {"created": created(), "environment": environment(), "risks": earlier}
    for text in options.made:
        told, _, folder = text.partition("=")
        recipe, patch = load_recipe(Path(told)), load_patch(folder)
        found["risks"][recipe.risk] = measure(recipe, patch, options)
        write_json(options.out, found)
        print(recipe.risk, {name: row["closed"] for name, row in found["risks"][recipe.risk]["sets"].items()})


def measure(recipe: Recipe, patch: Patch, options: argparse.Namespace) -> dict[str, Any]:
    """The three beside each other, per set."""
    told = patch.evidence["decoding"]
    if recipe.reference.kind != "self" or "samples" not in told:
        raise UsageError(f"{recipe.name}: not its own reference, or measured without samples", hint="give another one")
    base, suite, progress = load_base(recipe.base.name, recipe.base.revision), recipe.evaluation.suite, console()
    patch.check_base(base)
    limit, samples, tokens = options.limit or told["limit"], options.samples or told["samples"], told["max_new_tokens"]
    harmful = [s for s in load_suite(suite, limit=limit) if s.kind == "harmful"]
    asked = [replace(p, form="raw") for s in harmful for p in s.prompts]
    # Another seed than the evaluation's, which draws for M: else both would be the same words.
    drawn = recipe.decoding.model_copy(update={"max_new_tokens": tokens, "seed": recipe.decoding.seed + 1})
    fresh = recipe.model_copy(update={"decoding": drawn})
    reference = stand_ins(fresh, base, asked, samples, options.run, progress)
    systems = [System("M"), System("M+", prefix=patch.prefix()), System("M'", samples=reference)]
    evidence = evaluate(
        base, systems, suite=suite, limit=limit, samples=samples, max_new_tokens=tokens, priced=False,
        store=options.run, progress=progress,
    )  # fmt: skip
    return {
        "patch": f"{patch.manifest.name} {patch.manifest.version}",
        "best_of": recipe.pairs.samples,
        "rewritten": recipe.pairs.rewrite,
        "judge": recipe.pairs.judge,
        "samples": samples,
        "sets": _rows(evidence),
    }


def _rows(evidence: dict[str, Any]) -> dict[str, Any]:
    """The leading figure of each set that all three answered, and the share of its gap that the patch closes."""
    lead = evidence["results"][0]["metric"]
    rows = {row["set"]: row for row in evidence["results"] if row["metric"] == lead}
    found = {}
    for name, share in evidence["closed"].items():
        row = rows[evidence["sets"][name]["title"]]
        found[name] = {key: row[key] for key in ("name", "unit", "better", "n", "base", "patched", "reference")}
        found[name]["closed"] = share
    return found


def stand_ins(
    recipe: Recipe, base: Base, prompts: Sequence[Prompt], samples: int, run: Path, progress: Progress
) -> dict[str, list[Answer]]:
    """What would be chosen as M', ``samples`` times for each prompt, each time out of other continuations."""
    count = recipe.pairs.samples
    pairs = recipe.pairs.model_copy(update={"samples": count * samples})
    own = ask_base(recipe.model_copy(update={"pairs": pairs}), base, list(prompts), run, progress)
    judge = open_judge(recipe.pairs.judge)
    rounds = [
        own_reference(prompts, [said[n * count : (n + 1) * count] for said in own], judge, recipe.pairs)
        for n in range(samples)
    ]
    return {p.id: [found[p.id] for found in rounds] for p in prompts}


if __name__ == "__main__":
    main()
