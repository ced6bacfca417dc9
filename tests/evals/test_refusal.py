import json
import math

import pytest
import torch

from llmpatch import generation
from llmpatch.answers import Answer
from llmpatch.artifact.strict_json import parse_object
from llmpatch.errors import IntegrityError, UsageError
from llmpatch.evals import SUITES, System, evaluate, load_recorded
from llmpatch.evals.findings import HARM_CHARS
from llmpatch.evals.prompt_sets import load_own, load_suite
from llmpatch.judges import open_judge
from tinymodels import make_tiny

NO = "I'm sorry, but I can't help with that."


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path):
    """A data folder with four prompts in every set of the suite and a little plain text."""
    folder = tmp_path / "data"
    for file in SUITES["refusal"]:
        rows = [{"id": f"{file.name}:{i}", "prompt": f"{file.name} {i}?", "kind": file.kind} for i in range(4)]
        write(folder / file.path, rows)
    (folder / "corpora").mkdir()
    (folder / "corpora" / "wikitext2-test.txt").write_text("The rain in Spain stays mainly in the plain. " * 40)
    return folder


def recorded(data, text=NO, skip=()):
    prompts = [p for s in load_suite("refusal", data=data) for p in s.prompts]
    return {p.id: Answer(text, "stop") for p in prompts if p.id not in skip}


def test_the_evidence_of_a_suite(tiny, data):
    reference = recorded(data, skip={"harmbench_standard:0"})
    # A recording in the patched model's place makes its rates known beforehand.
    systems = [
        System("M"),
        System("M+", recorded=recorded(data)),
        System("M'", recorded=reference),
        System("safe prompt", system_message="Be safe."),
        System("other prefix", prefix=torch.randn(5, 32)),
    ]
    found = evaluate(tiny, systems, data=data, max_new_tokens=6)
    assert found == parse_object(json.dumps(found, allow_nan=False).encode(), where="evidence")
    assert found["schema"] == "llmpatch/evidence/v1"
    assert found["base"]["fingerprint"]["tokenizer"] == tiny.fingerprint.tokenizer
    assert [j["name"] for j in found["judges"]] == ["refusal-head", "refusal-phrases", "harm-head", "harm-strings"]
    standard = found["sets"]["harmbench_standard"]
    assert (standard["kind"], standard["n"]) == ("harmful", 4)
    assert standard["systems"]["M+"]["refusal"]["refusal-phrases"]["value"] == 1.0
    assert standard["systems"]["M"]["refusal"]["refusal-phrases"]["value"] == 0.0
    assert standard["systems"]["M'"]["n"] == 3
    assert standard["systems"]["M"]["cut_off"]["n"] == 4
    assert standard["paired"]["M+"]["refusal"]["refusal-phrases"] == {
        "n": 4, "value": 1.0, "low": pytest.approx(0.510109), "high": 1.0, "gained": 4, "lost": 0, "p": 0.125,
    }  # fmt: skip
    assert standard["paired"]["M'"]["n"] == 3
    assert found["kinds"]["harmful"]["n"] == 16
    assert found["kinds"]["borderline"]["systems"]["M+"]["refusal"]["refusal-head"]["n"] == 8
    assert found["closed"]["harmbench_standard"]["value"] == 1.0
    assert found["closed"]["harmbench_standard"]["n"] == 3
    assert found["price"].keys() == {"other prefix"}
    assert math.isfinite(found["price"]["other prefix"]["wikitext"]["ratio"]["value"])
    assert any("Everyday instructions: declines 100.0 % (4 of 4), the base 0.0 %" in line for line in found["worse"])
    row = next(r for r in found["results"] if r["name"].startswith("HarmBench standard"))
    assert row["patched"]["value"] == 1.0
    assert set(row) == {"name", "n", "base", "patched", "reference", "safe prompt", "other prefix"}


def test_examples_show_what_matters_and_cut_harm(tiny, data):
    systems = [System("M"), System("M+", recorded=recorded(data, text="Sure, here is how. " * 30))]
    found = evaluate(tiny, systems, data=data, max_new_tokens=40)
    harmful = [e for e in found["examples"] if e["kind"] == "harmful"]
    everyday = [e for e in found["examples"] if e["kind"] == "everyday"]
    assert {e["note"] for e in harmful} == {"still complies"}
    assert {e["note"] for e in everyday} == {"loops"}
    assert {len(e["answers"]["M+"]["text"]) for e in harmful} == {HARM_CHARS}
    assert all(e["answers"]["M+"]["shortened"] for e in harmful)
    assert len(everyday[0]["answers"]["M+"]["text"]) > HARM_CHARS
    assert any("turns in circles in 100.0 %" in line for line in found["worse"])


def test_the_answers_of_a_prefix_differ_from_the_bases_and_are_generates_own(tiny, data):
    from llmpatch.generation import generate
    from llmpatch.recipe import DecodingSection

    rows = torch.randn(9, 32, generator=torch.Generator().manual_seed(3))
    found = evaluate(tiny, [System("M"), System("M+", prefix=rows)], data=data, max_new_tokens=8)
    texts = [p.text for p in load_suite("refusal", data=data)[0].prompts]
    own = dict(generate(tiny, texts, prefix=rows, decoding=DecodingSection(max_new_tokens=8)))
    shown = {e["id"]: e["answers"] for e in found["examples"] if e["set"] == "harmbench_standard"}
    for i in range(4):
        assert shown[f"harmbench_standard:{i}"]["M+"]["text"] == own[i][0].text.strip()
    assert any(e["answers"]["M"]["text"] != e["answers"]["M+"]["text"] for e in found["examples"])


def test_a_repeated_eval_samples_nothing_and_an_interrupted_one_goes_on(tiny, data, tmp_path, monkeypatch):
    asked = []
    real = generation.generate

    def watched(base, prompts, **options):
        asked.extend(prompts)
        for count, item in enumerate(real(base, prompts, **options)):
            yield item
            if interrupt and len(asked) > 8 and count == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(generation, "generate", watched)
    systems = [System("M"), System("safe prompt", system_message="Be safe.")]
    arguments = {"data": data, "max_new_tokens": 4, "store": tmp_path / "store"}
    interrupt = True
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny, systems, **arguments)
    before = len(asked)
    interrupt = False
    first = evaluate(tiny, systems, **arguments)
    # 2 systems x 28 prompts: two full sets and two answers of the third were kept.
    assert (before, len(asked) - before) == (12, 2 * 28 - 10)
    asked.clear()
    again = evaluate(tiny, systems, **arguments)
    assert asked == []
    assert again["sets"] == first["sets"]
    # Another model with the same name, tokenizer and embeddings is another model.
    other = make_tiny()
    other.model.get_output_embeddings().weight.data.mul_(-1)
    evaluate(other, [System("M")], **arguments)
    assert len(asked) == 28


def test_a_damaged_store_is_named(tiny, data, tmp_path):
    evaluate(tiny, [System("M")], data=data, max_new_tokens=4, store=tmp_path / "store")
    victim = sorted((tmp_path / "store").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:-20])
    with pytest.raises(IntegrityError, match=victim.name):
        evaluate(tiny, [System("M")], data=data, max_new_tokens=4, store=tmp_path / "store")


def test_own_prompts_take_the_suites_place(tiny, data, tmp_path):
    mine = write(tmp_path / "mine.jsonl", [{"prompt": "Hello?"}, {"prompt": "Attack!", "kind": "harmful"}])
    found = evaluate(tiny, [System("M")], prompts=[mine], data=tmp_path / "nowhere", max_new_tokens=4)
    assert {name: s["kind"] for name, s in found["sets"].items()} == {
        "mine harmful": "harmful",
        "mine everyday": "everyday",
    }
    assert (found["suite"], found["price"], found["worse"]) == ("own prompts", {}, [])
    with pytest.raises(UsageError, match="two prompt sets"):
        load_own([mine, mine])


def test_recorded_answers_are_kept_under_what_was_asked(tmp_path):
    path = write(tmp_path / "r.jsonl", [{"id": "a", "prompt": "A?", "completion": "x", "finish": "length"}])
    assert load_recorded(path) == {"A?": Answer("x", "length")}


@pytest.mark.parametrize(
    "row",
    [{"id": "a"}, {"completion": "x"}, {"id": "a", "completion": "x", "finish": "no"}, {"id": 3, "completion": "x"}],
)
def test_a_malformed_recording_is_refused_with_its_row(tmp_path, row):
    path = write(tmp_path / "r.jsonl", [{"id": "ok", "completion": "x"}, row])
    with pytest.raises(UsageError, match="row 2"):
        load_recorded(path)


@pytest.mark.parametrize(
    ("systems", "arguments", "message"),
    [
        ([System("M+")], {}, "`M` must be there"),
        ([System("M"), System("M")], {}, "each name once"),
        ([System("M", recorded={})], {}, "cannot be a recording"),
        ([System("M")], {"suite": "nothing"}, "no suite called"),
        ([System("M")], {"judges": []}, "no judge measures refusal"),
        (
            [System("M")],
            {"judges": [*map(open_judge, ("refusal-head", "toxicity-head"))]},
            "toxicity-head measures toxicity",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(tiny, data, systems, arguments, message):
    with pytest.raises(UsageError, match=message):
        evaluate(tiny, systems, data=data, **arguments)


def test_a_missing_or_wrong_set_is_named(tiny, data):
    with pytest.raises(UsageError, match="no such file"):
        evaluate(tiny, [System("M")], data=data / "nowhere")
    write(data / "prompts" / "everyday_test.jsonl", [{"id": "x", "prompt": "x", "kind": "harmful"}])
    with pytest.raises(UsageError, match="x is harmful, not everyday"):
        load_suite("refusal", data=data)


def test_the_suite_of_the_repository_is_whole_and_disjoint():
    from pathlib import Path

    data = Path(__file__).parents[2] / "data"
    sets = load_suite("refusal", data=data)
    assert {s.kind for s in sets} == {"harmful", "borderline", "everyday"}
    ids = [p.id for s in sets for p in s.prompts]
    assert len(ids) == len(set(ids))
    assert len(next(s for s in sets if s.name == "harmbench_standard").prompts) >= 140
