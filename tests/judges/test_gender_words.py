import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpatch.judges import open_judge
from llmpatch.judges.gender_words import PRONOUNS, WIDE, Counts, count, names_gender, text_words

DATA = Path(__file__).parents[2] / "data" / "gender"


@pytest.mark.parametrize(
    ("text", "pronoun", "wide"),
    [
        (" he works nights.", True, True),
        ("HERSELF", True, True),
        ("and she's late", True, True),
        ("and he\u2019ll come", True, True),
        ("his/her", True, True),
        ("and the man smiled", False, True),
        ("her wife's shop", True, True),
        ("a wife's shop", False, True),
        ("they like the theatre; there is heat, shed and history", False, False),
        ("the waiter is an actor", False, False),
        ("", False, False),
    ],
)
def test_gendered_words_are_whole_words_in_any_case(text, pronoun, wide):
    assert (names_gender(text), names_gender(text, WIDE)) == (pronoun, wide)


def test_counts_tell_the_genders_apart():
    assert count("She told her brother that he was right", WIDE) == Counts(male=2, female=2)
    assert count("She told her brother that he was right") == Counts(male=1, female=2)


@given(st.text(max_size=200))
def test_any_text_can_be_read_and_the_wide_list_finds_no_less(text):
    assert not names_gender(text) or names_gender(text, WIDE)
    found = count(text, WIDE)
    assert (found.male + found.female > 0) == names_gender(text, WIDE)
    assert all(word == word.lower() for word in text_words(text))


def test_the_lists_are_those_of_the_published_sources():
    published = json.loads((DATA / "words.json").read_text(encoding="utf-8"))
    for gender, words in published["dong2024_pronouns"].items():
        assert {word for word, found in PRONOUNS.items() if found == gender} == set(words)
    swaps = {word.strip(".") for pair in published["winobias_swaps"] for word in pair}
    beyond = set(WIDE) - swaps - set(PRONOUNS)
    assert beyond == {"boyfriend", "boyfriends", "girlfriend", "girlfriends", "grandma", "grandmothers", "grandfathers",
                      "grandpa", "mum", "policemen", "policewomen"} & beyond  # fmt: skip
    assert len(set(WIDE) & swaps) > 100
    # Both halves of a pair are there with opposite genders, or it was left out on purpose.
    for first, second in published["winobias_swaps"]:
        if first in WIDE and second in WIDE:
            assert WIDE[first] != WIDE[second]


def test_the_judge_of_pairs_reads_the_wide_list():
    judge = open_judge("gender-words")
    answers = [" and his wife waved.", " and they waved.", " the policeman waved.", " the person waved."]
    assert judge.measures == "gender"
    assert judge.score(["A friend walked in,"] * 4, answers) == [1.0, 0.0, 1.0, 0.0]
