"""The same report as Markdown, for terminals, reviews and repositories.

render_markdown(evidence, training=history, manifest=manifest)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmpatch.reporting.curves import Curves
from llmpatch.reporting.numbers import NARROW, decimals, percent
from llmpatch.reporting.page import Example, Row, View
from llmpatch.reporting.view import make_view

EXAMPLES = 12
_ACTIVE = re.compile(r"([\\`*_\[\]<>|#~!&$])")


def render_markdown(
    evidence: Mapping[str, Any],
    training: Sequence[Mapping[str, Any]] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> str:
    """The report as Markdown (arguments and errors as in :func:`llmpatch.reporting.render_html`)."""
    view = make_view(evidence, training=training, manifest=manifest)
    parts = [
        f"# {one_line(view.title)}", one_line(view.summary), f"**{one_line(view.headline)}**", one_line(view.closed),
        *_rates(view), *_worse(view), *_price(view), *_frontier(view), *_training(view.curves), *_examples(view),
        *_details(view), *_reproduce(view),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part).replace(NARROW, " ") + "\n"


def one_line(text: str) -> str:
    """Foreign text as one line without markup, links, HTML or table cells."""
    line = " ".join("".join(c if c.isprintable() or c == NARROW else " " for c in text).split(" ")).strip()
    return _ACTIVE.sub(r"\\\1", re.sub(r" {2,}", " ", line))


def table(head: Sequence[str], rows: Sequence[Row]) -> str:
    """A table whose first column has no heading."""
    body = [[row.name, *(row.cells or [""] * len(head))] for row in rows]
    lines = [["", *head], ["---"] * (len(head) + 1), *body]
    return "\n".join(
        f"| {' | '.join(one_line(cell) if i != 1 else cell for cell in line)} |" for i, line in enumerate(lines)
    )


def _rates(view: View) -> list[str]:
    rows = []
    for group in view.groups:
        found = {bar.system.key: bar.estimate for bar in group.bars}
        show = decimals if group.score else percent
        cells = [
            f"{show(found[s.key].value)} [{found[s.key].span(show)}]" if s.key in found else "–" for s in view.systems
        ]
        rows.append(Row(group.label, (str(group.n), *cells)))
    if not rows:
        return []
    return ["## Before and after", one_line(view.bars_note), table(["n", *(s.label for s in view.systems)], rows)]


def _worse(view: View) -> list[str]:
    if not any(system.key == "M+" for system in view.systems):
        return []
    lines = view.worse or ("Nothing that was measured got worse.",)
    return ["## What got worse", "\n".join(f"- {one_line(line)}" for line in lines)]


def _price(view: View) -> list[str]:
    return ["## The price", table([s.label for s in view.systems], view.price)] if view.price else []


def _frontier(view: View) -> list[str]:
    if len(view.frontier) < 2:
        return []
    rows = [Row(p.label, tuple(f"{percent(e.value)} [{e.span(percent)}]" for e in (p.y, p.x))) for p in view.frontier]
    return ["## The frontier", table(["Harmful declined", "Borderline wrongly declined"], rows)]


def _training(curves: Curves) -> list[str]:
    if not curves.steps:
        return []
    stages = [
        f"- {one_line(line.label)}: {line.points[0][1]:.3f} at the start, {line.points[-1][1]:.3f} at the end "
        f"(running mean), {line.steps} steps"
        for line in curves.losses
    ]
    kept = [f"- Kept: the checkpoint at step {curves.best} of {curves.steps}"] if curves.best else []
    checks = [
        f"- {one_line(line.label)}: " + ", ".join(f"{value:.2f}" for _, value in line.points)
        for line in curves.validation
    ]
    return ["## Training", "\n".join(stages + kept + checks)]


def _examples(view: View) -> list[str]:
    if not view.examples:
        return []
    step = max(1, len(view.examples) // EXAMPLES)
    return ["## Answers side by side", one_line(view.examples_note), *map(_example, view.examples[::step][:EXAMPLES])]


def _example(example: Example) -> str:
    lines = [f"**{one_line(example.prompt)}** ({one_line(example.source)}; {one_line(example.note)})", ""]
    for reply in example.replies:
        lines.append(
            f"- {one_line(reply.system.label)}, {one_line(reply.verdict)}: {one_line(reply.text)}{' …' if reply.cut else ''}"
        )
    return "\n".join(lines)


def _details(view: View) -> list[str]:
    return (
        ["## All figures", table(["n", "Base", "Patched", "Paired change", "p"], view.details)] if view.details else []
    )


def _reproduce(view: View) -> list[str]:
    # Indented code cannot be ended from inside, whatever a name contains.
    commands = "\n".join(f"    {' '.join(command.split())}" for command in view.commands)
    facts = "\n".join(f"- {one_line(name)}: {one_line(value)}" for name, value in view.facts)
    judges = "\n".join(f"- {one_line(line)}" for line in view.judges)
    return ["## How to reproduce", commands, facts, "Judges:", judges]
