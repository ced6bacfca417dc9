"""What a report says of risks other than refusal: read from the rows that the evidence gives for its model card.

    view = make_view(evidence)      # evidence["risk"] is "toxicity" or "gender-bias"

A row of ``evidence["results"]`` has a name and an estimate per system; ``metric``, ``set``, ``better`` and ``unit`` put it
under a heading. Nothing here knows what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmpatch.reporting.curves import read_history
from llmpatch.reporting.numbers import Estimate, decimals, percent
from llmpatch.reporting.page import Bar, Example, Group, Json, Reply, Row, System, Tile, View
from llmpatch.reporting.prices import cell_text, price_rows, price_tiles
from llmpatch.reporting.steps import commands, facts, judge_lines
from llmpatch.reporting.view import HARM_CHARS, closed_text, order_systems, page_title

TILES = 4
NOTE = (
    "Per prompt set, with 95 % intervals over prompts, those of one wording together. A score runs from 0 to 1; what is better "
    "stands beside each heading."
)
EXAMPLES_NOTE = (
    "Chosen by rule, not by hand: where the patch fails, loops and helps, in turn, in order of the set. Each system's worst "
    "continuation, cut to 120 characters."
)
_COLUMNS = {"M": "base", "M+": "patched", "M'": "reference"}


def read_measured(evidence: Json, training: Sequence[Json], manifest: Json) -> View:
    """Read evidence of any risk (errors as :func:`llmpatch.reporting.view.make_view` names them)."""
    systems = tuple(order_systems(evidence["systems"]))
    rows = [row for row in evidence["results"] if "base" in row]
    return View(
        title=page_title(evidence, manifest),
        summary=str(manifest.get("summary", "")),
        headline=_headline(evidence, rows),
        closed=closed_text(evidence),
        tiles=(*_tiles(rows), *price_tiles(evidence)),
        systems=systems,
        groups=tuple(_groups(rows, systems)),
        bars_note=NOTE,
        worse=tuple(str(line) for line in evidence.get("worse", [])),
        price=tuple(price_rows(evidence, systems)),
        frontier=(),
        curves=read_history(training, str(evidence.get("training", {}).get("best", "")), declining=False),
        examples=tuple(_examples(evidence, systems)),
        examples_note=EXAMPLES_NOTE,
        details=tuple(_details(evidence)),
        commands=commands(evidence, manifest),
        facts=facts(evidence, manifest),
        judges=judge_lines(evidence["judges"], evidence["judges"][0]["name"] if evidence["judges"] else ""),
    )


def _is_score(row: Json) -> bool:
    return row.get("unit") == "score"


def _shown(row: Json, estimate: Estimate) -> str:
    return decimals(estimate.value) if _is_score(row) else percent(estimate.value)


def _headline(evidence: Json, rows: Sequence[Json]) -> str:
    if not rows or "patched" not in rows[0]:
        n = sum(s["n"] for s in evidence["sets"].values())
        return f"{n:,} prompts in {len(evidence['sets'])} sets; no patch was measured."
    row = rows[0]
    before, after = Estimate.of(row["base"]), Estimate.of(row["patched"])
    verb = "raises" if after.value > before.value else "lowers" if after.value < before.value else "leaves"
    move = f"from {_shown(row, before)} to {_shown(row, after)}" if verb != "leaves" else f"at {_shown(row, after)}"
    interval = after.span(decimals if _is_score(row) else percent)
    return f"The patch {verb} “{row['name']}” {move} ({after.n} prompts, 95 % interval {interval})."


def _tiles(rows: Sequence[Json]) -> list[Tile]:
    """The first rows of each heading, which lead it."""
    first = list({str(row.get("metric", row["name"])): row for row in reversed(rows)}.values())[::-1]
    tiles = []
    for row in [row for row in first if "patched" in row][:TILES]:
        before, after = Estimate.of(row["base"]), Estimate.of(row["patched"])
        span = after.span(decimals if _is_score(row) else percent)
        tiles.append(Tile(str(row["name"]), _shown(row, before), _shown(row, after), f"{span}, n = {after.n}"))
    return tiles


def _groups(rows: Sequence[Json], systems: Sequence[System]) -> list[Group]:
    groups = []
    for row in rows:
        cells = [(system, row.get(_COLUMNS.get(system.key, system.key))) for system in systems]
        bars = tuple(Bar(system, Estimate.of(cell)) for system, cell in cells if isinstance(cell, dict))
        better = f"{row['better']} is better" if row.get("better") in ("lower", "higher") else ""
        title, heading = str(row.get("set", row["name"])), str(row.get("metric", "Measures"))
        label = f"{row['name']} ({better})" if better else str(row["name"])
        heading = heading[:1].upper() + heading[1:]
        groups.append(Group(title, label, heading, better, int(row["n"]), bars, _is_score(row)))
    return groups


def _examples(evidence: Json, systems: Sequence[System]) -> list[Example]:
    found = []
    for row in evidence.get("examples", []):
        replies = []
        for system in systems:
            if answer := row["answers"].get(system.key):
                text = str(answer["text"])
                cut = bool(answer.get("shortened")) or len(text) > HARM_CHARS
                replies.append(Reply(system, text[:HARM_CHARS], cut, _verdict(answer)))
        title = str(evidence["sets"].get(row["set"], {}).get("title", row["set"]))
        found.append(Example(title, title, str(row["prompt"]), str(row["note"]), tuple(replies)))
    return found


def _verdict(answer: Json) -> str:
    return f"toxicity {decimals(float(answer['toxicity']))}" if "toxicity" in answer else ""


def _details(evidence: Json) -> list[Row]:
    """The rows of ``evidence["changes"]``: n, base, patched, paired change and p."""
    rows = []
    for row in evidence.get("changes", []):
        show = _signed_score if _is_score(row) else _signed_share
        plain = decimals if _is_score(row) else percent
        change: dict[str, Any] = row["difference"]
        moved, p = Estimate.of(change), float(change["p"])
        fell = f", fell by {percent(Estimate.of(row['relative']).value)}" if "relative" in row else ""
        cells = (
            str(row["n"]), cell_text(row["base"], plain), cell_text(row["patched"], plain),
            f"{show(moved.value)} [{moved.span(show)}]{fell}", "< 0.001" if p < 0.001 else f"{p:.3f}",
        )  # fmt: skip
        rows.append(Row(str(row["name"]), cells))
    return rows


def _signed_score(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _signed_share(value: float) -> str:
    return percent(value, sign=True)
