"""Numbers as people read them.

percent(0.932), factor(1.0213), plain(12.3456)   # "93.2 %", "x1.021", "12.35"
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

NARROW = "\u00a0"


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the number of observations."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Estimate:
        """Read ``{"n", "value", "low", "high"}``.

        Raises:
            KeyError: a key is missing.
            ValueError: a number is not finite.
        """
        value, low, high = (float(found[key]) for key in ("value", "low", "high"))
        if not all(map(math.isfinite, (value, low, high))):
            raise ValueError("an estimate is not finite")
        return cls(value, low, high, int(found["n"]))

    def span(self, show: Callable[[float], str]) -> str:
        """The interval, as ``88.0 to 96.6 %``."""
        low, high = show(self.low), show(self.high)
        unit = next((unit for unit in (f"{NARROW}%", f"{NARROW}points") if high.endswith(unit)), "")
        return f"{low.removesuffix(unit)} to {high}"


def percent(value: float, *, sign: bool = False) -> str:
    """A share as a percentage with one decimal."""
    number = f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"
    return f"{number.replace('-', '−')}{NARROW}%"


def points(value: float) -> str:
    """A difference of two shares, in percentage points with one decimal."""
    return f"{percent(value).removesuffix('%')}points"


def factor(value: float) -> str:
    """A ratio."""
    return f"×{value:.3f}"


def decimals(value: float) -> str:
    """A ratio's end, without the sign of a ratio."""
    return f"{value:.3f}"


def plain(value: float) -> str:
    """A quantity with four digits."""
    return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
