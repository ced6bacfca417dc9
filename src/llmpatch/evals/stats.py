"""Rates and differences with 95 % intervals: percentile bootstrap, of yes and no never narrower than Wilson's; McNemar.

    rate([True, True, False])                  # Interval(n=3, value=0.667, low=0.0, high=1.0)
    paired([False, False], [True, False])      # how much it changed, prompt by prompt, and the exact p

Values that belong together, say those of one wording with five names, are no independent observations: ``clusters`` names
whom each value belongs to. Clusters are resampled whole, and an interval is never narrower than without them (ADR 0032). Few
events resample too narrowly: one yes of n must not look surer than none (ADR 0033). Every function is deterministic:
resampling is seeded. Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmpatch.errors import UsageError

RESAMPLES = 10_000
Z95 = 1.959963984540054
FEW = 10  # clusters with an event, or without one; below, clusters are what is counted
_BLOCK = 1 << 22  # resampled indices at a time, so that memory stays flat whatever n is

Floats = npt.NDArray[np.float64]
Clusters = Sequence[str] | None


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval.

    Attributes:
        n: Observations behind it.
        value: The estimate.
        low: Lower end.
        high: Upper end.
    """

    n: int
    value: float
    low: float
    high: float

    def json(self) -> dict[str, Any]:
        """As a JSON object, rounded to six places."""
        return {key: round(number, 6) for key, number in asdict(self).items()}


@dataclass(frozen=True)
class Paired:
    """How a rate changed on the same prompts.

    Attributes:
        difference: Mean of after - before, with a paired bootstrap interval.
        gained: Prompts that went from no to yes.
        lost: Prompts that went from yes to no.
        p: Two-sided exact McNemar p of ``gained`` against ``lost``; with clusters, of clusters that gained more against those
            that lost more.
    """

    difference: Interval
    gained: int
    lost: int
    p: float

    def json(self) -> dict[str, Any]:
        """As a flat JSON object."""
        return {**self.difference.json(), "gained": self.gained, "lost": self.lost, "p": self.p}


def rate(hits: Sequence[bool | float], clusters: Clusters = None, *, seed: int = 0) -> Interval:
    """The mean of values in [0, 1] with its interval; where all are 0 or 1, or few are anything else, no narrower than Wilson's.

    Args:
        hits: One value per prompt.
        clusters: One per value; ``None`` for values that have nothing to do with each other.
        seed: Of the resampling.

    Raises:
        UsageError: no values, one outside [0, 1], or not as many clusters as values.
    """
    values = _values(hits)
    if values.min() < 0 or values.max() > 1:
        raise UsageError("a rate needs values between 0 and 1", hint="give hits as True or False")
    found = mean(hits, clusters, seed=seed)
    yes, no = (part > 0 for part in by_cluster(clusters, values, 1 - values))
    events = min(int(yes.sum()), int(no.sum()))
    if not _is_binary(values) and events >= FEW:
        return found
    # Few events of shares, too: a value between 0 and 1 varies no more than one that is 0 or 1.
    n = _counted(events, values, clusters)
    low, high = wilson(found.value * n, n)
    return replace(found, low=min(found.low, low), high=max(found.high, high))


def mean(values: Sequence[float], clusters: Clusters = None, *, seed: int = 0) -> Interval:
    """The mean with a percentile bootstrap interval.

    Raises:
        UsageError: no values, one that is not finite, or not as many clusters as values.
    """
    found = _values(values)
    return _interval(lambda total, count: total / count, clusters, found, np.ones(len(found)), seed=seed)


def median(values: Sequence[float], *, seed: int = 0) -> Interval:
    """The median with a percentile bootstrap interval (errors as in :func:`mean`)."""
    found = _values(values)
    return bootstrap(lambda rows: np.median(found[rows], axis=-1), len(found), seed=seed)


def ratio(
    over: Sequence[float], under: Sequence[float], clusters: Clusters = None, *, exponent: bool = False, seed: int = 0
) -> Interval:
    """sum(over) / sum(under), resampled in pairs; with ``exponent`` e to that (a perplexity from losses and counts).

    Raises:
        UsageError: not as many of both, none, not finite, or ``under`` not positive.
    """
    top, bottom = _values(over), _values(under)
    if len(top) != len(bottom) or bottom.min() <= 0:
        raise UsageError("a ratio needs as many denominators as numerators, all positive", hint="leave empty items out")

    def statistic(over: Floats, under: Floats) -> Floats:
        found = over / under
        return np.asarray(np.exp(found) if exponent else found)

    return _interval(statistic, clusters, top, bottom, seed=seed)


def paired(
    before: Sequence[bool | float], after: Sequence[bool | float], clusters: Clusters = None, *, seed: int = 0
) -> Paired:
    """The change of a rate on the same prompts; of values that are all 0 or 1 with an interval that few changes do not narrow.

    Those that gained and those that lost each have Wilson's interval, which are put together as Zou and Donner (2008) do.

    Args:
        before: Values in [0, 1], one per prompt.
        after: The same prompts in the same order.
        clusters: One per prompt.
        seed: Of the resampling.

    Raises:
        UsageError: not as many of each, or none.
    """
    first, second = _values(before), _values(after)
    if len(first) != len(second):
        raise UsageError(f"{len(first)} values before and {len(second)} after", hint="compare the same prompts")
    change = second - first
    up, down = (first < 0.5) & (second >= 0.5), (first >= 0.5) & (second < 0.5)
    (net,) = by_cluster(clusters, up.astype(np.float64) - down)
    found = mean([float(c) for c in change], clusters, seed=seed)
    n, value = found.n, found.value
    if np.ptp(change) == 0 and value in (-1.0, 0.0, 1.0):
        # All prompts changed alike: a resample cannot vary, so the bound is what as many clusters can exclude.
        least, most = wilson(len(net), len(net))[0], wilson(0, len(net))[1]
        low, high = {0.0: (-most, most), 1.0: (least, 1.0), -1.0: (-1.0, -least)}[value]
        found = Interval(n, value, low, high)
    elif _is_binary(first) and _is_binary(second):
        moved, still = by_cluster(clusters, (up | down).astype(np.float64), (~(up | down)).astype(np.float64))
        events = min(int((moved > 0).sum()), int((still > 0).sum()))
        counted = _counted(events, change, clusters)
        low, high = _gained_less_lost(float(up.mean()), float(down.mean()), counted)
        found = Interval(n, value, min(found.low, low), max(found.high, high))
    return Paired(found, int(up.sum()), int(down.sum()), mcnemar(int((net > 0).sum()), int((net < 0).sum())))


def reduction(
    before: Sequence[bool | float], after: Sequence[bool | float], clusters: Clusters = None, *, seed: int = 0
) -> Interval | None:
    """1 - mean(after) / mean(before) on the same prompts: the relative drop of what is not negative.

    Returns:
        ``None`` where ``before`` is zero throughout: there is nothing to reduce.

    Raises:
        UsageError: not as many of both, or none.
    """
    first, second = _values(before), _values(after)
    if len(first) != len(second):
        raise UsageError(f"{len(first)} values before and {len(second)} after", hint="compare the same prompts")
    if first.mean() <= 0:
        return None

    def statistic(under: Floats, left: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(under > 0, 1 - left / under, np.nan)

    found = _interval(statistic, clusters, first, second, seed=seed)
    if second.min() < 0 or second.max() > 1 or not _few(second, clusters):
        return found
    left = rate(after, clusters)  # what few events cannot exclude is left
    ends = [float(1 - end / first.mean()) for end in (left.high, left.low)]
    return replace(found, low=min(found.low, *ends), high=max(found.high, *ends))


def _few(values: Floats, clusters: Clusters) -> bool:
    yes, no = by_cluster(clusters, values, 1 - values)
    return min(int((yes > 0).sum()), int((no > 0).sum())) < FEW


def share_closed(
    before: Sequence[bool | float],
    after: Sequence[bool | float],
    reference: Sequence[bool | float],
    *,
    clusters: Clusters = None,
    seed: int = 0,
) -> Interval | None:
    """(after - before) / (reference - before) of three rates on the same prompts: how much of a gap is closed.

    Returns:
        ``None`` where the reference is not above ``before``: there is no gap to close.

    Raises:
        UsageError: not as many of each, or none.
    """
    low, new, high = _values(before), _values(after), _values(reference)
    if not len(low) == len(new) == len(high):
        raise UsageError("the share closed needs three answers per prompt", hint="compare the same prompts")
    gap = high.mean() - low.mean()
    if gap <= 0:
        return None

    def statistic(start: Floats, there: Floats, end: Floats) -> Floats:
        width = end - start
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(width > 0, (there - start) / width, np.nan)

    found = _interval(statistic, clusters, low, new, high, seed=seed)
    if found.low < found.high and not _few(new, clusters):
        return found
    bound = rate(after, clusters)
    ends = [float((end - low.mean()) / gap) for end in (bound.low, bound.high)]
    return replace(found, low=min(found.value, found.low, *ends), high=max(found.value, found.high, *ends))


def wilson(hits: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of ``hits`` in ``n`` (Wilson 1927); not empty even for 0 of n."""
    share, square = hits / n, Z95 * Z95
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return (0.0 if hits == 0 else max(0.0, centre - half), 1.0 if hits == n else min(1.0, centre + half))


def _is_binary(values: Floats) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _counted(events: int, values: Floats, clusters: Clusters) -> float:
    """How many values that stand alone say as much as these: values by their design effect (Kish 1965).

    Few events do not show how alike a cluster's values are: then clusters are counted.
    """
    sums, sizes = by_cluster(clusters, values, np.ones(len(values)))
    if events < FEW:
        return len(sums)
    alone = float(np.square(values - values.mean()).sum())
    together = float(np.square(sums - sizes * values.mean()).sum())
    return len(values) * min(1.0, alone / together) if together > 0 else len(values)


def _gained_less_lost(gained: float, lost: float, n: float) -> tuple[float, float]:
    """The interval of a difference of two shares that exclude each other (Zou and Donner 2008, square and add)."""
    (least_up, most_up), (least_down, most_down) = wilson(gained * n, n), wilson(lost * n, n)
    odds = (1 - gained) * (1 - lost)
    together = -math.sqrt(gained * lost / odds) if odds > 0 else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one + other * other - 2 * together * one * other))

    value = gained - lost
    low = value - reach(gained - least_up, most_down - lost)
    return max(-1.0, low), min(1.0, value + reach(most_up - gained, lost - least_down))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact McNemar p: ``gained`` against ``lost`` under a fair coin."""
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail / 2**n))


def bootstrap(statistic: Callable[[npt.NDArray[np.int64]], Floats], n: int, *, seed: int = 0) -> Interval:
    """A statistic of ``n`` items with the 2.5th and 97.5th percentile of its resamples.

    Args:
        statistic: Index rows [resamples, n] -> [resamples]; NaN where a resample has no value.
        n: Number of items.
        seed: Of the resampling.
    """
    generator = np.random.default_rng(seed)
    block = max(1, min(RESAMPLES, _BLOCK // n))
    parts = [
        statistic(generator.integers(n, size=(min(block, RESAMPLES - start), n)))
        for start in range(0, RESAMPLES, block)
    ]
    low, high = np.nanpercentile(np.concatenate(parts), [2.5, 97.5])
    value = float(statistic(np.arange(n)[None])[0])
    # A percentile interval of few items can miss the estimate by rounding; it never may.
    return Interval(n, value, min(float(low), value), max(float(high), value))


def by_cluster(clusters: Clusters, *columns: Floats) -> list[Floats]:
    """Columns summed by cluster, in the order in which clusters appear.

    All statistics here are of sums, so to resample these is to resample clusters.

    Args:
        clusters: One per value; ``None`` for values that stand alone, which come out as they went in.
        columns: Each with one number per value.

    Raises:
        UsageError: not as many clusters as values.
    """
    n = len(columns[0])
    if clusters is None:
        return list(columns)
    if len(clusters) != n:
        raise UsageError(f"{n} values and {len(clusters)} clusters", hint="name the cluster of each value")
    number = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    labels = np.asarray([number[cluster] for cluster in clusters])
    return [np.bincount(labels, weights=column).astype(np.float64) for column in columns]


def _interval(statistic: Callable[..., Floats], clusters: Clusters, *columns: Floats, seed: int) -> Interval:
    """A statistic of the columns' sums with its interval: the wider ends of resampled clusters and values.

    Few clusters, and clusters that are all alike, vary less in resamples than they would in truth.
    """

    def of(sums: Sequence[Floats]) -> Interval:
        return bootstrap(lambda rows: statistic(*(part[rows].sum(-1) for part in sums)), len(sums[0]), seed=seed)

    found = of(columns)
    sums = by_cluster(clusters, *columns)
    if len(sums[0]) == found.n:  # each value alone: the same again
        return found
    near = of(sums)
    return replace(found, low=min(found.low, near.low), high=max(found.high, near.high))


def _values(values: Sequence[bool | float]) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if not len(found) or not np.isfinite(found).all():
        raise UsageError("nothing to estimate: no values, or some are not finite", hint="give at least one number")
    return found
