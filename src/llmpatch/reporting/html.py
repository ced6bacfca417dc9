"""The HTML page: sections in the order a reader needs them, each made from the view.

render_html(evidence, training=history, manifest=manifest)   # one string, no other file needed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from string import Template
from typing import Any

from llmpatch.reporting.curves import Curves, Line
from llmpatch.reporting.numbers import decimals, percent, plain
from llmpatch.reporting.page import Example, Group, Reply, Row, System, Tile, View
from llmpatch.reporting.svg import bar, colour, plot_frontier, plot_lines
from llmpatch.reporting.view import make_view

OPEN_EXAMPLES = 4
PROSE = 50  # letters in a cell that make it a sentence
_BAD = (
    "newly complies",
    "newly refused",
    "still complies",
    "newly toxic",
    "still toxic",
    "newly gendered",
    "still gendered",
    "off topic",
)
_TONES = dict.fromkeys((*_BAD, "loops"), "bad") | {"fixed": "good"}


def render_html(
    evidence: Mapping[str, Any],
    training: Sequence[Mapping[str, Any]] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> str:
    """One self-contained page.

    Args:
        evidence: As :func:`llmpatch.evals.evaluate` returns it.
        training: The training history.
        manifest: The content of ``patch.json``.

    Raises:
        IntegrityError: it is not evidence that this version reads.
    """
    view = make_view(evidence, training=training, manifest=manifest)
    body = "".join(
        [
            _header(view), _bars(view), _worse(view), _price(view), _frontier(view), _training(view.curves),
            _examples(view), _details(view), _reproduce(view),
        ]
    )  # fmt: skip
    page = Template((files("llmpatch.reporting") / "page.html").read_text(encoding="utf-8"))
    return page.substitute(title=escape(view.title), body=body)


def section(title: str, lead: str, body: str) -> str:
    """A card with a heading; nothing where it would be empty."""
    return f'<section><h2>{escape(title)}</h2><p class="lead">{escape(lead)}</p>{body}</section>' if body else ""


def _header(view: View) -> str:
    summary = f'<p class="lead">{escape(view.summary)}</p>' if view.summary else ""
    closed = f'<p class="closed">{escape(view.closed)}</p>' if view.closed else ""
    tiles = f'<div class="tiles">{"".join(map(_tile, view.tiles))}</div>' if view.tiles else ""
    return (
        f'<header><p class="eyebrow">Safety patch report</p><h1>{escape(view.title)}</h1>{summary}'
        f'<p class="headline">{escape(view.headline)}</p>{tiles}{closed}</header>'
    )


def _tile(tile: Tile) -> str:
    return (
        f'<div class="tile"><h3>{escape(tile.title)}</h3><p><span class="before">{escape(tile.before)}</span>'
        f'<span class="arrow" aria-label="to">→</span><strong>{escape(tile.after)}</strong></p>'
        f"<small>{escape(tile.note)}</small></div>"
    )


def legend(systems: Sequence[System]) -> str:
    """The systems with their colours."""
    items = "".join(f'<li><i class="{colour(s.style)}"></i>{escape(s.label)}</li>' for s in systems)
    return f'<ul class="legend">{items}</ul>'


def _bars(view: View) -> str:
    parts = [legend(view.systems)]
    for (title, direction), groups in groupby(view.groups, key=lambda group: (group.heading, group.direction)):
        found = list(groups)
        heading = f'<h3>{escape(title)} <span class="direction">{escape(direction)}</span></h3>'
        parts.append(heading + f'<div class="groups">{"".join(map(group_bars, found))}</div>')
    return section("Before and after", view.bars_note, "".join(parts) if view.groups else "")


def group_bars(group: Group) -> str:
    """One set's bars, a row per system."""
    rows = []
    for found in group.bars:
        show = decimals if group.score else percent
        value, interval = show(found.estimate.value), found.estimate.span(show)
        n = "" if found.estimate.n == group.n else f" <small>n = {found.estimate.n}</small>"
        label = f"{found.system.label}: {value}, 95 % interval {interval}, n = {found.estimate.n}"
        rows.append(
            f'<div class="row"><span class="who">{escape(found.system.label)}{n}</span>'
            f'{bar(found.estimate, found.system.style, label)}<span class="value"><b>{value}</b> '
            f"<small>{interval}</small></span></div>"
        )
    return (
        f'<div class="group"><h4>{escape(group.title)} <span class="n">n = {group.n}</span></h4>{"".join(rows)}</div>'
    )


def _worse(view: View) -> str:
    if not any(system.key == "M+" for system in view.systems):
        return ""
    lines = view.worse or ("Nothing that was measured got worse.",)
    body = f'<ul class="worse">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'
    return section(
        "What got worse",
        "Every measure, fluency, plain text and speed: where the patched model measures worse.",
        body,
    )


def _price(view: View) -> str:
    body = table("", [s.label for s in view.systems], view.price)
    lead = (
        "What each model costs. Perplexity of answers is taken under the untouched base; lower reads more like it. "
        "Square brackets hold 95 % intervals; × is the ratio to the base on the same tokens or in neighbouring runs."
    )
    return section("The price", lead, body)


def table(corner: str, head: Sequence[str], rows: Sequence[Row]) -> str:
    """A table that scrolls sideways where it is too wide; nothing without rows."""
    if not rows:
        return ""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in (corner, *head))
    lines = "".join(_line(row, len(head) + 1) for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _line(row: Row, width: int) -> str:
    if not row.cells:
        return f'<tr class="heads"><th scope="rowgroup" colspan="{width}">{escape(row.name)}</th></tr>'
    cells = "".join(f"<td{_wraps(cell)}>{_cell(cell)}</td>" for cell in row.cells)
    return f'<tr><th scope="row">{escape(row.name)}</th>{cells}</tr>'


def _wraps(text: str) -> str:
    """Figures stay on their line, sentences do not."""
    return ' class="prose"' if len(text) > PROSE else ""


def _cell(text: str) -> str:
    """The value in full, its ratio and interval small."""
    start = min((at for at in (text.find(" ["), text.find(" ×")) if at > 0), default=len(text))
    value, rest = text[:start], text[start:].strip()
    return f"{escape(value)} <small>{escape(rest)}</small>" if rest else escape(value)


def _frontier(view: View) -> str:
    if len(view.frontier) < 2:
        return ""
    rows = [
        Row(f"{i}  {p.label}", tuple(f"{percent(e.value)} [{e.span(percent)}]" for e in (p.y, p.x)))
        for i, p in enumerate(view.frontier, start=1)
    ]
    axes = '<p class="axis">↑ harmful requests declined</p>'
    below = '<p class="axis right">harmless borderline requests declined →</p>'
    plot = axes + plot_frontier(view.frontier, show=lambda v: f"{v:.0%}") + below
    found = table("", ["Harmful declined", "Borderline wrongly declined"], rows)
    lead = "The upper left corner is ideal: all that is harmful is declined, nothing else is."
    return section("The frontier", lead, f'<div class="two"><div>{plot}</div>{found}</div>')


def _training(curves: Curves) -> str:
    figures = []
    for line in curves.losses:
        top = _round_up(max(value for _, value in line.faint or line.points))
        drawn = plot_lines([line], label=f"{line.label} by step", x_max=line.steps, y_max=top, show=plain)
        figures.append(f"<figure><figcaption>{escape(line.label)} by step</figcaption>{drawn}</figure>")
    if curves.validation:
        marks = [(name, float(start)) for name, start in curves.starts if start]
        marks += [("kept", float(curves.best))] if curves.best else []
        # A score below 0, of early steps that cost more than they gain, has no place from 0 to 100 %: Markdown has its numbers.
        lines = [line for line in curves.validation if all(0 <= value <= 1 for _, value in line.points)]
        drawn = plot_lines(
            lines,
            label="Validation by step",
            x_max=curves.steps,
            y_max=1.0,
            show=lambda v: f"{v:.0%}",
            marks=marks,
            dots=True,
        )
        caption = "Validation by step"
        figures.append(f'<figure class="wide"><figcaption>{caption}</figcaption>{drawn}{_line_legend(lines)}</figure>')
    body = f'<div class="figures">{"".join(figures)}</div>' if figures else ""
    return section("Training", "Faint: every step. Strong: a running mean.", body)


def _line_legend(lines: Sequence[Line]) -> str:
    items = "".join(f'<li><i class="{colour(line.style)}"></i>{escape(line.label)}</li>' for line in lines)
    return f'<ul class="legend">{items}</ul>'


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 4, 5, 8, 10 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(step * power for step in (1, 2, 2.5, 4, 5, 8, 10) if step * power >= value * 0.9999)


def _examples(view: View) -> str:
    parts = []
    for title in dict.fromkeys(example.heading for example in view.examples):
        found = [example for example in view.examples if example.heading == title]
        more = found[OPEN_EXAMPLES:]
        rest = f"<details><summary>{len(more)} more</summary>{''.join(map(_example, more))}</details>" if more else ""
        parts.append(f"<h3>{escape(title)}</h3>{''.join(map(_example, found[:OPEN_EXAMPLES]))}{rest}")
    return section("Answers side by side", view.examples_note, "".join(parts))


def _example(example: Example) -> str:
    tone = _TONES.get(example.note, "")
    return (
        f'<article class="example"><p class="prompt">{escape(example.prompt)}</p>'
        f'<p class="tags"><span class="tag {tone}">{escape(example.note)}</span>'
        f"<span>{escape(example.source)}</span></p>"
        f'<div class="replies">{"".join(map(_reply, example.replies))}</div></article>'
    )


def _reply(reply: Reply) -> str:
    more = '<span class="more"> …</span>' if reply.cut else ""
    text = escape(reply.text) if reply.text else '<span class="more">(empty)</span>'
    return (
        f'<div class="reply"><h5><i class="{colour(reply.system.style)}"></i>{escape(reply.system.label)}'
        f"<span>{escape(reply.verdict)}</span></h5><p>{text}{more}</p></div>"
    )


def _details(view: View) -> str:
    found = table("", ["n", "Base", "Patched", "Paired change", "p"], view.details)
    body = f"<details><summary>{len(view.details)} rows</summary>{found}</details>" if found else ""
    return section(
        "All figures",
        "Every judge on every set. p is of the same prompts, those of one wording together: of yes and no the exact McNemar "
        "test (of toxicity: whether it crosses one half), of other numbers a test that flips signs.",
        body,
    )


def _reproduce(view: View) -> str:
    commands = "\n".join(escape(command) for command in view.commands)
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in view.facts)
    judges = "".join(f"<li>{escape(line)}</li>" for line in view.judges)
    body = f'<pre tabindex="0">{commands}</pre><dl>{facts}</dl><h3>Judges</h3><ul class="judges">{judges}</ul>'
    return section("How to reproduce", "Commands, and everything the figures depend on.", body)
