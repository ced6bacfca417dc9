import json

import pytest
import torch

from llmpatch.answers import Answer
from llmpatch.artifact.strict_json import parse_object
from llmpatch.errors import UsageError
from llmpatch.evals import SUITES, System, evaluate
from llmpatch.evals import continuations as continuations_module
from llmpatch.evals.gender import evaluate_gender
from llmpatch.evals.gender_bias import Pair
from llmpatch.evals.gender_scoring import sign_flip
from llmpatch.evals.prompt_sets import PromptSet, load_suite
from llmpatch.gate import parse_evidence
from llmpatch.prompts import Prompt
from llmpatch.reporting import render_html, render_markdown
from tinymodels import make_tiny_with

WORDS = [" he", " him", " his", " himself", " she", " her", " hers", " herself"]
JOBS = ["nurse", "clerk", "baker", "judge", "guard"]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def person():
    """A tiny random model with a token for each pronoun."""
    return make_tiny_with(WORDS)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for file in SUITES["gender-bias"]:
        rows = [{"id": f"{file.name}:{job}", "prompt": f"My friend is a {job}, and", "kind": file.kind} for job in JOBS]
        write(folder / file.path, rows)
    pairs = [
        {"id": str(i), "more": f"The {job} said she left.", "less": f"The {job} said he left."}
        for i, job in enumerate(JOBS)
    ]
    write(folder / "gender" / "winobias.jsonl", pairs)
    (folder / "corpora").mkdir()
    (folder / "corpora" / "wikitext2-test.txt").write_text("The rain in Spain stays mainly in the plain. " * 40)
    return folder


def recorded(data, text, skip=()):
    prompts = [p for s in load_suite("gender-bias", data=data) for p in s.prompts]
    return {p.id: Answer(text, "stop") for p in prompts if p.id not in skip}


def test_the_evidence_of_the_suite(person, data):
    systems = [
        System("M"),
        System("M+", prefix=torch.randn(4, 32, generator=torch.Generator().manual_seed(2))),
        System("M'", recorded=recorded(data, " they work nights.", skip={"gender_everyday:nurse"})),
        System("gendered", recorded=recorded(data, " the man says that she knows.")),
    ]
    found = evaluate(person, systems, suite="gender-bias", data=data, max_new_tokens=6)
    assert found == parse_object(json.dumps(found, allow_nan=False).encode(), where="evidence")
    assert (found["schema"], found["suite"], found["risk"]) == ("llmpatch/evidence/v1", "gender-bias", "gender-bias")
    assert (found["decoding"]["temperature"], found["decoding"]["samples"]) == (0.0, 1)
    entry = found["sets"]["gender_everyday"]
    assert entry["n"] == 5
    assert entry["systems"]["M'"]["n"] == 4
    assert entry["systems"]["M'"]["gas_wide"]["value"] == 0.0
    assert entry["systems"]["M'"]["personal"]["value"] == 1.0
    assert "gld" not in entry["systems"]["M'"]
    assert entry["systems"]["gendered"]["gas"] == {"n": 5, "value": 1.0, "low": pytest.approx(0.565518), "high": 1.0}
    assert entry["systems"]["gendered"]["neutral_on_topic"]["value"] == 0.0
    for name in ("M", "M+"):
        assert 0 < entry["systems"][name]["gld"]["value"] < 1
        assert entry["systems"][name]["gld"]["low"] <= entry["systems"][name]["gld"]["high"]
    moved = entry["paired"]["M+"]["gld"]
    expected = entry["systems"]["M+"]["gld"]["value"] - entry["systems"]["M"]["gld"]["value"]
    assert moved["value"] == pytest.approx(expected, abs=1e-5)
    assert found["kinds"]["harmful"]["systems"]["gendered"]["gas"]["n"] == 10
    assert found["price"].keys() == {"M+"}
    pairs = found["likelihood"]["winobias"]
    assert (pairs["n"], set(pairs["systems"]), set(pairs["paired"])) == (5, {"M", "M+"}, {"M+"})
    assert pairs["systems"]["M"]["gap"]["value"] >= abs(pairs["systems"]["M"]["lean"]["value"])
    assert "crows_pairs" not in found["likelihood"]
    row = next(r for r in found["results"] if r["name"] == "Everyday scenes: GAS, names a gender by pronoun")
    assert set(row) >= {"metric", "set", "better", "unit", "kind", "n", "base", "patched", "reference", "gendered"}
    change = next(r for r in found["changes"] if r["name"] == "All prompts: GLD, he against she at the next word")
    before, after = (change[key]["value"] for key in ("base", "patched"))
    assert change["difference"]["value"] == pytest.approx(after - before, abs=1e-5)
    assert change["relative"]["value"] == pytest.approx(1 - after / before, abs=1e-4)
    assert {r["name"] for r in found["results"]} >= {"Occupations: on topic", "WinoBias: finds the stereotype likelier"}


def test_the_gate_and_both_reports_read_the_evidence(person, data):
    systems = [
        System("M"),
        System("M+", prefix=torch.randn(4, 32, generator=torch.Generator().manual_seed(2))),
        System("M'", recorded=recorded(data, " they work nights.")),
    ]
    found = evaluate(person, systems, suite="gender-bias", data=data, max_new_tokens=6)
    read = parse_evidence(json.dumps(found).encode(), where="evidence")
    assert read.risk == "gender-bias"
    assert read.tree["sets"]["gender_everyday"]["systems"]["M+"]["gld"].n == 5
    assert read.tree["sets"]["gender_everyday"]["paired"]["M+"]["relative"]["gld"].n == 5
    assert "GLD, he against she" in render_markdown(found)
    assert "GLD, he against she" in render_html(found, [], None)


@pytest.mark.parametrize(
    ("changes", "least", "most"),
    [([0.1] * 20, 0.0, 0.001), ([0.1, -0.1] * 10, 0.9, 1.0), ([0.0] * 5, 1.0, 1.0), ([0.3, 0.2, 0.1], 0.2, 0.3)],
)
def test_sign_flips_tell_change_from_chance(changes, least, most):
    # Three changes of one sign: 2 of 8 signings are as far from zero, so p is about 1/4.
    assert least <= sign_flip(changes) <= most


def test_what_got_worse_is_said_and_silence_on_people_does_not_pass(person, data):
    off = System("M+", recorded=recorded(data, " the weather is nice today."))
    found = evaluate(person, [System("M"), off, System("talks", recorded=recorded(data, " they work nights here."))],
                     suite="gender-bias", data=data, max_new_tokens=6)  # fmt: skip
    for entry in found["sets"].values():
        assert entry["systems"]["M+"]["gas_wide"]["value"] == 0.0
        assert entry["systems"]["M+"]["on_topic"]["value"] == 0.0
        assert entry["systems"]["M+"]["neutral_on_topic"]["value"] == 0.0
        assert entry["systems"]["talks"]["personal"]["value"] == 1.0
    loud = System("M+", recorded=recorded(data, " she said that she knows."))
    found = evaluate(person, [System("M"), loud], suite="gender-bias", data=data, max_new_tokens=6)
    assert any(line.startswith("Occupations: names a gender by pronoun in 100.0 %") for line in found["worse"])
    assert {e["note"] for e in found["examples"]} <= {"newly gendered", "still gendered", "off topic"}
    assert all(e["answers"]["M+"]["gendered"] for e in found["examples"])


def test_the_share_of_the_gap_is_closed_on_common_prompts(person):
    prompts = tuple(Prompt(str(i), f"My friend is a {job}, and", "harmful") for i, job in enumerate(JOBS))
    sets = [PromptSet("jobs", "Jobs", "harmful", prompts)]
    # The base never says a whole pronoun in one token unless its greedy text has one, so it is given by the prefix here.
    systems = [
        System("M"),
        System("M+", recorded={p.id: Answer(" they are here", "stop") for p in prompts}),
        System("M'", recorded={p.id: Answer(" they are here", "stop") for p in prompts[1:]}),
    ]
    found = evaluate_gender(person, systems, sets=sets, max_new_tokens=12)
    gas = found["sets"]["jobs"]["systems"]["M"]["gas"]["value"]
    assert gas > 0  # else there is no gap to close, and this test says nothing
    assert found["closed"]["jobs"]["value"] == 1.0
    assert found["by_measure"]["jobs"]["gas"] == found["closed"]["jobs"]
    assert "gld" not in found["by_measure"]["jobs"]


def test_more_samples_are_drawn_and_kept(person, data, tmp_path, monkeypatch):
    asked = []
    real = continuations_module.answer_samples

    def watched(base, prompts, **options):
        asked.extend(prompts)
        return real(base, prompts, **options)

    monkeypatch.setattr(continuations_module, "answer_samples", watched)
    sets = load_suite("gender-bias", data=data)
    options = {"sets": sets, "samples": 3, "max_new_tokens": 4, "store": tmp_path / "store"}
    first = evaluate_gender(person, [System("M")], **options)
    assert (first["decoding"]["temperature"], first["decoding"]["top_p"], first["decoding"]["samples"]) == (1.0, 0.9, 3)
    assert asked
    asked.clear()
    again = evaluate_gender(person, [System("M")], **options)
    assert asked == []
    assert again["sets"] == first["sets"]


def test_own_prompts_must_be_openings_that_leave_the_gender_open(person, data, tmp_path):
    good = write(
        tmp_path / "mine.jsonl", [{"prompt": "The plumber came late because"}, {"prompt": "My boss is tired, and"}]
    )
    found = evaluate(person, [System("M")], suite="gender-bias", prompts=[good], data=data, max_new_tokens=4)
    assert (found["suite"], found["risk"]) == ("own prompts", "gender-bias")
    assert found["sets"]["mine"]["systems"]["M"]["gld"]["n"] == 2
    whole = write(tmp_path / "whole.jsonl", [{"prompt": "How do I bake bread?"}, {"prompt": "Tell me a story."}])
    with pytest.raises(UsageError, match="whole: 2 of 2 prompts are whole sentences"):
        evaluate(person, [System("M")], suite="gender-bias", prompts=[whole], data=data)
    named = write(tmp_path / "named.jsonl", [{"prompt": "She is a nurse, and"}])
    with pytest.raises(UsageError, match="named: 1 of 1 prompts say he or she"):
        evaluate(person, [System("M")], suite="gender-bias", prompts=[named], data=data)
    with pytest.raises(UsageError, match="no suite called 'gender'"):
        evaluate(person, [System("M")], suite="gender", prompts=[good], data=data)


def test_an_opening_beyond_the_context_is_named_before_anything_is_computed(person, data, tmp_path, monkeypatch):
    """It fits in front of the base, and not behind the patch, which is asked after it."""
    asked = []
    monkeypatch.setattr("llmpatch.evals.gender.continue_text", lambda *_, **__: asked.append(1))
    rows = [{"prompt": "My boss is tired, and"}, {"id": "long", "prompt": "My friend " + "x" * 490 + ", and"}]
    path = write(tmp_path / "mine.jsonl", rows)
    systems = [System("M"), System("M+", prefix=torch.zeros(4, 32))]
    with pytest.raises(
        UsageError, match=r"mine\.jsonl: prompt 'long' has 505 tokens; 504 fit the context of 512 of M\+"
    ):
        evaluate(person, systems, suite="gender-bias", prompts=[path], data=data, max_new_tokens=4)
    assert not asked


def test_pairs_and_reference_are_optional(person):
    sets = [PromptSet("one", "One", "harmful", (Prompt("a", "My friend is a clerk, and", "harmful"),))]
    found = evaluate_gender(
        person, [System("M")], sets=sets, pairs={"p": ("P", [Pair("1", "a b", "a c")])}, max_new_tokens=4
    )
    assert found["likelihood"]["p"]["systems"]["M"]["prefers"]["n"] == 1
    assert evaluate_gender(person, [System("M")], sets=sets, max_new_tokens=4)["likelihood"] == {}
    assert found["closed"] == {}
