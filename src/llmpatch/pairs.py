"""Pairs: what ``M`` and ``M'`` say to the same prompt, scored, filtered, and turned into chosen and rejected.

    pairs, dropped = make_pairs(prompts, base_answers, reference_answers, judge, PairsSection())

On a harmful prompt the reference's answer is chosen and the base's worst rejected. On a benign prompt, borderline or
everyday, the base's *own* answer is chosen, so that the patch learns where not to act, and what the reference said to
some harmful prompt is rejected; the reference need not be asked. Every dropped pair says why.
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
from llmpatch.prompts import Form, Kind, Prompt
from llmpatch.training_data import TrainingSet

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.judges import Judge
    from llmpatch.recipe import PairsSection


@dataclass(frozen=True, slots=True)
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
        chosen_score: The judge's score of the chosen answer.
        rejected_score: The judge's score of the rejected answer.
        cluster: Of the prompt.
        form: Of the prompt.
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
    form: Form = "chat"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A prompt without a pair: the answers that would have been chosen and rejected, their scores, and why."""

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
    base: Sequence[Sequence[Answer]],
    reference: Mapping[str, Answer] | None,
    judge: Judge,
    section: PairsSection,
) -> tuple[list[Pair], list[Dropped]]:
    """Score both models' answers and keep the pairs that teach something.

    Args:
        prompts: All prompts, of every kind.
        base: The answers of ``M``, one or more per prompt.
        reference: The answers of ``M'`` to the harmful prompts, by prompt id; without any, the best of ``M``'s own answers to
            a prompt stands for it (best-of-n by a scorer, as in rejection-sampling fine-tuning; docs/adr/0017), or with
            ``section.rewrite`` the worst of them rewritten (docs/adr/0023).
        judge: Of the patch's risk (a refusal judge, a toxicity judge, ...); never one that later judges the test.
        section: Margin and absolute winner.

    Returns:
        The pairs in the prompts' order, and everything dropped.

    Raises:
        UsageError: the judge measures harm, which has no right and wrong answer to a harmless prompt.
    """
    if judge.measures == "harm":
        raise UsageError(f"pairs need a refusal judge, {judge.name} measures {judge.measures}", hint="set pairs.judge")
    refusal = judge.measures == "refusal"
    scored = _scored(prompts, base, judge)
    asked = [p for p in prompts if p.kind == "harmful"]
    if reference is None:
        said = _own_reference(prompts, scored, judge, section)
    else:
        told = [continuation(p, reference[p.id]) for p in asked]
        scores = judge.score([p.text for p in asked], [answer.text for answer in told])
        said = {p.id: (answer, score) for p, answer, score in zip(asked, told, scores, strict=True)}
    safe = [
        found
        for p in asked
        if (found := said[p.id])[0].text.strip() and _good(p.kind, found[1], refusal) >= section.winner
    ]
    pairs: list[Pair] = []
    dropped: list[Dropped] = []
    for i, (prompt, own) in enumerate(zip(prompts, scored, strict=True)):
        if prompt.kind == "harmful":
            won, lost = said[prompt.id], _worst(own, refusal)
            reason = _reason(prompt, won, lost, section, refusal)
            if not reason and won[0].finish != "stop" and refusal:
                reason = "the refusal was cut off, and half a refusal is not to be learnt"
        else:
            won, lost = own[0], safe[i % len(safe)] if safe else (Answer("", "stop"), 1.0)
            # What is safe elsewhere is no worse by a toxicity judge; it is only not what M would say here.
            lost_score = lost[1] if refusal else 1.0
            reason = _reason(prompt, won, (lost[0], lost_score), section, refusal)
        if reason:
            dropped.append(
                Dropped(prompt.id, prompt.kind, prompt.text, won[0].text, lost[0].text, won[1], lost[1], reason)
            )
        else:
            pairs.append(_pair(prompt, *won, *lost))
    return pairs, dropped


def own_reference(
    prompts: Sequence[Prompt], answers: Sequence[Sequence[Answer]], judge: Judge, section: PairsSection
) -> dict[str, Answer]:
    """What stands for ``M'`` where a base is its own reference, by the id of each harmful prompt.

    Args:
        prompts: What was asked.
        answers: What ``M`` said, one or more answers per prompt.
        judge: Of the patch's risk.
        section: Whether answers are rewritten.
    """
    found = _own_reference(prompts, _scored(prompts, answers, judge), judge, section)
    return {ident: answer for ident, (answer, _) in found.items()}


def _own_reference(
    prompts: Sequence[Prompt], scored: Sequence[Sequence[tuple[Answer, float]]], judge: Judge, section: PairsSection
) -> dict[str, tuple[Answer, float]]:
    """The best of several answers with its score; rewritten where the recipe says so and it can be done."""
    refusal = judge.measures == "refusal"
    said = {p.id: _best(own, refusal) for p, own in zip(prompts, scored, strict=True) if p.kind == "harmful"}
    return said | (_rewritten(prompts, scored, judge, refusal) if section.rewrite else {})


def _rewritten(
    prompts: Sequence[Prompt], scored: Sequence[Sequence[tuple[Answer, float]]], judge: Judge, refusal: bool
) -> dict[str, tuple[Answer, float]]:
    """What would be rejected, without what is wrong in it, and its score, by prompt id; only where that can be written."""
    from llmpatch.rewriting import neutral

    found: list[tuple[Prompt, Answer]] = []
    for prompt, own in zip(prompts, scored, strict=True):
        if prompt.kind == "harmful":
            worst = _worst(own, refusal)[0]
            text = neutral(worst.text)
            found += [(prompt, Answer(text, worst.finish))] if text is not None else []
    scores = judge.score([p.text for p, _ in found], [answer.text for _, answer in found])
    return {p.id: (answer, score) for (p, answer), score in zip(found, scores, strict=True)}


def continuation(prompt: Prompt, answer: Answer) -> Answer:
    """The reference's answer to a raw prompt as a continuation of it: without the prompt, quotes and further paragraphs.

    A chat model that is asked to continue a text often repeats it first.
    """
    if prompt.form == "chat":
        return answer
    text = answer.text.strip().strip('"\u201c\u201d').strip()
    start = prompt.text.strip().strip('"\u201c\u201d').strip()
    if text.lower().startswith(start.lower()):
        text = text[len(start) :]
    text = text.strip().split("\n")[0].lstrip(". \u2026")
    glue = "" if not text or text[0] in ",.;:!?'" or prompt.text[-1:].isspace() else " "
    return Answer(glue + text, answer.finish)


def _scored(
    prompts: Sequence[Prompt], answers: Sequence[Sequence[Answer]], judge: Judge
) -> list[list[tuple[Answer, float]]]:
    """Every answer with its score, in one call of the judge."""
    flat = [(p.text, a) for p, found in zip(prompts, answers, strict=True) for a in found]
    scores = iter(judge.score([text for text, _ in flat], [a.text for _, a in flat]))
    return [[(a, next(scores)) for a in found] for found in answers]


def _best(own: Sequence[tuple[Answer, float]], refusal: bool) -> tuple[Answer, float]:
    """The best of several answers to a harmful prompt; of equally good ones the first. To say nothing is no good answer."""
    return max(own, key=lambda found: (any(map(str.isalnum, found[0].text)), _good("harmful", found[1], refusal)))


def _worst(own: Sequence[tuple[Answer, float]], refusal: bool) -> tuple[Answer, float]:
    """The worst of several answers to a harmful prompt; of equally bad ones the first."""
    return min(own, key=lambda found: _good("harmful", found[1], refusal))


def _good(kind: Kind, score: float, refusal: bool) -> float:
    """How right an answer is: a refusal where the prompt is harmful; else one that does not refuse, or is not toxic."""
    return score if refusal and kind == "harmful" else 1 - score


def _pair(prompt: Prompt, chosen: Answer, chosen_score: float, rejected: Answer, rejected_score: float) -> Pair:
    # A continuation goes on; that M' stopped after a sentence is no reason for M to stop there.
    chat = prompt.form == "chat"
    return Pair(
        prompt.id,
        prompt.kind,
        prompt.text,
        chosen.text,
        rejected.text,
        chat and chosen.finish == "stop",
        chat and rejected.finish == "stop",
        chosen_score,
        rejected_score,
        prompt.cluster,
        prompt.form,
    )


def _reason(
    prompt: Prompt, won: tuple[Answer, float], lost: tuple[Answer, float], section: PairsSection, refusal: bool
) -> str:
    """Why a pair is no good, or an empty string."""
    right, wrong = (_good(prompt.kind, found[1], refusal) for found in (won, lost))
    if won[0].finish == "none":
        return "M' gave no answer: its service turned the prompt away"
    if not won[0].text.strip():
        return "the winning answer is empty"
    if right < section.winner:
        return f"the winner scores {right:.2f}, below {section.winner:.2f}"
    if right - wrong < section.margin:
        return f"the margin is {right - wrong:.2f}, below {section.margin:.2f}"
    return ""


def encode(base: Base, pairs: Sequence[Pair], *, system: str | None = None) -> TrainingSet:
    """Token ids of pairs, with the start that all prompts share split off as the head.

    A whole answer ends with the end-of-turn token, so that the model learns to stop; a cut one does not. ``system`` stands in
    the place of the chat template's own message.
    """
    prompts = [base.prompt_ids(p.prompt, system, raw=p.form == "raw") for p in pairs]
    head = common_head(prompts)
    ends_with = {"raw": base.tokenizer.eos_token_id, "chat": base.turn_end}

    def answer(pair: Pair, text: str, ends: bool) -> tuple[int, ...]:
        ids = base.continuation_ids(pair.prompt if pair.form == "raw" else "", text)
        end = ends_with[pair.form]
        return (*ids, end) if end is not None and (ends or not ids) else tuple(ids)

    return TrainingSet(
        head,
        [
            Example(
                p.kind, tuple(ids[len(head) :]), answer(p, p.chosen, p.chosen_ends),
                answer(p, p.rejected, p.rejected_ends),
            )
            for p, ids in zip(pairs, prompts, strict=True)
        ],
    )  # fmt: skip


def save_pairs(folder: Path, pairs: Sequence[Pair], dropped: Sequence[Dropped]) -> None:
    """Write ``pairs.jsonl`` and ``dropped.jsonl`` (errors as in :func:`llmpatch.files.write_bytes`)."""
    write_jsonl(folder / "pairs.jsonl", [asdict(p) for p in pairs])
    write_jsonl(folder / "dropped.jsonl", [asdict(d) for d in dropped])


def summarise(pairs: Sequence[Pair], dropped: Sequence[Dropped]) -> dict[str, dict[str, int]]:
    """Counts of kept and dropped pairs by kind, for the evidence."""
    kept, lost = Counter(p.kind for p in pairs), Counter(d.kind for d in dropped)
    return {kind: {"kept": kept[kind], "dropped": lost[kind]} for kind in sorted({*kept, *lost})}
