"""Batches for training: each row is one prompt with its answers, laid out so that nothing is computed twice.

A row is ``[prompt][chosen][rejected]``. The mask lets ``chosen`` and ``rejected`` see the prompt but not each other, and
both start at the same position, so the two answers of a pair share one computation of their prompt. Before the row come
the cached prefix and head, which every row of the batch shares. Padding is on the right, and lengths are bucketed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmpatch.prompts import KINDS, Kind

if TYPE_CHECKING:
    import torch

    from llmpatch.training_recipe import MixSection


@dataclass(frozen=True)
class Example:
    """One pair as token ids.

    Attributes:
        kind: Of its prompt.
        prompt: Ids after the shared head.
        chosen: Ids of the answer to learn, ending with the end-of-turn token when it was not cut.
        rejected: Ids of the answer to avoid.
        risk: What it teaches about, where a prefix learns several things at once.
    """

    kind: Kind
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    risk: str = ""


@dataclass(frozen=True)
class Batch:
    """Rows ready for the model.

    Attributes:
        ids: [B, L] token ids, padded on the right.
        positions: [B, L] position ids, counted from the prefix's first token.
        mask: [B, 1, L, past + L], True where a query may look.
        sources: [N, 2] (row, column) of the hidden state that predicts each answer token.
        targets: [N] the answer tokens.
        owner: [N] which answer a target belongs to: ``2 * row`` for chosen, ``2 * row + 1`` for rejected.
        lengths: Tokens of each row without padding.
        kinds: Kind of each row.
        risks: What each row teaches about.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor
    lengths: tuple[int, ...]
    kinds: tuple[Kind, ...]
    risks: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Number of rows B."""
        return len(self.kinds)


def make_batch(examples: Sequence[Example], *, past: int, answer_tokens: int, rejected: bool) -> Batch:
    """Lay out examples behind ``past`` cached positions.

    Args:
        examples: At least one.
        past: Length of the shared cache (prefix and head).
        answer_tokens: Answers are cut to this many tokens.
        rejected: Whether rows carry the rejected answer too.
    """
    import torch

    answers = [[e.chosen[:answer_tokens]] + ([e.rejected[:answer_tokens]] if rejected else []) for e in examples]
    lengths = tuple(len(e.prompt) + sum(map(len, a)) for e, a in zip(examples, answers, strict=True))
    width = max(lengths)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    positions = torch.full((len(examples), width), past, dtype=torch.long)
    mask = torch.zeros(len(examples), 1, width, past + width, dtype=torch.bool)
    mask[..., :past] = True
    sources: list[tuple[int, int]] = []
    targets: list[int] = []
    owner: list[int] = []
    for row, (example, parts) in enumerate(zip(examples, answers, strict=True)):
        p = len(example.prompt)
        ids[row, :p] = torch.tensor(example.prompt)
        positions[row, :p] = torch.arange(past, past + p)
        mask[row, 0, :p, past : past + p] = torch.ones(p, p, dtype=torch.bool).tril()
        start = p
        for which, answer in enumerate(parts):
            n, stop = len(answer), start + len(answer)
            ids[row, start:stop] = torch.tensor(answer)
            positions[row, start:stop] = torch.arange(past + p, past + p + n)
            mask[row, 0, start:stop, past : past + p] = True
            mask[row, 0, start:stop, past + start : past + stop] = torch.ones(n, n, dtype=torch.bool).tril()
            # An empty answer has no token to predict.
            sources += ([(row, p - 1)] + [(row, column) for column in range(start, stop - 1)])[:n]
            targets += answer
            owner += [2 * row + which] * n
            start = stop
        mask[row, 0, start:, past:] = torch.eye(width, dtype=torch.bool)[start:]
    return Batch(ids, positions, mask, torch.tensor(sources), torch.tensor(targets), torch.tensor(owner),
                 lengths, tuple(e.kind for e in examples), tuple(e.risk for e in examples))  # fmt: skip


def shares(mix: MixSection, batch_size: int, present: Sequence[Kind]) -> dict[Kind, int]:
    """How many rows of a batch are of each kind: the mix's shares over the kinds that have examples, by largest rest."""
    weights = {kind: float(getattr(mix, kind)) for kind in KINDS if kind in present}
    total = sum(weights.values())
    exact = {kind: batch_size * weight / total for kind, weight in weights.items()}
    counts = {kind: int(value) for kind, value in exact.items()}
    for kind in sorted(exact, key=lambda k: counts[k] - exact[k])[: batch_size - sum(counts.values())]:
        counts[kind] += 1
    return counts


def choose(examples: Sequence[Example], counts: dict[Kind, int], *, seed: int, step: int) -> list[int]:
    """Indices of one step's examples (:meth:`Walks.choose`)."""
    return Walks(examples).choose(counts, seed=seed, step=step)


class Walks:
    """Ways through examples, a step at a time; the order of the present epoch is kept, since shuffling many takes its time."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples
        self._pools: dict[Kind, dict[str, list[int]]] = {}
        for i, e in enumerate(examples):
            self._pools.setdefault(e.kind, {}).setdefault(e.risk, []).append(i)
        self.kinds = sorted(self._pools)
        self._epochs: dict[tuple[Kind, str, int, int], tuple[int, list[list[int]]]] = {}

    def choose(self, counts: dict[Kind, int], *, seed: int, step: int) -> list[int]:
        """Indices of one step's examples, a function of seed and step alone, so that a resumed run sees the same batches.

        Each kind is walked in a new shuffled order per epoch, in buckets of similar length, so little is spent on padding. A
        kind that teaches about several risks gives each of them the same share, whatever they have.
        """
        chosen: list[int] = []
        for kind, count in counts.items():
            risks = sorted(self._pools.get(kind, ()))
            each = -(-count // max(1, len(risks)))
            found = [self._walk(kind, risk, each, seed=seed, step=step) for risk in risks]
            # What rounding gave too much is taken back from another risk at each step.
            for turn in range(max(0, sum(map(len, found)) - count)):
                found[(step + turn) % len(found)].pop()
            chosen += [i for part in found for i in part]
        return chosen

    def _walk(self, kind: Kind, risk: str, count: int, *, seed: int, step: int) -> list[int]:
        """The step's examples of one kind and risk."""
        if not count:
            return []
        epoch, place = divmod(step, max(1, len(self._pools[kind][risk]) // count))
        key = (kind, risk, count, seed)
        if key not in self._epochs or self._epochs[key][0] != epoch:
            self._epochs[key] = epoch, self._epoch(kind, risk, count, seed=seed, epoch=epoch)
        return self._epochs[key][1][place][:count]

    def _epoch(self, kind: Kind, risk: str, count: int, *, seed: int, epoch: int) -> list[list[int]]:
        """All steps of an epoch, in their order."""
        pool = list(self._pools[kind][risk])
        per_epoch = max(1, len(pool) // count)
        name = f"{kind}:{risk}" if risk else kind
        salt = int.from_bytes(hashlib.sha256(f"{seed}:{name}:{epoch}".encode()).digest()[:8], "big")
        shuffle = random.Random(salt)
        shuffle.shuffle(pool)
        # Who is left out of an epoch is drawn before anything goes by length.
        pool = pool[: max(count, per_epoch * count)]
        group = count * 8
        for start in range(0, len(pool), group):
            pool[start : start + group] = sorted(
                pool[start : start + group], key=lambda i: len(self._examples[i].prompt)
            )
        buckets = [pool[start : start + count] for start in range(0, per_epoch * count, count)]
        # One order of buckets for all kinds would pair short with short; shuffled, lengths mix without bias.
        shuffle.shuffle(buckets)
        return buckets


def groups_by_length(examples: Sequence[Example], asked: Collection[int], size: int = 16) -> list[list[int]]:
    """Benign examples in groups of similar length, those that are asked for apart from the others."""
    benign = sorted((len(e.prompt), i) for i, e in enumerate(examples) if e.kind != "harmful")
    parts = [[i for _, i in benign if (i in asked) is wanted] for wanted in (True, False)]
    return [part[start : start + size] for part in parts for start in range(0, len(part), size)]
