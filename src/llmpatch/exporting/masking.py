"""Rows of the vocabulary head that keep patch tokens from ever being said.

    row = mask_row(base, [None, rows])      # [hidden_size]: its logit is about -100 wherever text is written

A head has no bias, so a token is kept silent by a direction that all final hidden states share: the ridge solution of
``H w = 1``, times a negative number. Left tied to its input row, a patch token was the most likely one at 118 of 1,811
positions of a 135M model. Knows nothing about formats; whether it works is measured on other text by ``checking``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmpatch.bases import Base
from llmpatch.exporting.checking import calibration, hidden_states

if TYPE_CHECKING:
    import torch

STRENGTH = 100.0
# Of a row that is an input embedding too: still far below any logit, and small enough to be replaced by addition.
TIED_STRENGTH = 30.0
_RIDGE = 1e-5
_ROUNDS = 4


def mask_row(base: Base, prefixes: Sequence[torch.Tensor | None], strength: float = STRENGTH) -> torch.Tensor:
    """A head row whose logit is about ``-strength`` at every position of ordinary text.

    Args:
        base: The base.
        prefixes: Behind which virtual tokens [n, hidden_size] the text may stand; ``None`` for none.
        strength: How far below zero.

    Returns:
        Float32 tensor [hidden_size].
    """
    import torch

    texts = calibration(base)
    hidden = torch.cat([hidden_states(base, rows, ids) for rows in prefixes for ids in texts]).double().cpu()
    weights = torch.ones(len(hidden), dtype=torch.double)
    row = torch.zeros(hidden.shape[1], dtype=torch.double)
    for _ in range(_ROUNDS):
        weighted = hidden * weights[:, None]
        gram = hidden.T @ weighted
        ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.double)
        row = torch.linalg.solve(gram + ridge, weighted.sum(0))
        weights = weights * (1 - hidden @ row).clamp(min=0.02, max=4)  # heed the positions that are least covered
        weights = weights / weights.mean()
    return (-strength * row).float()
