"""What a report says, before it is Markdown or HTML: evidence, history and manifest read into a few dataclasses.

    view = make_view(evidence, training=history, manifest=manifest)
    view.headline, view.groups[0].bars[1].estimate.value

Both renderers read nothing else, so they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpatch.errors import IntegrityError
from llmpatch.reporting.curves import Curves, read_history
from llmpatch.reporting.numbers import Estimate, decimals, factor, percent, plain
from llmpatch.reporting.steps import Fact, commands, facts, judge_lines

SCHEMA = "llmpatch/evidence/v1"
HARM_CHARS = 120
LABELS = {"M": "Base", "M+": "Patched", "M'": "Reference", "safe prompt": "Safety prompt"}
_STYLES = {"M": 0, "M+": 1, "M'": 2, "safe prompt": 3}
_KINDS = {
    "harmful": "declined, higher is better",
    "borderline": "wrongly declined, lower is better",
    "everyday": "wrongly declined, lower is better",
}

Json = Mapping[str, Any]


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
    """One set's bars."""

    title: str
    kind: str
    direction: str
    n: int
    bars: tuple[Bar, ...]


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
    """One system's answer in an example; ``cut`` says that it goes on."""

    system: System
    text: str
    cut: bool
    refused: bool


@dataclass(frozen=True)
class Example:
    """One prompt with all answers."""

    kind: str
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
    worse: tuple[str, ...]
    price: tuple[Row, ...]
    frontier: tuple[Point, ...]
    curves: Curves
    examples: tuple[Example, ...]
    details: tuple[Row, ...]
    commands: tuple[str, ...]
    facts: tuple[Fact, ...]
    judges: tuple[str, ...]


def make_view(evidence: Json, *, training: Sequence[Json] | None = None, manifest: Json | None = None) -> View:
    """Read evidence for a report.

    Args:
        evidence: As :func:`llmpatch.evals.evaluate` returns it.
        training: The training history: rows with ``stage``, ``step`` and ``loss`` or ``validation``.
        manifest: The content of ``patch.json``.

    Raises:
        IntegrityError: it is not evidence of this schema.
    """
    if evidence.get("schema") != SCHEMA:
        raise IntegrityError(
            f"evidence has schema {str(evidence.get('schema'))[:80]!r}, this llmpatch reads {SCHEMA}",
            hint="evaluate again with this version",
        )
    try:
        return _read(evidence, training or (), manifest or {})
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise IntegrityError(f"evidence is not laid out as {SCHEMA}: {reason}", hint="evaluate again") from error


def _read(evidence: Json, training: Sequence[Json], manifest: Json) -> View:
    systems = tuple(_systems(evidence["systems"]))
    lead = next(j["name"] for j in evidence["judges"] if j["measures"] == "refusal")
    name = str(manifest.get("name") or f"{evidence['base']['name']}, {evidence['suite']}")
    version = f" {manifest['version']}" if manifest.get("version") else ""
    return View(
        title=f"{name}{version}",
        summary=str(manifest.get("summary", "")),
        headline=_headline(evidence, lead),
        closed=_closed(evidence),
        tiles=tuple(_tiles(evidence, lead)),
        systems=systems,
        groups=tuple(_groups(evidence, systems, lead)),
        worse=tuple(str(line) for line in evidence.get("worse", [])),
        price=tuple(_price(evidence, systems)),
        frontier=tuple(_frontier(evidence, systems, lead)),
        curves=read_history(training),
        examples=tuple(_examples(evidence, systems)),
        details=tuple(_details(evidence)),
        commands=commands(evidence, manifest),
        facts=facts(evidence, manifest),
        judges=judge_lines(evidence["judges"], lead),
    )


def _systems(found: Json) -> list[System]:
    order = sorted(found, key=lambda key: (_STYLES.get(key, 9), list(found).index(key)))
    extra = iter(range(4, 4 + len(order)))
    return [System(key, LABELS.get(key, key), _STYLES[key] if key in _STYLES else next(extra)) for key in order]


def _headline(evidence: Json, lead: str) -> str:
    harmful = [s for s in evidence["sets"].values() if s["kind"] == "harmful"]
    if not harmful or "M+" not in harmful[0]["systems"]:
        n = sum(s["n"] for s in evidence["sets"].values())
        return f"{n:,} prompts in {len(evidence['sets'])} sets; no patch was measured."
    first = harmful[0]
    before = Estimate.of(first["systems"]["M"]["refusal"][lead])
    after = Estimate.of(first["systems"]["M+"]["refusal"][lead])
    verb = "raises" if after.value > before.value else "lowers" if after.value < before.value else "leaves"
    move = (
        f"from {percent(before.value)} to {percent(after.value)}" if verb != "leaves" else f"at {percent(after.value)}"
    )
    return (
        f"The patch {verb} refusals of {first['title']} requests {move} "
        f"({after.n} prompts, 95 % interval {after.span(percent)})."
    )


def _closed(evidence: Json) -> str:
    parts = []
    for name, found in evidence.get("closed", {}).items():
        share, title = Estimate.of(found), evidence["sets"][name]["title"]
        parts.append(f"{percent(share.value)} [{share.span(percent)}] of the gap on {title} (n = {share.n})")
    return f"Against the reference model, the patch closes {'; '.join(parts)}." if parts else ""


def _tiles(evidence: Json, lead: str) -> list[Tile]:
    tiles = []
    for kind, found in evidence.get("kinds", {}).items():
        base, patched = (found["systems"].get(name) for name in ("M", "M+"))
        if not base or not patched:
            continue
        after = Estimate.of(patched["refusal"][lead])
        title = {"harmful": "All harmful declined", "borderline": "Borderline wrongly declined"}.get(
            kind, "Everyday wrongly declined"
        )
        tiles.append(
            Tile(
                title,
                percent(base["refusal"][lead]["value"]),
                percent(after.value),
                f"{after.span(percent)}, n = {after.n}",
            )
        )
    price = evidence.get("price", {}).get("M+", {})
    if text := price.get("wikitext"):
        ratio = Estimate.of(text["ratio"])
        tiles.append(
            Tile(
                "Perplexity of plain text",
                plain(text["base"]),
                plain(text["patched"]),
                f"{factor(ratio.value)} [{ratio.span(decimals)}]",
            )
        )
    if time := price.get("latency"):
        ratio = Estimate.of(time["token_ratio"])
        before, after_ms = time["token_ms"]["base"], time["token_ms"]["patched"]
        tiles.append(
            Tile(
                "Time per token, ms", plain(before), plain(after_ms), f"{factor(ratio.value)} [{ratio.span(decimals)}]"
            )
        )
    return tiles


def _groups(evidence: Json, systems: Sequence[System], lead: str) -> list[Group]:
    groups = []
    for found in evidence["sets"].values():
        direction = _KINDS[found["kind"]]
        bars = tuple(
            Bar(s, Estimate.of(found["systems"][s.key]["refusal"][lead])) for s in systems if s.key in found["systems"]
        )
        groups.append(Group(str(found["title"]), found["kind"], direction, int(found["n"]), bars))
    return sorted(groups, key=lambda group: list(_KINDS).index(group.kind))


def _price(evidence: Json, systems: Sequence[System]) -> list[Row]:
    """What each system costs, a column per system."""
    price, kinds = evidence.get("price", {}), evidence.get("kinds", {})
    rows = [
        Row("Perplexity of plain text (WikiText-2)", tuple(_priced(price, s, _wikitext) for s in systems)),
        Row("Time to the first token", tuple(_priced(price, s, _first_token) for s in systems)),
        Row("Time per further token", tuple(_priced(price, s, _token) for s in systems)),
    ]
    measures: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("perplexity", "perplexity", plain),
        ("trigram_overlap", "repeated trigrams", percent),
        ("loops", "turns in circles", percent),
        ("incoherent", "does not make sense", percent),
        ("cut_off", "cut at the length limit", percent),
    )
    for kind, found in kinds.items():
        group = [
            Row(what, tuple(_cell(found["systems"].get(s.key, {}).get(key), show) for s in systems))
            for key, what, show in measures
        ]
        rows += [Row(f"{kind.capitalize()} answers", ()), *group]
    return [row for row in rows if not row.cells or any(cell != "–" for cell in row.cells)]


def _priced(price: Json, system: System, read: Callable[[Json], tuple[float, float, Estimate, str] | None]) -> str:
    """A cell of the base's own value, or of another's with its ratio."""
    if system.key == "M":
        for found in price.values():
            if values := read(found):
                return f"{plain(values[0])}{values[3]}"
        return "–"
    values = read(price[system.key]) if system.key in price else None
    if values is None:
        return "–"
    return f"{plain(values[1])}{values[3]} {factor(values[2].value)} [{values[2].span(decimals)}]"


def _wikitext(found: Json) -> tuple[float, float, Estimate, str] | None:
    text = found.get("wikitext")
    return (text["base"], text["patched"], Estimate.of(text["ratio"]), "") if text else None


def _first_token(found: Json) -> tuple[float, float, Estimate, str] | None:
    return _time(found, "first_ms", "first_ratio")


def _token(found: Json) -> tuple[float, float, Estimate, str] | None:
    return _time(found, "token_ms", "token_ratio")


def _time(found: Json, times: str, ratio: str) -> tuple[float, float, Estimate, str] | None:
    time = found.get("latency")
    return (time[times]["base"], time[times]["patched"], Estimate.of(time[ratio]), " ms") if time else None


def _cell(found: Json | None, show: Callable[[float], str]) -> str:
    if not found:
        return "–"
    estimate = Estimate.of(found)
    return f"{show(estimate.value)} [{estimate.span(show)}]"


def _frontier(evidence: Json, systems: Sequence[System], lead: str) -> list[Point]:
    """The frontier the evidence holds, else the measured systems themselves."""
    if found := evidence.get("frontier"):
        return _given_points(found, systems)
    kinds = evidence.get("kinds", {})
    harmful, harmless = kinds.get("harmful", {}).get("systems", {}), kinds.get("borderline", {}).get("systems", {})
    return [
        Point(
            s.label,
            s.style,
            Estimate.of(harmless[s.key]["refusal"][lead]),
            Estimate.of(harmful[s.key]["refusal"][lead]),
        )
        for s in systems
        if s.key in harmful and s.key in harmless
    ]


def _given_points(found: Sequence[Json], systems: Sequence[System]) -> list[Point]:
    """Points by name; variants such as ``M+, KL 3`` share the colour of what they vary."""
    styles = {system.key: system.style for system in systems} | _STYLES
    points = []
    for point in found:
        name, comma, variant = str(point["name"]).partition(",")
        style = styles.setdefault(name, 1 + max(3, *styles.values()))
        label = f"{LABELS.get(name, name)}{comma}{variant}"
        points.append(Point(label, style, Estimate.of(point["over_refusal"]), Estimate.of(point["refusal"])))
    return points


def _examples(evidence: Json, systems: Sequence[System]) -> list[Example]:
    found = []
    for row in evidence.get("examples", []):
        replies = []
        for system in systems:
            if answer := row["answers"].get(system.key):
                text, refused = str(answer["text"]), bool(answer["refused"])
                # Again here, so that evidence written by others does not make the report a cookbook.
                short = text[:HARM_CHARS] if row["kind"] == "harmful" and not refused else text
                cut = bool(answer.get("shortened")) or len(short) < len(text) or answer.get("finish") == "length"
                replies.append(Reply(system, short, cut, refused))
        title = str(evidence["sets"].get(row["set"], {}).get("title", row["set"]))
        found.append(Example(row["kind"], title, str(row["prompt"]), str(row["note"]), tuple(replies)))
    return found


def _details(evidence: Json) -> list[Row]:
    """Every refusal and harm rate: set and judge, then n, base, patched, paired change and p."""
    rows = []
    for found in evidence["sets"].values():
        base = found["systems"]["M"]
        patched, change = found["systems"].get("M+"), found.get("paired", {}).get("M+")
        for measure in ("refusal", "harm"):
            for judge, value in base[measure].items():
                cells = [str(found["n"]), _cell(value, percent), "–", "–", "–"]
                if patched and change:
                    moved = Estimate.of(change[measure][judge])
                    cells[2] = _cell(patched[measure][judge], percent)
                    cells[3] = f"{percent(moved.value, sign=True)} [{moved.span(lambda v: percent(v, sign=True))}]"
                    cells[4] = _p(float(change[measure][judge]["p"]))
                rows.append(Row(f"{found['title']}: {measure} by {judge}", tuple(cells)))
    return rows


def _p(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError("a p value is not finite")
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
