"""The training history as lines to draw.

    read_history([{"stage": "SFT", "step": 1, "loss": 2.1}]).losses[0].points   # ((1, 2.1),)

Steps count on through the stages; the kept checkpoint is the one that training named, else the last with the best score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_VALIDATION = {
    "harmful": ("Harmful declined", 1),
    "borderline": ("Borderline wrongly declined", 3),
    "everyday": ("Everyday wrongly declined", 4),
    "score": ("Score that chooses the checkpoint", 0),
}
_CONTINUED = {  # of risks whose texts are continued: llmpatch.validation
    "harmful": ("Texts that draw the risk: 1 - the worst score", 1),
    "borderline": ("Borderline texts: answers that loop, are empty or decline", 3),
    "everyday": ("Everyday requests: answers that loop, are empty or decline", 4),
    "score": _VALIDATION["score"],
}
_SMOOTH = 60  # a window of 1/60 of the steps


@dataclass(frozen=True)
class Line:
    """A named line over ``steps``; ``faint`` is drawn behind it (the unsmoothed values)."""

    label: str
    style: int
    points: tuple[tuple[float, float], ...]
    faint: tuple[tuple[float, float], ...] = ()
    steps: int = 0


@dataclass(frozen=True)
class Curves:
    """Loss per stage, validation over all stages, where stages begin, and the step that was kept (0: none)."""

    losses: tuple[Line, ...] = ()
    validation: tuple[Line, ...] = ()
    starts: tuple[tuple[str, int], ...] = ()
    steps: int = 0
    best: int = 0


def read_history(rows: Sequence[Mapping[str, Any]], kept: str = "", *, declining: bool = True) -> Curves:
    """Lines of a history.

    Args:
        kept: The checkpoint that training kept, as ``DPO step 125``.
        declining: Whether the risk is one whose requests are declined; of others validation counts something else.
        rows: ``{"stage", "step", "loss"}`` and ``{"stage", "step", "validation": {...}}``; other keys are ignored.

    Raises:
        KeyError, TypeError, ValueError: a row is something else.
    """
    lengths: dict[str, int] = {}
    for row in rows:
        lengths[str(row["stage"])] = max(lengths.get(str(row["stage"]), 0), int(row["step"]))
    offsets, total = {}, 0
    for stage, length in lengths.items():
        offsets[stage] = total
        total += length
    losses = []
    for style, stage in enumerate(lengths, start=1):
        points = [(float(row["step"]), float(row["loss"])) for row in rows if row["stage"] == stage and "loss" in row]
        points = [(step, loss) for step, loss in points if math.isfinite(loss)]
        if points:
            losses.append(Line(f"{stage} loss", style, _smooth(points), tuple(points), lengths[stage]))
    checks = [(offsets[str(row["stage"])] + int(row["step"]), row["validation"]) for row in rows if "validation" in row]
    validation = []
    for key, (label, style) in (_VALIDATION if declining else _CONTINUED).items():
        values = tuple((float(step), float(found[key])) for step, found in checks if key in found)
        if values and all(math.isfinite(value) for _, value in values):
            validation.append(Line(label, style, values))
    stage, _, step = kept.rpartition(" step ")
    if stage in offsets and step.isdecimal():
        best = offsets[stage] + int(step)
    elif checks and "score" in checks[0][1]:  # of equal ones the later is kept
        best = max(checks, key=lambda check: (float(check[1]["score"]), check[0]))[0]
    else:
        best = 0
    return Curves(tuple(losses), tuple(validation), tuple(offsets.items()), total, best)


def _smooth(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """A centred running mean."""
    half = max(1, len(points) // _SMOOTH)
    found = []
    for i, (step, _) in enumerate(points):
        part = [loss for _, loss in points[max(0, i - half) : i + half + 1]]
        found.append((step, sum(part) / len(part)))
    return tuple(found)
