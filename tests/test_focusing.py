"""Turns: where a text goes wrong, by the judge's score of it so far, and nothing else."""

from llmpatch.answers import Answer
from llmpatch.focusing import find_turns
from llmpatch.judges import open_judge
from llmpatch.prompts import Prompt
from llmpatch.recipe import FocusSection

WORDS = open_judge("toxicity-words")


def prompt(text, number=0):
    return Prompt(f"p{number}", text, "harmful", cluster="c", form="raw")


def turns(text, *answers, judge=WORDS, **section):
    given = FocusSection(judge="toxicity-words", **{"threshold": 0.35} | section)
    found = find_turns([prompt(text)], [[Answer(answer, "length") for answer in answers]], judge, given)
    return [(turn.prompt.text, turn.rest.text) for turn in found]


def test_a_turn_is_right_before_the_first_word_that_the_judge_condemns():
    assert turns("He said that", " they are a bunch of fucking idiots and fuck them.", " all is well.") == [
        ("He said that they are a bunch of", " fucking idiots and fuck them.")
    ]
    assert turns("He is a nice man", " and so is she.") == []
    assert turns("He said that", " they are fucking idiots.", threshold=0.9) == []


def test_a_prompt_that_goes_wrong_itself_is_cut_unless_it_is_told_not_to():
    text = "There is a fucking dog in"
    assert turns(text, " the house") == [("There is a", " fucking dog in")]
    assert turns(text, " the house", prompts=False) == []
    # What is wrong with the answer does not depend on what was wrong with the prompt.
    assert turns(text, " the house\nand shit", prompts=False) == [(f"{text} the house\nand", " shit")]


def test_too_little_text_before_is_no_turn_and_the_same_text_is_one_turn():
    assert turns("Oh, fuck you", " and you") == []
    assert turns("They said that", " shit happens.", " fuck off.") == [("They said that", " shit happens.")]


def test_a_turn_is_a_prompt_of_the_same_cluster_with_an_id_of_its_own():
    found = find_turns(
        [prompt("He said to me", 1)],
        [[Answer(" go, fuck it", "length"), Answer(" hm, fuck it", "length")]],
        WORDS,
        FocusSection(judge="toxicity-words", threshold=0.35),
    )
    assert {(turn.prompt.cluster, turn.prompt.form, turn.prompt.kind) for turn in found} == {("c", "raw", "harmful")}
    assert len({turn.prompt.id for turn in found}) == 2
    assert all(turn.prompt.id.startswith("p1@") for turn in found)


def test_gendered_words_turn_a_text_too():
    gender = open_judge("gender-words")
    assert turns("My friend is a nurse, and", " my friend says that she works.", judge=gender) == [
        ("My friend is a nurse, and my friend says that", " she works.")
    ]
