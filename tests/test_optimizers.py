"""The optimisers: AdamW as torch has it, Muon as its authors describe it, and both down a slope."""

from __future__ import annotations

import pytest
import torch

from llmpatch.checkpoints import State
from llmpatch.optimizers import MUON_SIZE, OPTIMIZERS, adamw, muon, orthogonal


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fresh(rows):
    return State(rows, torch.zeros_like(rows), torch.zeros_like(rows), rows, rows)


def test_adamw_is_torchs():
    rows = numbers(5, 8).requires_grad_()
    theirs, state = torch.optim.AdamW([rows], lr=0.01, weight_decay=0.0), fresh(rows.detach().clone())
    for step in range(12):
        rows.grad = numbers(5, 8, seed=step)
        theirs.step()
        state.updates += 1
        state.rows = state.rows - 0.01 * adamw(state, rows.grad)
        assert torch.allclose(state.rows, rows, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 32), (32, 5), (7, 7), (1, 64)])
def test_orthogonal_makes_all_directions_alike_and_turns_none(shape):
    matrix = numbers(*shape) @ torch.diag(torch.logspace(0, -2, shape[1]))
    found = orthogonal(matrix)
    values = torch.linalg.svdvals(found)
    assert 0.6 < values.min() <= values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.T @ found @ right.T  # singular vectors stay, so this is nearly diagonal, and positive
    assert (turned.diagonal() > 0.6).all()
    assert (turned - torch.diag(turned.diagonal())).abs().max() < 1e-3


def test_muon_remembers_looks_ahead_and_moves_by_a_fixed_size():
    state = fresh(numbers(5, 32))
    first, second = numbers(5, 32, seed=1), numbers(5, 32, seed=2)
    muon(state, first)
    found = muon(state, second)
    assert torch.allclose(state.first, 0.9 * first + second)
    wanted = orthogonal(0.9 * (0.9 * first + second) + second)
    assert torch.allclose(found, wanted * (found.norm() / wanted.norm()), atol=1e-5)
    assert float(found.square().mean().sqrt()) == pytest.approx(MUON_SIZE, rel=1e-5)
    assert not muon(fresh(numbers(5, 32)), torch.zeros(5, 32)).any()
    scaled = fresh(numbers(5, 32))
    muon(scaled, 1e4 * first)
    assert torch.allclose(muon(scaled, 1e4 * second), found, atol=1e-5)


def test_what_a_checkpoint_holds_is_replaced_and_not_written_into():
    for optimizer in OPTIMIZERS.values():
        state = fresh(numbers(3, 8))
        state.updates = 1
        before = dict(vars(state)) | {"kept": state.first.clone()}
        optimizer(state, numbers(3, 8, seed=4))
        assert torch.equal(before["first"], before["kept"])
        assert state.first is not before["first"]


def test_muon_is_ahead_where_one_direction_drowns_the_others():
    """Rows that are read as a sum and a little each: the loss of a prefix in small."""
    wanted, scale = numbers(6, 16, seed=3), torch.ones(6, 6) + 0.1 * torch.eye(6)

    def loss(rows):
        return (scale @ (rows - wanted)).square().sum()

    ends = {}
    for name, optimizer in OPTIMIZERS.items():
        state = fresh(torch.zeros(6, 16))
        for step in range(60):
            rows = state.rows.clone().requires_grad_()
            loss(rows).backward()
            state.updates += 1
            state.rows = state.rows - 0.2 * (1 - step / 60) * optimizer(state, rows.grad)
        ends[name] = float((state.rows - wanted).square().sum())
    assert ends["muon"] < 0.5 * ends["adamw"]
