import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmpatch.errors import UsageError
from llmpatch.evals import fluency
from tinymodels import make_tiny

TEXT = "The rain in Spain stays mainly in the plain. " * 20


def plain_losses(base, ids, embeds=None):
    """Negative log-likelihood of ids[1:] by the model's own forward, with any rows put before."""
    row = base.embed(torch.tensor(ids))
    past = 0 if embeds is None else len(embeds)
    if embeds is not None:
        row = torch.cat([embeds, row])
    with torch.no_grad():
        logits = base.model(inputs_embeds=row[None]).logits[0, past:-1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none").double()


def test_answer_losses_equal_the_models_own_forward(tiny):
    prompts, answers = ["Hello there", "Hi", "What?"], ["General Kenobi.", "", "Yes and no"]
    found = fluency.answer_losses(tiny, prompts, answers)
    for prompt, answer, (loss, tokens) in zip(prompts, answers, found, strict=True):
        asked, said = tiny.chat_ids(prompt), tiny.tokenizer.encode(answer, add_special_tokens=False)
        assert tokens == len(said)
        expected = plain_losses(tiny, asked + said)[len(asked) - 1 :].sum() if said else 0.0
        assert loss == pytest.approx(float(expected), rel=1e-4)
    assert fluency.answer_losses(tiny, ["Hi"], ["a"])[0][1] == 1


def test_answers_beyond_a_sliding_window_are_scored_as_the_model_reads_them():
    gemma = make_tiny("gemma3_text", sliding_window=48)
    prompts, answers = ["Hi", "Hello there, how are you today? " * 2], ["Yes.", "No, not at all, and not today. " * 3]
    found = fluency.answer_losses(gemma, prompts, answers)
    lengths = []
    for prompt, answer, (loss, _) in zip(prompts, answers, found, strict=True):
        asked, said = gemma.chat_ids(prompt), gemma.tokenizer.encode(answer, add_special_tokens=False)
        lengths.append(len(asked + said))
        expected = plain_losses(gemma, asked + said)[len(asked) - 1 :].sum()
        assert loss == pytest.approx(float(expected), rel=1e-4)
    assert lengths[0] <= 48 < lengths[1]


@pytest.mark.parametrize("adds_bos", [False, True])
def test_plain_text_is_scored_on_the_same_tokens_with_and_without_a_prefix(adds_bos):
    tiny = make_tiny()
    if adds_bos:
        from tokenizers.processors import TemplateProcessing

        tiny.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    rows = torch.randn(7, tiny.hidden_size)
    found = fluency.wikitext_perplexity(tiny, rows, TEXT, window_tokens=64, limit_tokens=200)
    ids = tiny.tokenizer.encode(TEXT, add_special_tokens=False)[:192]
    start = [1] if adds_bos else []
    windows = [start + ids[i : i + 64] for i in (0, 64, 128)]
    plain = torch.cat([plain_losses(tiny, w) for w in windows])
    patched = torch.cat([plain_losses(tiny, w, rows) for w in windows])
    assert (found.windows, found.tokens) == (3, len(plain))
    assert len(plain) == (192 if adds_bos else 189)
    assert found.base == pytest.approx(math.exp(plain.mean()), rel=1e-4)
    assert found.patched == pytest.approx(math.exp(patched.mean()), rel=1e-4)
    assert found.ratio.value == pytest.approx(found.patched / found.base)
    assert found.ratio.low <= found.ratio.value <= found.ratio.high


@pytest.mark.parametrize(
    ("family", "changes"),
    [("qwen2", {}), ("gemma3_text", {"sliding_window": 512}), ("gemma3_text", {"sliding_window": 24})],
)
def test_other_families_are_scored_as_their_own_forward_does(family, changes):
    model = make_tiny(family, **changes)
    rows = torch.randn(7, model.hidden_size)
    found = fluency.wikitext_perplexity(model, rows, TEXT, window_tokens=64, limit_tokens=64)
    ids = model.tokenizer.encode(TEXT, add_special_tokens=False)[:64]
    assert found.base == pytest.approx(math.exp(plain_losses(model, ids).mean()), rel=1e-4)
    assert found.patched == pytest.approx(math.exp(plain_losses(model, ids, rows).mean()), rel=1e-4)


def test_no_prefix_costs_nothing_and_another_model_counts(tiny):
    same = fluency.wikitext_perplexity(tiny, None, TEXT, window_tokens=64)
    assert same.ratio.value == pytest.approx(1.0)
    other = fluency.wikitext_perplexity(tiny, None, TEXT, patched=make_tiny(seed=5), window_tokens=64)
    assert other.base == same.base
    assert other.ratio.value != pytest.approx(1.0, abs=1e-3)


def test_windows_that_cannot_be_are_refused(tiny):
    with pytest.raises(UsageError, match="context"):
        fluency.wikitext_perplexity(tiny, torch.zeros(8, 32), TEXT, window_tokens=510)
    with pytest.raises(UsageError, match="less than a window"):
        fluency.wikitext_perplexity(tiny, None, "short", window_tokens=64)
    with pytest.raises(UsageError, match="2 prompts and 1 answers"):
        fluency.answer_losses(tiny, ["a", "b"], ["c"])


@given(st.lists(st.sampled_from("abcdefg"), max_size=40))
def test_trigram_overlap_is_between_zero_and_one(words):
    assert 0 <= fluency.trigram_overlap(" ".join(words)) < 1


def test_trigram_overlap_of_known_texts():
    assert fluency.trigram_overlap("one two") == 0
    assert fluency.trigram_overlap("one two three four") == 0
    assert fluency.trigram_overlap("again and again and again and again") == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("", False),
        ("I can't help with that.", False),
        ("No, no, no.", False),
        ("A fair answer with many different words, which never says the same thing twice in a row at all.", False),
        ("Here: I can't do it. I can't do it. I can't do it.", True),
        ("very very very very very very", True),
        ("Steps: cut the tree and then cut the tree and then cut the tree and then cut the tree and stop", True),
    ],
)
def test_loops(text, looping):
    assert fluency.loops(text) is looping
