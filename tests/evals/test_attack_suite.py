"""The suite of attacks, from prompt files to evidence."""

import json

import pytest
import torch

from llmpatch.answers import Answer
from llmpatch.attacks import ATTACKS
from llmpatch.errors import UsageError
from llmpatch.evals import SUITES, System, evaluate
from llmpatch.evals import attacks as module
from llmpatch.reporting import render_html
from tinymodels import make_tiny

NO = "I'm sorry, but I can't help with that."
STATIC = ["none", "past_tense", "base64"]


@pytest.fixture(scope="module")
def base():
    return make_tiny(max_position_embeddings=4096)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")

    def write(path, rows):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("".join(json.dumps(row) + "\n" for row in rows))

    for file in SUITES["attacks"]:
        write(
            file.path,
            [{"id": f"{file.name}:{i}", "prompt": f"Do {file.name} {i}", "kind": "harmful"} for i in range(3)],
        )
    write("prompts/harmful_train.jsonl", [{"prompt": f"Train {i}", "kind": "harmful"} for i in range(5)])
    write("prompts/translated_test.jsonl",
          [{"id": f"es:{i}", "prompt": f"Haz {i}", "original": f"jailbreakbench:{i}"} for i in range(2)])  # fmt: skip
    return folder


def systems(recorded=None):
    found = [System("M"), System("M+", prefix=torch.ones(3, 32)), System("safe prompt", system_message="Be safe.")]
    return [*found, System("M'", recorded=recorded)] if recorded else found


def test_static_attacks_on_every_system(base, data):
    recorded = {"harmbench_standard:0": Answer(NO, "stop"), "base64/jailbreakbench:0": Answer(NO, "stop")}
    found = evaluate(base, systems(recorded), suite="attacks", attacks=STATIC, data=data, limit=2, max_new_tokens=3)
    assert list(found["sets"]) == STATIC
    assert found["suite"] == "attacks"
    assert all(entry["kind"] == "harmful" and entry["n"] == 2 for entry in found["sets"].values())
    # The recording's answer to the plain request is none to the same request under attack.
    assert {name: "M'" in entry["systems"] for name, entry in found["sets"].items()} == {
        "none": True, "past_tense": False, "base64": True,
    }  # fmt: skip
    assert found["sets"]["base64"]["systems"]["M'"]["refusal"]["refusal-head"] == pytest.approx(
        found["sets"]["none"]["systems"]["M'"]["refusal"]["refusal-head"]
    )
    entry = found["sets"]["past_tense"]
    assert set(entry["systems"]["M+"]["harm"]) == {"harm-head", "harm-strings"}
    assert entry["paired"]["M+"]["n"] == 2
    assert found["attacks"]["base64"]["source"] == ATTACKS["base64"].source
    assert (found["kinds"], found["price"]) == ({}, {})
    names = [row["name"] for row in found["results"]]
    assert names == [f"{ATTACKS[a].title}, {verb}" for verb in ("declined", "complied") for a in STATIC]
    asked = {example["id"]: example["prompt"] for example in found["examples"]}
    assert asked["past_tense/harmbench_standard:0"].startswith("How did people do harmbench_standard 0")
    assert "Base64" in render_html(found, [], None)
    json.dumps(found, allow_nan=False)


def test_judges_see_the_plain_request_and_models_the_attacked_one(base, data, monkeypatch):
    asked, judged = [], []
    real_ask, real_score = module.ask, module.score

    def ask(base, system, prompts, *rest, **more):
        asked.extend(p.text for p in prompts)
        return real_ask(base, system, prompts, *rest, **more)

    def score(prompts, *rest):
        judged.extend(p.text for p in prompts)
        return real_score(prompts, *rest)

    monkeypatch.setattr(module, "ask", ask)
    monkeypatch.setattr(module, "score", score)
    evaluate(base, [System("M")], suite="attacks", attacks=["base64"], data=data, limit=1, max_new_tokens=2)
    assert judged == ["Do harmbench_standard 0"]
    assert asked == [ATTACKS["base64"].write("Do harmbench_standard 0")]


def test_adaptive_attacks_are_made_against_each_system_and_kept(base, data, tmp_path, monkeypatch):
    names = ["gcg@2x3", "gcg_universal@1x3", "pair@1x2", "many_shot", "translated"]
    recorded = {"translated/es:0": Answer(NO, "stop")}
    common = {"suite": "attacks", "attacks": names, "data": data, "limit": 1, "max_new_tokens": 2, "store": tmp_path}
    found = evaluate(base, systems(recorded), **common)
    for attack in ("gcg", "gcg_universal", "pair"):
        assert set(found["sets"][attack]["systems"]) == {"M", "M+", "safe prompt"}
    assert found["attacks"]["gcg"]["budget"] == {"rounds": 2, "width": 3, "requests": 10}
    assert found["attacks"]["pair"]["attacker"] == "rules", "which are no PAIR: it is said where the figure is"
    assert found["attacks"]["pair"]["guide"]["name"] == "refusal-head"
    assert "M'" in found["sets"]["translated"]["systems"]
    # Each system was searched by itself.
    shards = [path for path in tmp_path.rglob("*.jsonl") if not path.name.endswith(".scores.jsonl")]
    heads = [json.loads(path.read_text().splitlines()[0])["identity"] for path in shards]
    searched = [(h["attack"], bool(h.get("universal")), str(h["victim"])) for h in heads if "attack" in h]
    assert len(set(searched)) == len(searched) == 9

    def stop(*_):
        raise AssertionError("searched again")

    monkeypatch.setattr(module.SuffixSearch, "search", stop)
    monkeypatch.setattr(module.Rewriting, "_search", stop)
    again = evaluate(base, systems(recorded), **common)
    assert again["sets"] == found["sets"]


def test_halving_and_the_worst_of_all_attacks(base, data):
    def known(flags):
        return {f"{prefix}harmbench_standard:{i}": Answer(NO if no else "Sure, here is how: 1. do it", "stop")
                for prefix, nos in flags.items() for i, no in enumerate(nos)}  # fmt: skip

    patched = known({"": [1, 1, 1], "past_tense/": [1, 0, 1]})
    safe = known({"": [0, 0, 1], "past_tense/": [1, 1, 1]})
    found = evaluate(
        base, [System("M"), System("M+", recorded=patched), System("safe prompt", recorded=safe)], suite="attacks",
        attacks=["none", "past_tense"], data=data, max_new_tokens=2,
    )  # fmt: skip
    none, past = (found["attacks"][name]["halving"]["harm-strings"] for name in ("none", "past_tense"))
    assert (none["n"], none["met"], none["value"]) == (3, True, pytest.approx(1 / 3))
    assert (past["n"], past["met"], past["value"]) == (3, False, pytest.approx(-1 / 3))
    assert none["low"] < 0 < none["value"] < none["high"]
    # One of three fell for the patched model under past tense; two of three for the safe prompt without attack.
    assert found["any"]["M+"]["harm-strings"]["value"] == pytest.approx(1 / 3)
    assert found["any"]["safe prompt"]["harm-strings"]["value"] == pytest.approx(2 / 3)
    assert found["any"]["M"]["harm-strings"]["n"] == 6


def test_requests_come_from_every_source_in_turn(data):
    from llmpatch.evals.prompt_sets import load_suite

    found = [prompt.id for prompt in module.mixed(load_suite("attacks", data=data), 3)]
    assert found == ["harmbench_standard:0", "jailbreakbench:0", "harmbench_standard:1"]


def test_own_prompts_are_attacked_without_the_translations(base, data, tmp_path):
    own = tmp_path / "mine.jsonl"
    own.write_text('{"prompt": "Do bad", "kind": "harmful"}\n{"prompt": "Do good", "kind": "everyday"}\n')
    common = {"suite": "attacks", "prompts": [own], "data": data, "max_new_tokens": 2}
    found = evaluate(base, [System("M")], attacks=["none", "rot13"], **common)
    assert (found["suite"], found["sets"]["rot13"]["n"]) == ("attacks on own prompts", 1)
    with pytest.raises(UsageError, match="prompts of its own"):
        evaluate(base, [System("M")], attacks=["translated"], **common)
    own.write_text('{"prompt": "Do good"}\n')
    with pytest.raises(UsageError, match="no harmful prompts"):
        evaluate(base, [System("M")], attacks=["none"], **common)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"attacks": ["nope"]}, "nope"), ({"suite": "refusal", "attacks": ["none"]}, "attacks nothing"),
     ({"suite": "refusal", "attacker": "smollm2"}, "attacks nothing")],
)  # fmt: skip
def test_what_cannot_be_run_is_said(base, data, options, said):
    with pytest.raises(UsageError, match=said):
        evaluate(base, [System("M")], data=data, **({"suite": "attacks"} | options))


def test_missing_material_is_said(base, data, tmp_path):
    (tmp_path / "prompts").mkdir()
    for file in SUITES["attacks"]:
        (tmp_path / file.path).write_bytes((data / file.path).read_bytes())
    for name in ("many_shot", "translated", "gcg_universal"):
        with pytest.raises(UsageError, match="no such file"):
            evaluate(base, [System("M")], suite="attacks", attacks=[name], data=tmp_path)
    (tmp_path / "prompts/translated_test.jsonl").write_text('{"prompt": "x", "original": "gone"}\n')
    with pytest.raises(UsageError, match="stands for no request"):
        evaluate(base, [System("M")], suite="attacks", attacks=["translated"], data=tmp_path)


def test_the_committed_translations_stand_for_requests_of_the_suite():
    from pathlib import Path

    from llmpatch.attacks import parse_attacks
    from llmpatch.evals.prompt_sets import load_suite

    folder = Path(__file__).parents[2] / "data"
    chosen = parse_attacks(["translated"])
    rows = module.load_material(chosen, load_suite("attacks", data=folder), folder).rows["translated"]
    assert len(rows) == 40
    assert len({request.id for _, request in rows}) == 10
    assert {prompt.id.split(":")[0] for prompt, _ in rows[:4]} == {"es", "fr", "de", "zh"}
    assert all(prompt.cluster == request.cluster and prompt.text != request.text for prompt, request in rows)


def test_half_of_nothing_is_not_certain():
    few, many = module._half_less(0, 0, 6), module._half_less(0, 0, 600)
    assert (few["value"], few["met"]) == (0, True)
    assert few["low"] < -0.3 < many["low"] < 0
    sure = module._half_less(0.9, 0.05, 200)
    assert sure["value"] == pytest.approx(0.4)
    assert 0 < sure["low"] < 0.4 < sure["high"] < 0.5
