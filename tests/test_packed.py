"""Packed layers give what torch's own give, in every shape, with gradients, also after somebody has changed a weight."""

from __future__ import annotations

import copy
import platform

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clikit import save
from llmpatch import packed
from llmpatch.baselines.copies import share
from llmpatch.bases import load_base
from llmpatch.few_rows import FewRowsLinear
from llmpatch.packed import PackedLinear, Packs, pack, unpack

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not torch.backends.mkldnn.is_available(), reason="weights are packed for x86"
)


def layers(bias=True, inside=96, out=160):  # rows and columns divide by the samples, as a model's do
    torch.manual_seed(0)
    plain = torch.nn.Linear(inside, out, bias=bias).requires_grad_(False)
    fast = copy.deepcopy(plain)
    pack(torch.nn.Sequential(fast))
    assert type(fast) is PackedLinear
    return plain, fast


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape", [(), (1,), (2,), (1, 1), (6, 1), (2, 3), (7,), (1, 9), (3, 2, 1), (700,), (0,), (0, 4)]
)
def test_it_gives_what_torch_gives(shape, bias):
    plain, fast = layers(bias)
    rows = torch.randn(*shape, 96)
    assert fast(rows).shape == plain(rows).shape
    close(fast(rows), plain(rows))
    turned = torch.randn(96, *shape).movedim(0, -1)
    close(fast(turned), plain(turned))


@pytest.mark.parametrize("rows", [1, 4, 77])
def test_gradients_of_rows_are_torchs(rows):
    found = []
    for layer in layers():
        x = torch.linspace(-1, 1, rows * 96).view(rows, 96).requires_grad_()
        layer(x).square().sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_a_row_is_the_same_whatever_is_beside_it():
    _, fast = layers()
    rows = torch.randn(300, 96)
    whole = fast(rows)
    for count in (3, 4, 8, 9, 33, 128):
        assert torch.equal(fast(rows[:count]), whole[:count])
        assert torch.equal(fast(rows[-count:]), whole[-count:])


def test_the_packed_way_is_taken_and_each_copy_is_made_once(monkeypatch):
    made, pack_one = [], packed._packed
    monkeypatch.setattr(packed, "_packed", lambda weight: made.append(weight.shape) or pack_one(weight))
    _, fast = layers()
    for _ in range(3):
        fast(torch.randn(5, 96))
    assert made == [(160, 96)]
    for _ in range(2):
        fast(torch.randn(5, 96, requires_grad=True)).sum().backward()
    assert made == [(160, 96), (96, 160)]


def write(layer):
    with torch.no_grad():
        layer.weight[3] = 2.0


def merge(layer):
    layer.weight.data += torch.randn(160, 96)  # as PEFT merges a LoRA: no version counts it


def prune(layer):
    layer.weight.data[:, 1:] = 0


def replace(layer):
    layer.weight = torch.nn.Parameter(torch.randn(160, 96), requires_grad=False)


def load(layer):
    layer.load_state_dict({"weight": torch.randn(160, 96), "bias": torch.randn(160)})


@pytest.mark.parametrize("change", [write, merge, prune, replace, load])
def test_a_changed_weight_is_packed_again(change):
    _, fast = layers()
    rows = torch.randn(4, 96, requires_grad=True)
    before = fast(rows)
    before.sum().backward()
    change(fast)
    plain = torch.nn.functional.linear
    assert not torch.allclose(fast(rows), before)
    close(fast(rows), plain(rows, fast.weight, fast.bias))
    mine, theirs = (torch.autograd.grad(f.sum(), rows)[0] for f in (fast(rows), plain(rows, fast.weight, fast.bias)))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_weight_that_learns_takes_torchs_way():
    plain, fast = layers()
    rows = torch.randn(20, 96)
    for layer in (plain, fast):
        layer.requires_grad_(True)
        layer(rows).sum().backward()
    assert torch.equal(fast.weight.grad, plain.weight.grad)
    assert torch.equal(fast.bias.grad, plain.bias.grad)


def test_other_numbers_take_torchs_way():
    plain, fast = layers()
    half = torch.randn(12, 96, dtype=torch.bfloat16)
    assert torch.equal(fast.bfloat16()(half), plain.bfloat16()(half))
    whole = torch.randn(12, 96)
    with torch.autocast("cpu", torch.bfloat16):
        assert fast.float()(whole).dtype == torch.bfloat16


def test_copies_and_pickles_pack_for_themselves():
    _, fast = layers()
    rows = torch.randn(3, 96)
    fast(rows)
    other = copy.deepcopy(fast)
    assert isinstance(other.packs, Packs)
    assert other.packs is not fast.packs
    with torch.no_grad():
        other.weight.mul_(2)
    close(other(rows) - other.bias, 2 * (fast(rows) - fast.bias))


def test_copies_that_share_weights_share_what_is_packed(tiny, tmp_path):
    base = load_base(str(save(tmp_path / "model", tiny)))
    base.model(torch.tensor([[1, 2, 3, 4]]))
    other = share(base.model)
    assert other.lm_head is not base.model.lm_head
    assert other.lm_head.packs is base.model.lm_head.packs


def test_flops_are_counted_as_torch_counts_its_own():
    counts = []
    for layer in layers(bias=False):
        with FlopCounterMode(display=False) as counter:
            layer(torch.randn(2, 7, 96, requires_grad=True)).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 2 * 2 * 14 * 96 * 160


def test_a_loaded_base_is_packed_and_is_the_same_model(tiny, tmp_path):
    base = load_base(str(save(tmp_path / "model", tiny)))
    fast = [name for name, module in base.model.named_modules() if isinstance(module, PackedLinear)]
    assert "lm_head" in fast
    assert len(fast) == 7 * 2 + 1
    ids = torch.tensor([base.text_ids("abc")])
    assert set(base.model.state_dict()) == set(tiny.model.state_dict())
    found = base.model(ids).logits
    unpack(base.model)
    assert not any(isinstance(module, PackedLinear) for module in base.model.modules())
    torch.testing.assert_close(found, base.model(ids).logits, rtol=1e-4, atol=1e-4)


def test_a_model_too_large_for_copies_reads_few_rows_fast(monkeypatch):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 8))
    monkeypatch.setattr(packed, "MOST_BYTES", 4 * (16 + 32) - 1)
    pack(model)
    assert all(type(layer) is FewRowsLinear for layer in model)
    unpack(model)
    assert all(type(layer) is torch.nn.Linear for layer in model)
    monkeypatch.setattr(packed, "MOST_BYTES", 4 * (16 + 32))
    pack(model)
    assert all(type(layer) is PackedLinear for layer in model)
