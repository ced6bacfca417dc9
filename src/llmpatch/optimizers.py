"""How a gradient moves the rows: AdamW, or Muon.

    move = OPTIMIZERS["muon"](state, gradient)        # [n, hidden_size], to be taken `rate` times from the rows
    state.rows = state.rows - rate * move

Both keep what they remember in the state that a checkpoint holds, and replace its tensors instead of writing into them. Their
moves are about as large, so a learning rate means about the same to both. Knows nothing about losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from llmpatch.checkpoints import State

MOMENTUM = 0.9  # of Muon
MUON_SIZE = 0.3  # root mean square of a move of Muon; AdamW's, on the refusal recipe, are .2 to .5
# Jordan et al. 2024 (kellerjordan.github.io/posts/muon): few rounds bring every singular value into [.7, 1.2], none to 1.
NEWTON_SCHULZ, ROUNDS = (3.4445, -4.7750, 2.0315), 6


def adamw(state: State, gradient: torch.Tensor) -> torch.Tensor:
    """A move of AdamW (Loshchilov and Hutter 2019) without its decay: each number has a step size of its own."""
    state.first = (state.first * 0.9).add_(gradient, alpha=0.1)
    state.second = (state.second * 0.999).addcmul_(gradient, gradient, value=0.001)
    return (state.first / (1 - 0.9**state.updates)) / ((state.second / (1 - 0.999**state.updates)).sqrt() + 1e-8)


def muon(state: State, gradient: torch.Tensor) -> torch.Tensor:
    """A move of Muon (Jordan et al. 2024): the momentum with its singular values made alike.

    The rows of a prefix are read together, and their gradients resemble each other; a few directions drown the rest. Here each
    direction of the matrix moves as far as the others. A move has one size whatever the gradient's, so the rate alone says how
    far the rows go; a clipped gradient weighs less in the momentum.
    """
    state.first = state.first * MOMENTUM + gradient
    move = orthogonal(state.first * MOMENTUM + gradient)  # as Nesterov looks ahead
    return move * float(MUON_SIZE * move.numel() ** 0.5 / (move.norm() + 1e-12))


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Nearly the closest matrix with orthonormal rows (or columns, where they are fewer), by Newton and Schulz."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    found: torch.Tensor = matrix.T if tall else matrix
    found = found / (found.norm() + 1e-12)
    for _ in range(ROUNDS):
        square = found @ found.T
        found = a * found + (b * square + c * square @ square) @ found
    return found.T if tall else found


OPTIMIZERS: dict[str, Callable[[State, torch.Tensor], torch.Tensor]] = {"adamw": adamw, "muon": muon}
