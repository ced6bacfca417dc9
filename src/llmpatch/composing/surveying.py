"""How well a set of patches stacks: every subset of two and three in every order, and what that costs.

    survey = survey_set(bench, patches)
    survey["sizes"]["2"][0]      # a patch's measure: kept in its worst order, spread between orders, p that they are alike
    print(survey_table(survey))

The figures of docs/composition.md; ``benchmarks/composition.py`` writes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from llmpatch.artifact import Patch
from llmpatch.composing.measures import Task, risks_of
from llmpatch.composing.retention import make_figures, spread_p
from llmpatch.composing.together import Bench
from llmpatch.errors import UsageError
from llmpatch.evals.stats import paired


def survey_set(bench: Bench, patches: Sequence[Patch], *, sizes: Sequence[int] = (2, 3)) -> dict[str, Any]:
    """Measure every ordered subset of the given sizes.

    Args:
        bench: The base, the risks, and where answers are kept.
        patches: The single patches.
        sizes: How many together; sizes above the number of patches are left out.

    Returns:
        Plain JSON: ``patches``, and ``sizes``: for each size a row per patch and aim with ``n``, ``before``, ``alone``, the
        figures in its ``worst`` order and which that is, the ``spread`` (best less worst order of that subset, paired) and
        the ``p`` that the orders of that subset are alike.

    Raises:
        UsageError: fewer than two patches.
    """
    if len(patches) < 2:
        raise UsageError("one patch stacks with nothing", hint="name two or more")
    names = {patch.digest: f"{patch.manifest.name} {patch.manifest.version}" for patch in patches}
    found: dict[str, Any] = {}
    for size in (size for size in sizes if size <= len(patches)):
        rows: list[dict[str, Any]] = []
        for patch in patches:
            for task in bench.tasks:
                if task.risk in risks_of(patch):
                    rows += _worst(bench, patches, patch, task, size, names)
        found[str(size)] = rows
    return {"patches": [{"name": names[p.digest], "digest": p.digest} for p in patches], "sizes": found}


def _worst(
    bench: Bench, patches: Sequence[Patch], patch: Patch, task: Task, size: int, names: dict[str, str]
) -> list[dict[str, Any]]:
    """Each aim of a patch in the worst of all stacks of a size that it is in."""
    before, alone = bench.columns([], task, "M"), bench.columns([patch], task, names[patch.digest])
    worst: dict[str, dict[str, Any]] = {}
    for others in itertools.combinations([p for p in patches if p is not patch], size - 1):
        orders = [list(order) for order in itertools.permutations([patch, *others])]
        every = [bench.columns(order, task, f"{size} together") for order in orders]
        for place, column in enumerate(before):
            if not column.aim:
                continue
            same = [columns[place] for columns in every]
            figures = [make_figures(patch.digest, [column], [alone[place]], [one])[0] for one in same]
            low = min(range(len(orders)), key=lambda i: figures[i]["together"])
            high = max(range(len(orders)), key=lambda i: figures[i]["together"])
            ids = list(column.values)
            lowest, highest = ([one.values[i] for i in ids] for one in (same[low], same[high]))
            change = paired(lowest, highest, column.near(ids)).difference
            row = {
                **figures[low], "name": names[patch.digest], "n": len(ids),
                "order": [names[p.digest] for p in orders[low]], "spread": change.json(),
                "p": round(spread_p(same), 6),
            }  # fmt: skip
            old = worst.get(column.metric)
            if old is None or row["together"] < old["together"]:
                worst[column.metric] = row
    return list(worst.values())


def survey_one(
    bench: Bench, singles: Sequence[Patch], one: Sequence[Patch], against: Sequence[Patch] = ()
) -> list[dict[str, Any]]:
    """What each single patch's gain comes to behind something else: a cumulative patch, or a stack with a further one.

    Args:
        bench: The base and the risks of the single patches.
        singles: The patches whose gains are asked for.
        one: What stands before the base instead, in order.
        against: What that is compared with, in order; without any each patch by itself.
    """
    found = []
    for patch in singles:
        for task in bench.tasks:
            if task.risk in risks_of(patch):
                figures = make_figures(
                    patch.digest, bench.columns([], task, "M"), bench.columns(against or [patch], task, patch.manifest.name),
                    bench.columns(one, task, "instead"),
                )  # fmt: skip
                name = f"{patch.manifest.name} {patch.manifest.version}"
                found += [{**f, "name": name, "n": f["change"]["n"]} for f in figures]
    return found


def survey_table(survey: dict[str, Any], *, parallel: bool = False) -> str:
    """A survey's sizes as a Markdown table: a row per size, patch and aim; side by side there is no order to speak of."""
    head = [
        "together",
        "patch",
        "measure",
        "n",
        "base",
        "alone",
        "worst order",
        "gain kept",
        "best less worst order",
        "p",
    ]
    lines = [head, ["---"] * len(head)]
    for size, rows in survey["sizes"].items():
        for row in rows:
            spread = row["spread"]
            lines.append([
                size, row["name"], row["metric"], str(row["n"]), f"{row['before']:.3f}", f"{row['alone']:.3f}",
                f"{row['together']:.3f}", _kept(row),
                f"{spread['value']:+.3f} [{spread['low']:+.3f}, {spread['high']:+.3f}]", f"{row['p']:.3g}",
            ])  # fmt: skip
    if parallel:
        lines = [line[:-2] for line in lines]
        lines[0][6] = "worst company"
    return _markdown(lines)


def figures_table(figures: Sequence[dict[str, Any]]) -> str:
    """Figures of :func:`survey_one` as a Markdown table."""
    return _figures(figures, ("alone", "now", "gain kept"), _kept)


def added_table(added: dict[str, Any], *, parallel: bool = False) -> str:
    """What a stack lost to a further patch behind it, or beside it, and what that patch does there, as Markdown."""
    table = _figures(added["figures"], ("without it", "with it", "change, points"), _points)
    where = "beside" if parallel else "behind"
    return f"`{added['name']}` {where} all of them:\n\n{table}\n\nIts own gain:\n\n{figures_table(added['own'])}"


def _figures(
    figures: Sequence[dict[str, Any]], titles: tuple[str, str, str], last: Callable[[dict[str, Any]], str]
) -> str:
    lines = [["patch", "measure", "n", "base", *titles], ["---"] * 7]
    for row in figures:
        numbers = [f"{row[key]:.3f}" for key in ("before", "alone", "together")]
        lines.append([row["name"], row["metric"], str(row["n"]), *numbers, last(row)])
    return _markdown(lines)


def _points(row: dict[str, Any]) -> str:
    value, low, high = (f"{100 * row['change'][key]:+.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _kept(row: dict[str, Any]) -> str:
    kept = row.get("kept")
    return f"{100 * kept['value']:.1f} % [{100 * kept['low']:.1f}, {100 * kept['high']:.1f}]" if kept else "–"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
