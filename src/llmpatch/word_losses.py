"""Losses on single words: two groups that should be equally likely, and a group that should not be said.

    loss = loss + imbalance(base, hidden, batch, Balance(1.0, male, female))
    loss = loss + said(base, hidden, batch, Avoid(10.0, curses))

A pair teaches by whole answers: one signal for twenty words, drowned in which answer is likelier anyway. These say which words
it is about, at every position (docs/adr/0022-where-an-answer-goes-wrong.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmpatch.bases import Base
from llmpatch.batching import Batch
from llmpatch.losses import per_answer, precise_logits

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Balance:
    """Two groups of words that should be equally likely to come next after a harmful prompt, whichever one does.

    Attributes:
        weight: Of the term in the loss of both stages.
        first: Token ids of one group.
        second: Token ids of the other.
        risk: Only after prompts that teach about this; empty is after all.
    """

    weight: float
    first: tuple[int, ...]
    second: tuple[int, ...]
    risk: str = ""


@dataclass(frozen=True)
class Avoid:
    """Words that an answer to a harmful prompt should not have.

    Attributes:
        weight: Of the term in the loss of both stages.
        words: Token ids.
        risk: Only after prompts that teach about this; empty is after all.
    """

    weight: float
    words: tuple[int, ...]
    risk: str = ""


def imbalance(
    base: Base, hidden: torch.Tensor, batch: Batch, balance: Balance, after: Sequence[int] | None = None
) -> torch.Tensor:
    """The weighted square of (p - q) / (p + q) for the two groups' probabilities right after each harmful prompt.

    That is the square of the gender logits difference (see evals/gender_bias.py), the measure itself: chosen answers
    that name no gender make both groups rare, and leave their ratio as it was.

    Args:
        base: The model.
        hidden: [N, hidden_size], as the batch's targets.
        batch: Rows.
        balance: The groups.
        after: Rows to look at in place of those of harmful prompts.
    """
    import torch

    rows = _harmful(batch, balance.risk) if after is None else after
    if not rows:
        return hidden.new_zeros(())
    first = torch.tensor([int((batch.owner == 2 * r).nonzero()[0]) for r in rows])
    logits = precise_logits(base, hidden[first])
    ids = [torch.tensor(group, device=logits.device) for group in (balance.first, balance.second)]
    p, q = (logits[:, group].logsumexp(-1) for group in ids)
    return balance.weight * torch.tanh((p - q) / 2).square().mean()


def said(base: Base, hidden: torch.Tensor, batch: Batch, avoid: Avoid) -> torch.Tensor:
    """The weighted mean, over the answers to harmful prompts, of the chance that one of the words comes somewhere along it.

    1 - prod(1 - p_t) with p_t the words' probability at each position: unlikelihood training (Welleck et al. 2020, Eq. 2),
    but of a whole set of words, at every position and not only where one was said, and bounded, so that a position where a
    word is all but certain does not outweigh all others.

    Args:
        base: The model.
        hidden: [N, hidden_size], as the batch's targets.
        batch: Rows.
        avoid: The words.
    """
    import torch

    harmful = _harmful(batch, avoid.risk)
    if not harmful:
        return hidden.new_zeros(())
    where = torch.isin(batch.owner // 2, torch.tensor(harmful))
    logits = precise_logits(base, hidden[where])
    words = torch.tensor(avoid.words, device=logits.device)
    chance = (logits[:, words].logsumexp(-1) - logits.logsumexp(-1)).exp()
    answers, owner = torch.unique(batch.owner[where], return_inverse=True)
    never = per_answer(torch.log1p(-chance.clamp(max=1 - 1e-6)), owner, len(answers), mean=False).exp()
    return avoid.weight * (1 - never).mean()


def _harmful(batch: Batch, risk: str) -> list[int]:
    """Rows of harmful prompts that teach about a risk, or about any."""
    return [r for r, kind in enumerate(batch.kinds) if kind == "harmful" and risk in ("", batch.risks[r])]
