"""How much of what a patch does alone is left in a stack, with intervals, and when that is a loss.

    figures = make_figures("refusal's digest", before, alone, together)
    figures[0]["kept"], figures[0]["hurt"]

Numbers only: three columns of the same prompts. A loss is one that neither chance nor the tolerance explains: the whole
interval of the share kept lies below ``KEPT``; for what a patch should leave alone, the whole interval of the change lies
below ``-COST``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llmpatch.composing.measures import Column
from llmpatch.errors import UsageError
from llmpatch.evals.stats import Floats, by_cluster, paired, share_closed

KEPT = 0.95
COST = 0.01
PERMUTATIONS = 2000
_BLOCK = 1 << 22


def make_figures(
    patch: str, before: Sequence[Column], alone: Sequence[Column], together: Sequence[Column]
) -> list[dict[str, Any]]:
    """What happened to each measure of a patch, as fields of :class:`llmpatch.artifact.composition.Figure`.

    Args:
        patch: Its digest.
        before: Of the base.
        alone: Behind this patch.
        together: Behind all of them.

    Raises:
        UsageError: the columns are not of the same measures and prompts.
    """
    found = []
    for first, second, third in zip(before, alone, together, strict=True):
        rows = _aligned(first, second, third)
        near = first.near(list(first.values))
        share = share_closed(rows[0], rows[2], rows[1], clusters=near) if first.aim else None
        change = paired(rows[1], rows[2], near).difference
        lost = change.high < 0 if share is None or share.high < KEPT else False
        figure: dict[str, Any] = {
            "patch": patch, "risk": first.risk, "metric": first.metric, "aim": first.aim,
            "before": _mean(rows[0]), "alone": _mean(rows[1]), "together": _mean(rows[2]), "change": change.json(),
            "hurt": bool(lost if first.aim else change.high < -COST),
        }  # fmt: skip
        found.append(figure | ({"kept": share.json()} if share is not None else {}))
    return found


def _aligned(*columns: Column) -> list[list[float]]:
    """The values of columns on the same prompts, in one order."""
    names = list(columns[0].values)
    for column in columns[1:]:
        if (column.risk, column.metric) != (columns[0].risk, columns[0].metric) or set(column.values) != set(names):
            raise UsageError(
                f"{column.risk}: {column.metric} was not measured on the prompts of {columns[0].risk}: "
                f"{columns[0].metric}",
                hint="measure all systems on the same prompts",
            )
    return [[column.values[name] for name in names] for column in columns]


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 6)


def spread_p(columns: Sequence[Column], *, seed: int = 0) -> float:
    """How often orders that make no difference would differ by as much as these: a permutation test.

    Under the null each prompt's values can be exchanged between the orders, those of one cluster together, so they are shuffled
    within each cluster; the statistic is the variance of the orders' sums.

    Args:
        columns: The same measure behind each order, at least two.
        seed: Of the shuffling.

    Returns:
        The share of shuffles with at least the variance found, counted with the real one: never 0.
    """
    rows = [np.asarray(row, dtype=np.float64) for row in _aligned(*columns)]
    near = columns[0].near(list(columns[0].values))
    values: Floats = np.stack(by_cluster(near, *rows), -1)  # [clusters, orders]
    found = values.mean(0).var()
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // values.size)
    hits = 0
    for start in range(0, PERMUTATIONS, block):
        count = min(block, PERMUTATIONS - start)
        many = np.broadcast_to(values, (count, *values.shape))
        shuffled = generator.permuted(many, axis=-1)
        hits += int((shuffled.mean(1).var(-1) >= found - 1e-15).sum())
    return (hits + 1) / (PERMUTATIONS + 1)
