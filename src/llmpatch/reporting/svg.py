"""Plots as inline SVG in percentages, so that they stretch to any width while their text keeps its size.

    bar(Estimate(0.93, 0.88, 0.97, 146), style=1)   # one bar with its interval
    plot_lines(lines, x_max=400, y_max=1.0, ...)    # axes in HTML around an SVG

Colours are the classes ``c0`` to ``c7`` of the page. Knows numbers and labels; escapes the labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from llmpatch.reporting.curves import Line
from llmpatch.reporting.numbers import Estimate
from llmpatch.reporting.page import Point

COLOURS = 8


@dataclass(frozen=True)
class Seeds:
    """A line of a plot over named places: for each place the values of all seeds, none where it was not measured."""

    label: str
    style: int
    values: tuple[tuple[float, ...], ...]


def colour(style: int) -> str:
    """The class of a system's colour."""
    return f"c{style % COLOURS}"


def bar(estimate: Estimate, style: int, label: str) -> str:
    """A horizontal bar from 0 to 100 % with its interval as a whisker."""
    value, low, high = (_percent(v) for v in (estimate.value, estimate.low, estimate.high))
    return (
        f'<svg class="bar" role="img" aria-label="{escape(label, quote=True)}">'
        f'<rect class="track" width="100%" height="16" y="3" rx="3"/>'
        f'<rect class="fill {colour(style)}" width="{value}" height="16" y="3" rx="3"/>'
        f'<line class="whisker" x1="{low}" x2="{high}" y1="11" y2="11"/>'
        f'<line class="whisker" x1="{low}" x2="{low}" y1="7" y2="15"/>'
        f'<line class="whisker" x1="{high}" x2="{high}" y1="7" y2="15"/></svg>'
    )


def plot_lines(
    lines: Sequence[Line],
    *,
    label: str,
    x_max: float,
    y_max: float,
    show: Callable[[float], str],
    marks: Sequence[tuple[str, float]] = (),
    dots: bool = False,
) -> str:
    """Lines over steps from 0 to ``x_max`` and 0 to ``y_max``, with named vertical marks."""
    inner = [f'<line class="mark" x1="{_at(x, x_max)}" x2="{_at(x, x_max)}" y1="0" y2="100%"/>' for _, x in marks]
    drawn = []
    for line in lines:
        if line.faint:
            drawn.append(_polyline(line.faint, x_max, y_max, f"faint {colour(line.style)}"))
        drawn.append(_polyline(line.points, x_max, y_max, colour(line.style)))
    inner.append(
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{"".join(drawn)}</svg>'
    )
    if dots:
        inner += [
            f'<circle class="dot {colour(line.style)}" cx="{_at(x, x_max)}" cy="{_at(y_max - y, y_max)}" r="3"/>'
            for line in lines
            for x, y in line.points
        ]
    names = "".join(
        f'<span class="name {"left" if x > x_max / 2 else "right"}" style="left:{_at(x, x_max)}">{escape(text)}</span>'
        for text, x in marks
    )
    return _axes("".join(inner), names, label, x_max, y_max, show, lambda v: f"{v:,.0f}")


def plot_frontier(points: Sequence[Point], *, show: Callable[[float], str]) -> str:
    """Numbered points with their intervals in both directions; x grows to what is needed."""
    x_max = max(0.1, math.ceil(max(p.x.high for p in points) * 10 - 1e-9) / 10)
    inner = []
    for point in points:
        x, y = _at(point.x.value, x_max), _at(1 - point.y.value, 1)
        across = f'x1="{_at(point.x.low, x_max)}" x2="{_at(point.x.high, x_max)}" y1="{y}" y2="{y}"'
        along = f'x1="{x}" x2="{x}" y1="{_at(1 - point.y.low, 1)}" y2="{_at(1 - point.y.high, 1)}"'
        inner.append(
            f'<line class="cross {colour(point.style)}" {across}/><line class="cross {colour(point.style)}" {along}/>'
        )
    for number, point in enumerate(points, start=1):
        x, y = _at(point.x.value, x_max), _at(1 - point.y.value, 1)
        inner.append(
            f'<circle class="point {colour(point.style)}" cx="{x}" cy="{y}" r="9"/>'
            f'<text class="number" x="{x}" y="{y}" dy="4">{number}</text>'
        )
    label = "Harmful requests declined against harmless borderline requests declined"
    return _axes("".join(inner), "", label, x_max, 1.0, show, show)


def plot_seeds(
    lines: Sequence[Seeds], ticks: Sequence[str], *, low: float, high: float, label: str, show: Callable[[float], str]
) -> str:
    """A dot for every seed over named places on the x axis, and a line through the means of each place.

    Args:
        lines: What is drawn.
        ticks: Names of the places, from left to right.
        low: Lower end of the y axis.
        high: Upper end.
        label: For readers that do not see.
        show: A value as text.
    """
    places = [(i + 0.5) / len(ticks) for i in range(len(ticks))]

    def share(value: float) -> float:
        return (value - low) / (high - low) if high > low else 0.5

    drawn, dots = [], []
    for line in lines:
        means = [(places[i], share(sum(ys) / len(ys))) for i, ys in enumerate(line.values) if ys]
        drawn.append(_polyline(means, 1, 1, colour(line.style)))
        dots += [
            f'<circle class="dot {colour(line.style)}" cx="{_at(places[i], 1)}" cy="{_at(1 - share(y), 1)}" r="3.5"/>'
            for i, ys in enumerate(line.values)
            for y in ys
        ]
    inner = f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{"".join(drawn)}</svg>'
    named = list(zip(ticks, places, strict=True))
    return _axes(inner + "".join(dots), "", label, 1, 1, lambda s: show(low + s * (high - low)), str, named)


def _axes(
    inner: str,
    over: str,
    label: str,
    x_max: float,
    y_max: float,
    show_y: Callable[[float], str],
    show_x: Callable[[float], str],
    ticks: Sequence[tuple[str, float]] = (),
) -> str:
    """A plot with five horizontal lines, their labels on the left, and below three labels or the given ones at their shares."""
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    ticks = ticks or [(show_x(s * x_max), s) for s in (0.0, 0.5, 1.0)]
    grid = "".join(f'<line class="grid" x1="0" x2="100%" y1="{_at(s, 1)}" y2="{_at(s, 1)}"/>' for s in shares)
    left = "".join(f'<span style="top:{_at(1 - s, 1)}">{escape(show_y(s * y_max))}</span>' for s in shares)
    below = "".join(f'<span style="left:{_at(s, 1)}">{escape(text)}</span>' for text, s in ticks)
    return (
        f'<div class="plot"><div class="ys">{left}</div><div class="area">'
        f'<svg role="img" aria-label="{escape(label, quote=True)}">{grid}{inner}</svg>{over}</div>'
        f'<div class="xs">{below}</div></div>'
    )


def _polyline(points: Sequence[tuple[float, float]], x_max: float, y_max: float, classes: str) -> str:
    pairs = " ".join(f"{_share(x, x_max):.2f},{100 - _share(y, y_max):.2f}" for x, y in points)
    return f'<polyline class="line {classes}" points="{pairs}"/>'


def _share(value: float, whole: float) -> float:
    return min(100.0, max(0.0, 100 * value / whole)) if whole else 0.0


def _at(value: float, whole: float) -> str:
    return f"{_share(value, whole):.2f}%"


def _percent(value: float) -> str:
    return _at(value, 1)
