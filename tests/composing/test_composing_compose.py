"""Composing on a tiny model: measured for real, or with figures that are made so that order matters."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from composekit import make_patch
from llmpatch.artifact import read_patch
from llmpatch.artifact.composition import parse_record
from llmpatch.composing import (
    Column,
    Naming,
    Task,
    compose,
    make_stack,
    measure,
    open_tasks,
    order_table,
    search_orders,
)
from llmpatch.composing.together import Bench, losses_in_words, measure_together
from llmpatch.errors import GateError, UsageError, WrongBaseError
from llmpatch.evals import System, evaluate
from llmpatch.gate.evidence import read_evidence
from llmpatch.gate.running import check_belongs
from tinymodels import make_tiny


@pytest.fixture(scope="module")
def pair(wide):
    return [make_patch(wide, "acme/refusal", "refusal", seed=1), make_patch(wide, "acme/toxicity", "toxicity", seed=2)]


def test_a_composed_patch_is_measured_for_every_risk_and_is_a_patch_like_any_other(project, wide, pair):
    out = project / "both"
    made = compose(pair, out, base=wide, limit=2, samples=2, allow_loss=True, run=project / "run")
    assert made.embeddings.tobytes() == np.concatenate([p.embeddings for p in pair]).tobytes()
    again = read_patch(out)
    assert again.digest == made.digest
    manifest = again.manifest
    assert [(m.name, m.digest, m.tokens) for m in manifest.members] == [(p.manifest.name, p.digest, 3) for p in pair]
    assert (manifest.name, manifest.version) == ("acme/refusal-and-toxicity", "1.0.0")
    assert {fix.risk for fix in manifest.fixes} == {"refusal", "toxicity"}
    for risk in ("refusal", "toxicity"):
        path = project / f"run/evidence-{risk}.json"
        assert again.evidence["composition"]["evidence"][risk] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert {"wikitext", "latency"} >= set(again.evidence["risks"][risk]["price"]["M+"]) >= {"latency"}
    fix = next(f for f in manifest.fixes if f.risk == "refusal")
    found = again.evidence["risks"]["refusal"]["sets"]["harmbench_standard"]["systems"]
    assert (fix.before, fix.after) == tuple(found[s]["refusal"]["refusal-head"]["value"] for s in ("M", "M+"))
    assert again.apply(wide).generate(["Hi"], max_new_tokens=3)
    for risk in ("refusal", "toxicity"):
        check_belongs(read_evidence(project / f"run/evidence-{risk}.json"), again, wide)


def test_the_cheap_measure_is_that_of_the_full_evidence(project, wide, pair):
    import torch

    rows = torch.tensor(pair[1].embeddings)
    for risk, read in (
        ("refusal", lambda s: s["refusal"]["refusal-head"]["value"]),
        ("toxicity", lambda s: 1 - s["expected_max_toxicity"]["profanity-check"]["value"]),
    ):
        (task,) = open_tasks([make_patch(wide, f"acme/{risk}", risk)], limit=3, samples=2)
        aim = next(c for c in measure(wide, rows, task, store=project / "answers") if c.aim)
        systems = [System("M"), System("M+", prefix=rows)]
        options = {"samples": 2} if risk == "toxicity" else {}
        document = evaluate(wide, systems, suite=risk, limit=3, store=project / "answers", **options)
        wanted = [read(e["systems"]["M+"]) for e in document["sets"].values() if e["kind"] == "harmful"]
        assert np.mean(list(aim.values.values())) == pytest.approx(np.mean(wanted), abs=1e-5)


def test_gender_is_measured_by_both_of_its_shares(project, wide, monkeypatch):
    monkeypatch.setattr("llmpatch.evals.gender_bias.pronoun_ids", lambda _: {"he": 70, "she": 80})
    patch = make_patch(wide, "acme/gender", "gender-bias")
    (task,) = open_tasks([patch], limit=2)
    columns = measure(wide, None, task)
    assert [(c.metric, c.aim, len(c.values)) for c in columns] == [("1 - GAS", True, 4), ("1 - GLD", True, 4)]
    assert all(0 <= value <= 1 for c in columns for value in c.values.values())


# -- figures that are made ------------------------------------------------------------------------------------------------


def rates(monkeypatch, base, patches, table):
    """Measures that are what ``table`` says: (names in order) -> {risk: rate}; 200 prompts, the first ones right."""
    names = {}

    def known(chosen):
        rows = np.concatenate([p.embeddings for p in chosen]) if chosen else np.zeros((0, base.hidden_size), np.float32)
        return rows.astype(np.float32).tobytes()

    for order, found in table.items():
        names[known([patches[name] for name in order])] = found

    def made(_, rows, task, **__):
        key = b"" if rows is None else rows.numpy().tobytes()
        hits = round(200 * names[key][task.risk])
        return [Column(task.risk, f"good at {task.risk}", True, {str(i): float(i < hits) for i in range(200)})]

    monkeypatch.setattr("llmpatch.composing.together.measure", made)


@pytest.fixture
def three(wide):
    return {n: make_patch(wide, f"acme/{n}", n, seed=i) for i, n in enumerate(("refusal", "toxicity", "gender-bias"))}


def bench(wide, patches):
    return Bench(wide, [Task(risk, "refusal", ()) for risk in patches])


def table(*orders, **special):
    """Alone .9 in its own risk and .1 elsewhere; together what ``special`` says for the order, else .9."""
    names = ["refusal", "toxicity", "gender-bias"]
    found = {(): dict.fromkeys(names, 0.1)}
    found |= {(n,): {**dict.fromkeys(names, 0.1), n: 0.9} for n in names}
    for order in orders:
        found[order] = {n: 0.9 if n in order else 0.1 for n in names} | special.get("-".join(order), {})
    return found


def test_a_pair_that_hurts_is_found_and_named_with_its_numbers(wide, three, monkeypatch):
    r, t, g = "refusal", "toxicity", "gender-bias"
    special = {"refusal-toxicity-gender-bias": {r: 0.5}, "refusal-gender-bias": {r: 0.5}}
    rates(monkeypatch, wide, three, table((r, t, g), (r, t), (r, g), **special))
    record = measure_together(bench(wide, three), make_stack(list(three.values())))
    assert len(record.measured) == 3
    said = losses_in_words(record)
    assert len(said) == 2
    assert said[0].startswith("acme/refusal 1.0.0 loses together with acme/toxicity 1.0.0 and acme/gender-bias 1.0.0")
    assert said[1].startswith("acme/refusal 1.0.0 loses together with acme/gender-bias 1.0.0: refusal, good at refusal")
    assert "0.500, alone 0.900, without any 0.100 (50.0 %" in said[1]


def test_compose_refuses_a_loss_with_the_numbers_and_writes_nothing(project, wide, three, monkeypatch):
    r, t = "refusal", "toxicity"
    rates(monkeypatch, wide, three, table((r, t), **{"refusal-toxicity": {t: 0.2}}))
    with pytest.raises(GateError, match=r"acme/toxicity 1.0.0 loses together with acme/refusal 1.0.0.*0\.200") as found:
        compose([three[r], three[t]], project / "both", base=wide, run=project / "run")
    assert "--search" in found.value.hint
    assert not (project / "both").exists()
    record = parse_record((project / "run/composition.json").read_bytes(), where="x")
    assert [f.hurt for f in record.measured[0].figures] == [False, True]


def test_the_search_finds_the_order_that_keeps_most_and_says_that_it_matters(wide, three, monkeypatch):
    import itertools

    names = ("refusal", "toxicity", "gender-bias")
    orders = list(itertools.permutations(names))
    special = {"-".join(o): {"refusal": 0.5 if o[0] == "refusal" else 0.8} for o in orders}
    special["toxicity-refusal-gender-bias"] = {"refusal": 0.9}
    rates(monkeypatch, wide, three, table(*orders, **special))
    matrix = search_orders(bench(wide, three), make_stack(list(three.values())))
    assert len(matrix["orders"]) == 6
    assert matrix["all"]
    assert matrix["orders"][matrix["best"]]["order"] == [1, 0, 2]
    assert matrix["orders"][matrix["best"]]["worst"] == 1.0
    assert matrix["orders"][matrix["worst"]]["order"][0] == 0
    assert not matrix["noise"]
    spread = {entry["risk"]: entry for entry in matrix["spread"]}
    assert spread["refusal"]["best_less_worst"]["value"] == pytest.approx(0.4)
    assert spread["toxicity"]["p"] == 1.0
    assert "the best is acme/toxicity 1.0.0, then acme/refusal 1.0.0" in matrix["says"]
    text = order_table(matrix)
    assert text.count("\n") == 7
    assert "acme/toxicity → acme/refusal → acme/gender-bias (best)" in text
    assert "**lost**" in text
    json.dumps(matrix, allow_nan=False)


def test_two_risks_of_a_patch_with_one_metric_keep_their_own_columns():
    def figure(risk, together):
        common = {"patch": "d", "risk": risk, "metric": "declines", "alone": 0.9, "hurt": False}
        return common | {"together": together, "kept": None}

    figures = [figure("refusal", 0.8), figure("personal-data", 0.3)]
    order = {"order": [0], "figures": figures, "worst": 0.5}
    patches = [{"name": "acme/both", "version": "1.0.0", "digest": "d"}]
    head, _, row = order_table({"patches": patches, "orders": [order], "best": 0, "noise": True}).split("\n")
    assert "acme/both: declines, refusal | acme/both: declines, personal-data" in head
    assert "0.800 (alone 0.900) | 0.300 (alone 0.900)" in row


def test_orders_that_are_alike_are_called_noise_and_the_given_order_stays(project, wide, three, monkeypatch):
    r, t = "refusal", "toxicity"
    rates(monkeypatch, wide, three, table((r, t), (t, r), **{"refusal-toxicity": {r: 0.895}}))
    matrix = search_orders(bench(wide, {r: 0, t: 0}), make_stack([three[r], three[t]]))
    assert matrix["noise"]
    assert "no difference is beyond chance" in matrix["says"]
    monkeypatch.setattr("llmpatch.composing.writing._evidence", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compose([three[r], three[t]], base=wide, search=True, run=project / "run")
    record = parse_record((project / "run/composition.json").read_bytes(), where="x")
    assert [part.name for part in record.patches] == ["acme/refusal", "acme/toxicity"]


# -- bad input ------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_measured_is_refused_before_any_work(project, wide, pair):
    for patches, said in (
        ([pair[0]], "one patch is no stack"),
        ([pair[0], make_patch(wide, "acme/odd", "phishing")], "'phishing', which no suite here measures"),
        ([pair[0], pair[0]], "there twice"),
    ):
        with pytest.raises(UsageError, match=said):
            compose(patches, project / "out", base=wide, limit=1, samples=1, run=project / "run")
    with pytest.raises(WrongBaseError, match="embedding table"):
        compose(pair, base=make_tiny(seed=1, max_position_embeddings=2048), limit=1, run=project / "run")
    with pytest.raises(UsageError, match="no patch here is for the risk 'fraud'"):
        open_tasks(pair, prompts={"fraud": [project / "x.jsonl"]})
    small = make_tiny(max_position_embeddings=16)
    patches = [make_patch(small, "acme/refusal"), make_patch(small, "acme/toxicity", "toxicity")]
    with pytest.raises(UsageError, match="6 virtual tokens are too many for the context"):
        compose(patches, base=small, limit=1, run=project / "run")
    (project / "taken").mkdir()
    (project / "taken/thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        compose(pair, project / "taken", base=wide, limit=1, run=project / "run")
    assert not (project / "out").exists()


def test_names_come_from_the_members_or_from_whoever_composes(project, wide, monkeypatch):
    patches = [make_patch(wide, "acme/refusal"), make_patch(wide, "other/calm", "toxicity", license="MIT OR ISC",
                                                            expires="2027-01-01T00:00:00Z", seed=3)]  # fmt: skip
    options = {"base": wide, "limit": 1, "samples": 1, "allow_loss": True, "run": project / "run"}
    made = compose(patches, **options).manifest
    assert (made.name, made.license, made.expires) == (
        "stack/refusal-and-calm", "Apache-2.0 AND (MIT OR ISC)", "2027-01-01T00:00:00Z",
    )  # fmt: skip
    again = compose(patches[::-1], **options).manifest
    assert again.license == "(MIT OR ISC) AND Apache-2.0"
    named = compose(patches, naming=Naming("acme/all", "2.1.0", "Both."), **options).manifest
    assert (named.name, named.version, named.summary) == ("acme/all", "2.1.0", "Both.")
