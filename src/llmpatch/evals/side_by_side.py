"""The figures by which systems are put side by side: one row per system, whatever the risk.

    table = side_by_side(evidence)
    table.columns[0].title, table.rows["M+"]["refused"]     # {"n", "value", "low", "high"}

Read from the evidence of :mod:`llmpatch.evals.refusal`, ``toxicity`` or ``gender``: the leading judge on all sets of a kind
together, the price in plain text and time. What was not measured for a system is left out of its row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llmpatch.errors import UsageError
from llmpatch.recipe import DECLINING

Json = Mapping[str, Any]
Read = Callable[[Json, str, str], Any]  # evidence, system, judge


@dataclass(frozen=True)
class Figure:
    """What a column shows.

    Attributes:
        key: In a row.
        title: For people.
        group: ``safety``, ``price`` or ``latency``.
        better: ``higher`` or ``lower``.
        unit: ``share`` lies in [0, 1]; a ``score`` may be any number; a ``ratio`` is to the base.
    """

    key: str
    title: str
    group: Literal["safety", "price", "latency"]
    better: Literal["higher", "lower"]
    unit: Literal["share", "score", "ratio"] = "share"


@dataclass(frozen=True)
class Table:
    """Columns, and by system its intervals by column key."""

    risk: str
    judge: str
    columns: tuple[Figure, ...]
    rows: Mapping[str, Mapping[str, Json]]

    def json(self) -> dict[str, Any]:
        """As a JSON object."""
        rows = {name: dict(row) for name, row in self.rows.items()}
        return {"risk": self.risk, "judge": self.judge, "columns": [asdict(c) for c in self.columns], "rows": rows}


def _kind(kind: str, *keys: str, by_judge: bool = False) -> Read:
    """A reader of a kind's pooled scores."""

    def read(evidence: Json, system: str, judge: str) -> Any:
        found: Any = evidence["kinds"].get(kind, {}).get("systems", {}).get(system, {})
        for key in (*keys, *((judge,) if by_judge else ())):
            found = found.get(key, {})
        return found

    return read


def _price(*keys: str) -> Read:
    """A reader of a system's price."""

    def read(evidence: Json, system: str, _: str) -> Any:
        found: Any = evidence.get("price", {}).get(system, {})
        for key in keys:
            found = found.get(key, {})
        return found

    return read


_COMMON: tuple[tuple[Figure, Read], ...] = (
    (Figure("wikitext", "perplexity of plain text, × base", "price", "lower", "ratio"), _price("wikitext", "ratio")),
    (
        Figure("first_token", "time to first token, × base", "latency", "lower", "ratio"),
        _price("latency", "first_ratio"),
    ),
    (Figure("token", "time per token, × base", "latency", "lower", "ratio"), _price("latency", "token_ratio")),
)
_DECLINED: tuple[tuple[Figure, Read], ...] = (
    (
        Figure("refused", "harmful requests declined", "safety", "higher"),
        _kind("harmful", "refusal", by_judge=True),
    ),
    (
        Figure("borderline", "harmless borderline requests declined", "price", "lower"),
        _kind("borderline", "refusal", by_judge=True),
    ),
    (
        Figure("everyday", "everyday requests declined", "price", "lower"),
        _kind("everyday", "refusal", by_judge=True),
    ),
    (Figure("loops", "everyday answers that loop", "price", "lower"), _kind("everyday", "loops")),
)
_RISKS: Mapping[str, tuple[tuple[Figure, Read], ...]] = {
    **dict.fromkeys(DECLINING, _DECLINED),
    "toxicity": (
        (
            Figure("max_toxicity", "expected max toxicity", "safety", "lower", "score"),
            _kind("harmful", "expected_max_toxicity", by_judge=True),
        ),
        (
            Figure("toxicity_rate", "prompts with a toxic continuation", "safety", "lower"),
            _kind("harmful", "toxicity_rate", by_judge=True),
        ),
        (Figure("loops", "continuations that loop", "price", "lower"), _kind("harmful", "loops")),
        (Figure("empty", "empty continuations", "price", "lower"), _kind("harmful", "empty")),
        (
            Figure("distinct_3", "distinct trigrams, other prompts", "price", "higher"),
            _kind("borderline", "distinct_3"),
        ),
    ),
    "gender-bias": (
        (Figure("gas", "GAS", "safety", "lower"), _kind("harmful", "gas")),
        (Figure("gld", "GLD", "safety", "lower", "score"), _kind("harmful", "gld")),
        (Figure("on_topic", "continuations on topic", "price", "higher"), _kind("harmful", "on_topic")),
        (Figure("loops", "continuations that loop", "price", "lower"), _kind("harmful", "loops")),
    ),
}


def side_by_side(evidence: Json) -> Table:
    """The table of an evidence.

    Raises:
        UsageError: evidence of something else than a risk.
    """
    risk = str(evidence.get("risk", "refusal"))
    if risk not in _RISKS:
        raise UsageError(f"no side-by-side figures for {risk!r}", hint=f"known: {', '.join(sorted(_RISKS))}")
    judges = evidence.get("judges", [])
    wanted = "refusal" if risk in DECLINING else "toxicity" if risk == "toxicity" else None
    judge = next((str(j["name"]) for j in judges if wanted is None or j["measures"] == wanted), "")
    readers = (*_RISKS[risk], *_COMMON)
    rows = {
        name: {figure.key: found for figure, read in readers if (found := read(evidence, name, judge))}
        for name in evidence["systems"]
    }
    shown = tuple(figure for figure, _ in readers if any(figure.key in row for row in rows.values()))
    return Table(risk, judge, shown, rows)
