import json
import math

import pytest
import torch

from llmpatch.answers import Answer
from llmpatch.artifact.strict_json import parse_object
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.evals import SUITES, System, evaluate, load_samples
from llmpatch.evals.findings import HARM_CHARS
from llmpatch.evals.prompt_sets import load_suite
from llmpatch.evals.toxicity import evaluate_toxicity
from llmpatch.evals.toxicity_scoring import MAX, RATE, SAFETY, Item, closed, compare, summarise
from llmpatch.judges import open_judge
from llmpatch.judges.registry import RegisteredJudge, Scored
from llmpatch.prompts import Prompt

VILE, KIND = " you are a fucking idiot, you bitch", " they walked home in the rain."


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path):
    """A data folder with three prompts in every set of the suite and a little plain text."""
    folder = tmp_path / "data"
    rows = {}
    for file in SUITES["toxicity"]:
        rows.setdefault(file.path, []).extend(
            {"id": f"{file.name}:{i}", "prompt": f"{file.name} {i} and then", "kind": file.kind}
            | {"category": file.category}
            for i in range(3)
        )
    for path, some in rows.items():
        write(folder / path, some)
    (folder / "corpora").mkdir()
    (folder / "corpora" / "wikitext2-test.txt").write_text("The rain in Spain stays mainly in the plain. " * 40)
    return folder


def recorded(data, texts, skip=()):
    prompts = [p for s in load_suite("toxicity", data=data) for p in s.prompts]
    return {p.id: [Answer(text, "length") for text in texts] for p in prompts if p.id not in skip}


def item(name, judged, texts=None):
    texts = texts or [KIND] * len(judged)
    answers = tuple(Answer(text, "length") for text in texts)
    return Item(Prompt(name, name, "harmful"), answers, {"j": judged}, [(2.0, 4)])


def test_the_measures_are_gehmans():
    items = {"a": item("a", [0.1, 0.9, 0.6]), "b": item("b", [0.2, 0.4, 0.3]), "c": item("c", [0.0, 0.1, 0.5])}
    found = summarise(items)
    assert (found["n"], found["continuations"]) == (3, 9)
    assert found[MAX]["j"]["value"] == pytest.approx((0.9 + 0.4 + 0.5) / 3)
    assert found[RATE]["j"]["value"] == pytest.approx(2 / 3)
    assert found[SAFETY]["j"]["value"] == pytest.approx((1 / 3 + 1 + 2 / 3) / 3)
    assert found[MAX]["j"]["n"] == 3
    assert found["perplexity"]["value"] == pytest.approx(math.exp(0.5))
    assert found["distinct_1"]["value"] == pytest.approx(6 / 18)
    assert (found["empty"]["value"], found["trigram_overlap"]["value"]) == (0.0, 0.0)


def test_changes_are_paired_and_relative():
    before = {"a": item("a", [0.9, 0.1]), "b": item("b", [0.6, 0.2]), "left out": item("c", [0.5, 0.5])}
    after = {"a": item("a", [0.3, 0.1]), "b": item("b", [0.45, 0.1], ["", KIND])}
    found = compare(before, after)
    assert found["n"] == 2
    assert found[MAX]["j"]["value"] == pytest.approx((0.3 + 0.45 - 1.5) / 2)
    assert found["relative"][MAX]["j"]["value"] == pytest.approx(0.5)
    assert (found[RATE]["j"]["lost"], found[RATE]["j"]["gained"]) == (2, 0)
    assert found["empty"]["value"] == pytest.approx(0.25)
    reference = {"a": item("a", [0.3, 0.1]), "b": item("b", [0.3, 0.1])}
    assert closed(before, after, reference, "j")["value"] == pytest.approx((1.5 - 0.75) / (1.5 - 0.6))
    assert closed(before, after, {"d": item("d", [0.1])}, "j") is None


def test_the_evidence_of_the_suite(tiny, data, tmp_path):
    systems = [
        System("M"),
        System("M+", samples=recorded(data, [VILE, KIND])),
        System("M'", samples=recorded(data, [KIND, KIND], skip={"rtp_toxic:0"})),
        System("safe prompt", system_message="Be kind."),
        System("other prefix", prefix=torch.randn(5, 32)),
    ]
    found = evaluate(tiny, systems, suite="toxicity", data=data, samples=2, max_new_tokens=5, store=tmp_path / "kept")
    assert found == parse_object(json.dumps(found, allow_nan=False).encode(), where="evidence")
    assert (found["risk"], found["suite"]) == ("toxicity", "toxicity")
    assert [j["name"] for j in found["judges"]] == ["profanity-check", "toxicity-head"]
    assert found["decoding"] == {
        "max_new_tokens": 5, "temperature": 1.0, "top_p": 0.9, "seed": 0, "limit": None, "samples": 2,
    }  # fmt: skip
    toxic = found["sets"]["rtp_toxic"]
    assert (toxic["kind"], toxic["n"], toxic["systems"]["M'"]["n"]) == ("harmful", 3, 2)
    assert toxic["systems"]["M+"][RATE]["profanity-check"]["value"] == 1.0
    assert toxic["systems"]["M+"][SAFETY]["toxicity-head"]["value"] == 0.5
    assert toxic["systems"]["M'"][RATE]["profanity-check"]["value"] == 0.0
    assert toxic["systems"]["M"]["perplexity"]["n"] == 3
    assert found["kinds"]["harmful"]["n"] == 6
    assert found["kinds"]["borderline"]["systems"]["M+"][MAX]["profanity-check"]["n"] == 3
    assert found["price"].keys() == {"other prefix"}
    assert any("RTP toxic: expected max toxicity by profanity-check" in line for line in found["worse"])
    rows = [row for row in found["results"] if row["metric"] == "expected max toxicity (profanity-check)"]
    assert [row["set"] for row in rows] == ["all that draw toxicity", "RTP challenging", "RTP toxic", "RTP non-toxic"]
    assert {"base", "patched", "reference", "safe prompt", "other prefix"} <= rows[0].keys()
    assert {row["metric"] for row in found["results"]} == {
        "expected max toxicity (profanity-check)", "expected max toxicity (toxicity-head)",
        "prompts with a toxic continuation (profanity-check)", "continuations that are not toxic (profanity-check)",
    }  # fmt: skip
    assert {row["n"] for row in found["changes"]} == {3, 6}
    assert {e["note"] for e in found["examples"]} <= {"newly toxic", "still toxic"}
    assert all(e["answers"]["M+"]["text"] == VILE.strip() for e in found["examples"])


def test_no_text_in_the_evidence_is_long(tiny, data):
    systems = [System("M"), System("M+", samples=recorded(data, [VILE * 20]))]
    found = evaluate(tiny, systems, suite="toxicity", data=data, samples=1, max_new_tokens=60)
    texts = [answer["text"] for e in found["examples"] for answer in e["answers"].values()]
    assert max(map(len, texts)) == HARM_CHARS
    assert all(e["answers"]["M+"]["shortened"] for e in found["examples"])


def test_a_judge_that_fails_midway_is_not_asked_twice(tiny, data, tmp_path):
    asked = []

    def score(prompts, answers):
        if len(asked) >= limit:
            raise LlmpatchError("the judge is down", hint="run again")
        asked.extend(answers)
        return [0.25] * len(answers)

    judge = RegisteredJudge("mine", "toxicity", Scored(score))
    sets = load_suite("toxicity", data=data)
    arguments = {"sets": sets, "judges": [judge], "samples": 14, "max_new_tokens": 3, "store": tmp_path / "kept"}
    limit = 33
    with pytest.raises(LlmpatchError, match="down"):
        evaluate_toxicity(tiny, [System("M")], **arguments)
    limit = 10**9
    found = evaluate_toxicity(tiny, [System("M")], **arguments)
    assert found["sets"]["rtp_toxic"]["systems"]["M"][MAX]["mine"]["value"] == 0.25
    said = len(asked)
    assert evaluate_toxicity(tiny, [System("M")], **arguments)["sets"] == found["sets"]
    # 9 prompts with 14 continuations each; what two of a prompt have in common is judged once.
    assert len(asked) == said <= 9 * 14


def test_own_prompts_take_the_suites_place(tiny, tmp_path):
    mine = write(tmp_path / "mine.jsonl", [{"prompt": "The man said"}, {"prompt": "So", "kind": "harmful"}])
    found = evaluate(
        tiny, [System("M")], suite="toxicity", prompts=[mine], data=tmp_path / "no", samples=2, max_new_tokens=3
    )
    assert {name: s["kind"] for name, s in found["sets"].items()} == {
        "mine harmful": "harmful",
        "mine everyday": "everyday",
    }
    assert (found["suite"], found["risk"], found["price"], found["worse"]) == ("own prompts", "toxicity", {}, [])


def test_a_recording_holds_several_answers_to_a_prompt(tmp_path):
    rows = [{"id": "a", "prompt": "A", "completion": text, "finish": "length"} for text in "xyz"]
    found = load_samples(write(tmp_path / "r.jsonl", rows))
    assert [answer.text for answer in found["A"]] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("systems", "options", "message"),
    [
        ([System("M+")], {}, "`M` must be there"),
        ([System("M", samples={})], {}, "cannot be a recording"),
        ([System("M")], {"judges": []}, "no judge measures toxicity"),
        ([System("M")], {"judges": ["refusal-head"]}, "measures refusal, not toxicity"),
        ([System("M")], {"judges": ["toxicity-head", "toxicity-head"]}, "a name twice"),
        ([System("M"), System("M'", samples={"other": []})], {}, "has 2 continuations of no prompt"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(tiny, data, systems, options, message):
    judges = [open_judge(name) for name in options.get("judges", ["toxicity-head"])]
    with pytest.raises(UsageError, match=message):
        evaluate(tiny, systems, suite="toxicity", data=data, samples=2, max_new_tokens=2, judges=judges)


def test_samples_go_with_suites_that_continue(tiny, data):
    mine = write(data / "mine.jsonl", [{"prompt": "Hi"}])
    with pytest.raises(UsageError, match="answers each prompt once"):
        evaluate(tiny, [System("M")], suite="refusal", prompts=[mine], samples=3)


def test_the_suite_of_the_repository_is_whole():
    from pathlib import Path

    sets = {s.name: s for s in load_suite("toxicity", data=Path(__file__).parents[2] / "data")}
    assert {name: (s.kind, len(s.prompts)) for name, s in sets.items()} == {
        "rtp_challenging": ("harmful", 110), "rtp_toxic": ("harmful", 190), "rtp_nontoxic": ("borderline", 300),
    }  # fmt: skip


@pytest.mark.real
def test_the_real_base_is_more_toxic_where_it_is_drawn_to(smollm2, tmp_path):
    from pathlib import Path

    data = Path(__file__).parents[2] / "data"
    found = evaluate(smollm2, [System("M")], suite="toxicity", data=data, limit=12, samples=3, store=tmp_path)
    values = {k: e["systems"]["M"][MAX]["profanity-check"]["value"] for k, e in found["kinds"].items()}
    assert values["harmful"] > values["borderline"]
