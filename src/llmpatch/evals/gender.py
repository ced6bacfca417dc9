"""Evidence of gender bias: what a patch gains on openings about people, whether it still talks about them, and the price.

    evidence = evaluate_gender(base, systems, sets=load_suite("gender-bias"))
    evidence["sets"]["gender_professional"]["systems"]["M+"]["gas"]

Layout as in :mod:`llmpatch.evals.refusal`, with other scores (``interval`` is ``{"n", "value", "low", "high"}``):

    risk        "gender-bias", also where the suite is a user's own prompts
    scores      {"n"} and intervals, shares per prompt:
                gas, gas_wide       continuations with a gendered pronoun; with a gendered word of any kind
                gld, male_share     of pronouns at the next token; none for a recording
                on_topic            and its three conditions: complete, fluent, personal
                neutral_on_topic    on topic and without any gendered word: what silence cannot win
                loops, trigram_overlap, perplexity
    paired      the change of each against M on the same prompts, with p; and relative: {"gas", "gas_wide", "gld"},
                the share each fell by
    closed      {set: interval}     share of the gap in GAS between M and M' that M+ closes; by_measure has the others
    by_measure  {set: {"gas", "gas_wide", "gld": interval}}
    changes     rows of a table: what changed from M to M+, by set and measure
    likelihood  {pairs: {"title", "n", "systems": {name: {"prefers", "gap", "lean"}}, "paired"}}
                prefers     share of pairs in which the stereotype is likelier; 0.5 is even
                gap         mean |log P(more) - log P(less)| in nats; lean: the same with its sign
    on_topic    {"quantile", "bound", "n"}   how *fluent* was calibrated

Definitions: :mod:`llmpatch.evals.gender_bias` and :mod:`llmpatch.evals.on_topic`. Prompts are openings to be continued as
plain text, whatever their kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.errors import UsageError
from llmpatch.evals.common import BASE, PATCHED, REFERENCE, check_systems, head, middling, prices, summaries
from llmpatch.evals.continuations import continue_text
from llmpatch.evals.gender_bias import DECODING, DRAWN, Pair, likelihood_gaps, next_pronouns, opening
from llmpatch.evals.gender_findings import card_rows, changes, examples, worse
from llmpatch.evals.gender_scoring import Scores, change, closed, compare, join, score, summarise
from llmpatch.evals.kept_losses import kept_continuation_losses
from llmpatch.evals.narrowing import live_ones, narrowed
from llmpatch.evals.on_topic import QUANTILE, fluency_bound
from llmpatch.evals.stats import mean, rate
from llmpatch.evals.systems import System
from llmpatch.judges.gender_words import names_gender
from llmpatch.progress import Progress, Silent
from llmpatch.prompts import Prompt
from llmpatch.recipe import DecodingSection

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.evals.prompt_sets import PromptSet

LEAD = "gas"  # what a recording has, too
NARROWED = ("gas", "gld")
_PAIRS_AT_A_TIME = 32


def evaluate_gender(
    base: Base,
    systems: Sequence[System],
    *,
    sets: Sequence[PromptSet],
    pairs: Mapping[str, tuple[str, Sequence[Pair]]] | None = None,
    suite: str = "gender-bias",
    limit: int | None = None,
    max_new_tokens: int = DECODING.max_new_tokens,
    samples: int = 1,
    within: float | None = None,
    store: Path | None = None,
    corpus: str | None = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure systems on openings about people.

    Args:
        base: The base ``M``.
        systems: ``M`` and those to compare with it, each name once.
        sets: Openings to continue.
        pairs: Title and sentence pairs by name, for the likelihood gaps.
        suite: Name for the evidence.
        limit: The limit the sets were cut to, for the evidence.
        max_new_tokens: Length of a continuation; Dong et al. take 50.
        samples: Continuations per prompt: one is greedy, as Dong et al.'s; more are drawn at temperature 1, nucleus 0.9.
        within: Ask of each set only what it takes for GAS and GLD of ± this (:mod:`llmpatch.evals.narrowing`).
        store: Folder of kept continuations.
        corpus: Plain text for the perplexity; without it that price is left out, and with ``None`` all of the price.
        progress: Where to show progress.

    Returns:
        The evidence, plain JSON, laid out as in the module docstring.

    Raises:
        UsageError: no ``M``, a name twice, no prompts, or prompts that are no openings or name a gender themselves.
        IntegrityError: a damaged store.
    """
    from llmpatch.judges import open_judge

    check_systems(systems, sets)
    _check_openings(sets)
    progress = progress or Silent()
    check_openings_fit(base, systems, sets, max_new_tokens)
    decoding = DECODING.model_copy(update={"max_new_tokens": max_new_tokens})
    drawn = DRAWN.model_copy(update={"max_new_tokens": max_new_tokens})
    said = drawn if samples > 1 else decoding
    if within is not None:

        def shares(some: PromptSet) -> list[dict[str, Any]]:
            scored = _score_all(base, live_ones(systems), [some], said, samples, math.inf, store, progress)
            found = [summarise(scores) for scores in scored[some.name].values()]
            return [summary[name] for summary in found for name in NARROWED if name in summary]

        sets = narrowed(sets, within, shares)
    every = _named(sets)
    bound, count = _bound(base, every, drawn, store, progress)
    table = _score_all(base, systems, sets, said, samples, bound, store, progress)
    everyday = [p for s in sets if s.kind == "everyday" for p in s.prompts] or sets[0].prompts
    judges = [open_judge("refusal-phrases")]
    shares_closed = _closed(sets, table)
    evidence: dict[str, Any] = {
        **head(base, systems, judges, said, suite=suite, limit=limit),
        "risk": "gender-bias",
        **summaries(sets, table, summarise, compare, join),
        "likelihood": _likelihood(base, systems, pairs or {}, progress),
        "on_topic": {"quantile": QUANTILE, "bound": round(bound, 6), "n": count},
        "price": prices(base, systems, middling(everyday), corpus, progress),
        "closed": {name: shares[LEAD] for name, shares in shares_closed.items() if LEAD in shares},
        "by_measure": shares_closed,
        "examples": examples(sets, table),
    }
    evidence["decoding"]["samples"] = samples
    evidence["results"] = card_rows(evidence)
    evidence["changes"] = changes(evidence)
    evidence["worse"] = worse(evidence)
    return evidence


def _check_openings(sets: Sequence[PromptSet]) -> None:
    """Refuse sets that this risk cannot be measured on: whole requests, and openings that name a gender themselves."""
    for prompt_set in sets:
        texts = [prompt.text.rstrip() for prompt in prompt_set.prompts]
        whole = sum(text.endswith((".", "?", "!", ":")) for text in texts)
        named = sum(names_gender(text) for text in texts)
        if 2 * whole > len(texts):
            raise UsageError(
                f"{prompt_set.name}: {whole} of {len(texts)} prompts are whole sentences, gender bias needs openings",
                hint='write openings about a person, such as "My friend is a nurse, and"',
            )
        if 2 * named > len(texts):
            raise UsageError(
                f"{prompt_set.name}: {named} of {len(texts)} prompts say he or she themselves",
                hint="write openings that leave the gender open; what they say would be counted against the model",
            )


def check_openings_fit(base: Base, systems: Sequence[System], sets: Sequence[PromptSet], more: int) -> None:
    """Refuse an opening that does not fit the context of a system beside its continuation, or beside the next word.

    Raises:
        UsageError: names the set's file and the prompt.
    """
    for system in (system for system in systems if system.live):
        model, virtual = system.base or base, 0 if system.prefix is None else len(system.prefix)
        room = model.context - virtual - max(1, more)
        for prompt_set in sets:
            for prompt in prompt_set.prompts:
                length = len(model.text_ids(opening(system) + prompt.text))
                if length > room:
                    raise UsageError(
                        f"{prompt_set.path or prompt_set.name}: prompt {prompt.id!r} has {length} tokens; {room} fit the "
                        f"context of {model.context} of {system.name}, beside {virtual} virtual tokens and {more} more",
                        hint="shorten it or leave it out",
                    )


def _named(sets: Sequence[PromptSet]) -> list[Prompt]:
    """All prompts, with ids that are unique across sets."""
    return [Prompt(f"{s.name}/{p.id}", p.text, p.kind, p.cluster) for s in sets for p in s.prompts]


def _bound(
    base: Base, prompts: Sequence[Prompt], drawn: DecodingSection, store: Path | None, progress: Progress
) -> tuple[float, int]:
    """The loss per token that the base's own samples keep to, and how many there are."""
    own = continue_text(
        base, System(BASE), prompts, drawn, samples=1, store=store, progress=progress, title="M: its usual fluency"
    )
    losses = [
        loss / n for part in kept_continuation_losses(base, prompts, own, store).values() for loss, n in part if n
    ]
    return fluency_bound(losses), len(losses)


def _score_all(
    base: Base,
    systems: Sequence[System],
    sets: Sequence[PromptSet],
    decoding: DecodingSection,
    samples: int,
    bound: float,
    store: Path | None,
    progress: Progress,
) -> dict[str, dict[str, Scores]]:
    """Scores by set and system; a system without any continuation of a set is left out there."""
    table: dict[str, dict[str, Scores]] = {s.name: {} for s in sets}
    for system in systems:
        for prompt_set in sets:
            answers = continue_text(
                base, system, prompt_set.prompts, decoding, samples=samples, store=store, progress=progress,
                title=f"{system.name}: {prompt_set.title}",
            )  # fmt: skip
            known = [p for p in prompt_set.prompts if answers.get(p.id)]
            if known:
                near = next_pronouns(base, system, [p.text for p in known]) if system.live else None
                losses = kept_continuation_losses(base, known, answers, store)
                table[prompt_set.name][system.name] = score(known, answers, near, losses, bound=bound)
    return table


def _closed(sets: Sequence[PromptSet], table: dict[str, dict[str, Scores]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for prompt_set in sets:
        systems = table[prompt_set.name]
        if {BASE, PATCHED, REFERENCE} <= systems.keys():
            shares = closed(systems[BASE], systems[PATCHED], systems[REFERENCE])
            if shares:
                found[prompt_set.name] = {name: share.json() for name, share in shares.items()}
    return found


def _likelihood(
    base: Base, systems: Sequence[System], pairs: Mapping[str, tuple[str, Sequence[Pair]]], progress: Progress
) -> dict[str, Any]:
    """Likelihood gaps of the systems that have likelihoods."""
    found: dict[str, Any] = {}
    for name, (title, rows) in pairs.items():
        gaps = {s.name: _gaps(base, s, title, rows, progress) for s in systems if s.live}
        before = gaps[BASE]
        found[name] = {
            "title": title,
            "n": len(rows),
            "systems": {system: _gap_scores(values) for system, values in gaps.items()},
            "paired": {system: _gap_changes(before, values) for system, values in gaps.items() if system != BASE},
        }
    return found


def _gaps(base: Base, system: System, title: str, rows: Sequence[Pair], progress: Progress) -> list[float]:
    values: list[float] = []
    with progress.stage(f"{system.name}: {title}", len(rows)) as advance:
        for start in range(0, len(rows), _PAIRS_AT_A_TIME):
            part = rows[start : start + _PAIRS_AT_A_TIME]
            values += likelihood_gaps(base, system, part)
            advance(len(part))
    return values


def _gap_scores(gaps: Sequence[float]) -> dict[str, Any]:
    return {
        "prefers": rate([gap > 0 for gap in gaps]).json(),
        "gap": mean([abs(gap) for gap in gaps]).json(),
        "lean": mean(gaps).json(),
    }


def _gap_changes(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    pairs = list(zip(before, after, strict=True))
    return {
        "prefers": change([float(a > 0) for a in before], [float(b > 0) for b in after]),
        "gap": mean([abs(b) - abs(a) for a, b in pairs]).json(),
        "lean": mean([b - a for a, b in pairs]).json(),
    }
