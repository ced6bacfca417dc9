"""Layers computed again give the same losses and gradients to the bit, through the shared prefix too, and keep little."""

import copy

import pytest
import torch

from llmpatch import losses
from llmpatch.batching import Example, make_batch
from llmpatch.errors import UsageError
from llmpatch.losses import answer_log_probs, hidden_states
from llmpatch.prefix import Parallel, decoder_layers
from llmpatch.recomputing import recomputed
from tinymodels import make_tiny

EXAMPLES = [
    Example("harmful", (5, 6, 7), (8, 9), (10, 11, 12)),
    Example("harmful", tuple(range(20, 45)), (13, 14, 15), (16,)),
    Example("everyday", (50,), (51, 52, 53, 54), (55, 56)),
]


def loss_of(base, rows):
    batch = make_batch(EXAMPLES, past=len(rows) + 2, answer_tokens=4, rejected=True)
    return answer_log_probs(base, hidden_states(base, rows, [3, 4], batch), batch.targets).sum()


def step(base):
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = loss_of(base, rows)
    loss.backward()
    return loss.detach(), rows.grad


def make(family):
    """GPT-2 hands its cache on by position, and names its sizes otherwise."""
    return make_tiny(family, n_embd=32, n_layer=2, n_head=4, n_positions=512) if family == "gpt2" else make_tiny(family)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "mistral", "gpt2"])
def test_loss_and_gradient_are_the_same_to_the_bit(family):
    base = make(family)
    plain = step(base)
    with recomputed(base):
        again = step(base)
    assert all(torch.equal(*pair) for pair in zip(plain, again, strict=True))
    assert float(plain[1].norm()) > 0
    assert all(torch.equal(*pair) for pair in zip(plain, step(base), strict=True)), "it is over when it is over"
    assert all("forward" not in layer.__dict__ for layer in decoder_layers(base.model))


def test_prefixes_side_by_side_give_the_same_too(tiny):
    other = torch.randn(3, 32, generator=torch.Generator().manual_seed(2))

    def beside():
        rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        loss = loss_of(tiny, Parallel((rows, other)))
        loss.backward()
        return loss.detach(), rows.grad

    plain = beside()
    with recomputed(tiny):
        again = beside()
    assert all(torch.equal(*pair) for pair in zip(plain, again, strict=True))
    assert float(plain[1].norm()) > 0


def test_each_layer_runs_once_more_and_keeps_its_input_alone(tiny):
    base = copy.copy(tiny)
    base.model = copy.deepcopy(tiny.model)
    calls = []
    for layer in decoder_layers(base.model):
        layer.mlp.register_forward_pre_hook(lambda module, args: calls.append(args[0].shape))

    def kept(recompute):
        calls.clear()
        found = []
        rows = torch.randn(5, 32).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: found.append(t) or t, lambda t: t):
            if recompute:
                with recomputed(base):
                    loss_of(base, rows).backward()
            else:
                loss_of(base, rows).backward()
        return sum(tensor.numel() for tensor in found), len(calls)

    (whole, once), (little, twice) = kept(recompute=False), kept(recompute=True)
    assert little < 0.5 * whole
    assert twice == 2 * once


def test_what_rows_add_behind_the_prefix_is_let_go(tiny, monkeypatch):
    made = []
    expand = losses.expand_cache
    monkeypatch.setattr(losses, "expand_cache", lambda *a: made.append(expand(*a)) or made[-1])
    with recomputed(tiny):
        loss = loss_of(tiny, torch.randn(5, 32).requires_grad_())
        lengths = {layer.keys.shape[-2] for cache in made for layer in cache.layers}
        loss.backward()
    assert lengths == {5 + 2}
    assert {layer.keys.shape[-2] for cache in made for layer in cache.layers} == {5 + 2}


def test_a_forward_of_its_own_is_given_back(tiny):
    base = copy.copy(tiny)
    base.model = copy.deepcopy(tiny.model)
    layer = decoder_layers(base.model)[0]
    own = layer.forward = lambda *a, **k: type(layer).forward(layer, *a, **k)
    with recomputed(base):
        assert layer.forward is not own
    assert layer.forward is own


def test_nothing_is_kept_where_no_gradient_is_wanted(tiny, monkeypatch):
    from torch.utils import checkpoint

    asked, plain = [], checkpoint.checkpoint
    monkeypatch.setattr(checkpoint, "checkpoint", lambda *a, **k: asked.append(a) or plain(*a, **k))
    with recomputed(tiny), torch.no_grad():
        loss_of(tiny, torch.randn(3, 32))
    assert not asked
    with recomputed(tiny):
        loss_of(tiny, torch.randn(3, 32).requires_grad_())
    assert asked


def test_an_error_inside_leaves_the_layers_as_they_were(tiny):
    with pytest.raises(KeyboardInterrupt), recomputed(tiny):
        raise KeyboardInterrupt
    assert all("forward" not in layer.__dict__ for layer in decoder_layers(tiny.model))


def test_a_spread_base_is_refused():
    base = make_tiny()
    base.sharded = True
    with pytest.raises(UsageError, match="spread over processes"), recomputed(base):
        pass
