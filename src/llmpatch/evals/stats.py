"""Rates and differences with 95 % intervals: percentile bootstrap, Wilson where a bootstrap would be empty, McNemar.

    rate([True, True, False])                  # Interval(n=3, value=0.667, low=0.0, high=1.0)
    paired([False, False], [True, False])      # how much it changed, prompt by prompt, and the exact p

Every function is deterministic: resampling is seeded. Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmpatch.errors import UsageError

RESAMPLES = 10_000
Z95 = 1.959963984540054
_BLOCK = 1 << 22  # resampled indices at a time, so that memory stays flat whatever n is

Floats = npt.NDArray[np.float64]


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
        p: Two-sided exact McNemar p of ``gained`` against ``lost``.
    """

    difference: Interval
    gained: int
    lost: int
    p: float

    def json(self) -> dict[str, Any]:
        """As a flat JSON object."""
        return {**self.difference.json(), "gained": self.gained, "lost": self.lost, "p": self.p}


def rate(hits: Sequence[bool | float], *, seed: int = 0) -> Interval:
    """The mean of values in [0, 1] with its interval; 0 of n and n of n get Wilson's.

    Raises:
        UsageError: no values, or one outside [0, 1].
    """
    values = _values(hits)
    if values.min() < 0 or values.max() > 1:
        raise UsageError("a rate needs values between 0 and 1", hint="give hits as True or False")
    found = mean(hits, seed=seed)
    if found.value in (0.0, 1.0):
        return Interval(found.n, found.value, *wilson(round(found.value * found.n), found.n))
    return found


def mean(values: Sequence[float], *, seed: int = 0) -> Interval:
    """The mean with a percentile bootstrap interval.

    Raises:
        UsageError: no values, or one that is not finite.
    """
    found = _values(values)
    return bootstrap(lambda rows: found[rows].mean(-1), len(found), seed=seed)


def median(values: Sequence[float], *, seed: int = 0) -> Interval:
    """The median with a percentile bootstrap interval (errors as in :func:`mean`)."""
    found = _values(values)
    return bootstrap(lambda rows: np.median(found[rows], axis=-1), len(found), seed=seed)


def ratio(over: Sequence[float], under: Sequence[float], *, exponent: bool = False, seed: int = 0) -> Interval:
    """sum(over) / sum(under), resampled in pairs; with ``exponent`` e to that (a perplexity from losses and counts).

    Raises:
        UsageError: not as many of both, none, not finite, or ``under`` not positive.
    """
    top, bottom = _values(over), _values(under)
    if len(top) != len(bottom) or bottom.min() <= 0:
        raise UsageError("a ratio needs as many denominators as numerators, all positive", hint="leave empty items out")

    def statistic(rows: npt.NDArray[np.int64]) -> Floats:
        found = top[rows].sum(-1) / bottom[rows].sum(-1)
        return np.asarray(np.exp(found) if exponent else found)

    return bootstrap(statistic, len(top), seed=seed)


def paired(before: Sequence[bool | float], after: Sequence[bool | float], *, seed: int = 0) -> Paired:
    """The change of a rate on the same prompts.

    Args:
        before: Values in [0, 1], one per prompt.
        after: The same prompts in the same order.
        seed: Of the resampling.

    Raises:
        UsageError: not as many of both, or none.
    """
    first, second = _values(before), _values(after)
    if len(first) != len(second):
        raise UsageError(f"{len(first)} values before and {len(second)} after", hint="compare the same prompts")
    change = second - first
    gained, lost = int(((first < 0.5) & (second >= 0.5)).sum()), int(((first >= 0.5) & (second < 0.5)).sum())
    found = mean([float(c) for c in change], seed=seed)
    n, value = found.n, found.value
    if np.ptp(change) == 0 and value in (-1.0, 0.0, 1.0):
        # All prompts changed alike: a resample cannot vary, so the bound is what n prompts can exclude.
        least, most = wilson(n, n)[0], wilson(0, n)[1]
        low, high = {0.0: (-most, most), 1.0: (least, 1.0), -1.0: (-1.0, -least)}[value]
        found = Interval(n, value, low, high)
    return Paired(found, gained, lost, mcnemar(gained, lost))


def reduction(before: Sequence[bool | float], after: Sequence[bool | float], *, seed: int = 0) -> Interval | None:
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

    def statistic(rows: npt.NDArray[np.int64]) -> Floats:
        under = first[rows].mean(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(under > 0, 1 - second[rows].mean(-1) / under, np.nan)

    return bootstrap(statistic, len(first), seed=seed)


def share_closed(
    before: Sequence[bool | float], after: Sequence[bool | float], reference: Sequence[bool | float], *, seed: int = 0
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

    def statistic(rows: npt.NDArray[np.int64]) -> Floats:
        start = low[rows].mean(-1)
        width = high[rows].mean(-1) - start
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(width > 0, (new[rows].mean(-1) - start) / width, np.nan)

    found = bootstrap(statistic, len(low), seed=seed)
    if found.low < found.high:
        return found
    ends = [float((end - low.mean()) / gap) for end in (rate(after).low, rate(after).high)]
    return Interval(found.n, found.value, min(found.value, *ends), max(found.value, *ends))


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of ``hits`` in ``n`` (Wilson 1927); not empty even for 0 of n."""
    share, square = hits / n, Z95 * Z95
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return (0.0 if hits == 0 else max(0.0, centre - half), 1.0 if hits == n else min(1.0, centre + half))


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


def _values(values: Sequence[bool | float]) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if not len(found) or not np.isfinite(found).all():
        raise UsageError("nothing to estimate: no values, or some are not finite", hint="give at least one number")
    return found
