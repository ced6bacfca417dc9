"""Baselines side by side in one run: what each costs to make, what it gains, what it costs to have.

    python benchmarks/baselines.py recipes/smollm2-refusal.yaml --patch patches/smollm2/refusal
    python benchmarks/baselines.py recipes/smollm2-refusal.yaml --only "LoRA r16" --limit 20     # a part of it

All of them get the recipe's own pairs and its optimiser budget: the same steps, rows per step, answer lengths and schedule.
What is not a prefix of rows is trained by AdamW, whatever the recipe's optimiser.

    M', safe prompt        as recorded; the suite's written instruction
    M+                     the patch: read from --patch, if this recipe built it, or trained here as `llmpatch build` would
    cross-entropy only     the same virtual tokens, all steps of both stages by cross-entropy on the chosen answers
    LoRA r1, LoRA r16      all seven projections, TRL's SFT and DPO; each also merged into the weights
    prefix-tuning          keys and values in every layer, from the patch's own start, TRL's SFT and DPO
    steering               one vector behind one layer: mean difference of chosen and rejected, chosen on validation

Validation keeps the best of each, as it does for the patch. Recipes of which the baselines would not get everything are refused:
joint ones, and those with neighbours, distil, balance, avoid, ``prefix.init: rows`` or ``keep: last``.
Everything stays in --run under the digest of what it depends on, so a killed run goes on where it was. Writes --out;
scripts/make_results.py shows it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llmpatch import baselines as peers
from llmpatch.artifact import load_patch
from llmpatch.bases import Base, load_base
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.evals import SAFE_PROMPT, System, evaluate, load_samples
from llmpatch.evals.environment import environment
from llmpatch.evals.side_by_side import side_by_side
from llmpatch.files import digest_json, read_bytes, write_json
from llmpatch.learning import read_prompts, start_rows, train_prefix
from llmpatch.pairing import open_models, sample_pairs
from llmpatch.pairs import Pair, encode
from llmpatch.progress import Progress, console
from llmpatch.prompts import Prompt
from llmpatch.recipe import Recipe, load_recipe, override
from llmpatch.training_data import TrainingSet
from llmpatch.validation import make_validate, validated_by

MAX_KEPT_BYTES = 1 << 24


@dataclass
class Run:
    """What all baselines share."""

    recipe: Recipe
    base: Base
    pairs: list[Pair]
    data: TrainingSet
    validation: list[Prompt]
    folder: Path
    options: argparse.Namespace
    progress: Progress

    def score(self, tuned: Base) -> float:
        """Of a tuned model, on the patch's validation prompts by the patch's own rule."""
        return make_validate(self.recipe, tuned, self.validation)(None)["score"]  # type: ignore[arg-type]


Made = tuple[System, dict[str, Any]]


def own_patch(run: Run) -> Made:
    rows, seconds, kept = None, None, {}
    if run.options.patch:
        patch = load_patch(run.options.patch)
        patch.check_base(run.base)
        if patch.manifest.build is None or patch.manifest.build.recipe_digest != run.recipe.digest():
            raise UsageError(
                f"{run.options.patch} was not built by this recipe as it stands here",
                hint="give the recipe of that patch without --set, or leave --patch out to train one",
            )
        rows = torch.tensor(patch.embeddings)  # how long it took is of another machine
    else:
        result = train_prefix(run.recipe, run.base, run.pairs, run.validation, run.folder, run.progress)
        rows, seconds, kept = result.rows, round(result.seconds, 1), {"best_at": result.best_at}
    return System("M+", prefix=rows), _of_rows(run, run.recipe, rows, seconds) | kept


def cross_entropy(run: Run) -> Made:
    t = run.recipe.training
    changes = [f"training.sft.steps={t.sft.steps + t.dpo.steps}", "training.dpo.steps=0", "training.kl_weight=0"]
    recipe = override(run.recipe, [*changes, "training.benign_nll_weight=1"])
    folder = run.folder / "baselines" / f"cross-entropy-{recipe.digest()[:16]}"
    result = train_prefix(recipe, run.base, run.pairs, run.validation, folder, run.progress)
    about = _of_rows(run, recipe, result.rows, round(result.seconds, 1))
    return System("cross-entropy only", prefix=result.rows), about | {"best_at": result.best_at}


def _of_rows(run: Run, recipe: Recipe, rows: torch.Tensor, seconds: float | None) -> dict[str, Any]:
    """Parameters, bytes and cost of virtual tokens; the count of FLOPs is kept, for it takes as long as many steps."""
    told = [recipe.training.model_dump(mode="json"), recipe.seed, list(rows.shape), asdict(run.base.fingerprint)]
    identity = digest_json([run.data.digest(), *told])
    path = run.folder / "baselines" / f"flops-{identity[:16]}.json"
    if not path.exists():
        flops = peers.patch_flops(run.base, run.data, start_rows(recipe, run.base), recipe.training, seed=recipe.seed)
        write_json(path, {"flops": flops})
    steps = [recipe.training.sft.steps, recipe.training.dpo.steps]
    counted = _read(path)["flops"]
    cost = {"parameters": rows.numel(), "steps": steps, "seconds": seconds, "flops": counted, "counted": 3}
    return {"parameters": rows.numel(), "bytes": 4 * rows.numel(), "training": cost}


def lora(rank: int, *, merged: bool) -> Callable[[Run], Made]:
    def make(run: Run) -> Made:
        name = f"LoRA r{rank} merged" if merged else f"LoRA r{rank}"
        peer = _peer(run, f"lora-{rank}", peers.Lora(rank, run.options.lora_rate))
        about = _of_peer(peer)
        if not merged:
            return System(name, base=peer.base), about
        tuned = peers.merge(run.base, peer, name=f"{peer.base.name} merged")
        before = run.base.model.state_dict()
        changed = [w for key, w in tuned.model.state_dict().items() if not torch.equal(w, before[key])]
        return System(name, base=tuned), about | {"bytes": sum(w.numel() * w.element_size() for w in changed)}

    return make


def prefix_tuning(run: Run) -> Made:
    start = start_rows(run.recipe, run.base)
    peer = _peer(run, "prefix-tuning", peers.PrefixTuning(start, run.options.prefix_rate))
    return System("prefix-tuning", base=peer.base), _of_peer(peer)


def _peer(run: Run, name: str, method: peers.Lora | peers.PrefixTuning) -> peers.Peer:
    folder, training = run.folder / "baselines" / name, run.recipe.training
    return peers.train_peer(
        run.base,
        run.data,
        method,
        training,
        seed=run.recipe.seed,
        folder=folder,
        score=run.score,
        scored_by=validated_by(run.recipe, run.validation),
        progress=run.progress,
    )


def _of_peer(peer: peers.Peer) -> dict[str, Any]:
    cost = peer.cost
    found = {"parameters": cost.parameters, "bytes": 4 * cost.parameters, "training": cost.json()}
    return found | {"best_at": peer.best_at}


def steering(run: Run) -> Made:
    cut, folder = run.recipe.training.sft.answer_tokens, run.folder / "baselines"
    settings = [
        run.data.digest(),
        cut,
        validated_by(run.recipe, run.validation),
        asdict(run.base.fingerprint),
        peers.steering.DEPTHS,
        peers.steering.STRENGTHS,
    ]
    path = folder / f"steering-{digest_json(settings)[:16]}.json"
    if not path.exists():
        started = time.perf_counter()
        differences = peers.mean_differences(run.base, run.data, answer_tokens=cut)
        found = peers.find_direction(run.base, differences, score=run.score, progress=run.progress)
        seconds = round(time.perf_counter() - started, 1)
        # Once more, since counting takes time of its own.
        flops = peers.flops_of(lambda: peers.mean_differences(run.base, run.data, answer_tokens=cut))
        cost = {"parameters": found.vector.numel(), "steps": [0, 0], "seconds": seconds, "flops": flops, "counted": 0}
        about = {"layer": found.layer, "strength": found.strength, "tried": list(found.tried), "training": cost}
        write_json(path, {"vector": found.vector.tolist(), "about": about})
    kept = _read(path)
    tuned = peers.steer(run.base, torch.tensor(kept["vector"]), kept["about"]["layer"])
    size = len(kept["vector"])
    return System("steering", base=tuned), {"parameters": size, "bytes": 4 * size, **kept["about"]}


def _read(path: Path) -> Any:
    return json.loads(read_bytes(path, limit=MAX_KEPT_BYTES))


def safe_prompt(run: Run) -> Made:  # noqa: ARG001
    return System("safe prompt", system_message=SAFE_PROMPT), {"parameters": 0, "bytes": len(SAFE_PROMPT.encode())}


def reference(run: Run) -> Made:
    told = run.recipe.evaluation.reference
    if told is None:
        raise UsageError("the recipe names no evaluation.reference", hint="set it, or leave M' out by --only")
    samples = load_samples(Path(told))
    return System("M'", samples=samples), {}


MAKERS: dict[str, Callable[[Run], Made]] = {
    "safe prompt": safe_prompt,
    "M'": reference,
    "M+": own_patch,
    "cross-entropy only": cross_entropy,
    "LoRA r1": lora(1, merged=False),
    "LoRA r1 merged": lora(1, merged=True),
    "LoRA r16": lora(16, merged=False),
    "LoRA r16 merged": lora(16, merged=True),
    "prefix-tuning": prefix_tuning,
    "steering": steering,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--run", type=Path, help="by default runs/NAME-OF-THE-RECIPE, as `llmpatch build` has it")
    parser.add_argument("--patch", type=Path, help="the patch of this recipe; without it one is trained")
    parser.add_argument("--only", action="append", choices=list(MAKERS), metavar="NAME", help=", ".join(MAKERS))
    parser.add_argument("--limit", type=int, help="only the first N prompts of each test set")
    parser.add_argument(
        "--lora-rate", type=float, default=5e-4, help="learning rate of SFT; DPO's keeps the recipe's ratio"
    )
    parser.add_argument("--prefix-rate", type=float, default=3e-3)
    parser.add_argument(
        "--keep", action="store_true", help="the other rows of --out stay, if they are of the same measure"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/baselines.json"))
    options = parser.parse_args()
    try:
        write_json(options.out, compare(options))
    except LlmpatchError as error:
        parser.exit(error.exit_code, f"error: {error}\n  hint: {error.hint}\n")


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Make what was asked for, measure it together, and return the table."""
    recipe = override(load_recipe(options.recipe), options.assignments)
    t = recipe.training
    more = recipe.joint or t.neighbours or t.distil or recipe.balance or recipe.avoid
    if more or t.keep == "last" or recipe.prefix.init == "rows":
        raise UsageError(
            f"{recipe.name} learns from more than its pairs, goes on from rows that were trained, or keeps its last prefix, "
            "as no baseline here does",
            hint="leave joint, neighbours, distil, balance and avoid out, and set prefix.init=text and training.keep=best",
        )
    folder = options.run or Path("runs") / recipe.name.replace("/", "-")
    base, prompts, progress = load_base(recipe.base.name, recipe.base.revision), read_prompts(recipe), console()
    pairs, _ = sample_pairs(recipe, open_models(recipe, base), prompts.train, folder, progress)
    run = Run(recipe, base, pairs, encode(base, pairs), prompts.validation, folder, options, progress)
    names = options.only or [name for name in MAKERS if name != "M'" or recipe.evaluation.reference]
    made = {name: MAKERS[name](run) for name in names}
    section = recipe.evaluation
    evidence = evaluate(
        base, [System("M"), *(replace(system, name=name) for name, (system, _) in made.items())], suite=section.suite,
        limit=options.limit or section.limit, max_new_tokens=section.max_new_tokens, samples=section.samples,
        store=folder / "evals", progress=progress,
    )  # fmt: skip
    found = side_by_side(evidence).json()
    for name, row in found["rows"].items():
        found["rows"][name] = {"about": made[name][1] if name in made else {}, "figures": row}
        print(name, {key: round(value["value"], 3) for key, value in row.items()})
    about = {"recipe": recipe.name, "recipe_digest": recipe.digest(), "base": recipe.base.name}
    sets = {name: {"title": s["title"], "n": s["n"]} for name, s in evidence["sets"].items()}
    measured = {
        **about,
        "pairs": len(pairs),
        "sets": sets,
        "decoding": evidence["decoding"],
        "environment": environment(),
    }
    return measured | found | ({"rows": beside(options.out, measured, found)} if options.keep else {})


def beside(path: Path, measured: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The rows of a table that is there, with those that were measured now in their place.

    Raises:
        UsageError: there is none, or it is of something else.
    """
    kept = _read(path)
    for key, value in {**measured, "columns": found["columns"], "judge": found["judge"]}.items():
        if kept.get(key) != json.loads(json.dumps(value)):
            raise UsageError(
                f"{path} has another {key}, so its rows are not of one measure with these", hint="leave --keep out"
            )
    rows = kept["rows"] | found["rows"]
    return {name: rows[name] for name in ("M", *MAKERS) if name in rows}


if __name__ == "__main__":
    main()
