"""Evidence of suites in which each prompt has some numbers per system: utility, format following, distance.

    table = {"arc": {"M": {"arc:1": {"accuracy": 1.0}}, "M+": {...}}}           # by set, system, prompt and column
    evidence = column_evidence(top, sets, table, (Column("accuracy", "accuracy", "higher"),), price)

Laid out as in :mod:`llmpatch.evals.refusal`: ``sets`` and ``kinds`` hold, per system, an interval for each column; ``paired``
holds its change against ``M`` on the same prompts, with p. ``changes`` are rows of a table, ``worse`` sentences. A prompt may
lack a column, for all systems alike. Knows nothing about what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llmpatch.evals.common import BASE, PATCHED, groups_of, summaries
from llmpatch.evals.findings import COLUMNS, worse_price
from llmpatch.evals.gender_scoring import change
from llmpatch.evals.stats import mean, rate

if TYPE_CHECKING:
    from llmpatch.evals.prompt_sets import PromptSet

Values = Mapping[str, Mapping[str, float]]  # by prompt id and column


@dataclass(frozen=True)
class Column:
    """A number per prompt.

    Attributes:
        key: In the evidence.
        title: For people.
        better: ``higher`` or ``lower``.
        unit: ``share`` lies in [0, 1]; a ``score`` may be any number.
    """

    key: str
    title: str
    better: Literal["higher", "lower"]
    unit: Literal["share", "score"] = "share"


def column_evidence(
    top: Mapping[str, Any],
    sets: Sequence[PromptSet],
    table: Mapping[str, Mapping[str, Values]],
    columns: Sequence[Column],
    price: Mapping[str, Any],
) -> dict[str, Any]:
    """Evidence out of numbers.

    Args:
        top: The head, see :func:`llmpatch.evals.common.head`, with the risk.
        sets: What was asked.
        table: Values by set and system, those of ``M`` in each set.
        columns: What the values are; the first one leads.
        price: By system.
    """
    from llmpatch.evals.prompt_sets import apart

    if (own := apart(sets)) != list(sets):  # an id may mean a prompt of each set
        table = {
            name: {system: _join([(name, rows)]) for system, rows in found.items()} for name, found in table.items()
        }
        sets = own
    clusters = groups_of(sets) | {p.id: p.group for s in sets for p in s.prompts}

    def near(idents: Sequence[str]) -> list[str]:
        return [clusters.get(ident, ident) for ident in idents]

    def summarise(values: Values) -> dict[str, Any]:
        found: dict[str, Any] = {"n": len(values)}
        for column in columns:
            if numbers := {ident: row[column.key] for ident, row in values.items() if column.key in row}:
                estimate = (rate if column.unit == "share" else mean)(list(numbers.values()), near(list(numbers)))
                found[column.key] = estimate.json()
        return found

    def compare(before: Values, after: Values) -> dict[str, Any]:
        common = [ident for ident in before if ident in after]
        found: dict[str, Any] = {"n": len(common)}
        for column in columns:
            both = [i for i in common if column.key in before[i] and column.key in after[i]]
            if both:
                values = ([rows[i][column.key] for i in both] for rows in (before, after))
                found[column.key] = change(*values, clusters=near(both))
        return found

    evidence: dict[str, Any] = {
        **top,
        **summaries(sets, table, summarise, compare, _join),
        "price": dict(price),
        "closed": {},
    }
    evidence["results"] = _card_rows(evidence, columns)
    evidence["changes"] = _changes(evidence, columns)
    evidence["worse"] = _worse(evidence, columns)
    return evidence


def _join(parts: Sequence[tuple[str, Values]]) -> Values:
    return {f"{name}/{ident}": row for name, values in parts for ident, row in values.items()}


def _entries(evidence: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Kinds that pool several sets, and sets, with their titles."""
    sets = [(str(entry["title"]), entry) for entry in evidence["sets"].values()]
    kinds = [entry["kind"] for _, entry in sets]
    pooled = [(f"All {kind}", entry) for kind, entry in evidence["kinds"].items() if kinds.count(kind) > 1]
    return pooled + sets


def _card_rows(evidence: Mapping[str, Any], columns: Sequence[Column]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for column in columns:
        for title, entry in _entries(evidence):
            cells = {COLUMNS.get(n, n): s[column.key] for n, s in entry["systems"].items() if column.key in s}
            if cells:
                about = {"name": f"{title}: {column.title}", "metric": column.title, "set": title}
                kind = {"better": column.better, "unit": column.unit, "kind": entry["kind"]}
                rows.append({**about, **kind, "n": cells["base"]["n"], **cells})
    return rows


def _changes(evidence: Mapping[str, Any], columns: Sequence[Column], name: str = PATCHED) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for title, entry in _entries(evidence):
        for column in columns if name in entry["systems"] else ():
            if moved := entry["paired"][name].get(column.key):
                rows.append({
                    "name": f"{title}: {column.title}", "n": moved["n"], "unit": column.unit,
                    "base": entry["systems"][BASE][column.key], "patched": entry["systems"][name][column.key],
                    "difference": moved,
                })  # fmt: skip
    return rows


def _worse(evidence: Mapping[str, Any], columns: Sequence[Column], name: str = PATCHED) -> list[str]:
    """One sentence per set and column in which the patched model is worse, and the price in time and plain text."""
    found: list[str] = []
    for entry in evidence["sets"].values():
        for column in columns if name in entry["systems"] else ():
            moved = entry["paired"][name].get(column.key)
            if moved and (moved["value"] < 0 if column.better == "higher" else moved["value"] > 0):
                after, before = (_shown(entry["systems"][s][column.key]["value"], column) for s in (name, BASE))
                low, value, high = (_shown(moved[end], column, "+") for end in ("low", "value", "high"))
                chance = "" if moved["p"] < 0.05 else ", within chance"
                found.append(
                    f"{entry['title']}: {column.title} {after}, the base {before} "
                    f"(paired change {value} [{low}, {high}], p = {moved['p']:.2g}{chance})."
                )
    return found + worse_price(evidence["price"].get(name, {}))


def _shown(value: float, column: Column, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} %" if column.unit == "share" else f"{value:{sign}.3f}"
