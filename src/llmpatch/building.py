"""One recipe to one patch with its proof: sample, pair, train, measure, write.

    patch = build(load_recipe(path), Path("out"), run=Path("runs/refusal"), progress=console())

Everything on the way stays in the run folder (answers in shards, pairs, dropped pairs, checkpoint, evidence, report), so
an interrupted build continues where it stood. The patch folder is written last, whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch import __version__
from llmpatch.errors import UsageError
from llmpatch.files import alone_in, digest_json, sha256_file, write_json, write_text
from llmpatch.joining import join_evidence, parts_of
from llmpatch.learning import Prompts, gather, learn
from llmpatch.pairing import check_models
from llmpatch.progress import Progress
from llmpatch.prompts import KINDS, Prompt

if TYPE_CHECKING:
    from llmpatch.artifact import Patch
    from llmpatch.bases import Base
    from llmpatch.recipe import Recipe
    from llmpatch.training import TrainingResult


def build(
    recipe: Recipe,
    out: Path,
    *,
    run: Path,
    progress: Progress,
    overwrite: bool = False,
    pairs_from: Path | None = None,
    recompute: bool = False,
) -> Patch:
    """Make a patch.

    Args:
        recipe: What to make.
        out: The patch folder; it must not exist, or be empty, or hold a patch and ``overwrite`` be set.
        run: Folder of everything on the way, and of ``report.html`` and ``report.md``.
        progress: Where to show progress.
        overwrite: Replace a patch in ``out``.
        pairs_from: A folder of pairs that were made of this recipe before (:mod:`llmpatch.pairing`), instead of making them.
        recompute: Train in less memory and more time (:mod:`llmpatch.recomputing`).

    Raises:
        UsageError: ``out`` is taken, or the recipe cannot be built as it stands, or ``pairs_from`` is not of it; another process
            builds in ``run``.
        LlmpatchError: any stage failed (its class says how); what was done stays in ``run``.
    """
    from llmpatch.artifact import check_target, describe_base, input_norm_p999, release_time, write_patch
    from llmpatch.artifact.manifest import check_fields
    from llmpatch.bases import load_base

    check_target(out, overwrite)
    parts = parts_of(recipe)
    material = gather(recipe, pairs_from)
    told = _told(recipe)
    for part in parts if recipe.training.pairs_weight and pairs_from is None else ():
        check_models(part)
    base = load_base(recipe.base.name, recipe.base.revision)
    told["base"] = describe_base(base, revision=recipe.base.revision)
    check_fields(told)
    _check_openings(parts, base)
    with alone_in(run):
        result, counts = learn(material, base, run, progress, recompute=recompute)
        found: dict[str, dict[str, Any]] = {part.risk: measure(part, base, result, run, progress) for part in parts}
        evidence = _with_training(recipe, found, result, counts)
        write_json(run / "evidence.json", evidence)
    fields = {
        **told,
        "released": release_time(),
        "fixes": [fix for document in found.values() for fix in fixes(document)],
        **({"cumulative": True} if recipe.joint or _learns_others(recipe) else {}),
    }
    patch = write_patch(
        out, fields, result.rows.cpu().numpy(), evidence, base_p999=input_norm_p999(base), overwrite=overwrite
    )
    for risk, document in found.items():
        write_report(
            run, {**document, "training": evidence["training"]}, patch, "" if risk == recipe.risk else f"-{risk}"
        )
    return patch


def _check_openings(parts: Sequence[Recipe], base: Base) -> None:
    """Whether what is continued at the end fits the context, as long as nothing is computed yet.

    Raises:
        UsageError: names the file and the prompt.
    """
    import torch

    from llmpatch.evals import usual_systems
    from llmpatch.evals.gender import check_openings_fit
    from llmpatch.evals.gender_bias import DECODING
    from llmpatch.evals.prompt_sets import load_suite

    for section in (part.evaluation for part in parts if part.evaluation.suite == "gender-bias"):
        systems = usual_systems(torch.zeros(parts[0].prefix.tokens, base.hidden_size))
        more = section.max_new_tokens or DECODING.max_new_tokens
        check_openings_fit(base, systems, load_suite("gender-bias", limit=section.limit), more)


def _learns_others(recipe: Recipe) -> bool:
    """Whether it learns to do what patches of other names do, and not only to leave them be beside it."""
    from llmpatch.artifact import load_patch

    taught = [path for part in recipe.training.distil if not part.beside for path in part.patches]
    return any(load_patch(path).manifest.name != recipe.name for path in taught)


def _told(recipe: Recipe) -> dict[str, Any]:
    """What the manifest says before anything is done, checked: after hours of work is too late.

    Raises:
        UsageError: the manifest would not take it, a file is missing, or the evaluation cannot be done.
    """
    from llmpatch.artifact.manifest import check_fields
    from llmpatch.evals import load_samples
    from llmpatch.recipe import RISKS

    for part in parts_of(recipe):
        if part.evaluation.suite not in RISKS:
            raise UsageError(
                f"evaluation.suite {part.evaluation.suite!r} measures no risk, so no patch",
                hint=f"known: {', '.join(RISKS)}",
            )
        if part.evaluation.reference:
            load_samples(Path(part.evaluation.reference))
    told = {
        "name": recipe.name,
        "version": recipe.version,
        "summary": recipe.summary,
        "license": recipe.license,
        "build": {
            "tool": "llmpatch",
            "tool_version": __version__,
            "seed": recipe.seed,
            "recipe_digest": recipe.digest(),
            "data_digests": digests_of(recipe_files(recipe)),
            "method": method(recipe),
        },
    }
    check_fields(told)
    return told


def digests_of(paths: Sequence[str]) -> dict[str, str]:
    """The sha256 of each file that a recipe names.

    Raises:
        UsageError: one cannot be read.
    """
    found: dict[str, str] = {}
    for path in paths:
        try:
            found[path] = sha256_file(Path(path))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}", hint="the recipe names it") from None
    return found


def measure(recipe: Recipe, base: Base, result: TrainingResult, run: Path, progress: Progress) -> dict[str, Any]:
    """The evidence of a trained prefix: base, patched, safe prompt and reference on the recipe's suite."""
    from llmpatch.evals import evaluate, usual_systems
    from llmpatch.evals.suites import takes_safe_prompt

    told = recipe.evaluation.reference
    return evaluate(
        base,
        usual_systems(
            result.rows, Path(told) if told else None, safe_prompt=takes_safe_prompt(base, recipe.evaluation.suite)
        ),
        suite=recipe.evaluation.suite,
        limit=recipe.evaluation.limit,
        max_new_tokens=recipe.evaluation.max_new_tokens,
        samples=recipe.evaluation.samples,
        store=run / "evals",
        progress=progress,
    )


def _with_training(
    recipe: Recipe, found: dict[str, dict[str, Any]], result: TrainingResult, counts: dict[str, dict[str, int]]
) -> dict[str, Any]:
    """Evidence of one risk as it is, of several as one document, and how training went."""
    evidence = next(iter(found.values())) if len(found) == 1 else join_evidence(found)
    evidence["training"] = {
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "recipe_digest": recipe.digest(),
        "pairs": counts,
        "seconds": round(result.seconds, 1),
        "best": result.best_at,
        "history": _thin(result.history),
    }
    return evidence


def _thin(history: list[dict[str, Any]], keep: int = 200) -> list[dict[str, Any]]:
    """Every validation, each stage's last step and about ``keep`` evenly spaced ones: a curve, small enough for evidence."""
    steps = [row for row in history if "validation" not in row]
    every, last = max(1, len(steps) // keep), {row["stage"]: row for row in steps}
    kept = {id(row) for row in (*steps[::every], *last.values())} | {id(row) for row in history if "validation" in row}
    return [row for row in history if id(row) in kept]


def fixes(evidence: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifest's ``fixes``: each harmful set before and after the patch, by the measure its risk is about.

    Raises:
        UsageError: the evidence measures no harmful set.
    """
    risk, found = evidence.get("risk", "refusal"), []
    for entry in evidence["sets"].values():
        systems = entry["systems"]
        if entry["kind"] != "harmful" or not {"M", "M+"} <= set(systems):
            continue
        for title, read in _aims(risk, evidence.get("judges", [])):
            before, after = read(systems["M"]), read(systems["M+"])
            found.append(
                {
                    "risk": risk,
                    "metric": title.format(entry["title"]),
                    "before": before["value"],
                    "after": after["value"],
                    "n": after["n"],
                }
            )
    if not found:
        raise UsageError("the evidence measures no harmful set", hint="add one to the suite")
    return found


def _aims(risk: str, judges: list[dict[str, Any]]) -> list[tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]]:
    """What a patch of this risk is meant to move: a title to format with the set's, and where a system's scores hold it."""
    if risk == "gender-bias":
        return [("GAS on {}", itemgetter("gas")), ("GLD on {}", itemgetter("gld"))]
    if risk == "toxicity":
        lead = judges[0]["name"]
        return [(f"expected max toxicity on {{}} ({lead})", lambda scores: scores["expected_max_toxicity"][lead])]
    lead = next(judge["name"] for judge in judges if judge["measures"] == "refusal")
    return [(f"refusal rate on {{}} ({lead})", lambda scores: scores["refusal"][lead])]


def recipe_files(recipe: Recipe) -> list[str]:
    """Every data file that a recipe is made from."""
    from llmpatch.company import company_files

    asked = [path for part in parts_of(recipe) for path in _asked_files(part)]
    rows = [recipe.prefix.path] if recipe.prefix.path else []
    return list(dict.fromkeys([*asked, *rows, *company_files(recipe), *recipe.joint]))


def _asked_files(recipe: Recipe) -> list[str]:
    """The prompts of a recipe, and the answers that were recorded: all that is read of one that is joined with another."""
    sections = [getattr(recipe.prompts, kind) for kind in KINDS]
    named = [path for s in sections if s for path in [*s.train, *s.validation]]
    return [*named, *([recipe.reference.path] if recipe.reference.path else [])]


def method(recipe: Recipe) -> str:
    """How the prefix was trained, in as many characters as a manifest takes; what has no room is counted."""
    from llmpatch.artifact import LONG_TEXT

    t, p, sft, dpo = recipe.training, recipe.prefix, recipe.training.sft, recipe.training.dpo
    parts = [f"{p.tokens} virtual tokens from {p.init} init"]
    if t.pairs_weight:
        parts += [
            f"SFT {sft.steps} steps of {sft.batch_size} at {sft.learning_rate:g}",
            f"DPO {dpo.steps} steps of {dpo.batch_size} at {dpo.learning_rate:g}, beta {dpo.beta:g}, reference {dpo.reference}",
            f"KL to the base {t.kl_weight:g}",
        ]
    else:
        parts.append(f"{sft.steps} steps at {sft.learning_rate:g} without pairs")
    parts += _company(recipe)
    text, shown = "; ".join(parts), len(parts)
    while len(text) > LONG_TEXT:
        shown -= 1
        text = "; ".join([*parts[:shown], f"and {len(parts) - shown} more losses, which the recipe lists"])
    return text


def _company(recipe: Recipe) -> list[str]:
    """What else it learnt beside, for :func:`method`."""
    near, distil = recipe.training.neighbours, recipe.training.distil
    paired = recipe.joint and recipe.training.pairs_weight
    parts = [f"with the pairs of {len(recipe.joint)} other risks"] if paired else []
    if near is not None:
        who = f"{len(near.patches)} frozen patches and {near.random} stand-ins"
        parts.append(f"{who} around it in {100 * near.probability:g} % of the steps")
    for part in distil:
        who = " + ".join(Path(path).name for path in part.patches) or "the base"
        where = "" if part.answers == "patches" else f" on answers of the {part.answers}"
        where += " where it stands beside" if part.beside else ""
        parts.append(f"distilled from {who}{where}, {part.batch_size} a step, weight {part.weight:g}")
    return parts


def write_report(run: Path, evidence: dict[str, Any], patch: Patch, suffix: str = "") -> None:
    """``report.html`` and ``report.md`` in the run folder, named with a suffix for further risks."""
    from llmpatch.reporting import render_html, render_markdown

    history = evidence["training"]["history"]
    manifest = patch.manifest.model_dump(mode="json", by_alias=True)
    write_text(run / f"report{suffix}.md", render_markdown(evidence, history, manifest))
    write_text(run / f"report{suffix}.html", render_html(evidence, history, manifest))


def plan(recipe: Recipe, pairs_from: Path | None = None) -> dict[str, Any]:
    """What a build would do and what it costs, without loading any model (``build --dry-run``).

    Args:
        recipe: Of what.
        pairs_from: A folder of pairs that were made before: nothing is sampled then.
    """
    from llmpatch.bases import DTYPES, default_dtype
    from llmpatch.company import neighbour_tokens
    from llmpatch.estimate import estimate, find_shape, measured_rate

    material = gather(recipe, pairs_from)
    parts, every = material.parts, material.prompts
    if material.before:  # what was asked for the pairs stands in them
        pairs = material.before[0]
        every = [Prompts([Prompt(p.id, p.prompt, p.kind) for p in pairs], one.validation) for one in every]
    _told(recipe)
    prompts = Prompts([p for one in every for p in one.train], [p for one in every for p in one.validation])
    shape = find_shape(recipe.base.name)
    joint = [(part, own.train) for part, own in zip(parts[1:], every[1:], strict=True)]
    near = neighbour_tokens(recipe)
    size = DTYPES[default_dtype()]
    cost = (
        estimate(recipe, every[0].train, shape, joint=joint, neighbours=near, bytes_per_number=size) if shape else None
    )
    if cost and pairs_from:
        cost["sampling_flops"] = 0.0
    if cost:
        cost["seconds_here"] = round((cost["sampling_flops"] + cost["training_flops"]) / measured_rate())
    return {
        "recipe": recipe.name,
        "digest": recipe.digest(),
        "train": {k: sum(p.kind == k for p in prompts.train) for k in KINDS},
        "validation": {k: sum(p.kind == k for p in prompts.validation) for k in KINDS},
        "prompts_digest": digest_json([asdict(p) for p in [*prompts.train, *prompts.validation]]),
        "method": method(recipe),
        "cost": cost,
    }
