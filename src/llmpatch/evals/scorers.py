"""How well answers read to other models: perplexity of what each system said under ``M'`` and under an independent model.

    evidence = evaluate_scored(base, systems, ["gemma-3-270m"], suite="refusal", store=Path("work/answers"))
    evidence["sets"]["everyday"]["systems"]["M+"]["perplexity_under"]["gemma-3-270m"]       # an interval

The evidence is that of :func:`llmpatch.evals.evaluate` with ``scorers`` (who scored) and ``perplexity_under`` beside each
``perplexity``, which is the base's own. A scorer reads prompts in its own chat form and counts its own tokens: compare systems
under one scorer, never two scorers. What it said is kept per set and system, so a killed run goes on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.errors import UsageError
from llmpatch.evals.common import groups_of
from llmpatch.evals.continuations import continue_text
from llmpatch.evals.kept_losses import kept_answer_losses, kept_continuation_losses
from llmpatch.evals.prompt_sets import load_own, load_suite
from llmpatch.evals.stats import ratio
from llmpatch.evals.suites import evaluate
from llmpatch.evals.systems import System, ask
from llmpatch.evals.toxicity import PERPLEXITY_SAMPLES
from llmpatch.progress import Progress, Silent
from llmpatch.recipe import DECLINING, RISKS, DecodingSection

if TYPE_CHECKING:
    from llmpatch.answers import Answer
    from llmpatch.bases import Base
    from llmpatch.evals.prompt_sets import PromptSet

Losses = Mapping[str, tuple[float, int]]  # by prompt: summed nats, and tokens


def evaluate_scored(
    base: Base,
    systems: Sequence[System],
    scorers: Sequence[str],
    *,
    suite: str = "refusal",
    prompts: Sequence[Path] = (),
    limit: int | None = None,
    store: Path | None = None,
    data: Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """:func:`llmpatch.evals.evaluate`, and what other models make of the same answers.

    Args:
        base: The base ``M``.
        systems: ``M`` and those to compare with it.
        scorers: Bases by name; they are loaded one after another, when everything else is measured.
        suite: One of ``llmpatch.recipe.RISKS``.
        prompts: Files that take the suite's place.
        limit: Only the first prompts of each set.
        store: Folder of kept answers; ``None`` keeps none.
        data: The data folder; by default :func:`llmpatch.evals.prompt_sets.data_folder`.
        progress: Where to show progress.
        options: The further arguments of ``evaluate``.

    Raises:
        UsageError: a suite without answers to score, an unknown scorer, ``within``, or whatever ``evaluate`` raises.
        IntegrityError: a damaged store.
    """
    from llmpatch.bases import load_base
    from llmpatch.catalogue import locate

    if suite not in RISKS:
        raise UsageError(f"suite {suite!r} has no answers to score", hint=f"scorers go with {', '.join(RISKS)}")
    if len(set(scorers)) != len(scorers):
        raise UsageError(f"scorers {list(scorers)}: a name twice", hint="name each once")
    if options.get("within") is not None:
        raise UsageError("scorers read the answers to all prompts", hint="leave scorers out, or within")
    for name in scorers:
        locate(name)  # before an hour of measuring
    sets = load_own(prompts, limit=limit) if prompts else load_suite(suite, data=data, limit=limit)
    shown = progress or Silent()
    with tempfile.TemporaryDirectory() as scratch:
        kept = store or Path(scratch)
        evidence = evaluate(
            base,
            systems,
            suite=suite,
            prompts=prompts,
            limit=limit,
            store=kept,
            data=data,
            progress=progress,
            **options,
        )
        said = {s.name: answers_of(base, s, sets, evidence["decoding"], suite, kept) for s in systems}
        for name in scorers:
            add_perplexities(evidence, load_base(name), name, sets, said, suite, kept, shown)
    return evidence


def answers_of(
    base: Base, system: System, sets: Sequence[PromptSet], decoding: Mapping[str, Any], suite: str, store: Path
) -> dict[str, dict[str, list[Answer]]]:
    """What a system said, by set and prompt id, read from the store that the evaluation filled."""
    drawn = DecodingSection.model_validate({k: v for k, v in decoding.items() if k in DecodingSection.model_fields})
    found: dict[str, dict[str, list[Answer]]] = {}
    for prompt_set in sets:
        if suite in DECLINING:
            one = ask(base, system, prompt_set.prompts, drawn, store=store, progress=Silent())
            found[prompt_set.name] = {ident: [answer] for ident, answer in one.items()}
            continue
        count = int(decoding["samples"])
        many = continue_text(base, system, prompt_set.prompts, drawn, samples=count, store=store, progress=Silent())
        if suite == "toxicity":  # as its own perplexity: of the first few, where all were said
            many = {ident: answers[:PERPLEXITY_SAMPLES] for ident, answers in many.items() if len(answers) == count}
        found[prompt_set.name] = many
    return found


def add_perplexities(
    evidence: dict[str, Any],
    scorer: Base,
    name: str,
    sets: Sequence[PromptSet],
    said: Mapping[str, Mapping[str, Mapping[str, Sequence[Answer]]]],
    suite: str,
    store: Path,
    progress: Progress,
) -> None:
    """Write ``perplexity_under`` of one scorer into evidence.

    Args:
        evidence: Of ``evaluate`` on the same sets.
        scorer: The model that reads.
        name: What to call it.
        sets: What was asked.
        said: Answers by system, set and prompt id.
        suite: One of ``llmpatch.recipe.RISKS``.
        store: Folder of kept losses.
        progress: Where to show progress.
    """
    evidence.setdefault("scorers", []).append({"name": name, "fingerprint": asdict(scorer.fingerprint)})
    losses: dict[str, dict[str, Losses]] = {}
    with progress.stage(f"Perplexity under {name}", len(said) * len(sets)) as advance:
        for system, by_set in said.items():
            for prompt_set in sets:
                found = _kept(scorer, prompt_set, by_set[prompt_set.name], suite, store)
                losses.setdefault(system, {})[prompt_set.name] = found
                near = {p.id: p.group for p in prompt_set.prompts}
                _enter(evidence["sets"][prompt_set.name]["systems"].get(system), name, found, near)
                advance(1)
    for kind, entry in evidence["kinds"].items():
        for system, scores in entry["systems"].items():
            members = [s for s in sets if s.kind == kind]
            found = {f"{s.name}/{i}": v for s in members for i, v in losses[system][s.name].items()}
            _enter(scores, name, found, groups_of(members))


def _enter(scores: dict[str, Any] | None, name: str, losses: Losses, clusters: Mapping[str, str]) -> None:
    spoken = {ident: (nats, float(tokens)) for ident, (nats, tokens) in losses.items() if tokens}
    if scores is not None and spoken:
        nats, tokens = zip(*spoken.values(), strict=True)
        found = ratio(nats, tokens, [clusters[ident] for ident in spoken], exponent=True)
        scores.setdefault("perplexity_under", {})[name] = found.json()


def _kept(
    scorer: Base, prompt_set: PromptSet, answers: Mapping[str, Sequence[Answer]], suite: str, store: Path
) -> dict[str, tuple[float, int]]:
    """Losses by prompt, from the store or computed now."""
    known = [p for p in prompt_set.prompts if p.id in answers]
    if suite in DECLINING:
        rows = kept_answer_losses(scorer, [p.text for p in known], [answers[p.id][0].text for p in known], store)
        return {p.id: row for p, row in zip(known, rows, strict=True)}
    found = kept_continuation_losses(scorer, known, answers, store)
    return {ident: (sum(nats for nats, _ in rows), sum(n for _, n in rows)) for ident, rows in found.items()}
