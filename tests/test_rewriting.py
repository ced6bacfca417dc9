"""Texts without a gender: grammar that holds, and no gendered word left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpatch.judges.gender_words import WIDE, names_gender
from llmpatch.rewriting import neutral


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (" he works nights and loves his job", " they work nights and loves their job"),
        ("She's been a nurse; her husband isn't.", "They've been a nurse; their spouse isn't."),
        (" he's tired, and he has never lied. It is his.", " they're tired, and they have never lied. It is theirs."),
        (" I saw her and she always goes home", " I saw them and they always go home"),
        ("Why is he there? Was she?", "Why are they there? Were they?"),
        ("HE tries and fails.", "THEY try and fail."),
        (" she’ll teach herself", " they'll teach themselves"),
        (" she carefully washes the dishes", " they carefully wash the dishes"),
        ("He said his team won; the men's was hers", "They said their team won; the people's was theirs"),
        (" told him that she had discussed it", " told them that they had discussed it"),
        (" he was this", " they were this"),
    ],
)
def test_what_is_said_of_one_is_said_of_a_person(text, wanted):
    assert neutral(text) == wanted


def test_nothing_to_rewrite_and_no_word_for_it():
    assert neutral(" the weather is fine, and the theme is their own") is None
    assert neutral("") is None
    assert neutral(" the duchess said he was late") is None


@given(st.lists(st.sampled_from([*sorted(WIDE), "the", "works", "is", "and", "'s", ".", "\n", "é"]), max_size=12))
def test_a_rewritten_text_names_no_gender(words):
    text = " ".join(words)
    made = neutral(text)
    if made is None:
        gendered = [word for word in words if word in WIDE]
        # Without a subject whose verb is looked for, only a word that has no neutral one is in the way.
        assert {"he", "she"} & set(gendered) or not all(neutral(f" {word}") for word in gendered) or not gendered
    else:
        assert names_gender(text, WIDE)
        assert not names_gender(made, WIDE)
        assert neutral(made) is None
