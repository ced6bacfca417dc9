"""Which order is best, measured: all of them up to four patches, a sample beyond; and whether order matters at all.

    matrix = search_orders(Bench(base, tasks), make_stack(patches))
    matrix["best"], matrix["noise"], matrix["orders"][0]["figures"]

An order counts by what its worst-off patch keeps of its gain. Whether orders differ by more than chance is asked of all of
them together, by a permutation test for each measure, so that looking at 24 orders does not find a winner among equals.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

from llmpatch.artifact import Patch, release_time
from llmpatch.composing.measures import Column, risks_of
from llmpatch.composing.retention import spread_p
from llmpatch.composing.stack import Stack
from llmpatch.composing.together import Bench
from llmpatch.errors import UsageError
from llmpatch.evals.stats import paired

ALL_UP_TO = 4
SAMPLE = 24
CHANCE = 0.05
LEAST_GAIN = 0.05  # of a patch alone, of whose gain a share is worth telling


def orders_of(count: int, *, seed: int = 0, sample: int = SAMPLE) -> list[tuple[int, ...]]:
    """The orders to look at, as given first: all up to four patches, beyond that ``sample`` different ones.

    A sample begins with the rotations of the given order, so that each patch is at each place at least once.
    """
    if count <= ALL_UP_TO:
        return list(itertools.permutations(range(count)))
    found = [tuple((start + k) % count for k in range(count)) for start in range(count)]
    draw = random.Random(seed)
    while len(found) < min(max(sample, count), math.factorial(count)):
        order = tuple(draw.sample(range(count), count))
        if order not in found:
            found.append(order)
    return found


def search_orders(bench: Bench, stack: Stack, *, seed: int = 0) -> dict[str, Any]:
    """Measure a stack in many orders.

    Args:
        bench: The base, the risks, and where answers are kept.
        stack: The patches, in the order that is kept if none is better.
        seed: Of the sample of orders and of the permutation test.

    Returns:
        Plain JSON: ``patches``; ``orders``, each with ``patches`` (numbers), ``figures`` (as in a composition record) and
        ``worst``, the smallest share of a gain that a patch keeps; ``best`` and ``worst``, numbers of orders; ``spread``
        of each aim: best against worst order, paired, and the ``p`` that all orders are alike; ``noise``; ``says``.

    Raises:
        UsageError: fewer than two patches, or a prompt that does not fit behind them.
    """
    patches = stack.patches
    if len(patches) < 2:
        raise UsageError("one patch has one order", hint="name two or more patches")
    orders = orders_of(len(patches), seed=seed)
    rows: list[dict[str, Any]] = []
    for number, order in enumerate(orders, start=1):
        chosen = [patches[i] for i in order]
        figures = bench.figures(chosen, f"order {number} of {len(orders)}")
        shares = [_score(figure) for figure in figures if figure["aim"]]
        rows.append({"order": list(order), "figures": figures, "worst": round(min(shares), 6),
                     "mean": round(sum(shares) / len(shares), 6)})  # fmt: skip
    best, worst = _ends(rows)
    spread = _spread(bench, patches, orders, best, worst, seed)
    noise = all(entry["p"] >= CHANCE / len(spread) for entry in spread)
    matrix = {
        "schema": "llmpatch/orders/v1",
        "created": release_time(),
        "base": bench.base.name,
        "patches": [
            {"name": p.manifest.name, "version": p.manifest.version, "digest": p.digest} for p in patches
        ],
        "risks": {task.risk: {"suite": task.suite, "limit": task.limit} for task in bench.tasks},
        "all": len(orders) == math.factorial(len(patches)),
        "orders": rows, "best": best, "worst": worst, "spread": spread, "noise": noise,
    }  # fmt: skip
    return {**matrix, "says": in_words(matrix)}


def _ends(rows: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Numbers of the best and the worst order; of equals, the one that was given earlier is better."""
    ranked = sorted(range(len(rows)), key=lambda i: (-rows[i]["worst"], -rows[i]["mean"], i))
    return ranked[0], ranked[-1]


def _score(figure: dict[str, Any]) -> float:
    """The share of its gain that a patch keeps; of one that gains next to nothing alone, one plus the change.

    A gain of one prompt in two hundred would make a share of each prompt that is lost behind another.
    """
    kept = figure.get("kept")
    if kept and float(figure["alone"]) - float(figure["before"]) >= LEAST_GAIN:
        return float(kept["value"])
    return 1 + float(figure["change"]["value"])


def _spread(
    bench: Bench, patches: Sequence[Patch], orders: Sequence[tuple[int, ...]], best: int, worst: int, seed: int
) -> list[dict[str, Any]]:
    """How far orders lie apart, by patch and aim."""
    found = []
    for patch in patches:
        for task in bench.tasks:
            if task.risk not in risks_of(patch):
                continue
            every = [bench.columns([patches[i] for i in order], task, "again") for order in orders]
            for place, column in enumerate(every[0]):
                if column.aim:
                    same: list[Column] = [columns[place] for columns in every]
                    names = list(column.values)
                    lowest, highest = ([one.values[n] for n in names] for one in (same[worst], same[best]))
                    change = paired(lowest, highest, column.near(names)).difference
                    found.append({"patch": patch.digest, "risk": task.risk, "metric": column.metric,
                                  "best_less_worst": change.json(), "p": round(spread_p(same, seed=seed), 6)})  # fmt: skip
    return found


def in_words(matrix: dict[str, Any]) -> str:
    """What the matrix says about order, in one sentence."""
    names = [f"{p['name']} {p['version']}" for p in matrix["patches"]]
    best = matrix["orders"][matrix["best"]]
    order = ", then ".join(names[i] for i in best["order"])
    least = min(entry["p"] for entry in matrix["spread"])
    looked = f"{len(matrix['orders'])} orders{'' if matrix['all'] else ', a sample'}"
    if matrix["noise"]:
        return (
            f"of {looked}, no difference is beyond chance (least p {least:.3g} of {len(matrix['spread'])} measures): "
            f"any order will do; highest was {order}"
        )
    return (
        f"of {looked}, the best is {order}: its worst-off patch keeps {100 * best['worst']:.1f} % of its gain, in the "
        f"worst order {100 * matrix['orders'][matrix['worst']]['worst']:.1f} % (least p {least:.3g})"
    )


def order_table(matrix: dict[str, Any]) -> str:
    """The matrix as a Markdown table: an order a row, a measure a column, with the share of the gain that is kept."""
    names = {p["digest"]: p["name"] for p in matrix["patches"]}
    titles = [p["name"] for p in matrix["patches"]]
    figures = matrix["orders"][0]["figures"]
    keys = [_measure(figure) for figure in figures]
    said = [f"{names[f['patch']]}: {f['metric']}" for f in figures]
    # Two risks of a patch may have a metric's name in common.
    said = [f"{text}, {f['risk']}" if said.count(text) > 1 else text for text, f in zip(said, figures, strict=True)]
    head = ["order", *said, "worst kept"]
    lines = [head, ["---"] * len(head)]
    for number, row in enumerate(matrix["orders"]):
        found = {_measure(figure): figure for figure in row["figures"]}
        mark = " (best)" if number == matrix["best"] and not matrix["noise"] else ""
        cells = [_cell(found[key]) for key in keys]
        lines.append([" → ".join(titles[i] for i in row["order"]) + mark, *cells, f"{100 * row['worst']:.1f} %"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _measure(figure: dict[str, Any]) -> tuple[str, str, str]:
    return figure["patch"], figure["risk"], figure["metric"]


def _cell(figure: dict[str, Any]) -> str:
    text = f"{figure['together']:.3f} (alone {figure['alone']:.3f})"
    if kept := figure.get("kept"):
        text += f"; {100 * kept['value']:.1f} % [{100 * kept['low']:.1f}, {100 * kept['high']:.1f}]"
    return text + (" **lost**" if figure["hurt"] else "")
