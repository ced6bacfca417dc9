"""Write docs/results.md and docs/results.html from the patches' evidence and from benchmarks/results.

python scripts/make_results.py            # writes them
python scripts/make_results.py --check    # exit code 1 when one differs
"""

from __future__ import annotations

from collections.abc import Mapping

from generated import ROOT, main
from llmpatch.reporting.results import read_results, results_html, results_markdown


def pages() -> Mapping[str, str]:
    sections = read_results(ROOT)
    return {"docs/results.md": results_markdown(sections), "docs/results.html": results_html(sections)}


if __name__ == "__main__":
    main(pages, __doc__, "scripts/make_results.py")
