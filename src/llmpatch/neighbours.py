"""Other patches around the rows that are trained, so that a patch learns to live with others.

    neighbours = Neighbours((first, second), section, largest=None)
    there = arrange(base, neighbours, rows, seed=0, step=17)      # which stand where in this step
    prefix = there.around(rows)                                   # [n + others, hidden_size], gradients flow to rows only

One arrangement holds for a whole step, so every row of its batch still shares one cache of the prefix. It depends on the
seed and the step's number only. Knows nothing about files: frozen rows are given.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmpatch.bases import Base
from llmpatch.prefix import Parallel, Rows

if TYPE_CHECKING:
    import torch

    from llmpatch.training_recipe import NeighboursSection


@dataclass(frozen=True, eq=False)
class Neighbours:
    """What may stand around the trained rows.

    Attributes:
        patches: Rows of published patches, each [n, hidden_size]; never changed.
        section: How often, how many, and where.
        largest: The norm that no trained row may exceed, the same for all patches that share a budget; ``None`` is no bound.
    """

    patches: tuple[torch.Tensor, ...]
    section: NeighboursSection
    largest: float | None = None


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Frozen rows before and after the trained ones in one step, or beside them; both empty in a step without neighbours.

    ``who``: which of the published neighbours those are, by their places in the list.
    """

    before: tuple[torch.Tensor, ...] = ()
    after: tuple[torch.Tensor, ...] = ()
    parallel: bool = False
    who: frozenset[int] = frozenset()

    @property
    def tokens(self) -> int:
        """How many frozen rows there are."""
        return sum(map(len, (*self.before, *self.after)))

    def around(self, rows: torch.Tensor) -> Rows:
        """The whole prefix: [n, hidden_size] -> [tokens + n, hidden_size], or all of them side by side."""
        found = together([*self.before, rows, *self.after], parallel=self.parallel)
        return rows if found is None else found

    def without(self) -> Rows | None:
        """The prefix as it would be without the trained rows; ``None`` where nothing is left."""
        return together([*self.before, *self.after], parallel=self.parallel)


def together(rows: Sequence[torch.Tensor], *, parallel: bool) -> Rows | None:
    """Prefixes one after another in their order, or side by side; ``None`` without any."""
    import torch

    if parallel and len(rows) > 1:
        return Parallel(
            tuple(rows)
        )  # as they come: to sort them by what they hold would cost more than it is worth in a step
    return torch.cat(list(rows)) if rows else None


def arrange(base: Base, neighbours: Neighbours | None, rows: torch.Tensor, *, seed: int, step: int) -> Arrangement:
    """Who stands where in one step.

    Args:
        base: The model, for stand-ins out of its vocabulary.
        neighbours: Who there is; ``None`` is nobody.
        rows: The trained rows [n, hidden_size], whose mean norm stand-ins take where no published patch gives one.
        seed: Of the run and its stage.
        step: The step's number.
    """
    if neighbours is None:
        return Arrangement()
    section = neighbours.section
    draw = random.Random(hashlib.sha256(f"{seed}:neighbours:{step}".encode()).digest())
    if draw.random() >= section.probability:
        return Arrangement()
    pool = [rows_of.to(rows) for rows_of in neighbours.patches]
    # Among neighbours of its own length a stand-in is as loud as they are.
    pool += [_stand_in(base, section.random_tokens, pool or [rows], draw).to(rows) for _ in range(section.random)]
    # Each number of neighbours is as likely as any other, as MOSAIC samples its subsets (arXiv 2603.16210).
    count = draw.randint(1, len(pool)) if section.subsets else len(pool)
    chosen = sorted(draw.sample(range(len(pool)), count))
    if section.shuffle:
        draw.shuffle(chosen)
    found = [_some_rows(pool[i], draw) if section.row_subsets else pool[i] for i in chosen]
    place = {"first": 0, "last": len(found), "random": draw.randint(0, len(found))}[section.place]
    who = frozenset(i for i in chosen if i < len(neighbours.patches))
    return Arrangement(tuple(found[:place]), tuple(found[place:]), section.parallel, who)


def within(rows: torch.Tensor, largest: float | None) -> torch.Tensor:
    """Rows whose norm is at most ``largest``: longer ones are shortened, the others stay as they are."""
    if largest is None:
        return rows
    norms = rows.norm(dim=-1, keepdim=True)
    factors: torch.Tensor = (largest / norms).clamp(max=1.0)
    return rows * factors


def _stand_in(base: Base, tokens: int, like: Sequence[torch.Tensor], draw: random.Random) -> torch.Tensor:
    """Random rows of the vocabulary, scaled to the mean norm of ``like``: as loud as a patch, and without its meaning."""
    import torch

    ids = torch.tensor([draw.randrange(base.vocab_size) for _ in range(tokens)])
    found = base.embed(ids).detach().float().cpu()
    norm = float(torch.cat([r.detach().cpu() for r in like]).norm(dim=-1).mean())
    loudness = norm / float(found.norm(dim=-1).mean().clamp(min=1e-12))
    scaled: torch.Tensor = found * loudness
    return scaled


def _some_rows(rows: torch.Tensor, draw: random.Random) -> torch.Tensor:
    """Half or more of the rows, in their order."""
    count = draw.randint((len(rows) + 1) // 2, len(rows))
    return rows[sorted(draw.sample(range(len(rows)), count))]
