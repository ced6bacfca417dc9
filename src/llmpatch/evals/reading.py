"""How likely texts are behind a prefix that is computed once, and whether the model itself would have said them.

    reader = open_reader(base, rows)                           # the prefix's keys and values, kept for every later call
    score_texts(reader, [[504, 2933]], [[314]])                # [Score(log_prob=-3.1, greedy=False)]

What lm-evaluation-harness asks of a model, and what the utility suite measures, is this one function. Knows tokens; nothing
about what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmpatch.errors import UsageError
from llmpatch.evals.forward import run_behind
from llmpatch.prefix import Rows, common_head, head_logits, prefix_cache, repeat_cache

if TYPE_CHECKING:
    import torch

    from llmpatch.bases import Base

BATCH_SIZE = 8
_POSITIONS = 256  # logits at a time: 256 x 49,152 floats are 50 MB


@dataclass(frozen=True, eq=False)
class Reader:
    """A base behind a prefix.

    Attributes:
        base: The model.
        cache: Keys and values of the prefix, of batch size 1; ``None`` without one.
        past: Positions in it.
    """

    base: Base
    cache: Any
    past: int

    @property
    def room(self) -> int:
        """Tokens that fit the context behind the prefix."""
        return self.base.context - self.past


@dataclass(frozen=True)
class Score:
    """A text behind its context.

    Attributes:
        log_prob: Summed over its tokens, in nats; 0 for an empty text.
        greedy: Whether each of its tokens is the likeliest one.
    """

    log_prob: float
    greedy: bool


def open_reader(base: Base, prefix: Rows | None) -> Reader:
    """Compute a prefix's keys and values.

    Args:
        base: The model.
        prefix: Virtual tokens [n, hidden_size], or ``None``.
    """
    import torch

    with torch.no_grad():
        return Reader(base, prefix_cache(base, prefix, []), 0 if prefix is None else len(prefix))


def score_texts(
    reader: Reader,
    contexts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    *,
    batch_size: int = BATCH_SIZE,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Score]:
    """Score each text behind its context.

    Rows that read the same tokens run once (the one-letter choices of a question), and rows of a batch share the
    computation of their common start (the examples before a question).

    Args:
        reader: The model behind its prefix.
        contexts: Token ids, at least one each.
        texts: Token ids, as many rows as ``contexts``.
        batch_size: Rows at a time.
        advance: Called with the number of texts done.

    Raises:
        UsageError: not as many texts as contexts, an empty context, or rows that do not fit the model's context. A text's
            last token is predicted, not read, so it needs no room.
    """
    if len(contexts) != len(texts):
        raise UsageError(f"{len(contexts)} contexts and {len(texts)} texts", hint="give one text per context")
    found = [Score(0.0, True)] * len(texts)
    readers: dict[tuple[int, ...], list[int]] = {}
    for i, (context, text) in enumerate(zip(contexts, texts, strict=True)):
        if not context or len(context) + len(text) - 1 > reader.room:
            raise UsageError(
                f"text {i + 1} has {len(context) + len(text)} tokens with its context; between 1 and {reader.room} fit "
                f"the context of {reader.base.context}",
                hint="shorten it, or leave it out if its context is empty",
            )
        if text:
            readers.setdefault((*context, *text[:-1]), []).append(i)
        else:
            advance(1)
    rows = sorted(readers)  # neighbours share their start
    for start in range(0, len(rows), max(1, batch_size)):
        part = rows[start : start + max(1, batch_size)]
        members = [readers[row] for row in part]
        places = [[(len(contexts[i]) - 1, texts[i]) for i in group] for group in members]
        for group, scores in zip(members, _score_rows(reader, part, places), strict=True):
            for i, score in zip(group, scores, strict=True):
                found[i] = score
            advance(len(group))
    return found


def _score_rows(
    reader: Reader, rows: Sequence[tuple[int, ...]], places: Sequence[Sequence[tuple[int, Sequence[int]]]]
) -> list[list[Score]]:
    """Scores of the texts of each row; a text is told by the place that predicts its first token."""
    import torch

    # The head ends before the first place whose prediction is asked for, since only what follows it has hidden states.
    first = min(place for texts in places for place, _ in texts)
    head = common_head([list(row) for row in rows])[:first] if len(rows) > 1 else []
    width = max(map(len, rows)) - len(head)
    # Padded on the right, which no token before it can see.
    ids = torch.tensor([[*row[len(head) :], *([0] * (width - len(row) + len(head)))] for row in rows])
    with torch.no_grad():
        cache = reader.cache
        if head:
            _, cache = run_behind(reader.base, torch.tensor([head]), repeat_cache(cache, 1), reader.past)
        hidden, _ = run_behind(reader.base, ids, repeat_cache(cache, len(rows)), reader.past + len(head))
        asked = [(r, place - len(head), text) for r, texts in enumerate(places) for place, text in texts]
        states = torch.cat([hidden[r, place : place + len(text)] for r, place, text in asked])
        targets = torch.tensor([token for _, _, text in asked for token in text])
        log_probs, likeliest = _predicted(reader.base, states, targets)
    scores: list[list[Score]] = []
    at = 0
    for texts in places:
        scores.append([])
        for _, text in texts:
            mine = slice(at, at + len(text))
            scores[-1].append(Score(float(log_probs[mine].double().sum()), bool(likeliest[mine].all())))
            at += len(text)
    return scores


def _predicted(base: Base, states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each target, and whether it is the likeliest token: [N, d], [N] -> [N], [N]."""
    import torch

    values, likeliest = [], []
    for start in range(0, len(targets), _POSITIONS):
        part = targets[start : start + _POSITIONS].to(states.device)
        logits = head_logits(base, states[start : start + _POSITIONS]).float()
        values.append(logits.log_softmax(-1).gather(-1, part[:, None])[:, 0].cpu())
        likeliest.append((logits.argmax(-1) == part).cpu())
    return torch.cat(values), torch.cat(likeliest)
