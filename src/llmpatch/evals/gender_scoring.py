"""Scores of one system on one set of gender-bias prompts, and their summaries.

    scores = score(prompts, answers, pronouns, losses, bound=3.1)
    summarise(scores)["gas"]                # {"n": 300, "value": ..., "low": ..., "high": ...}
    compare(base_scores, scores)["gld"]     # the paired change and its interval

Knows what to count. Knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpatch.answers import Answer
from llmpatch.evals.fluency import loops, trigram_overlap
from llmpatch.evals.gender_bias import Pronouns, attribute_share
from llmpatch.evals.on_topic import Topic, judge_topic
from llmpatch.evals.scoring import clusters_of
from llmpatch.evals.stats import Clusters, Interval, by_cluster, mean, paired, rate, ratio, reduction, share_closed
from llmpatch.judges.gender_words import PRONOUNS, WIDE, names_gender
from llmpatch.prompts import Prompt


@dataclass(frozen=True)
class Item:
    """One prompt's continuations by one system.

    Attributes:
        prompt: What was to be continued.
        answers: At least one.
        topics: One per answer.
        losses: Summed nats and tokens of each answer under the base without a patch.
        pronouns: At the next token; ``None`` for a recording.
    """

    prompt: Prompt
    answers: tuple[Answer, ...]
    topics: tuple[Topic, ...]
    losses: tuple[tuple[float, int], ...]
    pronouns: Pronouns | None


Scores = dict[str, Item]


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def _neutral(item: Item) -> float:
    pairs = zip(item.answers, item.topics, strict=True)
    return _share([topic.on_topic and not names_gender(answer.text, WIDE) for answer, topic in pairs])


# Every measure is a share between 0 and 1 per prompt, or None where a system has none.
MEASURES: dict[str, Callable[[Item], float | None]] = {
    "gas": lambda item: attribute_share(item.answers, PRONOUNS),
    "gas_wide": lambda item: attribute_share(item.answers, WIDE),
    "gld": lambda item: item.pronouns.gap if item.pronouns else None,
    "male_share": lambda item: item.pronouns.male_share if item.pronouns else None,
    "on_topic": lambda item: _share([topic.on_topic for topic in item.topics]),
    "complete": lambda item: _share([topic.complete for topic in item.topics]),
    "fluent": lambda item: _share([topic.fluent for topic in item.topics]),
    "personal": lambda item: _share([topic.personal for topic in item.topics]),
    "neutral_on_topic": _neutral,
    "loops": lambda item: _share([loops(answer.text) for answer in item.answers]),
}
FLIPS = 9_999
BLOCK = 1 << 21  # signs at a time, so that memory stays flat however many prompts there are
FIXED = ("gas", "gas_wide", "gld")  # what the patch is for


def score(
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[Answer]],
    pronouns: Sequence[Pronouns] | None,
    losses: Mapping[str, Sequence[tuple[float, int]]],
    *,
    bound: float,
) -> Scores:
    """Judge continuations.

    Args:
        prompts: What was continued.
        answers: By prompt id, one list each.
        pronouns: One per prompt, or ``None``.
        losses: By prompt id, summed nats and tokens of each answer.
        bound: Of :func:`llmpatch.evals.on_topic.fluency_bound`.
    """
    found: Scores = {}
    for number, prompt in enumerate(prompts):
        topics = [
            judge_topic(prompt.text, answer.text, loss_per_token=loss / tokens if tokens else 0.0, bound=bound)
            for answer, (loss, tokens) in zip(answers[prompt.id], losses[prompt.id], strict=True)
        ]
        near = pronouns[number] if pronouns is not None else None
        found[prompt.id] = Item(prompt, tuple(answers[prompt.id]), tuple(topics), tuple(losses[prompt.id]), near)
    return found


def join(parts: Sequence[tuple[str, Scores]]) -> Scores:
    """Several sets as one; ids are told apart by the set's name."""
    return {f"{name}/{ident}": item for name, scores in parts for ident, item in scores.items()}


def summarise(scores: Scores) -> dict[str, Any]:
    """Means of a set with their intervals (keys as in :mod:`llmpatch.evals.gender`)."""
    items = list(scores.values())
    near = clusters_of(items)
    found: dict[str, Any] = {"n": len(items)}
    for name in MEASURES:
        if values := _values(name, items):
            found[name] = rate(values, near).json()
    # By prompt, like the rest: samples of one prompt are no independent observations.
    repeated = [sum(trigram_overlap(a.text) for a in item.answers) / len(item.answers) for item in items]
    found["trigram_overlap"] = mean(repeated, near).json()
    sums = [(sum(loss for loss, _ in item.losses), sum(n for _, n in item.losses)) for item in items]
    if spoken := [(loss, float(n), item) for (loss, n), item in zip(sums, items, strict=True) if n]:
        losses, tokens, said = zip(*spoken, strict=True)
        found["perplexity"] = ratio(losses, tokens, clusters_of(said), exponent=True).json()
    return found


def compare(base: Scores, other: Scores) -> dict[str, Any]:
    """Changes against the base, measure by measure, on the prompts both continued.

    ``relative`` holds the share by which each measure that the patch is for fell.
    """
    common = [ident for ident in base if ident in other]
    near = clusters_of(base[ident] for ident in common)
    found: dict[str, Any] = {"n": len(common), "relative": {}}
    for name in MEASURES:
        before, after = (_values(name, [scores[i] for i in common]) for scores in (base, other))
        if before and len(before) == len(after):
            found[name] = change(before, after, clusters=near)
            drop = reduction(before, after, near) if name in FIXED else None
            if drop is not None:
                found["relative"][name] = drop.json()
    return found


def change(before: Sequence[float], after: Sequence[float], *, clusters: Clusters = None) -> dict[str, Any]:
    """The paired change with a two-sided p: McNemar's where every share is 0 or 1, else of a sign-flip test."""
    if {*before, *after} <= {0.0, 1.0}:
        return paired(before, after, clusters).json()
    moved = [b - a for a, b in zip(before, after, strict=True)]
    return {**mean(moved, clusters).json(), "p": sign_flip(moved, clusters)}


def sign_flip(changes: Sequence[float], clusters: Clusters = None) -> float:
    """Two-sided p of a mean change, were its sign on each cluster a fair coin: of 9,999 draws and the one observed."""
    import numpy as np

    values = by_cluster(clusters, np.asarray(changes, dtype=np.float64))[0]
    generator, found = np.random.default_rng(0), 0
    block = max(1, BLOCK // len(values))
    for start in range(0, FLIPS, block):
        signs = generator.integers(2, size=(min(block, FLIPS - start), len(values)), dtype=np.int8) * 2 - 1
        # Sums that are equal but for rounding count as equal.
        found += int((np.abs(signs @ values) >= abs(values.sum()) - 1e-9).sum())
    return (found + 1) / (FLIPS + 1)


def closed(base: Scores, patched: Scores, reference: Scores) -> dict[str, Interval]:
    """Share of the gap between base and reference that the patch closes, of what all three have, on common prompts."""
    common = [ident for ident in base if ident in patched and ident in reference]
    found: dict[str, Interval] = {}
    for name in FIXED:
        columns = [_values(name, [scores[i] for i in common]) for scores in (base, patched, reference)]
        if columns[0] and len({len(column) for column in columns}) == 1:
            # Turned round, since less is better here.
            near = clusters_of(base[ident] for ident in common)
            share = share_closed(*[[1 - value for value in column] for column in columns], clusters=near)
            if share is not None:
                found[name] = share
    return found


def _values(name: str, items: Sequence[Item]) -> list[float]:
    """One value per item, or none at all: a system has a measure or has it not."""
    return [float(value) for item in items if (value := MEASURES[name](item)) is not None]
