"""What the results page is made of: tables, lists, bars and plots under headings; and the files it is read from.

shelf = Shelf(Path("."))
shown(shelf.look("patches/smollm2/refusal/evidence.json", ["closed", "harmbench_standard"]), "share")
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpatch.errors import IntegrityError
from llmpatch.files import read_bytes
from llmpatch.reporting.numbers import Estimate, decimals, factor, percent, plain, points
from llmpatch.reporting.page import Group, Row

MAX_BYTES = 1 << 25
MISSING = "not measured"
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """A table; the first column has no heading."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    title: str = ""


@dataclass(frozen=True)
class Lines:
    """A list of sentences."""

    items: tuple[str, ...]
    title: str = ""


@dataclass(frozen=True)
class Bars:
    """Bars of all systems, set by set; only pages with plots show them."""

    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Plot:
    """A plot in HTML and SVG, with its axis and its legend (label and colour); only pages with plots show it."""

    title: str
    drawn: str
    axis: str
    legend: tuple[tuple[str, int], ...] = ()


Block = Grid | Lines | Bars | Plot


@dataclass(frozen=True)
class Section:
    """A heading, a sentence or two, and what stands below."""

    title: str
    lead: str
    blocks: tuple[Block, ...]


class Shelf:
    """The files below a folder, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[str, Any] = {}

    def load(self, name: str) -> Any:
        """A JSON file, or ``None`` where there is none.

        Raises:
            IntegrityError: it is not JSON.
        """
        if name not in self._read:
            path = self.root / name
            try:
                self._read[name] = json.loads(read_bytes(path, limit=MAX_BYTES)) if path.is_file() else None
            except (ValueError, RecursionError) as error:
                raise IntegrityError(f"{path} is not JSON: {error}", hint="write it again with its script") from None
        return self._read[name]

    def look(self, name: str, at: Sequence[str | int]) -> Any:
        """What stands at a place of a file, or ``None``: keys, and numbers or the ``name`` of an item into lists."""
        found = self.load(name)
        for key in at:
            if isinstance(found, list) and isinstance(key, int):
                found = found[key] if -len(found) <= key < len(found) else None
            elif isinstance(found, list):
                found = next((item for item in found if isinstance(item, dict) and item.get("name") == key), None)
            else:
                found = found.get(key) if isinstance(found, dict) else None
        return found

    def names(self, pattern: str) -> list[str]:
        """Files that match, sorted."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob(pattern))


def shown(value: Any, unit: str) -> str:
    """A number or an interval in the words of its unit; what is missing is said to be.

    Raises:
        KeyError: a mapping that is no interval.
    """
    show = {"share": percent, "points": points, "ratio": factor, "score": decimals, "plain": plain, "count": _count}[
        unit
    ]
    if value is None:
        return MISSING
    if not isinstance(value, Mapping):
        return str(show(float(value)))
    estimate = Estimate.of(value)
    return f"{show(estimate.value)} [{estimate.span(decimals if unit == 'ratio' else show)}]"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def paper(shelf: Shelf, risk: str) -> Grid | None:
    """What the paper reports of a risk beside what we measured, and what differs in the setting."""
    told = shelf.load("benchmarks/paper.json")
    found = [figure for figure in (told or {"figures": []})["figures"] if figure["risk"] == risk]
    if not found:
        return None
    rows = tuple(
        Row(
            f["what"],
            (
                f"{shown(f['theirs'], f['unit'])} ({f['model']})" if f["theirs"] is not None else "–",
                shown(shelf.look(f["file"], f["at"]), f["unit"]),
                f["differs"],
            ),
        )
        for f in found
    )
    return Grid(("paper", "ours", "what differs"), rows, f"Beside the paper ({told['source']})")
