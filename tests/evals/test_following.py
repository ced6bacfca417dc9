import json
import re
from pathlib import Path

import pytest

from llmpatch.errors import UsageError
from llmpatch.evals.following import CHECKS, follows, parse_checks, sentences, share_followed
from llmpatch.evals.price_suites import load_instructions

ROOT = Path(__file__).parents[2]

# One answer that passes and one that does not, for every check.
CASES = [
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2}, "GO Home NOW", "GO home"),
    ("change_case:english_capital", {}, "ALL OF IT, 1!", "ALL of it"),
    ("change_case:english_lowercase", {}, "all of it, 1!", "All of it"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say Hi. "}, "say hi. Hi!", "Hi! Say hi."),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:two_responses", {}, "******one******two", "one******two******three"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name] at home"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. Hi", "Bye. PS Hi"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP. P. S hi", "Bye.\nP.S. Hi"),
    ("detectable_format:constrained_response", {}, "Well: My answer is maybe.", "My answer is perhaps."),
    ("detectable_format:json_format", {}, '```JSON\n{"a": [1]}\n```', '{"a": [1}'),
    ("detectable_format:multiple_sections", {"section_spliter": "PART", "num_sections": 2}, "PART 1\na\nPART 2\nb", "PART 1"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n- b\n* c"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a* and * *"),
    ("detectable_format:title", {}, "<<Ode>>\nO!", "<< >>\nO!"),
    ("keywords:existence", {"keywords": ["dog", "C++"]}, "A Dog writes c++.", "A dog writes C."),
    ("keywords:forbidden_words", {"forbidden_words": ["can"]}, "A candle.", "A can."),
    ("keywords:frequency", {"keyword": "knot", "relation": "less than", "frequency": 2}, "a knot", "knot, Knot"),
    ("keywords:letter_frequency", {"letter": "E", "let_relation": "at least", "let_frequency": 3}, "Eel be", "eel"),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "It"},
     "a b\n\n'It, c", "It\n\na"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb\n***", "a\n***\n***\nb"),
    ("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 3}, "A, e.g. b. C", "A. B! C"),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 3}, "it's so", "so, so"),
    ("punctuation:no_comma", {}, "a; b", "a, b"),
    ("startend:end_checker", {"end_phrase": "The End. "}, 'It was "the end."', "The end. No"),
    ("startend:quotation", {}, ' "a" ', '"'),
]  # fmt: skip


@pytest.mark.parametrize(("check", "options", "good", "bad"), CASES)
def test_each_check_passes_what_follows_and_nothing_else(check, options, good, bad):
    [(name, parsed)] = parse_checks([{"check": check, **options}], where="row 1")
    assert (follows(name, parsed, good), follows(name, parsed, bad)) == (True, False)
    assert not follows(name, parsed, " \n")


def test_every_check_has_a_case():
    assert {case[0] for case in CASES} == set(CHECKS)


def test_sentences_end_at_their_punctuation():
    assert sentences("Mr. Fox ran. Did he? He did!") == 3
    assert sentences('She said "no." Then 3.5 of it') == 2
    assert sentences("") == 0


def test_a_prompts_share_is_of_its_checks():
    checks = parse_checks([{"check": "punctuation:no_comma"}, {"check": "startend:quotation"}], where="row 1")
    assert share_followed(checks, '"a"') == 1
    assert share_followed(checks, "a") == 0.5


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "row 1 has no list `checks`"),
        ([], "row 1 has no list `checks`"),
        ([{"check": "language:response_language"}], "unknown check 'language:response_language'"),
        ([{"check": ["a"]}], "unknown check"),
        ([{"check": "startend:end_checker"}], "wrong `end_phrase`"),
        ([{"check": "startend:end_checker", "end_phrase": 3}], "wrong `end_phrase`"),
        ([{"check": "punctuation:no_comma", "more": 1}], "wrong `more`"),
        ([{"check": "keywords:existence", "keywords": ["a", ""]}], "wrong `keywords`"),
        ([{"check": "detectable_format:number_bullet_lists", "num_bullets": float("inf")}], "wrong `num_bullets`"),
        ([{"check": "length_constraints:number_words", "relation": "about", "num_words": 3}], "wrong `relation`"),
    ],
)
def test_checks_that_cannot_be_made_are_refused(found, message):
    with pytest.raises(UsageError, match=message):
        parse_checks(found, where="row 1")


def rows(path):
    return [json.loads(line) for line in (ROOT / "data" / path).read_text(encoding="utf-8").splitlines()]


def words(row):
    return frozenset(re.findall(r"[a-z0-9']+", row["prompt"].lower()))


def test_the_instructions_of_the_repository_are_whole_and_were_not_trained_on():
    found = load_instructions(ROOT / "data/utility/ifeval.jsonl")
    assert len(found) == 372
    assert {name for _, checks in found for name, _ in checks} == set(CHECKS)


@pytest.mark.parametrize("name", ["facts", "ifeval", "truthfulqa", "gsm8k", "arc_challenge", "mmlu"])
def test_what_the_price_is_measured_on_was_not_trained_on(name):
    trained = {
        row["prompt"].strip().lower()
        for path in ("train", "validation")
        for row in rows(f"prompts/everyday_{path}.jsonl")
    }
    assert len(trained) > 1000
    assert {row["prompt"].lower() for row in rows(f"utility/{name}.jsonl")} & trained == set()


def test_what_is_near_to_training_was_left_out():
    trained = [words(r) for r in rows("prompts/everyday_train.jsonl")]
    tested = [words(r) for r in rows("utility/ifeval.jsonl")[:60]]
    assert max(len(a & t) / len(a | t) for a in trained for t in tested) < 0.5
