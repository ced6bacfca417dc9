"""Layers for few rows give what torch's own give, in every shape, with gradients, and change nothing else of a model."""

from __future__ import annotations

import copy
import platform

import pytest
import torch

from llmpatch.few_rows import MOST_ROWS, FewRowsLinear, read_fast, read_plainly
from llmpatch.packed import pack

here = pytest.mark.skipif(
    platform.machine() != "x86_64" or not torch.backends.mkl.is_available(), reason="the fast way is for x86 with MKL"
)


def layers(bias=True, inside=96, out=160):
    torch.manual_seed(0)
    plain = torch.nn.Linear(inside, out, bias=bias)
    fast = copy.deepcopy(plain)
    fast.__class__ = FewRowsLinear
    return plain, fast


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (1, 1), (6, 1), (2, 3), (7,), (1, 9), (3, 2, 1), (0,), (0, 4)])
def test_it_gives_what_torch_gives(shape, bias):
    plain, fast = layers(bias)
    rows = torch.randn(*shape, 96)
    assert fast(rows).shape == plain(rows).shape
    torch.testing.assert_close(fast(rows), plain(rows), rtol=1e-5, atol=1e-5)
    assert fast(rows).is_contiguous()


@pytest.mark.parametrize(("rows", "taken"), [(0, 0), (1, 1), (MOST_ROWS, 1), (MOST_ROWS + 1, 0)])
def test_few_rows_take_the_fast_way(rows, taken, monkeypatch):
    calls, multiply = [], torch.mm
    monkeypatch.setattr(torch, "mm", lambda *a: calls.append(a[1].shape) or multiply(*a))
    layers()[1](torch.randn(rows, 96))
    assert len(calls) == taken
    assert all(shape == (96, max(2, rows)) for shape in calls)


@pytest.mark.parametrize("rows", [1, 4])
def test_gradients_are_torchs(rows):
    plain, fast = layers()
    for layer in (plain, fast):
        layer.x = torch.linspace(-1, 1, rows * 96).view(rows, 96).requires_grad_()
        layer(layer.x).square().sum().backward()
    torch.testing.assert_close(fast.x.grad, plain.x.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.bias.grad, plain.bias.grad, rtol=1e-4, atol=1e-4)


def test_more_rows_and_other_numbers_take_torchs_way():
    plain, fast = layers()
    many = torch.randn(MOST_ROWS + 1, 96)
    assert torch.equal(fast(many), plain(many))
    half = torch.randn(2, 96, dtype=torch.bfloat16)
    assert torch.equal(fast.bfloat16()(half), plain.bfloat16()(half))


@here
def test_a_model_of_them_is_the_same_model(tiny):
    model = copy.deepcopy(tiny.model)
    read_fast(model)
    fast = [name for name, module in model.named_modules() if isinstance(module, FewRowsLinear)]
    assert "lm_head" in fast
    assert len(fast) == 7 * 2 + 1
    ids = torch.tensor([tiny.text_ids("abc")])
    assert set(model.state_dict()) == set(tiny.model.state_dict())
    found = model(ids).logits
    read_plainly(model)
    assert not any(isinstance(module, FewRowsLinear) for module in model.modules())
    torch.testing.assert_close(found, model(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", [read_fast, pack])
def test_other_layers_and_other_numbers_are_left_alone(way):
    class Own(torch.nn.Linear):
        pass

    model = torch.nn.Sequential(torch.nn.Linear(4, 4).half(), Own(4, 4), torch.nn.LayerNorm(4))
    before = [type(module) for module in model]
    way(model)
    assert [type(module) for module in model] == before
