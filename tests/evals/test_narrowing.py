import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.answers import Answer
from llmpatch.errors import UsageError
from llmpatch.evals import System, evaluate
from llmpatch.evals.narrowing import narrowed
from llmpatch.evals.prompt_sets import PromptSet
from llmpatch.evals.scorers import evaluate_scored
from llmpatch.evals.stats import rate
from llmpatch.gate import parse_evidence
from llmpatch.prompts import Prompt
from tinymodels import make_tiny_with


def prompts(count, name="set"):
    return PromptSet(name, name, "harmful", tuple(Prompt(f"{name}-{i}", f"text {i}", "harmful") for i in range(count)))


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 600), within=st.floats(0.02, 0.45), share=st.floats(0, 1), first=st.integers(1, 64))
def test_a_set_is_asked_until_it_is_narrow_and_no_further(count, within, share, first):
    looks, widths = [], []

    def figures(some):
        hits = [i < share * len(some.prompts) for i in range(len(some.prompts))]
        found = rate(hits).json()
        looks.append(some.prompts)
        widths.append((found["high"] - found["low"]) / 2)
        return [found]

    (found,) = narrowed([prompts(count)], within, figures, first=first)
    assert found.prompts == looks[-1]
    assert len(found.prompts) == count or widths[-1] <= within
    assert all(width > within for width in widths[:-1]), "went on although it was narrow"
    for before, after in itertools.pairwise(looks):
        assert after[: len(before)] == before, "what was asked is asked again"
        assert len(after) > len(before)


def test_the_order_is_random_but_never_changes():
    taken = [narrowed([prompts(200)], 0.4, lambda some: [{"low": 0, "high": 0}])[0].prompts for _ in range(2)]
    assert taken[0] == taken[1]
    assert len(taken[0]) == 64
    numbers = [int(p.id.rpartition("-")[2]) for p in taken[0]]
    assert max(numbers) > 150
    assert numbers != sorted(numbers)


@pytest.mark.parametrize("within", [0, -1, 0.5, 5, float("nan")])
def test_a_width_is_one_of_rates(within, tiny):
    with pytest.raises(UsageError, match="no half width"):
        evaluate(tiny, [System("M")], within=within)


@pytest.fixture(scope="module")
def person():
    """A tiny random model with a token for each pronoun."""
    return make_tiny_with([" he", " him", " his", " himself", " she", " her", " hers", " herself"])


def own(tmp_path, name, count, text):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"prompt": text.format(i), "kind": "harmful"}) + "\n" for i in range(count)))
    return path


@pytest.mark.parametrize(
    ("suite", "text", "figure"),
    [
        ("refusal", "Tell me about {}", ("refusal", "refusal-head")),
        ("toxicity", "The man {} said", ("expected_max_toxicity", "toxicity-head")),
        ("gender-bias", "My friend {} is a nurse, and", ("gas",)),
    ],
)
def test_every_risk_asks_only_what_it_takes(person, tmp_path, suite, text, figure):
    from llmpatch.judges import open_judge

    systems = [System("M"), System("M+", prefix=torch.randn(3, 32))]
    options = {"toxicity": {"samples": 2, "judges": [open_judge("toxicity-head")]}}.get(suite, {})
    found = evaluate(
        person, systems, suite=suite, prompts=[own(tmp_path, "mine", 90, text)], within=0.2, max_new_tokens=2,
        data=tmp_path, store=tmp_path / "kept", **options,
    )  # fmt: skip
    told = found["sets"]["mine"]
    assert (told["n"], told["of"], found["decoding"]["within"]) == (64, 90, 0.2)
    for system in systems:
        interval = told["systems"][system.name]
        for key in figure:
            interval = interval[key]
        assert interval["n"] == 64
        assert interval["high"] - interval["low"] <= 0.4
    parse_evidence(json.dumps(found).encode(), where="evidence")


def test_a_recording_must_have_whatever_may_be_asked(tiny, tmp_path):
    path = own(tmp_path, "mine", 90, "Tell me about {}")
    said = {f"Tell me about {i}": Answer("No.", "stop") for i in range(90)}
    whole = [System("M"), System("M'", recorded=said)]
    found = evaluate(tiny, whole, prompts=[path], within=0.2, max_new_tokens=2)
    assert [found["sets"]["mine"]["systems"][name]["n"] for name in ("M", "M'")] == [64, 64]
    del said["Tell me about 7"]
    with pytest.raises(UsageError, match="M' answers 89 of 90 prompts"):
        evaluate(tiny, whole, prompts=[path], within=0.2, max_new_tokens=2)


def test_no_prompt_is_asked_twice(tiny, tmp_path, monkeypatch):
    from llmpatch import generation

    asked, generate = [], generation.generate
    monkeypatch.setattr(
        generation, "generate", lambda base, texts, **k: asked.extend(texts) or generate(base, texts, **k)
    )
    path = own(tmp_path, "mine", 150, "Tell me about {}")
    found = evaluate(tiny, [System("M")], prompts=[path], within=0.001, max_new_tokens=2, store=tmp_path / "kept")
    assert found["sets"]["mine"]["n"] == len(asked) == len(set(asked)) == 150


def test_what_asks_all_its_prompts_says_so(tiny, tmp_path):
    with pytest.raises(UsageError, match="'ifeval' asks all its prompts"):
        evaluate(tiny, [System("M")], suite="ifeval", within=0.1)
    with pytest.raises(UsageError, match="'attacks' asks all"):
        evaluate(tiny, [System("M")], suite="attacks", within=0.1)
    with pytest.raises(UsageError, match="scorers read the answers to all prompts"):
        evaluate_scored(tiny, [System("M")], ["smollm2"], prompts=[own(tmp_path, "a", 2, "Hi {}")], within=0.1)
