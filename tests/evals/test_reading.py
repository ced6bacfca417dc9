import pytest
import torch

from llmpatch.errors import UsageError
from llmpatch.evals import reading
from llmpatch.evals.reading import Score, open_reader, score_texts
from llmpatch.generation import generate, generate_ids
from llmpatch.recipe import DecodingSection
from tinymodels import make_tiny

CONTEXTS = ["The nurse said that", "A", "The nurse said", "The nurse said that", "Nobody came because of the rain"]
TEXTS = [" he is here", " b", " that she", " x", " "]


def rows(tokens=5):
    return torch.randn(tokens, 32, generator=torch.Generator().manual_seed(1)) if tokens else None


def plain(base, prefix, context, text):
    """The same by one forward pass of the whole row, the prefix as input embeddings."""
    ids = [*context, *text]
    embeds = base.embed(torch.tensor(ids))
    if prefix is not None:
        embeds = torch.cat([prefix, embeds])
    with torch.no_grad():
        values = base.model(inputs_embeds=embeds[None]).logits[0].log_softmax(-1)
    first = len(embeds) - len(text) - 1
    likeliest = values[first:-1].argmax(-1).tolist() == list(text)
    return sum(float(values[first + i, token]) for i, token in enumerate(text)), likeliest


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("tokens", [0, 5])
def test_scores_are_those_of_plain_forwards_whatever_stands_beside(family, tokens):
    base, prefix = make_tiny(family), rows(tokens)
    contexts = [base.tokenizer.encode(text) for text in CONTEXTS]
    texts = [base.tokenizer.encode(text) for text in TEXTS]
    reader = open_reader(base, prefix)
    found = score_texts(reader, contexts, texts, batch_size=3)
    for context, text, score in zip(contexts, texts, found, strict=True):
        wanted = plain(base, prefix, context, text)
        assert score.log_prob == pytest.approx(wanted[0], abs=1e-3)
        assert score.greedy == wanted[1]
    assert [s.log_prob for s in score_texts(reader, contexts, texts, batch_size=1)] == pytest.approx(
        [s.log_prob for s in found], abs=1e-3
    )


def test_what_the_model_says_itself_is_greedy(tiny):
    prompt, said = tiny.text_ids("The rain"), []
    for _ in range(4):
        embeds = torch.cat([rows(), tiny.embed(torch.tensor([*prompt, *said]))])
        with torch.no_grad():
            said.append(int(tiny.model(inputs_embeds=embeds[None]).logits[0, -1].argmax()))
    other = [*said[:-1], said[-1] ^ 1]
    found = score_texts(open_reader(tiny, rows()), [prompt, prompt], [said, other])
    assert [score.greedy for score in found] == [True, False]


def test_rows_that_read_the_same_run_once_and_the_prefix_never_again(tiny, monkeypatch):
    seen = []
    run = reading.run_behind
    monkeypatch.setattr(reading, "run_behind", lambda base, ids, *rest: seen.append(ids.shape) or run(base, ids, *rest))
    reader = open_reader(tiny, rows())
    monkeypatch.setattr(reading, "prefix_cache", None)  # whoever computes it again fails
    context = tiny.text_ids("Answer:")
    score_texts(reader, [context] * 4, [[70], [71], [72], [73]])
    assert seen == [(1, len(context))]
    seen.clear()
    score_texts(reader, [[*context, 80], [*context, 81]], [[70], [71]])
    assert seen == [(1, len(context)), (2, 1)]


def test_what_does_not_fit_is_refused_by_number(tiny):
    reader = open_reader(tiny, rows())
    assert score_texts(reader, [[5]], [[]]) == [Score(0.0, True)]
    assert score_texts(reader, [], []) == []
    score_texts(reader, [[5] * 400], [[6] * 108])  # 507 are read, which is the room of 512 less 5
    with pytest.raises(UsageError, match="text 2 has 509 tokens with its context; between 1 and 507"):
        score_texts(reader, [[5], [5] * 400], [[6], [6] * 109])
    with pytest.raises(UsageError, match="text 1 has 1 tokens"):
        score_texts(reader, [[]], [[6]])
    with pytest.raises(UsageError, match="1 contexts and 2 texts"):
        score_texts(reader, [[5]], [[6], [7]])


def test_an_answer_ends_before_the_first_of_its_stop_texts(tiny):
    decoding = DecodingSection(max_new_tokens=24)
    prompts = ["The rain", "Nobody came", "A"]
    whole = {i: a[0].text for i, a in generate(tiny, prompts, decoding=decoding, raw=True)}
    stop = next(c for c in whole[0][3:] if c.isascii() and c.isprintable())
    ids = [tiny.text_ids(prompt) for prompt in prompts]
    found = {i: a[0] for i, a in generate_ids(tiny, ids, decoding=decoding, until=[stop, ""])}
    for i, text in whole.items():
        assert found[i].text == text.partition(stop)[0]
    assert found[0].finish == "stop"
    assert len(found[0].text) < len(whole[0])


def test_long_rows_run_in_smaller_batches(tiny, monkeypatch):
    from llmpatch import generation

    decoding = DecodingSection(max_new_tokens=3)
    prompts = ["a" * 20, "b", "c" * 40, "d" * 41]
    wanted = dict(generate(tiny, prompts, decoding=decoding, raw=True, prefix=rows()))
    sizes = []
    decode = generation._decode
    monkeypatch.setattr(generation, "_decode", lambda b, part, *rest: sizes.append(len(part)) or decode(b, part, *rest))
    monkeypatch.setattr(generation, "BATCH_POSITIONS", 70)
    assert dict(generate(tiny, prompts, decoding=decoding, raw=True, prefix=rows())) == wanted
    assert sizes == [2, 1, 1]
