"""The sections of the page: what was aimed at, each risk, and what was not measured.

sections = read_results(Path("."))
sections[0].title, sections[0].blocks[0].rows
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from llmpatch.errors import IntegrityError
from llmpatch.reporting.numbers import NARROW, decimals, percent
from llmpatch.reporting.page import Bar, Group, Row, View
from llmpatch.reporting.results.answering import layers, prefix_cache, start_up
from llmpatch.reporting.results.benchmarks import (
    ABLATIONS,
    ablations,
    baselines,
    further,
    quantised,
    sampled,
    self_reference,
)
from llmpatch.reporting.results.blocks import MISSING, Bars, Block, Grid, Json, Lines, Section, Shelf, paper, shown
from llmpatch.reporting.results.speed import end_to_end, fast_path, growth, peers, training_step
from llmpatch.reporting.results.together import together
from llmpatch.reporting.view import make_view

RISKS = {
    "refusal": "Harmful requests", "toxicity": "Toxicity", "gender-bias": "Gender bias", "personal-data": "Personal data",
}  # fmt: skip
# Evidence of further suites, as benchmarks/results/SUITE_PATCH.json: in words, and of which patches.
ASKED = {
    "attacks": ("Attacks on requests (`llmpatch eval --suite attacks`)", ("refusal",)),
    "everyday": (
        "Everyday requests declined (`--prompts data/prompts/everyday_test.jsonl`)",
        ("toxicity", "gender-bias"),
    ),
    "utility": ("ARC, MMLU and TruthfulQA (`--suite utility`)", ("refusal", "toxicity", "gender-bias", "cumulative")),
    "facts": ("Short facts (`--suite facts`)", ("refusal", "toxicity", "gender-bias", "cumulative")),
    "ifeval": ("Instructions about format (`--suite ifeval`)", ("refusal",)),
    "long-context": ("Requests behind long texts (`--suite long-context`)", ("refusal",)),
    "distance": ("Distance to the reference's answers (`--suite distance`)", ("refusal",)),
}
# Shorter recipes on other families. Their patches are not published; the evidence of a trial lies below OTHERS.
OTHERS = "benchmarks/results/bases"
OTHER_BASES = {"gemma-3-270m": "toxicity", "qwen2.5-coder-1.5b": "gender-bias"}
ADAPTIVE = ("gcg", "gcg_universal", "pair")
HEADINGS = RISKS | {"baselines": "Baselines", "together": "Patches together", "speed": "Speed, on 2 cores"}


def read_results(root: Path) -> list[Section]:
    """Every section of the page.

    Args:
        root: The repository.

    Raises:
        IntegrityError: a file that is not what its script writes.
    """
    shelf = Shelf(root)
    try:
        risks = [risk_section(shelf, risk) for risk in RISKS]
        parts = [
            aims(shelf),
            *risks,
            self_reference(shelf),
            sampled(shelf),
            together(shelf),
            baselines(shelf),
            *ablations(shelf),
            quantised(shelf),
            further(shelf),
            training_step(shelf),
            peers(shelf),
            fast_path(shelf),
            growth(shelf),
            end_to_end(shelf),
            layers(shelf),
            prefix_cache(shelf),
            start_up(shelf),
            absent(shelf),
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"a result under {root} is not laid out as expected: {type(error).__name__} {error}",
            hint="write it again with this version's scripts",
        ) from None
    return [part for part in parts if part is not None]


def aims(shelf: Shelf) -> Section | None:
    """What was to be reached against what was."""
    told = shelf.load("benchmarks/aims.json")
    if told is None:
        return None
    rows: list[Row] = []
    for risk in dict.fromkeys(aim["risk"] for aim in told["aims"]):
        rows.append(Row(HEADINGS[risk], ()))
        rows += [_aim(shelf, aim) for aim in told["aims"] if aim["risk"] == risk]
    head = ("aim", "n", "measured", "verdict")
    return Section("What was to be reached", str(told["note"]), (Grid(head, tuple(rows)),))


def _aim(shelf: Shelf, aim: Json) -> Row:
    unit, (what, value) = aim["unit"], measured(shelf, aim)
    sign = "≥" if "at_least" in aim or "at_least_that" in aim else "≤"
    other = aim.get("at_least_that") or aim.get("at_most_that")
    bound = shelf.look(aim["file"], other) if other else aim.get("at_least", aim.get("at_most"))
    told = f"{sign}{NARROW}{shown(bound, unit)}" if bound is not None else MISSING
    if value is None or bound is None:
        return Row(what, (told, "–", MISSING, "–"))
    number, limit = _number(value), _number(bound)
    reached = number >= limit if sign == "≥" else number <= limit
    n = str(value["n"]) if isinstance(value, Mapping) and "n" in value else "–"
    return Row(what, (told, n, shown(value, unit), "reached" if reached else "missed"))


def measured(shelf: Shelf, aim: Json) -> tuple[str, Any]:
    """What an aim is called, and what was measured: of ``least_of`` several the one that is lowest, by its name."""
    if "least_of" not in aim:
        return aim["what"], shelf.look(aim["file"], aim["at"])
    several = shelf.look(aim["file"], aim["least_of"]) or {}
    found = {name: shelf.look(aim["file"], [*aim["least_of"], name, *aim["at"]]) for name in several}
    found = {name: value for name, value in found.items() if value is not None}
    if not found:
        return aim["what"], None
    least = min(found, key=lambda name: _number(found[name]))
    return f"{aim['what']}: {least}", found[least]


def _number(value: Any) -> float:
    return float(value["value"] if isinstance(value, Mapping) else value)


def risk_section(shelf: Shelf, risk: str) -> Section | None:
    """Every patch of a risk with evidence, and the paper's figures beside ours."""
    blocks: list[Block] = []
    leads: list[str] = []
    for name in _evidence(shelf, "*", risk):
        view = make_view(shelf.load(name), manifest=shelf.load(name.replace("evidence.json", "patch.json")))
        base, told = Path(name).parent.parent.name, _continued(shelf.look(name, ["decoding"]))
        leads.append(f"{base}: {' '.join(text for text in (view.headline, view.closed, told) if text)}")
        blocks += _patch_blocks(view, base)
    beside = paper(shelf, risk)
    if not blocks:
        return None
    return Section(RISKS[risk], " ".join(leads), (*blocks, *([beside] if beside else [])))


def _evidence(shelf: Shelf, base: str, risk: str) -> list[str]:
    return [
        *shelf.names(f"patches/{base}/{risk}/evidence.json"),
        *shelf.names(f"{OTHERS}/{base}/{risk}/evidence.json"),
    ]


def _unvaried(found: Json, varied: str) -> list[str]:
    """The values of ``KEY=V1,V2`` that an ablation has not got."""
    wanted = yaml.safe_load(f"[{varied.partition('=')[2]}]")
    return [str(value) for value in wanted if value not in found["axes"][0]["values"]]


def _continued(decoding: Json | None) -> str:
    """How continuations were had, of suites that have them: a greedy figure and a drawn one are two things."""
    told = decoding or {}
    if "samples" not in told:
        return ""
    how = f"drawn at temperature {told['temperature']:g}, top_p {told['top_p']:g}" if told["temperature"] else "greedy"
    return f"Continuations of each prompt: {told['samples']}, {how}."


def _patch_blocks(view: View, base: str) -> list[Block]:
    head = ("n", *(s.label for s in view.systems))
    rows: list[Row] = []
    for heading in dict.fromkeys(group.heading for group in view.groups):
        members = [group for group in view.groups if group.heading == heading]
        direction = f" ({members[0].direction})" if members[0].direction else ""
        rows.append(Row(f"{heading}{direction}", ()))
        rows += [_group_row(group, view) for group in members]
    lead = tuple(group for group in view.groups if group.heading == view.groups[0].heading) if view.groups else ()
    return [
        Bars(lead),
        Grid(head, tuple(rows), f"{base}, before and after"),
        Grid(head[1:], view.price, "The price"),
        Lines(view.worse or ("Nothing that was measured got worse.",), "What got worse"),
    ]


def _group_row(group: Group, view: View) -> Row:
    found: dict[str, Bar] = {bar.system.key: bar for bar in group.bars}
    show = decimals if group.score else percent
    cells = [
        f"{show(found[s.key].estimate.value)} [{found[s.key].estimate.span(show)}]" if s.key in found else "–"
        for s in view.systems
    ]
    return Row(group.title, (str(group.n), *cells))


def absent(shelf: Shelf) -> Section | None:
    """What the page would show and cannot, because nothing was measured."""
    risks = [risk for risk in RISKS if not _evidence(shelf, "*", risk)]
    lines = [f"{RISKS[risk]}: no patch with evidence." for risk in risks]
    lines += [
        f"Another base: recipes/{base}-{risk}.yaml."
        for base, risk in OTHER_BASES.items()
        if not _evidence(shelf, base, risk)
    ]
    scripts = {
        "composition": "Patches together",
        "baselines": "Baselines side by side",
        "quantised": "Quantised bases",
        "peers": "A training step beside TRL and PEFT",
        "fast_path": "What each part of a step saves",
        "growth": "How cost grows",
        "end_to_end": "A whole build",
        "layers": "Decoding on a CPU",
        "prefix_cache": "Answers of an evaluation",
        "start_up": "Starting and verifying",
    }
    for name, title in scripts.items():
        if shelf.load(f"benchmarks/results/{name}.json") is None:
            lines.append(f"{title} (benchmarks/{name}.py).")
    for suite, (title, patches) in ASKED.items():
        left = [patch for patch in patches if shelf.load(f"benchmarks/results/{suite}_{patch}.json") is None]
        if left:
            lines.append(f"{title}: with {', '.join(left)}.")
    if shelf.load("benchmarks/results/attacks_refusal.json") is not None:
        asked = shelf.look("benchmarks/results/attacks_refusal.json", ["attacks"]) or {}
        if left := [name for name in ADAPTIVE if name not in asked]:
            lines.append(f"Attacks that adapt to the patch: {', '.join(left)} (docs/attacks.md).")
    for name, ablation in ABLATIONS.items():
        found = shelf.load(f"benchmarks/results/ablations/{name}.json")
        if found is None:
            lines.append(f"Ablation: {ablation.title} (benchmarks/ablations.py --ablation {name}).")
        elif left := _unvaried(found, ablation.varied[0]):
            lines.append(f"Ablation: {ablation.title}: {', '.join(left)} (benchmarks/ablations.py --ablation {name}).")
    lines += shelf.look("benchmarks/aims.json", ["not_measured"]) or []
    return Section("Not measured", "", (Lines(tuple(lines)),)) if lines else None
