"""Reports: evidence as Markdown and as one self-contained HTML page.

    page = render_html(evidence, training=history, manifest=manifest)
    write_text(Path("report.html"), page)

The page needs no network, no script and no other file, and works on a phone and in the dark. Knows the layout of the
evidence (``llmpatch/evidence/v1``) and nothing about how it was measured; all its text is escaped.
"""

from __future__ import annotations

from llmpatch.reporting.html import render_html
from llmpatch.reporting.markdown import render_markdown

__all__ = ["render_html", "render_markdown"]
