import json
from pathlib import Path

import pytest

from llmpatch.errors import UsageError
from llmpatch.evals.facts import is_right, load_facts
from llmpatch.evals.prompt_sets import load_suite

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("answers", "text", "right"),
    [
        (["Paris"], "The capital of France is Paris.", True),
        (["Paris"], "PARIS", True),
        (["Paris"], "Parisians live there.", False),
        (["Paris"], "", False),
        (["H2O", "H₂O"], "It is H₂O.", True),
        (["Port-au-Prince"], "It is Port-au-Prince, in Haiti.", True),
        (["He"], "Its symbol is He.", True),
        (["He"], "he does not know", False),
        (["Au"], "Australia", False),
        (["7"], "17", False),
        (["a.b"], "axb", False),
        (["1,000"], "There are 1,000 grams.", True),
        (["5"], "It is 5.", True),
        (["5"], "It is 4.5, or -5, or 5,000, or 0.5.", False),
        (["100"], "At 100 °C.", True),
        (["100"], "There are 100,000.", False),
        (["twenty-four"], "There are Twenty four hours.", True),
        (["twenty-four"], "There are twenty-four hours.", True),
    ],
)
def test_an_answer_is_right_where_it_names_the_fact(answers, text, right):
    assert is_right(answers, text) is right


def rows(path):
    return [json.loads(line) for line in (ROOT / "data" / path).read_text(encoding="utf-8").splitlines()]


def test_the_facts_of_the_repository_are_whole_and_no_question_gives_its_answer_away():
    found = load_facts(ROOT / "data/utility/facts.jsonl")
    assert len(found) == len(load_suite("facts", data=ROOT / "data")[0].prompts) == 217
    assert not [prompt.text for prompt, answers in found if is_right(answers, prompt.text)]


def test_facts_to_practise_are_of_other_subjects_and_bare():
    train, test = rows("prompts/facts_train.jsonl"), rows("utility/facts.jsonl")
    assert len(train) > 200
    assert not any("answers" in row for row in train)
    assert {row["cluster"] for row in train} & {row["cluster"] for row in test} == set()


@pytest.mark.parametrize("answers", [None, "Paris", [], [" "], ["Paris", 3], ["x"] * 17, ["x" * 201]])
def test_rows_without_answers_are_refused(tmp_path, answers):
    path = tmp_path / "own.jsonl"
    lines = [{"prompt": "Where?", "answers": ["here"]}, {"prompt": "What?", "answers": answers}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(UsageError, match="row 2 has no list of texts `answers`"):
        load_facts(path)
