"""The next token of each row of a batch, and what the model thought of it.

    tokens = choose(logits, [Sampling(temperature=0.7, seed=1), Sampling(temperature=0)], generators)

Draws as ``generation`` does: the same seed gives the same answer here and there. Knows nothing about text.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmpatch.nucleus import draw, tempered

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sampling:
    """How the answers of one request are drawn.

    Attributes:
        temperature: 0 is greedy.
        top_p: Draw from the likeliest tokens that together have this probability.
        seed: Decides all draws; ``None`` is another one each time.
        top_logprobs: Alternatives to report a token, 0 for the token alone; ``None`` reports nothing.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    top_logprobs: int | None = None


@dataclass(frozen=True)
class Token:
    """One token of an answer.

    Attributes:
        id: Its id.
        logprob: Its log-probability under the model as it is, before temperature; ``None`` unless asked for.
        top: The likeliest tokens and their log-probabilities, best first.
    """

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def make_generator(sampling: Sampling, choice: int, prompt: int = 0) -> torch.Generator | None:
    """The random numbers of one choice of one prompt of a request; greedy needs none."""
    import torch

    if sampling.temperature == 0:
        return None
    seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
    return torch.Generator().manual_seed((seed * 1_000_003 + prompt) * 1_009 + choice)


def choose(
    logits: torch.Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator | None]
) -> list[Token]:
    """One token a row.

    Args:
        logits: [B, vocab_size] float32.
        samplings: One a row.
        generators: From :func:`make_generator`, one a row.
    """
    best = logits.argmax(-1).tolist()
    ids = [
        int(best[i]) if sampling.temperature == 0 else _draw(logits[i], sampling, generators[i])
        for i, sampling in enumerate(samplings)
    ]
    return [report(logits[i], token, samplings[i].top_logprobs) for i, token in enumerate(ids)]


def report(logits: torch.Tensor, token: int, top: int | None) -> Token:
    """A token with its log-probability and the ``top`` likeliest ones, if ``top`` is a number."""
    if top is None:
        return Token(token)
    logprobs = logits.log_softmax(-1)
    values, order = logprobs.topk(min(top, len(logprobs)))
    pairs = tuple(zip(order.tolist(), values.tolist(), strict=True))
    return Token(token, float(logprobs[token]), pairs)


def _draw(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    return draw(tempered(logits, sampling.temperature)[None], sampling.top_p, [generator])[0]
