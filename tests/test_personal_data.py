"""The prompts about personal data: split by wording and by name, and a suite and a risk like the others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from composekit import make_patch
from llmpatch.answers import Answer
from llmpatch.composing import measure, open_tasks
from llmpatch.evals import SUITES, System, evaluate
from llmpatch.evals.side_by_side import side_by_side
from llmpatch.gate import default_policy, parse_evidence
from llmpatch.gate.verdict import PatchRef, apply_policy
from llmpatch.prompts import Prompt, load_prompts
from llmpatch.recipe import DECLINING, load_recipe
from llmpatch.reporting import render_markdown
from llmpatch.validation import make_validate
from test_building import make_recipe

ROOT = Path(__file__).parent.parent
SIDES = ("train", "validation", "test")
NO = "I'm sorry, but I can't share private information about people."


def rows(side):
    paths = [ROOT / f"data/prompts/personal_{name}_{side}.jsonl" for name in ("requests", "harmless")]
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def names(monkeypatch):
    """The names of each side, as the script has them."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from make_personal_data import NAMES

    return {side: set(NAMES[side].split(", ")) for side in SIDES}


@pytest.mark.parametrize("side", SIDES)
def test_each_side_has_both_kinds_and_no_prompt_twice(side):
    found = rows(side)
    assert {row["kind"] for row in found} == {"harmful", "borderline"}
    assert len({row["id"] for row in found}) == len({row["prompt"] for row in found}) == len(found)


@pytest.mark.parametrize(("one", "other"), [("train", "test"), ("validation", "test"), ("train", "validation")])
def test_no_wording_and_no_name_is_on_two_sides(names, one, other):
    first, second = rows(one), rows(other)
    assert {row["cluster"] for row in first} & {row["cluster"] for row in second} == set()
    assert all(any(name in row["prompt"] for row in first) for name in names[one])
    assert not [row["prompt"] for row in second if any(name in row["prompt"] for name in names[one])]


def test_public_people_are_on_one_side_too():
    famous = re.compile(r"[A-Z][a-zé-]+ (?:[a-z]+ )?[A-Z][a-zé-]+|Mozart|Santa|Winnie")
    found = {
        side: set(famous.findall(" ".join(r["prompt"] for r in rows(side) if "{" not in r["prompt"]))) for side in SIDES
    }
    assert len(found["test"]) > 20
    assert found["test"] & found["train"] <= {"United States"}


@pytest.fixture
def data(tmp_path):
    for file in SUITES["personal-data"]:
        path = tmp_path / "data" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [{"id": f"{file.name}{i}", "prompt": f"{file.name} {i}?", "kind": file.kind} for i in range(4)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path / "data"


def test_the_evidence_names_its_risk_and_everything_reads_it(tiny, data):
    said = {f"personal_requests{i}": Answer(NO if i else "555-0100", "stop") for i in range(4)}
    others = {
        f"{name}{i}": Answer("A fine answer.", "stop") for name in ("personal_harmless", "everyday") for i in range(4)
    }
    systems = [System("M"), System("M+", recorded=said | others)]
    found = evaluate(tiny, systems, suite="personal-data", data=data, max_new_tokens=4)
    assert (found["risk"], found["suite"]) == ("personal-data", "personal-data")
    assert found["sets"]["personal_requests"]["systems"]["M+"]["refusal"]["refusal-phrases"]["value"] == 0.75
    assert "Personal data" in render_markdown(found)
    assert side_by_side(found).risk == "personal-data"
    evidence = parse_evidence(json.dumps(found).encode())
    assert evidence.risk == "personal-data"
    verdict = apply_policy(
        default_policy(["personal-data"]), [evidence], PatchRef("acme/x", "1.0.0", "0" * 64, "0" * 64)
    )
    assert "personal-declined" in verdict.failed  # of four prompts nothing can be shown
    own = evaluate(
        tiny, systems, suite="personal-data", prompts=[data / SUITES["personal-data"][0].path], max_new_tokens=4
    )
    assert (own["risk"], own["suite"]) == ("personal-data", "own prompts")
    refusal = evaluate(tiny, systems, prompts=[data / SUITES["personal-data"][0].path], max_new_tokens=4)
    assert "risk" not in refusal


def test_a_stack_measures_a_member_of_this_risk_by_its_own_suite(tiny, data):
    tasks = open_tasks([make_patch(tiny, "acme/private", "personal-data")], data=data)
    assert [(task.risk, task.suite) for task in tasks] == [("personal-data", "personal-data")]
    columns = measure(tiny, None, tasks[0])
    assert [(c.risk, c.aim, len(c.values)) for c in columns] == [
        ("personal-data", True, 4),
        ("personal-data", False, 8),
    ]


def test_validation_counts_what_is_declined(tiny, data, monkeypatch):
    monkeypatch.setattr("llmpatch.patched.answer_all", lambda _, texts, *__, **___: [[NO] for _ in texts])
    recipe = make_recipe(risk="personal-data")
    assert recipe.risk in DECLINING
    prompts = [p for file in SUITES["personal-data"] for p in load_prompts(data / file.path)]
    found = make_validate(recipe, tiny, prompts)(None)
    assert (found["harmful"], found["everyday"]) == (1.0, 1.0)


def test_validation_asks_each_prompt_in_its_own_form(tiny, monkeypatch):
    asked = []

    def answers(_, texts, *__, raw=False, **___):
        asked.append((raw, list(texts)))
        return [[NO if raw else "Sure."] for _ in texts]

    monkeypatch.setattr("llmpatch.patched.answer_all", answers)
    prompts = [
        Prompt(str(i), f"text {i}", "harmful", form=form) for i, form in enumerate(("raw", "chat", "raw", "chat"))
    ]
    found = make_validate(make_recipe(risk="personal-data"), tiny, prompts)(None)
    assert sorted(asked) == [(False, ["text 1", "text 3"]), (True, ["text 0", "text 2"])]
    assert found["harmful"] == 0.5


def test_the_recipe_reads_and_trains_beside_the_three_that_were_there():
    recipe = load_recipe(ROOT / "recipes/smollm2-personal-data.yaml")
    near = [Path(path).name for path in recipe.training.neighbours.patches]
    assert near == ["refusal-1.1.0", "gender-bias-1.1.0", "toxicity-1.1.0"]
    assert (recipe.risk, recipe.evaluation.suite) == ("personal-data", "personal-data")
