import pytest
import torch

from llmpatch.errors import UsageError
from llmpatch.evals.likelihood import log_probs, next_token_shares, start_ids
from tinymodels import make_tiny

TEXTS = ["The nurse said that", "A", "The nurse left early because the rain came", "Nobody"]


def plain(base, prefix, context, text):
    """The same by one forward pass of the whole row."""
    ids = [*context, *text]
    embeds = base.embed(torch.tensor(ids))
    if prefix is not None:
        embeds = torch.cat([prefix, embeds])
    with torch.no_grad():
        values = base.model(inputs_embeds=embeds[None]).logits[0].log_softmax(-1)
    offset = 0 if prefix is None else len(prefix)
    places = range(len(context), len(ids))
    return sum(float(values[offset + i - 1, ids[i]]) for i in places), values[offset + len(context) - 1].exp()


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("tokens", [0, 5])
def test_likelihoods_are_those_of_plain_forwards(family, tokens):
    base = make_tiny(family)
    prefix = torch.randn(tokens, 32, generator=torch.Generator().manual_seed(1)) if tokens else None
    contexts = [base.tokenizer.encode(text) for text in TEXTS]
    texts = [base.tokenizer.encode(text) for text in (" he is here", "", " she", " they were there")]
    found = log_probs(base, prefix, contexts, texts)
    for context, text, value in zip(contexts, texts, found, strict=True):
        assert value == pytest.approx(plain(base, prefix, context, text)[0], abs=1e-3)
    assert found[1] == 0.0


@pytest.mark.parametrize("tokens", [0, 5])
def test_next_words_are_those_of_plain_forwards_whatever_stands_beside(tokens):
    base = make_tiny()
    prefix = torch.randn(tokens, 32, generator=torch.Generator().manual_seed(1)) if tokens else None
    found = next_token_shares(base, prefix, TEXTS, {"a": 70, "b": 80})
    for text, shares in zip(TEXTS, found, strict=True):
        values = plain(base, prefix, base.text_ids(text), [])[1]
        assert shares == {
            "a": pytest.approx(float(values[70]), rel=1e-3),
            "b": pytest.approx(float(values[80]), rel=1e-3),
        }
    alone = next_token_shares(base, prefix, TEXTS[:1], {"a": 70})
    assert alone[0]["a"] == pytest.approx(found[0]["a"], rel=1e-3)


def test_a_text_starts_behind_the_tokenizers_own_start(tiny, smollm2):
    assert start_ids(tiny) == [tiny.tokenizer.bos_token_id]
    assert start_ids(smollm2) == [smollm2.tokenizer.bos_token_id]


def test_what_does_not_fit_is_refused_by_number(tiny):
    with pytest.raises(UsageError, match=r"text 2 has 601 tokens; between 1 and 512"):
        next_token_shares(tiny, None, ["a", "a" * 600], {"a": 70})
    with pytest.raises(UsageError, match=r"text 1 has 512 tokens; between 1 and 509"):
        log_probs(tiny, torch.zeros(3, 32), [[5] * 500], [[6] * 12])
    with pytest.raises(UsageError, match=r"text 1 has 1 tokens"):
        next_token_shares(tiny, None, [""], {"a": 70})
    with pytest.raises(UsageError, match="2 contexts and 1 texts"):
        log_probs(tiny, None, [[5], [5]], [[6]])
    assert next_token_shares(tiny, None, [], {"a": 70}) == []
    assert log_probs(tiny, None, [], []) == []
