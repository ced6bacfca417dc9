"""The results page as Markdown and as one self-contained HTML page. Both show the same sections; only HTML has plots.

results_markdown(sections), results_html(sections)
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from llmpatch.reporting import html, markdown
from llmpatch.reporting.numbers import NARROW
from llmpatch.reporting.page import System
from llmpatch.reporting.results.blocks import Bars, Block, Grid, Lines, Plot, Section
from llmpatch.reporting.svg import colour

TITLE = "Results"
NOTE = (
    "Written by scripts/make_results.py from the patches' evidence and from benchmarks/results; no figure is typed by hand. "
    "Brackets hold 95 % intervals unless a section or a heading says otherwise."
)


def results_markdown(sections: Sequence[Section]) -> str:
    """The page for repositories and terminals."""
    parts = [f"# {TITLE}", NOTE, "With plots: [results.html](results.html)."]
    for section in sections:
        parts += [f"## {markdown.one_line(section.title)}", markdown.one_line(section.lead)]
        parts += [_in_markdown(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part).replace(NARROW, " ") + "\n"


def _in_markdown(block: Block) -> str:
    if isinstance(block, Grid) and block.rows:
        return _titled(block.title, markdown.table(block.head, block.rows))
    if isinstance(block, Lines):
        return _titled(block.title, "\n".join(f"- {markdown.one_line(item)}" for item in block.items))
    return ""


def _titled(title: str, body: str) -> str:
    return f"### {markdown.one_line(title)}\n\n{body}" if title else body


def results_html(sections: Sequence[Section]) -> str:
    """The page for people, in one file that loads nothing."""
    head = f'<header><p class="eyebrow">llmpatch</p><h1>{TITLE}</h1><p class="lead">{escape(NOTE)}</p></header>'
    body = "".join(html.section(s.title, s.lead, "".join(map(_in_html, s.blocks))) for s in sections)
    page = Template((files("llmpatch.reporting") / "page.html").read_text(encoding="utf-8"))
    return page.substitute(title=TITLE, body=head + body)


def _in_html(block: Block) -> str:
    if isinstance(block, Grid):
        return _headed(block.title, html.table("", block.head, block.rows))
    if isinstance(block, Lines):
        return _headed(block.title, f'<ul class="worse">{"".join(f"<li>{escape(i)}</li>" for i in block.items)}</ul>')
    if isinstance(block, Plot):
        return _figure(block)
    return _bars(block)


def _headed(title: str, body: str) -> str:
    return f"<h3>{escape(title)}</h3>{body}" if title and body else body


def _bars(block: Bars) -> str:
    systems: dict[str, System] = {bar.system.key: bar.system for group in block.groups for bar in group.bars}
    if not systems:
        return ""
    return (
        f'{html.legend(list(systems.values()))}<div class="groups">{"".join(map(html.group_bars, block.groups))}</div>'
    )


def _figure(block: Plot) -> str:
    items = "".join(f'<li><i class="{colour(style)}"></i>{escape(label)}</li>' for label, style in block.legend)
    legend = f'<ul class="legend">{items}</ul>' if items else ""
    caption = f"<figcaption>{escape(block.title)}</figcaption>"
    return f'<figure class="wide">{caption}{block.drawn}<p class="axis">{escape(block.axis)}</p>{legend}</figure>'
