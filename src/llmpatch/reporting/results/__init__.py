"""The results of the project on one page: what was aimed at, each risk, baselines, ablations, and what was not measured.

    sections = read_results(Path("."))
    results_markdown(sections), results_html(sections)

Reads ``patches/*/*/evidence.json``, ``benchmarks/results`` and two files of figures that are not ours to measure:
``benchmarks/paper.json`` (what arXiv 2511.08484 reports) and ``benchmarks/aims.json`` (what was to be reached). A figure whose
file or place does not exist is said to be not measured. Nothing here is typed by hand but titles.
"""

from __future__ import annotations

from llmpatch.reporting.results.pages import results_html, results_markdown
from llmpatch.reporting.results.sections import read_results

__all__ = ["read_results", "results_html", "results_markdown"]
