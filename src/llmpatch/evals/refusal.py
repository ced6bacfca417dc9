"""Evidence of a risk whose requests are to be declined: what a patch gains on them and what it costs everywhere else.

    evidence = evaluate_refusal(base, systems, sets=load_suite("refusal"), judges=judges)

Layout (``interval`` is ``{"n", "value", "low", "high"}``; names of sets, systems and judges are keys):

    schema, suite, created, environment, base, judges, decoding; risk, where it is not "refusal"; coherence, the build of the
                head that says what is incoherent
    systems     {name: what it is}
    sets        {set: {"title", "kind", "n", "systems": {name: scores}, "paired": {name: changes against M}}}; "clusters"
                beside "n" where there are fewer
    kinds       {kind: the same, over all sets of the kind}
    scores      {"n", "refusal": {judge: interval}, "harm": {judge: interval}, "trigram_overlap", "loops", "cut_off",
                "incoherent", "perplexity": intervals}
    price       {name: {"wikitext": ..., "latency": ...}}     for M+ and other models, against M
    closed      {set: interval}     share of the gap between M and M' that M+ closes, on prompts all three answered
    results     rows for a model card; examples: up to 60; worse: sentences

A harmful answer that complies is cut to 120 characters here, because evidence is published with the patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.evals.common import (
    ANSWER_TOKENS,
    BASE,
    PATCHED,
    REFERENCE,
    check_systems,
    head,
    middling,
    prices,
    summaries,
)
from llmpatch.evals.findings import card_rows, examples, worse
from llmpatch.evals.kept_losses import kept_answer_losses
from llmpatch.evals.narrowing import live_ones, narrowed
from llmpatch.evals.scoring import Scores, check_judges, clusters_of, compare, score, summarise
from llmpatch.evals.stats import share_closed
from llmpatch.evals.systems import System, ask
from llmpatch.progress import Progress, Silent
from llmpatch.recipe import DecodingSection

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.evals.prompt_sets import PromptSet
    from llmpatch.judges import Judge


def evaluate_refusal(
    base: Base,
    systems: Sequence[System],
    *,
    sets: Sequence[PromptSet],
    judges: Sequence[Judge],
    suite: str = "refusal",
    risk: str = "refusal",
    limit: int | None = None,
    max_new_tokens: int = ANSWER_TOKENS,
    temperature: float = 0.0,
    top_p: float = 1.0,
    within: float | None = None,
    store: Path | None = None,
    corpus: str | None = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure systems on prompt sets.

    Args:
        base: The base ``M``.
        systems: ``M`` and those to compare with it, each name once.
        sets: What is asked.
        judges: Refusal and harm judges, the leading one of each measure first.
        suite: Name for the evidence.
        risk: What the harmful prompts are about, one of ``llmpatch.recipe.DECLINING``.
        limit: The limit the sets were cut to, for the evidence.
        max_new_tokens: Length of an answer.
        temperature: 0 is greedy; else each prompt is answered once, at random.
        top_p: The nucleus that is drawn from.
        within: Ask of each set only what it takes for refusal rates of ± this (:mod:`llmpatch.evals.narrowing`).
        store: Folder of kept answers.
        corpus: Plain text for the perplexity; without it that price is left out, and with ``None`` all of the price.
        progress: Where to show progress.

    Returns:
        The evidence, plain JSON, laid out as in the module docstring.

    Raises:
        UsageError: no ``M``, a name twice, no refusal judge, no prompts.
    """
    check_systems(systems, sets)
    check_judges(judges)
    progress = progress or Silent()
    decoding = DecodingSection(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
    if within is not None:
        lead = _lead(judges)

        def rates(some: PromptSet) -> list[dict[str, Any]]:
            scored = _score_all(base, live_ones(systems), [some], judges, decoding, store, progress)
            return [summarise(scores)["refusal"][lead] for scores in scored[some.name].values()]

        sets = narrowed(sets, within, rates)
    table = _score_all(base, systems, sets, judges, decoding, store, progress)
    found = head(base, systems, judges, decoding, suite=suite, limit=limit)
    if risk != "refusal":
        found["risk"] = risk
    return assemble(found, sets, table, judges, prices(base, systems, _short_prompts(sets), corpus, progress))


def assemble(
    top: dict[str, Any],
    sets: Sequence[PromptSet],
    table: dict[str, dict[str, Scores]],
    judges: Sequence[Judge],
    price: dict[str, Any],
) -> dict[str, Any]:
    """Evidence out of scores, laid out as in the module docstring.

    Args:
        top: The head, see :func:`llmpatch.evals.common.head`.
        sets: What was asked.
        table: Scores by set and system, those of ``M`` in each.
        judges: Those that scored, a refusal judge among them.
        price: By system.
    """
    from llmpatch.judges import identity, open_judge

    lead = _lead(judges)
    evidence: dict[str, Any] = {
        **top,
        "coherence": identity(open_judge("harm-head")),
        **summaries(sets, table, summarise, compare, Scores.join),
        "price": price,
        "closed": _closed(table, sets, lead),
        "examples": examples(sets, table, lead),
    }
    evidence["results"] = card_rows(evidence, lead)
    evidence["worse"] = worse(evidence, lead)
    return evidence


def _lead(judges: Sequence[Judge]) -> str:
    return next(j.name for j in judges if j.measures == "refusal")


def _score_all(
    base: Base,
    systems: Sequence[System],
    sets: Sequence[PromptSet],
    judges: Sequence[Judge],
    decoding: DecodingSection,
    store: Path | None,
    progress: Progress,
) -> dict[str, dict[str, Scores]]:
    """Scores by set and system; a system without any answer to a set is left out there."""
    table: dict[str, dict[str, Scores]] = {s.name: {} for s in sets}
    for system in systems:
        for prompt_set in sets:
            title = f"{system.name}: {prompt_set.title}"
            answers = ask(base, system, prompt_set.prompts, decoding, store=store, progress=progress, title=title)
            known = [p for p in prompt_set.prompts if p.id in answers]
            if known:
                replies = [answers[p.id] for p in known]
                losses = kept_answer_losses(base, [p.text for p in known], [a.text for a in replies], store)
                table[prompt_set.name][system.name] = score(known, replies, judges, losses, store)
    return table


def _short_prompts(sets: Sequence[PromptSet]) -> list[str]:
    """A few ordinary requests: everyday ones where there are any, of middling length."""
    return middling([p for s in sets if s.kind == "everyday" for p in s.prompts] or sets[0].prompts)


def _closed(table: dict[str, dict[str, Scores]], sets: Sequence[PromptSet], lead: str) -> dict[str, Any]:
    """Share of the gap closed per harmful set, on the prompts that all three answered."""
    found = {}
    for prompt_set in sets:
        systems = table[prompt_set.name]
        if prompt_set.kind != "harmful" or not {BASE, PATCHED, REFERENCE} <= systems.keys():
            continue
        hits = [systems[name].hits(lead) for name in (BASE, PATCHED, REFERENCE)]
        common = [ident for ident in hits[0] if ident in hits[1] and ident in hits[2]]
        near = clusters_of(systems[BASE].items[ident] for ident in common)
        share = share_closed(*([h[ident] for ident in common] for h in hits), clusters=near) if common else None
        if share is not None:
            found[prompt_set.name] = share.json()
    return found
