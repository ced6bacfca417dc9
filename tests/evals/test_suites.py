"""Where the suites' prompts lie, and how their answers are drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llmpatch.errors import UsageError
from llmpatch.evals import SUITES, System, evaluate
from llmpatch.evals.prompt_sets import data_folder, load_suite
from llmpatch.evals.suites import takes_safe_prompt
from llmpatch.evals.systems import ask
from llmpatch.progress import Silent
from llmpatch.prompts import Prompt
from llmpatch.recipe import DecodingSection
from tinymodels import make_tiny

DATA = Path(__file__).parent.parent.parent / "data"


def test_the_data_folder_is_here_or_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMPATCH_DATA", raising=False)
    assert data_folder() == Path("data")
    with pytest.raises(UsageError, match=r"no such file: data/prompts/harmbench_standard_test\.jsonl") as found:
        load_suite("refusal")
    assert "LLMPATCH_DATA" in found.value.hint
    monkeypatch.setenv("LLMPATCH_DATA", str(DATA))
    assert len(load_suite("refusal", limit=2)) == 7
    with pytest.raises(UsageError, match="no such file"):
        load_suite("refusal", data=tmp_path)  # what is asked for by name goes first


@pytest.mark.parametrize(
    ("suite", "options", "message"),
    [
        ("toxicity", {"temperature": 0.5}, "how suite 'toxicity' has its answers is settled"),
        ("utility", {"temperature": 0.5}, "how suite 'utility' has its answers is settled"),
        ("attacks", {"temperature": 0.5}, "how suite 'attacks' has its answers is settled"),
        ("toxicity", {"top_p": 0.9}, "how suite 'toxicity' has its answers is settled"),
        ("refusal", {"temperature": 6.0}, "there is no such sampling"),
        ("refusal", {"temperature": -1.0}, "temperature -1.0, top_p 1.0: there is no such sampling"),
        ("refusal", {"temperature": float("nan")}, "there is no such sampling"),
        ("refusal", {"temperature": 1.0, "top_p": 0.0}, "there is no such sampling"),
        ("refusal", {"top_p": 0.9}, "nothing is drawn at temperature 0"),
    ],
)
def test_sampling_that_a_suite_does_not_have_is_refused(suite, options, message):
    with pytest.raises(UsageError, match=message) as found:
        evaluate(make_tiny(), [System("M")], suite=suite, data=DATA, **options)
    assert found.value.hint


def test_answers_are_drawn_as_asked_and_kept_apart_from_greedy_ones(tmp_path):
    base, texts = make_tiny(), tmp_path / "mine.jsonl"
    texts.write_text("".join(json.dumps({"prompt": f"question {i}", "kind": "everyday"}) + "\n" for i in range(6)))

    def said(**options):
        found = evaluate(
            base, [System("M")], prompts=[texts], max_new_tokens=12, store=tmp_path / "kept", priced=False, **options
        )
        assert found["price"] == {}
        return found["decoding"], [example["answers"]["M"] for example in found["examples"]]

    def asked(prompts):
        some = [Prompt(text, text, "everyday") for text in prompts]
        told = ask(
            base,
            System("M"),
            some,
            DecodingSection(max_new_tokens=12, temperature=1.0),
            store=tmp_path / "more",
            progress=Silent(),
        )
        return {name: answer.text for name, answer in told.items()}

    one, rest = asked(["c"]), asked(["a", "b", "c"])  # as after a kill, or another look of `within`
    assert one["c"] == rest["c"]
    assert len(set(rest.values())) == 3
    shutil.rmtree(tmp_path / "more")
    assert asked(["b", "c", "a"]) == rest
    greedy, drawn, narrow = said(), said(temperature=1.0), said(temperature=1.0, top_p=0.2)
    assert [way["temperature"] for way, _ in (greedy, drawn, narrow)] == [0.0, 1.0, 1.0]
    assert narrow[0]["top_p"] == 0.2
    assert len({json.dumps(answers) for _, answers in (greedy, drawn, narrow)}) == 3
    assert said(temperature=1.0) == drawn
    assert said(temperature=1e-40)[1] == greedy[1]  # the likeliest word, and no division that overflows


def test_a_template_without_a_system_role_costs_the_safe_prompt_only_where_it_is_put_through_it():
    base = make_tiny()
    base.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[0]['content'] }}"
    )
    told = {suite: takes_safe_prompt(base, suite) for suite in SUITES}
    assert {suite for suite, right in told.items() if right} == {"toxicity", "gender-bias", "utility"}
    assert all(takes_safe_prompt(make_tiny(), suite) for suite in SUITES)
