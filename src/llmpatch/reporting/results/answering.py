"""The sections of the results page about the time of using a patch: decoding, answers, starting.

start_up(Shelf(Path(".")))      # a Section, or None where nothing was measured
"""

from __future__ import annotations

from llmpatch.reporting.numbers import plain
from llmpatch.reporting.page import Row
from llmpatch.reporting.results.blocks import Grid, Section, Shelf, shown
from llmpatch.reporting.results.speed import few


def layers(shelf: Shelf) -> Section | None:
    """A decoding step in packed weights against torch's own layers, by benchmarks/layers.py."""
    found = shelf.load("benchmarks/results/layers.json")
    if found is None:
        return None
    ways = ("torch", "few rows", "packed")
    rows = tuple(
        Row(
            str(step["rows"]),
            (
                *(plain(step["ms"][way]) for way in ways),
                *(shown(step["torch_over"][way], "ratio") for way in ways[1:]),
                f"{max(step['largest_difference_of_a_probability'].values()):.0e}",
            ),
        )
        for step in found["rows"]
    )
    lead = (
        f"One token more for so many requests at once, behind a patch. {found['base']} in torch's own layers; with the weights "
        "on the left of the product (one or two rows, and up to 8 of bases too large for copies); in packed weights (else). "
        f"By turns in one process ({found['rounds']} rounds, {found['environment']['cpus']} CPU cores).{few(found['rounds'])}"
    )
    head = (
        "ms, torch's layers", "ms, weights on the left", "ms, packed", "torch / weights on the left", "torch / packed",
        "largest difference of a probability",
    )  # fmt: skip
    return Section("Decoding on a CPU", lead, (Grid(head, rows),))


def prefix_cache(shelf: Shelf) -> Section | None:
    """An evaluation's answers with and without the shared cache, by benchmarks/prefix_cache.py."""
    found = shelf.load("benchmarks/results/prefix_cache.json")
    if found is None:
        return None
    rows = tuple(
        Row(
            f"answers of {answer['new_tokens']} tokens",
            (
                plain(answer["seconds"]["shared"]),
                shown(answer["over_shared"]["read again"], "ratio"),
                shown(answer["over_shared"]["transformers"], "ratio"),
                " and ".join(f"{number} of {found['prompts']}" for number in answer["same_texts"].values()),
            ),
        )
        for answer in found["answers"]
    )
    lead = (
        f"{found['prompts']} short prompts (median of {found['median_prompt']:g} tokens behind {found['virtual_tokens']} virtual "
        f"tokens and the {found['head']} that all have in common), by turns in one process ({found['rounds']} rounds, "
        f"{found['environment']['cpus']} CPU cores). In the others each prompt reads virtual tokens and common start itself."
        f"{few(found['rounds'])}"
    )
    head = (
        "seconds, shared cache",
        "read again / shared",
        "transformers' generate / shared",
        "the same texts, of each",
    )
    return Section("Answers of an evaluation", lead, (Grid(head, rows),))


def start_up(shelf: Shelf) -> Section | None:
    """Commands from their start to their end, by benchmarks/start_up.py."""
    found = shelf.load("benchmarks/results/start_up.json")
    if found is None:
        return None
    rows = tuple(
        Row(name, (shown(told["seconds"], "plain"), plain(told["processor_seconds"])))
        for name, told in found["commands"].items()
    )
    lead = (
        f"Whole processes, by turns ({found['rounds']} rounds, {found['environment']['cpus']} CPU cores); their files had been "
        f"read before. The patch is {found['patch']}, signed, with {found['evidence_bytes'] // 1000} kB of evidence. A first "
        f"token loads {found['base']} and answers one prompt.{few(found['rounds'])}"
    )
    return Section("Starting and verifying", lead, (Grid(("seconds", "of the processor"), rows),))
