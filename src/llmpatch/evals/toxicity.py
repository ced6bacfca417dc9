"""Evidence of toxicity: how toxic the worst of k continuations is, with a patch and without, and what the patch costs.

    judges = [open_judge("profanity-check"), open_judge("toxicity-head")]
    evidence = evaluate_toxicity(base, systems, sets=load_suite("toxicity"), judges=judges, samples=10)
    evidence["sets"]["rtp_challenging"]["systems"]["M+"]["expected_max_toxicity"]["profanity-check"]

Layout as in :mod:`llmpatch.evals.refusal`, with other scores (``interval`` is ``{"n", "value", "low", "high"}``):

    risk        "toxicity", also where the suite is a user's own prompts
    scores      {"n", "continuations", "expected_max_toxicity", "toxicity_rate", "safety_rate": {judge: interval}, "empty",
                "loops", "trigram_overlap", "distinct_1", "distinct_2", "distinct_3", "perplexity": intervals}
    paired      the change of each against M on the same prompts; and relative: {"expected_max_toxicity": {judge: interval}},
                the share it fell by
    closed      {set: interval}     share of the gap in expected max toxicity between M and M' that M+ closes
    changes     rows of a table: what changed from M to M+, by set, measure and judge
    examples    the most toxic continuation of each system, cut to 120 characters

Definitions: :mod:`llmpatch.evals.toxicity_scoring`. Prompts are texts to be continued as they stand, whatever their kind:
``harmful`` ones draw toxic continuations, the others do not. The first judge leads; it should be one that no training saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.errors import UsageError
from llmpatch.evals.common import BASE, PATCHED, REFERENCE, check_systems, head, middling, prices, summaries
from llmpatch.evals.continuations import continue_text
from llmpatch.evals.kept_losses import kept_continuation_losses
from llmpatch.evals.kept_scores import judge_kept
from llmpatch.evals.narrowing import live_ones, narrowed
from llmpatch.evals.systems import System
from llmpatch.evals.toxicity_findings import card_rows, changes, examples, worse
from llmpatch.evals.toxicity_scoring import Item, Items, closed, compare, join, summarise
from llmpatch.progress import Progress, Silent
from llmpatch.recipe import DecodingSection

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.evals.prompt_sets import PromptSet
    from llmpatch.judges import Judge

DECODING = DecodingSection(max_new_tokens=20, temperature=1.0, top_p=0.9)
SAMPLES = 10
PERPLEXITY_SAMPLES = 2  # of each prompt: every one would cost as much as sampling did


def evaluate_toxicity(
    base: Base,
    systems: Sequence[System],
    *,
    sets: Sequence[PromptSet],
    judges: Sequence[Judge],
    samples: int = SAMPLES,
    suite: str = "toxicity",
    limit: int | None = None,
    max_new_tokens: int = DECODING.max_new_tokens,
    within: float | None = None,
    seed: int = 0,
    store: Path | None = None,
    corpus: str | None = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure systems on texts to be continued.

    Args:
        base: The base ``M``.
        systems: ``M`` and those to compare with it, each name once. A recording needs ``samples`` answers a prompt;
            prompts for which it has fewer are left out for it.
        sets: What is continued.
        judges: Toxicity judges, the leading one first.
        samples: Continuations per prompt.
        suite: Name for the evidence.
        limit: The limit the sets were cut to, for the evidence.
        max_new_tokens: Length of a continuation.
        within: Ask of each set only what it takes for an expected max toxicity of ± this
            (:mod:`llmpatch.evals.narrowing`).
        seed: Of the sampling.
        store: Folder of kept continuations and scores.
        corpus: Plain text for the perplexity; without it that price is left out, and with ``None`` all of the price.
        progress: Where to show progress.

    Returns:
        The evidence, plain JSON, laid out as in the module docstring.

    Raises:
        UsageError: no ``M``, a name twice, no toxicity judge or one of another measure, no prompts, or a recording with
            too few answers to every prompt.
        IntegrityError: a damaged store.
        LlmpatchError: a judge fails; all that was sampled and scored is kept.
    """
    check_systems(systems, sets)
    _check_judges(judges)
    progress = progress or Silent()
    decoding = DECODING.model_copy(update={"max_new_tokens": max_new_tokens, "seed": seed})
    lead = judges[0].name
    if within is not None:

        def worst(some: PromptSet) -> list[dict[str, Any]]:
            scored = _score_all(base, live_ones(systems), [some], judges, decoding, samples, store, progress)
            return [summarise(items)["expected_max_toxicity"][lead] for items in scored[some.name].values()]

        sets = narrowed(sets, within, worst)
    table = _score_all(base, systems, sets, judges, decoding, samples, store, progress)
    benign = [p for s in sets if s.kind != "harmful" for p in s.prompts] or sets[0].prompts
    evidence: dict[str, Any] = {
        **head(base, systems, judges, decoding, suite=suite, limit=limit),
        "risk": "toxicity",
        **summaries(sets, table, summarise, compare, join),
        "price": prices(base, systems, middling(benign), corpus, progress),
        "closed": _closed(sets, table, lead),
        "examples": examples(sets, table, lead),
    }
    evidence["decoding"]["samples"] = samples
    evidence["results"] = card_rows(evidence)
    evidence["changes"] = changes(evidence)
    evidence["worse"] = worse(evidence)
    return evidence


def _check_judges(judges: Sequence[Judge]) -> None:
    if not judges:
        raise UsageError("no judge measures toxicity", hint="add profanity-check or toxicity-head")
    if other := next((judge for judge in judges if judge.measures != "toxicity"), None):
        raise UsageError(f"judge {other.name} measures {other.measures}, not toxicity", hint="leave it out")
    names = [judge.name for judge in judges]
    if len(set(names)) != len(names):
        raise UsageError(f"judges {names}: a name twice", hint="name each once")


def _score_all(
    base: Base,
    systems: Sequence[System],
    sets: Sequence[PromptSet],
    judges: Sequence[Judge],
    decoding: DecodingSection,
    samples: int,
    store: Path | None,
    progress: Progress,
) -> dict[str, dict[str, Items]]:
    """Items by set and system; a system without a whole row of answers to a set is left out there."""
    table: dict[str, dict[str, Items]] = {s.name: {} for s in sets}
    for system in systems:
        for prompt_set in sets:
            title = f"{system.name}: {prompt_set.title}"
            answers = continue_text(
                base, system, prompt_set.prompts, decoding, samples=samples, store=store, progress=progress, title=title
            )
            known = [p for p in prompt_set.prompts if len(answers.get(p.id, ())) == samples]
            if not known:
                continue
            rows = [(p, a) for p in known for a in answers[p.id]]
            asked, said = [p.text for p, _ in rows], [a.text for _, a in rows]
            with progress.stage(f"{title}, judged", len(judges) * len(rows)) as advance:
                columns = {j.name: judge_kept(j, asked, said, store, advance=advance) for j in judges}
            some = {p.id: answers[p.id][:PERPLEXITY_SAMPLES] for p in known}
            losses = kept_continuation_losses(base, known, some, store)
            table[prompt_set.name][system.name] = {
                prompt.id: Item(
                    prompt,
                    tuple(answers[prompt.id]),
                    {name: column[i * samples : (i + 1) * samples] for name, column in columns.items()},
                    losses[prompt.id],
                )
                for i, prompt in enumerate(known)
            }
        if not any(system.name in table[s.name] for s in sets):
            raise UsageError(
                f"{system.name} has {samples} continuations of no prompt", hint="record more, or take fewer samples"
            )
    return table


def _closed(sets: Sequence[PromptSet], table: dict[str, dict[str, Items]], lead: str) -> dict[str, Any]:
    found = {}
    for prompt_set in sets:
        systems = table[prompt_set.name]
        if prompt_set.kind == "harmful" and {BASE, PATCHED, REFERENCE} <= systems.keys():
            share = closed(systems[BASE], systems[PATCHED], systems[REFERENCE], lead)
            if share is not None:
                found[prompt_set.name] = share
    return found
