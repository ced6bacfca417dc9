"""What a training reads: pairs as token ids, and answers that something else gives, which should stay or be learnt.

TrainingSet(head, examples)      # the ids between the prefix and each example
Kept(data, weight=1.0, batch_size=4, answer_tokens=12)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from llmpatch.batching import Example
from llmpatch.files import digest_json
from llmpatch.prefix import Rows, prefix_digest
from llmpatch.word_losses import Balance

if TYPE_CHECKING:
    from llmpatch.training_recipe import KL


@dataclass(frozen=True)
class TrainingSet:
    """Examples, and the ids that stand between the prefix and each of them."""

    head: list[int]
    examples: list[Example]

    def digest(self) -> str:
        """Identity of the data, so that a checkpoint of other data is not resumed."""
        rows = [[e.kind, e.prompt, e.chosen, e.rejected, *([e.risk] if e.risk else [])] for e in self.examples]
        return digest_json([self.head, rows])


@dataclass(frozen=True, eq=False)
class Kept:
    """Answers behind a reference prefix, on which the trained one should give the same next words.

    Attributes:
        data: Prompts with the reference's own answers as ``chosen``.
        weight: Of the mean KL per token.
        batch_size: Answers a step.
        answer_tokens: Answers are cut to this many tokens.
        rows: The reference prefix [n, hidden_size], or several side by side; ``None`` is whatever stands around the trained
            rows in a step.
        balance: Words that are to be equally likely after some of the prompts, whatever stands around the trained rows.
        balanced: Which prompts: places of their examples in ``data``.
        kl: Its direction (:func:`llmpatch.losses.kl_to_base`).
        beside: Only in steps in which all of these neighbours, by their places in the list, stand around the trained rows.
    """

    data: TrainingSet
    weight: float
    batch_size: int
    answer_tokens: int
    rows: Rows | None = None
    balance: Balance | None = None
    balanced: frozenset[int] = frozenset()
    kl: KL = "forward"
    beside: tuple[int, ...] = ()

    def digest(self) -> str:
        """Identity, so that a checkpoint of another reference is not resumed."""
        rows = None if self.rows is None else prefix_digest(self.rows)
        words = [asdict(self.balance), sorted(self.balanced)] if self.balance else []
        way = [] if self.kl == "forward" else [self.kl]
        where = [list(self.beside)] if self.beside else []
        return digest_json(
            [self.data.digest(), self.weight, self.batch_size, self.answer_tokens, rows, *words, *way, *where]
        )
