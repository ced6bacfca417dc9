"""Drawing from the nucleus: only its tokens, as often as their weights say, whatever the vocabulary and the batch."""

from __future__ import annotations

import pytest
import torch

from llmpatch import nucleus
from llmpatch.nucleus import draw, tempered


def seeded(count):
    return [torch.Generator().manual_seed(number) for number in range(count)]


def kept(row, top_p):
    """The nucleus by its definition: the fewest likeliest tokens that reach the probability."""
    found, total = set(), 0.0
    for token in row.argsort(descending=True).tolist():
        if total >= top_p:
            break
        found.add(token)
        total += float(row[token])
    return found


@pytest.mark.parametrize("likeliest", [4, 4096])
@pytest.mark.parametrize("top_p", [0.1, 0.9, 1.0])
def test_tokens_are_drawn_from_the_nucleus_as_often_as_they_weigh(monkeypatch, top_p, likeliest):
    monkeypatch.setattr(nucleus, "LIKELIEST", likeliest)
    row = torch.tensor([0.02, 0.3, 0.05, 0.25, 0.2, 0.08, 0.04, 0.06])
    drawn = draw(row.expand(4000, -1), top_p, seeded(4000))
    inside = kept(row, top_p)
    assert set(drawn) == inside
    total = sum(float(row[token]) for token in inside)
    for token in inside:
        assert drawn.count(token) / 4000 == pytest.approx(float(row[token]) / total, abs=0.03)


def test_a_batch_and_the_number_of_tokens_looked_at_change_no_draw(monkeypatch):
    rows = (torch.randn(16, 300, generator=torch.Generator().manual_seed(0)) * 3).softmax(-1)
    together = draw(rows, 0.9, seeded(16))
    assert together == [draw(row[None], 0.9, [random])[0] for row, random in zip(rows, seeded(16), strict=True)]
    monkeypatch.setattr(nucleus, "LIKELIEST", 2)
    assert together == draw(rows, 0.9, seeded(16))


def test_a_certain_token_is_always_drawn():
    assert draw(torch.eye(5), 1.0, seeded(5)) == [0, 1, 2, 3, 4]
    assert draw(torch.eye(5), 0.9, seeded(5)) == [0, 1, 2, 3, 4]


def test_tempered_rows_sum_to_one_however_cold():
    logits = torch.tensor([[3.0, 3.5, -40.0, 3.5], [0.0, 1e-6, 0.0, -1.0]])
    for temperature in (5.0, 1.0, 0.01, 1e-20, 1e-40, 1e-300):
        found = tempered(logits, temperature)
        assert found.isfinite().all()
        assert torch.allclose(found.sum(-1), torch.ones(2))
    assert torch.equal(tempered(logits, 0.7), (logits / 0.7).softmax(-1))
    assert tempered(logits, 1e-300).tolist() == [[0, 0.5, 0, 0.5], [0, 1, 0, 0]]
