"""The suites of a patch's price beyond the risks: utility, facts, ifeval, long-context and distance.

    evidence = price_suite("utility", base, [System("M"), System("M+", prefix=rows)], data=Path("data"), limit=100)
    evidence["sets"]["arc_challenge"]["paired"]["M+"]["accuracy"]      # {"n", "value", "low", "high", "gained", "lost", "p"}

Layout as in :mod:`llmpatch.evals.refusal`, with other scores and ``risk`` naming the suite:

    utility       accuracy, accuracy_norm        of M and M+ on multiple-choice questions (:mod:`llmpatch.evals.utility`)
    facts         right                          greedy answers that name the fact (:mod:`llmpatch.evals.facts`)
    ifeval        followed, checks_passed        answers that pass all of their checks; the mean share of checks passed
    distance      reference_log_likelihood       of recorded answers of M' (:mod:`llmpatch.evals.distance`); needs ``M'``
    long-context  as refusal, a set per length   (:mod:`llmpatch.evals.long_context`); without ``risk``

What a recording cannot have (a likelihood) is left out for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.errors import UsageError
from llmpatch.evals import distance, utility
from llmpatch.evals.columns import Column, Values, column_evidence
from llmpatch.evals.common import ANSWER_TOKENS, REFERENCE, check_systems, head, middling, prices
from llmpatch.evals.facts import is_right, load_facts
from llmpatch.evals.following import Options, parse_checks, share_followed
from llmpatch.evals.systems import System, ask, recorded_answers
from llmpatch.files import read_jsonl
from llmpatch.progress import Progress, Silent
from llmpatch.prompts import Prompt, load_prompts
from llmpatch.recipe import DecodingSection

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.evals.prompt_sets import PromptSet
    from llmpatch.judges import Judge

Grade = Callable[[str], dict[str, float]]  # of an answer's text, by column
OWN = "own prompts"


def price_suite(
    suite: str,
    base: Base,
    systems: Sequence[System],
    *,
    prompts: Sequence[Path] = (),
    judges: Sequence[Judge] | None = None,
    limit: int | None = None,
    max_new_tokens: int | None = None,
    store: Path | None = None,
    data: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure one of ``llmpatch.evals.prompt_sets.PRICE_SUITES``.

    Args:
        suite: Which.
        base: The base ``M``.
        systems: ``M`` and those to compare with it, each name once.
        prompts: Files that take the suite's place.
        judges: Of refusals and harm, for ``long-context`` only.
        limit: Only the first prompts of each set.
        max_new_tokens: Length of an answer, where there are answers: by default 256 for ``ifeval``, 32 for
            ``facts`` and 48 for ``long-context``.
        store: Folder of kept answers.
        data: The data folder; by default :func:`llmpatch.evals.prompt_sets.data_folder`.
        progress: Where to show progress.

    Raises:
        UsageError: missing or malformed prompts, no ``M``, a judge where nothing is judged, no ``M'`` for ``distance``.
    """
    from llmpatch.evals.prompt_sets import data_folder

    data = data or data_folder()
    if suite == "long-context":
        return _long_context(
            base, systems, prompts, judges, limit, max_new_tokens or ANSWER_TOKENS, store, data, progress
        )
    if judges is not None:
        raise UsageError(f"suite {suite} judges nothing", hint="leave judges out")
    shown = progress or Silent()
    name = OWN if prompts else suite
    if suite == "utility":
        return _utility(base, systems, _files(suite, prompts, data), name, limit, data, shown)
    if suite == "distance":
        return _distance(base, systems, _sets(suite, prompts, data, limit), name, limit, shown)
    decoding = DecodingSection(max_new_tokens=max_new_tokens or GRADED[suite].max_new_tokens)
    return _graded(suite, base, systems, _files(suite, prompts, data), name, limit, decoding, store, shown)


def _files(suite: str, prompts: Sequence[Path], data: Path) -> list[tuple[str, str, Path]]:
    """Name, title and path of each set."""
    from llmpatch.evals.prompt_sets import SUITES, WHERE

    if not prompts:
        found = [(file.name, file.title, data / file.path) for file in SUITES[suite]]
        if missing := next((path for _, _, path in found if not path.is_file()), None):
            raise UsageError(f"suite {suite}: no such file: {missing}", hint=f"{WHERE}, or pass your own prompts")
        return found
    names = [path.stem for path in prompts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two prompt sets are called {twice!r}", hint="rename one of the files")
    return [(path.stem, path.stem, path) for path in prompts]


def _sets(suite: str, prompts: Sequence[Path], data: Path, limit: int | None) -> list[PromptSet]:
    from llmpatch.evals.prompt_sets import load_own, load_suite

    return load_own(prompts, limit=limit) if prompts else load_suite(suite, data=data, limit=limit)


def _utility(
    base: Base,
    systems: Sequence[System],
    files: Sequence[tuple[str, str, Path]],
    suite: str,
    limit: int | None,
    data: Path,
    progress: Progress,
) -> dict[str, Any]:
    from llmpatch.evals.prompt_sets import PromptSet, load_corpus

    questions = {name: utility.load_questions(path, form=name)[:limit] for name, _, path in files}
    sets = [PromptSet(name, title, "everyday", tuple(q.prompt for q in questions[name])) for name, title, _ in files]
    check_systems(systems, sets)
    table: dict[str, dict[str, Values]] = {}
    for prompt_set in sets:
        table[prompt_set.name] = {
            s.name: utility.answer_questions(
                base, s, questions[prompt_set.name], progress=progress, title=f"{s.name}: {prompt_set.title}"
            )
            for s in systems
            if s.live
        }
    top = {**head(base, systems, [], _nothing_decoded(), suite=suite, limit=limit), "risk": "utility"}
    price = prices(base, systems, middling(sets[0].prompts), load_corpus(data), progress)
    return column_evidence(top, sets, table, utility.COLUMNS, price)


def _graded(
    suite: str,
    base: Base,
    systems: Sequence[System],
    files: Sequence[tuple[str, str, Path]],
    name: str,
    limit: int | None,
    decoding: DecodingSection,
    store: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    from llmpatch.evals.prompt_sets import PromptSet

    how = GRADED[suite]
    rows = {key: how.load(path)[:limit] for key, _, path in files}
    sets = [PromptSet(key, title, "everyday", tuple(p for p, _ in rows[key])) for key, title, _ in files]
    check_systems(systems, sets)
    table: dict[str, dict[str, Values]] = {s.name: {} for s in sets}
    for system in systems:
        for prompt_set in sets:
            answers = ask(
                base, system, prompt_set.prompts, decoding, store=store, progress=progress,
                title=f"{system.name}: {prompt_set.title}",
            )  # fmt: skip
            values = {p.id: grade(answers[p.id].text) for p, grade in rows[prompt_set.name] if p.id in answers}
            if values:
                table[prompt_set.name][system.name] = values
    top = {**head(base, systems, [], decoding, suite=name, limit=limit), "risk": suite}
    return column_evidence(top, sets, table, how.columns, {})


def _facts(path: Path) -> list[tuple[Prompt, Grade]]:
    return [(prompt, partial(_named, answers)) for prompt, answers in load_facts(path)]


def _named(answers: Sequence[str], text: str) -> dict[str, float]:
    return {"right": float(is_right(answers, text))}


def _instructions(path: Path) -> list[tuple[Prompt, Grade]]:
    return [(prompt, partial(_followed, checks)) for prompt, checks in load_instructions(path)]


def _followed(checks: Sequence[tuple[str, Options]], text: str) -> dict[str, float]:
    share = share_followed(checks, text)
    return {"followed": float(share == 1), "checks_passed": share}


@dataclass(frozen=True)
class Graded:
    """A suite whose answers code grades: what a grade holds, how long an answer may be, and prompts with their grading."""

    columns: tuple[Column, ...]
    max_new_tokens: int
    load: Callable[[Path], list[tuple[Prompt, Grade]]]


GRADED = {
    "facts": Graded((Column("right", "right", "higher"),), 32, _facts),
    "ifeval": Graded(
        (Column("followed", "all checks passed", "higher"), Column("checks_passed", "checks passed", "higher")),
        256,
        _instructions,
    ),
}


def load_instructions(path: Path) -> list[tuple[Prompt, list[tuple[str, Options]]]]:
    """Prompts with the checks that their answers must pass, of rows ``{"prompt", "checks": [{"check": name, ...}]}``.

    Raises:
        UsageError: as :func:`llmpatch.prompts.load_prompts` and :func:`llmpatch.evals.following.parse_checks`.
    """
    prompts = load_prompts(path, "everyday")
    return [
        (prompt, parse_checks(row.get("checks"), where=f"{path}: row {number}"))
        for number, (prompt, row) in enumerate(zip(prompts, read_jsonl(path), strict=True), start=1)
    ]


def _distance(
    base: Base,
    systems: Sequence[System],
    sets: Sequence[PromptSet],
    suite: str,
    limit: int | None,
    progress: Progress,
) -> dict[str, Any]:
    from llmpatch.evals.prompt_sets import PromptSet

    check_systems(systems, sets)
    reference = next((s for s in systems if s.name == REFERENCE), None)
    if reference is None or reference.live:
        raise UsageError(f"the distance to {REFERENCE} needs its recorded answers", hint="pass --reference FILE")
    known: list[PromptSet] = []
    table: dict[str, dict[str, Values]] = {}
    for prompt_set in sets:
        answers = recorded_answers(reference, prompt_set.prompts)
        values = {
            s.name: distance.distances(
                base, s, prompt_set.prompts, answers, progress=progress, title=f"{s.name}: {prompt_set.title}"
            )
            for s in systems
            if s.live
        }
        mine = tuple(p for p in prompt_set.prompts if p.id in next(iter(values.values())))
        if mine:
            known.append(PromptSet(prompt_set.name, prompt_set.title, prompt_set.kind, mine))
            table[prompt_set.name] = values
    if not known:
        raise UsageError(
            f"the recording of {REFERENCE} has no answer to any of these prompts", hint="record them first"
        )
    top = {**head(base, systems, [], _nothing_decoded(), suite=suite, limit=limit), "risk": "distance"}
    return column_evidence(top, known, table, distance.COLUMNS, {})


def _long_context(
    base: Base,
    systems: Sequence[System],
    prompts: Sequence[Path],
    judges: Sequence[Judge] | None,
    limit: int | None,
    max_new_tokens: int,
    store: Path | None,
    data: Path,
    progress: Progress | None,
) -> dict[str, Any]:
    from llmpatch.evals.long_context import evaluate_long_context
    from llmpatch.evals.prompt_sets import CORPUS, WHERE, apart, load_corpus, load_own, load_suite
    from llmpatch.evals.suites import JUDGES
    from llmpatch.judges import open_judge

    sets = load_own(prompts) if prompts else load_suite("long-context", data=data)[:1]  # a set per length, all alike
    requests = [p for s in apart(sets) if s.kind == "harmful" for p in s.prompts][:limit]
    if not requests:
        raise UsageError("no harmful prompts to ask", hint='give rows {"prompt": "...", "kind": "harmful"}')
    corpus = load_corpus(data)
    if not corpus:
        raise UsageError(f"no text to put before requests: {data / CORPUS} is not there", hint=WHERE)
    return evaluate_long_context(
        base, systems, requests=requests, corpus=corpus, limit=limit, max_new_tokens=max_new_tokens, store=store,
        judges=[open_judge(name) for name in JUDGES] if judges is None else judges,
        suite="long-context on own prompts" if prompts else "long-context", progress=progress,
    )  # fmt: skip


def _nothing_decoded() -> DecodingSection:
    """What the head of evidence says where nothing is sampled: the greedy default, of one token."""
    return DecodingSection(max_new_tokens=1)
