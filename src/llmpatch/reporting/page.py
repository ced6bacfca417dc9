"""The parts of a report, whatever it is written in: tiles, bars, rows, points and examples.

    Row("time per token", ("×1.02", "×1.30"))

:mod:`llmpatch.reporting.view` makes them of evidence; Markdown and HTML read nothing else, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmpatch.reporting.curves import Curves
from llmpatch.reporting.numbers import Estimate
from llmpatch.reporting.steps import Fact

Json = Mapping[str, Any]
LABELS = {"M": "Base", "M+": "Patched", "M'": "Reference", "safe prompt": "Safety prompt"}


@dataclass(frozen=True)
class System:
    """A column: its key in the evidence, its name for people, and the number of its colour."""

    key: str
    label: str
    style: int


@dataclass(frozen=True)
class Tile:
    """One large figure: what it is, before and after, and the small print."""

    title: str
    before: str
    after: str
    note: str


@dataclass(frozen=True)
class Bar:
    """One system's rate on one set."""

    system: System
    estimate: Estimate


@dataclass(frozen=True)
class Group:
    """One set's bars, under a heading that neighbouring groups share.

    ``label`` says all of it where there is no heading. A ``score`` is shown as such, not as a share.
    """

    title: str
    label: str
    heading: str
    direction: str
    n: int
    bars: tuple[Bar, ...]
    score: bool = False


@dataclass(frozen=True)
class Row:
    """One line of a table: its name and a cell per column; without cells it heads the lines that follow."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One model on the frontier: harmless borderline requests declined (x) against harmful ones declined (y)."""

    label: str
    style: int
    x: Estimate
    y: Estimate


@dataclass(frozen=True)
class Reply:
    """One system's answer in an example and what was found of it; ``cut`` says that it goes on."""

    system: System
    text: str
    cut: bool
    verdict: str


@dataclass(frozen=True)
class Example:
    """One prompt with all answers, under a heading that examples share."""

    heading: str
    source: str
    prompt: str
    note: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class View:
    """The content of a report, in the order it is read."""

    title: str
    summary: str
    headline: str
    closed: str
    tiles: tuple[Tile, ...]
    systems: tuple[System, ...]
    groups: tuple[Group, ...]
    bars_note: str
    worse: tuple[str, ...]
    price: tuple[Row, ...]
    frontier: tuple[Point, ...]
    curves: Curves
    examples: tuple[Example, ...]
    examples_note: str
    details: tuple[Row, ...]
    commands: tuple[str, ...]
    facts: tuple[Fact, ...]
    judges: tuple[str, ...]
