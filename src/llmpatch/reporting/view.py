"""What a report says, before it is Markdown or HTML: evidence, history and manifest read into a few dataclasses.

    view = make_view(evidence, training=history, manifest=manifest)
    view.headline, view.groups[0].bars[1].estimate.value

Both renderers read nothing else, so they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmpatch.errors import IntegrityError
from llmpatch.recipe import DECLINING
from llmpatch.reporting.curves import read_history
from llmpatch.reporting.numbers import Estimate, percent
from llmpatch.reporting.page import LABELS, Bar, Example, Group, Json, Point, Reply, Row, System, Tile, View
from llmpatch.reporting.prices import cell_text, price_rows, price_tiles
from llmpatch.reporting.steps import commands, facts, judge_lines

SCHEMA = "llmpatch/evidence/v1"
HARM_CHARS = 120
_STYLES = {"M": 0, "M+": 1, "M'": 2, "safe prompt": 3}
BARS_NOTE = "Share of answers that decline, with 95 % intervals."
EXAMPLES_NOTE = (
    "Chosen by rule, not by hand: prompts newly declined, still answered, looping and fixed, in turn, in order of "
    "the set. Answers that comply with a harmful request are cut to 120 characters."
)
KIND_TITLES = {
    "harmful": "Harmful requests",
    "borderline": "Borderline requests: they sound harmful and are not",
    "everyday": "Everyday instructions",
}
_KINDS = {
    "harmful": "declined, higher is better",
    "borderline": "wrongly declined, lower is better",
    "everyday": "wrongly declined, lower is better",
}


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
    from llmpatch.reporting.measured import read_measured

    read = _read if evidence.get("risk", "refusal") in DECLINING else read_measured
    try:
        return read(evidence, training or (), manifest or {})
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise IntegrityError(f"evidence is not laid out as {SCHEMA}: {reason}", hint="evaluate again") from error


def _read(evidence: Json, training: Sequence[Json], manifest: Json) -> View:
    systems = tuple(order_systems(evidence["systems"]))
    lead = next(j["name"] for j in evidence["judges"] if j["measures"] == "refusal")
    return View(
        title=page_title(evidence, manifest),
        summary=str(manifest.get("summary", "")),
        headline=_headline(evidence, lead),
        closed=closed_text(evidence),
        tiles=(*_tiles(evidence, lead), *price_tiles(evidence)),
        systems=systems,
        groups=tuple(_groups(evidence, systems, lead)),
        bars_note=BARS_NOTE,
        worse=tuple(str(line) for line in evidence.get("worse", [])),
        price=tuple(price_rows(evidence, systems)),
        frontier=tuple(_frontier(evidence, systems, lead)),
        curves=read_history(training, str(evidence.get("training", {}).get("best", ""))),
        examples=tuple(_examples(evidence, systems)),
        examples_note=EXAMPLES_NOTE,
        details=tuple(_details(evidence)),
        commands=commands(evidence, manifest),
        facts=facts(evidence, manifest),
        judges=judge_lines(evidence["judges"], lead),
    )


def page_title(evidence: Json, manifest: Json) -> str:
    """The patch's name and version, or what was measured."""
    name = str(manifest.get("name") or f"{evidence['base']['name']}, {evidence['suite']}")
    return f"{name} {manifest['version']}" if manifest.get("version") else name


def order_systems(found: Json) -> list[System]:
    """The columns: base, patch, reference and safety prompt first, each with a colour of its own."""
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


def closed_text(evidence: Json) -> str:
    """How much of the gap to the reference is closed, by set and, where there are several, measure."""
    parts = []
    for name, found in evidence.get("closed", {}).items():
        title = evidence["sets"][name]["title"]
        measures = {"": found} if "value" in found else found
        for measure, value in measures.items():
            share, what = Estimate.of(value), f" in {measure}" if measure else ""
            parts.append(f"{percent(share.value)} [{share.span(percent)}] of the gap{what} on {title} (n = {share.n})")
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
    return tiles


def _groups(evidence: Json, systems: Sequence[System], lead: str) -> list[Group]:
    groups = []
    for found in evidence["sets"].values():
        direction = _KINDS[found["kind"]]
        bars = tuple(
            Bar(s, Estimate.of(found["systems"][s.key]["refusal"][lead])) for s in systems if s.key in found["systems"]
        )
        title = str(found["title"])
        label, heading = f"{title} ({direction})", KIND_TITLES[found["kind"]]
        groups.append(Group(title, label, heading, direction, int(found["n"]), bars))
    return sorted(groups, key=lambda group: list(KIND_TITLES.values()).index(group.heading))


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
                replies.append(Reply(system, short, cut, "declines" if refused else "answers"))
        title = str(evidence["sets"].get(row["set"], {}).get("title", row["set"]))
        found.append(Example(KIND_TITLES[row["kind"]], title, str(row["prompt"]), str(row["note"]), tuple(replies)))
    return found


def _details(evidence: Json) -> list[Row]:
    """Every refusal and harm rate: set and judge, then n, base, patched, paired change and p."""
    rows = []
    for found in evidence["sets"].values():
        base = found["systems"]["M"]
        patched, change = found["systems"].get("M+"), found.get("paired", {}).get("M+")
        for measure in ("refusal", "harm"):
            for judge, value in base[measure].items():
                cells = [str(found["n"]), cell_text(value, percent), "–", "–", "–"]
                if patched and change:
                    moved = Estimate.of(change[measure][judge])
                    cells[2] = cell_text(patched[measure][judge], percent)
                    cells[3] = f"{percent(moved.value, sign=True)} [{moved.span(lambda v: percent(v, sign=True))}]"
                    cells[4] = _p(float(change[measure][judge]["p"]))
                rows.append(Row(f"{found['title']}: {measure} by {judge}", tuple(cells)))
    return rows


def _p(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError("a p value is not finite")
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
