"""Several recipes as one: the pairs, the validation and the evidence of several risks for a single prefix.

    parts = parts_of(recipe)                       # the recipe and those that its `joint` lists
    data = join_pairs(base, parts, [own, others])  # an equal share of each batch for each risk

A part keeps its own judge, reference, decoding, suite, and the costs in its validation score; the rest of training, prefix and
name are the first one's. Knows nothing about how pairs are sampled or prefixes trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.errors import RecipeError
from llmpatch.evals.findings import deal
from llmpatch.gate.evidence import COMPOSED
from llmpatch.pairs import Pair, encode
from llmpatch.recipe import Recipe, load_recipe
from llmpatch.training_data import TrainingSet

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.prefix import Rows
    from llmpatch.training import Validate

EXAMPLES = 12  # of each risk, since the evidence of several must fit into one file


def parts_of(recipe: Recipe) -> list[Recipe]:
    """A recipe and those it is joined with, itself first.

    Raises:
        RecipeError: one is of another base, of a risk that is there already, joined itself, or a second one that balances.
        UsageError: no such file.
    """
    parts = [recipe]
    for path in recipe.joint:
        found = load_recipe(Path(path))
        if found.joint:
            raise RecipeError(f"{path} is joined with others itself", hint="list all of them in one recipe")
        if found.base != recipe.base:
            raise RecipeError(
                f"{path} is for the base {found.base.name}, this recipe for {recipe.base.name}",
                hint="join recipes of one base and revision",
            )
        if same := next((part for part in parts if part.risk == found.risk), None):
            raise RecipeError(
                f"{path} is of the risk {found.risk}, as {same.name} is", hint="put their prompts into one recipe"
            )
        parts.append(found)
    for key in ("balance", "avoid"):
        if sum(getattr(part, key) is not None for part in parts) > 1:
            raise RecipeError(f"two joined recipes have {key}", hint="leave one out")
    return parts


def join_pairs(base: Base, parts: Sequence[Recipe], pairs: Sequence[Sequence[Pair]]) -> TrainingSet:
    """The pairs of all parts as token ids behind one head, each example with its part's risk if there are several."""
    if not any(pairs):
        return TrainingSet([], [])
    data = encode(base, [pair for own in pairs for pair in own])
    if len(parts) == 1:
        return data
    risks = [part.risk for part, own in zip(parts, pairs, strict=True) for _ in own]
    return TrainingSet(data.head, [replace(e, risk=risk) for e, risk in zip(data.examples, risks, strict=True)])


def join_validations(parts: Sequence[Recipe], validations: Sequence[Validate]) -> Validate:
    """One score out of several: their mean. Each part's own figures are there under its risk."""
    if len(parts) == 1:
        return validations[0]

    def validate(rows: Rows) -> dict[str, float]:
        found = {part.risk: check(rows) for part, check in zip(parts, validations, strict=True)}
        named = {f"{risk}/{key}": value for risk, figures in found.items() for key, value in figures.items()}
        return {**named, "score": sum(figures["score"] for figures in found.values()) / len(found)}

    return validate


def join_evidence(evidence: Mapping[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The evidence of several risks as one document: each under its risk, and the rows and sentences of all.

    Args:
        evidence: By risk.
        more: Further keys; ``worse`` goes before the sentences of the risks.
    """
    shown = {risk: {**found, "examples": _of_each_set(found["examples"])} for risk, found in evidence.items()}
    return {
        "schema": COMPOSED,
        **more,
        "risks": shown,
        "price": next((found["price"] for found in evidence.values() if found["price"]), {}),
        "results": [row for found in evidence.values() for row in found["results"]],
        "worse": [*more.get("worse", ()), *(line for found in evidence.values() for line in found["worse"])],
    }


def _of_each_set(examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few, of every set in turn: harmless requests that are declined stand in the last ones."""
    sets: dict[str, list[dict[str, Any]]] = {}
    for example in examples:
        sets.setdefault(str(example["set"]), []).append(example)
    return deal(sets, EXAMPLES)
