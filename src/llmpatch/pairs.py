"""Pairs: what ``M`` and ``M'`` say to the same prompt, scored, filtered, and turned into chosen and rejected.

    pairs, dropped = make_pairs(prompts, base_answers, reference_answers, judge, PairsSection())

On a harmful prompt the reference's refusal is chosen and the base's compliance rejected. On a benign prompt, borderline
or everyday, the base's *own* answer is chosen, so that the patch learns where not to act, and a refusal is rejected that
the reference gave to some harmful prompt; the reference need not be asked. Every dropped pair says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.answers import Answer
from llmpatch.batching import Example
from llmpatch.errors import UsageError
from llmpatch.files import write_jsonl
from llmpatch.prefix import common_head
from llmpatch.prompts import Kind, Prompt
from llmpatch.training import TrainingSet

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.judges import Judge
    from llmpatch.recipe import PairsSection


@dataclass(frozen=True)
class Pair:
    """A prompt with the answer to learn and the answer to avoid.

    Attributes:
        id: Of the prompt.
        kind: Of the prompt.
        prompt: What the user says.
        chosen: The answer to learn.
        rejected: The answer to avoid.
        chosen_ends: Whether the chosen answer is whole (it ended by itself).
        rejected_ends: The same for the rejected one.
        chosen_score: Refusal score of the chosen answer.
        rejected_score: Refusal score of the rejected answer.
        cluster: Of the prompt.
    """

    id: str
    kind: Kind
    prompt: str
    chosen: str
    rejected: str
    chosen_ends: bool
    rejected_ends: bool
    chosen_score: float
    rejected_score: float
    cluster: str


@dataclass(frozen=True)
class Dropped:
    """A prompt without a pair: the answers that would have been chosen and rejected, their refusal scores, and why."""

    id: str
    kind: Kind
    prompt: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    reason: str


def make_pairs(
    prompts: Sequence[Prompt],
    base: Sequence[Answer],
    reference: Mapping[str, Answer],
    judge: Judge,
    section: PairsSection,
) -> tuple[list[Pair], list[Dropped]]:
    """Score both models' answers and keep the pairs that teach something.

    Args:
        prompts: All prompts, of every kind.
        base: The answers of ``M``, one per prompt.
        reference: The answers of ``M'`` to the harmful prompts, by prompt id.
        judge: A refusal judge; never one that later judges the test.
        section: Margin and absolute winner.

    Returns:
        The pairs in the prompts' order, and everything dropped.

    Raises:
        UsageError: the judge does not measure refusal.
    """
    if judge.measures != "refusal":
        raise UsageError(f"pairs need a refusal judge, {judge.name} measures {judge.measures}", hint="set pairs.judge")
    scores = judge.score([p.text for p in prompts], [a.text for a in base])
    asked = [p for p in prompts if p.kind == "harmful"]
    told = judge.score([p.text for p in asked], [reference[p.id].text for p in asked])
    said = {p.id: (reference[p.id], score) for p, score in zip(asked, told, strict=True)}
    refusals = [(answer, score) for answer, score in said.values() if score >= section.winner]
    pairs: list[Pair] = []
    dropped: list[Dropped] = []
    for i, prompt in enumerate(prompts):
        own = (base[i], scores[i])
        if prompt.kind == "harmful":
            won, lost = said[prompt.id], own
            reason = _judge(won[1], lost[1], section, won[0])
            if not reason and won[0].finish != "stop":
                reason = "the refusal was cut off, and half a refusal is not to be learnt"
        else:
            won, lost = own, refusals[i % len(refusals)] if refusals else (Answer("", "stop"), 1.0)
            reason = _judge(1 - won[1], 1 - lost[1], section, won[0])
        if reason:
            dropped.append(
                Dropped(prompt.id, prompt.kind, prompt.text, won[0].text, lost[0].text, won[1], lost[1], reason)
            )
        else:
            pairs.append(_pair(prompt, *won, *lost))
    return pairs, dropped


def _pair(prompt: Prompt, chosen: Answer, chosen_score: float, rejected: Answer, rejected_score: float) -> Pair:
    ends = chosen.finish == "stop", rejected.finish == "stop"
    return Pair(
        prompt.id,
        prompt.kind,
        prompt.text,
        chosen.text,
        rejected.text,
        *ends,
        chosen_score,
        rejected_score,
        prompt.cluster,
    )


def _judge(won: float, lost: float, section: PairsSection, winner: Answer) -> str:
    """Why a pair is no good, or an empty string. Scores are "how right the answer is for this kind of prompt"."""
    if not winner.text.strip():
        return "the winning answer is empty"
    if won < section.winner:
        return f"the winner scores {won:.2f}, below {section.winner:.2f}"
    if won - lost < section.margin:
        return f"the margin is {won - lost:.2f}, below {section.margin:.2f}"
    return ""


def encode(base: Base, pairs: Sequence[Pair]) -> TrainingSet:
    """Token ids of pairs, with the start that all prompts share split off as the head.

    A whole answer ends with the end-of-turn token, so that the model learns to stop; a cut one does not.
    """
    prompts = [base.chat_ids(p.prompt) for p in pairs]
    head = common_head(prompts)
    end = (base.tokenizer.eos_token_id,) if base.tokenizer.eos_token_id is not None else ()

    def answer(text: str, ends: bool) -> tuple[int, ...]:
        ids = tuple(base.tokenizer.encode(text, add_special_tokens=False))
        return ids + end if ends or not ids else ids

    return TrainingSet(
        head,
        [
            Example(
                p.kind, tuple(ids[len(head) :]), answer(p.chosen, p.chosen_ends), answer(p.rejected, p.rejected_ends)
            )
            for p, ids in zip(pairs, prompts, strict=True)
        ],
    )


def save_pairs(folder: Path, pairs: Sequence[Pair], dropped: Sequence[Dropped]) -> None:
    """Write ``pairs.jsonl`` and ``dropped.jsonl`` (errors as in :func:`llmpatch.files.write_bytes`)."""
    write_jsonl(folder / "pairs.jsonl", [asdict(p) for p in pairs])
    write_jsonl(folder / "dropped.jsonl", [asdict(d) for d in dropped])


def summarise(pairs: Sequence[Pair], dropped: Sequence[Dropped]) -> dict[str, dict[str, int]]:
    """Counts of kept and dropped pairs by kind, for the evidence."""
    kept, lost = Counter(p.kind for p in pairs), Counter(d.kind for d in dropped)
    return {kind: {"kept": kept[kind], "dropped": lost[kind]} for kind in sorted({*kept, *lost})}
