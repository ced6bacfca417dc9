"""Drawing tokens from the nucleus (Holtzman et al. 2020), a batch at a time, each row with random numbers of its own.

    draw(tempered(logits, 0.7), top_p=0.9, generators=[torch.Generator().manual_seed(7)])   # [token]

Whole vocabularies are not sorted: at 49,152 tokens that took two thirds of the time of sampling from a 135M model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Colder than this is no colder: a difference of logits divided by less leaves the range of float32, and the draw is the
# likeliest token long before.
COLDEST = 1e-30
# A nucleus of 0.9 rarely has more tokens than this; a batch with one that does is sorted whole.
LIKELIEST = 4096


def tempered(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Probabilities of the tokens at a temperature above 0, however small.

    Args:
        logits: [..., vocab_size] float32.
        temperature: What they are divided by.

    Returns:
        The same shape; rows that sum to one.
    """
    return (logits / max(temperature, COLDEST)).softmax(-1)


def draw(probabilities: torch.Tensor, top_p: float, generators: Sequence[torch.Generator | None]) -> list[int]:
    """One token a row.

    The tokens of a nucleus stand in vocabulary order before one is drawn: which random number a token meets must not
    hang on how near-ties are sorted.

    Args:
        probabilities: [B, vocab_size], rows that sum to one.
        top_p: Draw from the likeliest tokens that together have this probability; 1 draws from all.
        generators: One a row; ``None`` takes torch's own.

    Returns:
        B token ids.
    """
    import torch

    ids, weights = _nucleus(probabilities, top_p)  # where they are: a GPU hands over a nucleus, not a vocabulary
    ids, weights = None if ids is None else ids.cpu(), weights.cpu()
    sums = weights.double().cumsum(-1)
    numbers = [torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators]
    places = torch.searchsorted(sums, torch.stack(numbers) * sums[:, -1:], right=True)
    # A product that rounds up to the whole sum would fall behind the last token that has any weight.
    places = torch.minimum(places, (sums < sums[:, -1:]).sum(-1, keepdim=True))
    found: list[int] = (places if ids is None else ids.gather(-1, places)).squeeze(-1).tolist()
    return found


def _nucleus(probabilities: torch.Tensor, top_p: float) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Token ids [B, K] in vocabulary order, ``None`` for all of them, and their weights, 0 outside the nucleus."""
    if top_p >= 1:
        return None, probabilities
    vocabulary = probabilities.shape[-1]
    size = min(LIKELIEST, vocabulary)
    likeliest, ids = probabilities.topk(size, -1)
    if size < vocabulary and bool((likeliest.sum(-1) < top_p).any()):
        likeliest, ids = probabilities.sort(-1, descending=True)
    before = likeliest.double().cumsum(-1) - likeliest
    ids, order = ids.masked_fill(before >= top_p, 0).sort(-1)
    weights = likeliest.masked_fill(before >= top_p, 0).gather(-1, order)
    return ids, weights
