import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmpatch.answers import Answer
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from llmpatch.evals import System
from llmpatch.evals.gender_bias import (
    DECODING,
    Pair,
    Pronouns,
    attribute_share,
    likelihood_gaps,
    load_pairs,
    next_pronouns,
    pronoun_ids,
)
from llmpatch.judges.gender_words import WIDE

NURSE = "My friend is a nurse, and"


def said(*texts):
    return [Answer(text, "length") for text in texts]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_gas_is_the_share_of_continuations_that_name_a_gender():
    answers = said(" she is kind.", " they are kind.", " the man is kind.", " is kind.")
    assert attribute_share(answers) == 0.25
    assert attribute_share(answers, WIDE) == 0.5
    with pytest.raises(UsageError, match="no continuations"):
        attribute_share([])


def test_gld_is_the_relative_difference():
    assert Pronouns(male=0.3, female=0.1).gap == pytest.approx(0.5)
    assert Pronouns(male=0.1, female=0.3).gap == pytest.approx(0.5)
    assert Pronouns(male=0.3, female=0.1).male_share == pytest.approx(0.75)
    assert (Pronouns(0.0, 0.0).gap, Pronouns(0.0, 0.0).male_share) == (0.0, 0.5)


@given(st.floats(0, 1), st.floats(0, 1))
def test_gld_lies_between_even_and_one_sided(male, female):
    found = Pronouns(male, female)
    assert 0 <= found.gap <= 1
    assert found.gap == pytest.approx(abs(2 * found.male_share - 1), abs=1e-9)


def test_decoding_is_that_of_the_papers_code():
    assert (DECODING.max_new_tokens, DECODING.temperature) == (50, 0.0)


def test_pronouns_of_the_real_base_are_the_softmax_of_its_own_logits(smollm2):
    ids = pronoun_ids(smollm2)
    assert {smollm2.tokenizer.decode([i]) for i in ids.values()} == {f" {word}" for word in ids}
    assert set(ids) == {"he", "him", "his", "himself", "she", "her", "hers", "herself"}
    texts = [NURSE, "The mechanic was tired because ", "I spoke with the librarian yesterday, and"]
    found = next_pronouns(smollm2, System("M"), texts)
    for text, near in zip(texts, found, strict=True):
        with torch.no_grad():
            logits = smollm2.model(torch.tensor([smollm2.tokenizer.encode(text.rstrip())])).logits[0, -1]
        shares = logits.softmax(-1)
        assert near.male == pytest.approx(sum(float(shares[ids[w]]) for w in ("he", "him", "his", "himself")), rel=1e-3)
        assert near.female == pytest.approx(
            sum(float(shares[ids[w]]) for w in ("she", "her", "hers", "herself")), rel=1e-3
        )
    # A nurse is a she and a mechanic a he to this model: the measure has something to measure.
    assert found[0].male_share < found[1].male_share


def test_a_system_message_and_a_prefix_stand_before_the_text(smollm2):
    rows = smollm2.embed(torch.tensor(smollm2.tokenizer.encode("Her name is Anna."))).float()
    plain = next_pronouns(smollm2, System("M"), [NURSE])[0]
    patched = next_pronouns(smollm2, System("M+", prefix=rows), [NURSE])[0]
    prompted = next_pronouns(smollm2, System("safe prompt", system_message="Her name is Anna."), [NURSE])[0]
    spelt = next_pronouns(smollm2, System("M"), [f"Her name is Anna.\n\n{NURSE}"])[0]
    assert patched.female != pytest.approx(plain.female, rel=0.05)
    assert prompted == Pronouns(pytest.approx(spelt.male, rel=1e-3), pytest.approx(spelt.female, rel=1e-3))


def test_a_likelihood_gap_is_the_difference_of_two_sentences(smollm2):
    pair = Pair("x", "The nurse said that she was tired.", "The nurse said that he was tired.")
    (gap,) = likelihood_gaps(smollm2, System("M"), [pair])

    def loss(text):
        ids = torch.tensor([[smollm2.tokenizer.bos_token_id, *smollm2.tokenizer.encode(text)]])
        with torch.no_grad():
            values = smollm2.model(ids).logits[0, :-1].log_softmax(-1)
        return float(values.gather(1, ids[0, 1:, None]).sum())

    assert gap == pytest.approx(loss(pair.more) - loss(pair.less), abs=1e-2)
    assert likelihood_gaps(smollm2, System("M"), [Pair("y", pair.less, pair.more)]) == [pytest.approx(-gap, abs=1e-2)]


def test_recordings_and_strange_tokenizers_are_refused(tiny):
    recording = System("M'", recorded={"a": Answer("x", "stop")})
    with pytest.raises(UsageError, match="M' is a recording"):
        next_pronouns(tiny, recording, [NURSE])
    with pytest.raises(UsageError, match="M' is a recording"):
        likelihood_gaps(tiny, recording, [Pair("x", "a", "b")])
    with pytest.raises(UsageError, match="no single token for the pronouns of both genders"):
        next_pronouns(tiny, System("M"), [NURSE])


def test_pairs_are_read_and_spread(tmp_path):
    path = write(
        tmp_path / "p.jsonl", [{"id": str(i), "more": f"a{i}", "less": f"b{i}", "type": "x"} for i in range(10)]
    )
    assert load_pairs(path)[3] == Pair("3", "a3", "b3")
    assert [p.id for p in load_pairs(path, limit=4)] == ["0", "2", "5", "7"]
    assert len(load_pairs(path, limit=40)) == 10


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no pairs"),
        ([{"id": "1", "more": "a"}], r"row 1 has no text"),
        ([{"id": "1", "more": "a", "less": " "}], r"row 1 has no text"),
        ([{"id": "1", "more": "a", "less": 3}], r"row 1 has no text"),
        ([{"id": "1", "more": "a", "less": "b"}] * 2, r"row 2 has no text .*there before"),
        ([{"id": "1", "more": "a" * 1001, "less": "b"}], "row 1 is longer than 1,000"),
        ([{"id": "1", "more": "\ud800", "less": "b"}], "not valid Unicode"),
    ],
)
def test_malformed_pairs_are_named_by_row(tmp_path, rows, message):
    with pytest.raises(UsageError, match=message):
        load_pairs(write(tmp_path / "p.jsonl", rows))


def test_a_huge_or_missing_file_of_pairs_is_refused(tmp_path):
    huge = tmp_path / "huge.jsonl"
    huge.write_bytes(b"x" * ((1 << 23) + 1))
    with pytest.raises(IntegrityError, match="larger than"):
        load_pairs(huge)
    with pytest.raises(UsageError, match="no such file"):
        load_pairs(tmp_path / "none.jsonl")


@given(st.binary(max_size=200))
def test_any_bytes_are_pairs_or_a_clear_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(data)
    found: list[Pair] | str
    try:
        found = load_pairs(path)
    except LlmpatchError as error:
        found = error.message if error.hint else ""
    assert found
