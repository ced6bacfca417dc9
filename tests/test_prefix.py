"""Starts of a prefix, and the proof of a model's head."""

from __future__ import annotations

import pytest
import torch

from llmpatch.errors import UsageError
from llmpatch.prefix import check_head, init_prefix
from llmpatch.recipe import PrefixSection
from tinymodels import make_tiny


def test_text_init_is_the_texts_embeddings_repeated_to_length(tiny):
    rows = init_prefix(tiny, PrefixSection(tokens=7, init="text", text="abc"), seed=0)
    ids = tiny.tokenizer.encode("abc", add_special_tokens=False)
    expected = tiny.embed(torch.tensor((ids * 3)[:7]))
    assert torch.equal(rows, expected)


def test_gemma_rows_are_scaled_as_the_model_scales_them():
    gemma = make_tiny("gemma3_text")
    rows = init_prefix(gemma, PrefixSection(tokens=2, text="ab"), seed=0)
    raw = gemma.model.get_input_embeddings().weight[gemma.tokenizer.encode("ab", add_special_tokens=False)]
    assert torch.allclose(rows, raw * 32**0.5, rtol=1e-3)


@pytest.mark.parametrize("init", ["vocabulary", "random"])
def test_other_starts_depend_on_the_seed(tiny, init):
    section = PrefixSection(tokens=5, init=init)
    first, again, other = (init_prefix(tiny, section, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (5, 32)


def test_a_prefix_that_fills_the_context_is_refused(tiny):
    with pytest.raises(UsageError, match="too many for a context of 512"):
        init_prefix(tiny, PrefixSection(tokens=200), seed=0)


def test_an_empty_init_text_is_refused(tiny):
    with pytest.raises(UsageError, match="no tokens"):
        init_prefix(tiny, PrefixSection(tokens=5, text=""), seed=0)


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere", "granite"])
def test_known_heads_pass(family):
    check_head(make_tiny(family))


def test_an_unknown_head_is_refused(tiny):
    strange = make_tiny()
    head = strange.model.get_output_embeddings()
    head.register_forward_hook(
        lambda module, inputs, output: output * (1 + (output.shape[0] == 1 and output.dim() == 3))
    )
    original = strange.model.forward

    def forward(*args, **kwargs):
        found = original(*args, **kwargs)
        found.logits = found.logits + 1.0
        return found

    strange.model.forward = forward
    with pytest.raises(UsageError, match="unknown kind"):
        check_head(strange)


def test_a_model_that_takes_no_positions_is_refused(tiny, monkeypatch):
    """As MPT and Bloom: their biases count places, and the second answer of a row would look further from its prompt."""
    monkeypatch.setattr(type(tiny.model.base_model), "forward", lambda self, input_ids=None, **options: None)
    with pytest.raises(UsageError, match="takes no positions"):
        check_head(tiny)
