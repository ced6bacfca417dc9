import json

import numpy as np
import pytest
import torch

import patchkit
from clikit import write_rows
from gatekit import FINGERPRINT, as_bytes, evidence_document, policy_bytes, rule
from llmpatch.artifact import describe_base, parse_patch, render_patch
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError, WrongBaseError
from llmpatch.evals import System
from llmpatch.gate import default_risks, parse_evidence, parse_policy, run_gate
from llmpatch.gate.running import check_measurable
from llmpatch.judges import identity, open_judge
from llmpatch.prefix import prefix_digest


@pytest.fixture(scope="module")
def patch(tiny, tmp_path_factory):
    """A patch of four small rows for the tiny base."""
    fields = patchkit.fields(base=describe_base(tiny))
    rows = patchkit.embeddings(dim=tiny.hidden_size)
    return parse_patch(
        render_patch(fields, rows, patchkit.EVIDENCE, base_p999=patchkit.P999), tmp_path_factory.mktemp("p")
    )


def belonging(patch, **changes):
    """Evidence that is of this patch and its base, as bytes."""
    document = evidence_document(**changes)
    document["systems"]["M+"]["prefix_sha256"] = prefix_digest(patch.embeddings)
    document["base"]["fingerprint"] = patch.manifest.base.fingerprint.model_dump()
    return document


def write(folder, document, name="e.json"):
    path = folder / name
    path.write_bytes(as_bytes(document))
    return path


def test_the_prefix_has_the_name_that_evidence_gives_it():
    rows = patchkit.embeddings()
    assert prefix_digest(rows) == System("M+", prefix=torch.tensor(rows)).json()["prefix_sha256"]
    assert prefix_digest(rows.reshape(2, -1)) != prefix_digest(rows)
    assert prefix_digest(np.asarray(rows + np.float32(1e-3))) != prefix_digest(rows)


def test_evidence_that_is_there_is_judged_without_a_base(patch, tmp_path):
    path = write(tmp_path, belonging(patch))
    verdict = run_gate(patch, policy=parse_policy(policy_bytes(rule())), evidence=[path])
    assert verdict.ok
    assert not verdict.evidence[0].fresh
    assert verdict.patch.digest == patch.digest
    assert not run_gate(patch, policy=parse_policy(policy_bytes(rule(max=0))), evidence=[path]).ok


def test_evidence_of_another_patch_or_none_is_refused(patch, tmp_path):
    other = belonging(patch)
    other["systems"]["M+"]["prefix_sha256"] = "b" * 64
    none = belonging(patch)
    del none["systems"]["M+"]
    for document, said in ((other, "another patch"), (none, "no patched system")):
        with pytest.raises(IntegrityError, match=said) as error:
            run_gate(patch, policy=parse_policy(policy_bytes(rule())), evidence=[write(tmp_path, document)])
        assert "llmpatch eval" in error.value.hint


@pytest.mark.parametrize("part", ["config", "tokenizer", "chat_template", "embeddings"])
def test_evidence_of_another_base_is_refused(patch, tiny, tmp_path, part):
    document = belonging(patch)
    document["base"]["fingerprint"][part] = FINGERPRINT[part]
    path = write(tmp_path, document)
    for base in (None, tiny):
        with pytest.raises(WrongBaseError, match=part):
            run_gate(patch, base, policy=parse_policy(policy_bytes(rule())), evidence=[path])


def test_another_quantisation_of_the_base_is_no_other_base(patch, tmp_path):
    document = belonging(patch)
    document["base"]["fingerprint"] |= {"quantisation": "gguf:Q4_1", "embeddings": "9" * 64}
    assert run_gate(patch, policy=parse_policy(policy_bytes(rule())), evidence=[write(tmp_path, document)]).ok


def test_a_fresh_measurement_is_judged_and_kept(patch, tiny, tmp_path):
    own = write_rows(tmp_path / "mine.jsonl", [{"prompt": f"hello {i}"} for i in range(2)])
    judge = {"judge": "refusal-head", "metric": "refusal"}
    policy = parse_policy(
        policy_bytes(
            rule(id="few", min_n=2, max=1, **judge),
            rule(id="many", min_n=3, max=1, **judge),
            rule(id="safe-prompt", system="safe prompt", min_n=1, max=1, **judge),
            rule(id="speed", kind=None, metric="price/latency/token_ratio", judge=None, min_n=1, max=1000),
            rule(id="text", kind=None, metric="price/wikitext/ratio", judge=None, min_n=1, max=1000),
        )
    )
    options = {"policy": policy, "prompts": [own], "max_new_tokens": 2, "store": tmp_path / "run"}
    verdict = run_gate(patch, tiny, data=tmp_path / "no-data", **options)
    assert verdict.failed == ("many", "text")
    assert "no 'wikitext'" in verdict.rules[-1].reason
    kept = (tmp_path / "run/evidence-refusal.json").read_bytes()
    sha256 = verdict.evidence[0].sha256
    assert parse_evidence(kept).sha256 == sha256
    assert (tmp_path / f"run/evidence-refusal-{sha256[:16]}.json").read_bytes() == kept
    assert verdict.evidence[0].fresh
    assert set(json.loads(kept)["systems"]) == {"M", "M+", "safe prompt"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"risk": "nonsense"}, "risk 'nonsense'"),
        ({"system": "M'"}, "would not be measured; there would be M, M"),
        ({"kind": "harmful"}, "kind 'harmful'"),
        ({"kind": None, "set": "xstest_safe"}, "set 'xstest_safe'"),
        ({"kind": None, "metric": "closed/mine", "judge": None}, "share closed needs"),
        ({"risk": "distance", "kind": None, "set": "mine"}, "the distance needs answers of M'"),
        ({"risk": "attacks", "kind": "harmful"}, "kind 'harmful'"),
        ({"risk": "attacks", "kind": None, "set": "harmbench_standard"}, "set 'harmbench_standard'"),
        ({"risk": "long-context", "kind": None, "metric": "price/latency/token_ratio", "judge": None}, "measures no price"),
    ],
)  # fmt: skip
def test_what_would_not_be_measured_is_said_before_anything_is(patch, tiny, tmp_path, changes, said):
    own = write_rows(tmp_path / "mine.jsonl", [{"prompt": "hello"}])
    with pytest.raises(UsageError, match=said):
        run_gate(patch, tiny, policy=parse_policy(policy_bytes(rule(**changes))), prompts=[own], store=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sets_are_called_what_the_evidence_calls_them(tmp_path):
    own = write_rows(tmp_path / "mine.jsonl", [{"prompt": "hello", "kind": "harmful"}])
    for risk, name in (
        ("attacks", "base64"), ("long-context", "after_500"), ("refusal", "mine"), ("facts", "mine"),
    ):  # fmt: skip
        asked = rule(risk=risk, kind=None, set=name)
        check_measurable(parse_policy(policy_bytes(asked)), [own], None)
    document = evidence_document() | {"suite": "attacks on own prompts"}
    document.pop("risk", None)
    assert parse_evidence(as_bytes(document)).risk == "attacks"


def test_requests_that_contradict_themselves_are_refused(patch, tiny, tmp_path):
    path = write(tmp_path, belonging(patch))
    policy = parse_policy(policy_bytes(rule()))
    with pytest.raises(UsageError, match="no base"):
        run_gate(patch, policy=policy)
    with pytest.raises(UsageError, match="takes no prompts"):
        run_gate(patch, tiny, policy=policy, evidence=[path], limit=3)
    with pytest.raises(UsageError, match="two pieces"):
        run_gate(patch, policy=policy, evidence=[path, path])


DRAWN = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 48}
CONTINUED = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 20, "samples": 10}


@pytest.mark.parametrize(
    ("asked", "measured"),
    [
        ({}, DRAWN),
        ({"temperature": 1.0, "top_p": 0.9}, {}),
        ({"temperature": 1.0}, DRAWN),
        ({"temperature": 0.9}, DRAWN),
    ],
)
def test_evidence_of_answers_had_otherwise_is_refused(patch, tmp_path, asked, measured):
    path = write(tmp_path, belonging(patch, decoding=measured))
    policy = parse_policy(policy_bytes(rule(), **({"decoding": asked} if asked else {})))
    with pytest.raises(
        UsageError, match=r"the policy test is about (greedy answers|answers drawn at temperature)"
    ) as error:
        run_gate(patch, policy=policy, evidence=[path])
    assert "--temperature" in error.value.hint


def test_evidence_of_answers_drawn_as_a_policy_asks_is_judged(patch, tmp_path):
    path, policy = write(tmp_path, belonging(patch, decoding=DRAWN)), parse_policy(policy_bytes(rule()))
    verdict = run_gate(patch, policy=policy.about(1.0, 0.9), evidence=[path])
    assert verdict.ok
    assert verdict.rules[0].measure.endswith("answers drawn at temperature 1, top_p 0.9")
    asked = parse_policy(policy_bytes(rule(), decoding={"temperature": 1, "top_p": 0.9}))
    assert run_gate(patch, policy=asked, evidence=[path]).policy == verdict.policy
    assert verdict.policy.sha256 != policy.digest()
    greedy = write(tmp_path, belonging(patch, decoding={"temperature": 0.0, "top_p": 0.9, "max_new_tokens": 48}))
    assert run_gate(patch, policy=policy, evidence=[greedy]).ok


def test_how_texts_are_drawn_that_a_suite_continues_is_no_matter_of_a_policy(patch, tmp_path):
    path = write(tmp_path, belonging(patch, suite="toxicity", decoding=CONTINUED))
    policy = parse_policy(policy_bytes(rule(risk="toxicity")))
    verdict = run_gate(patch, policy=policy, evidence=[path])
    assert verdict.ok
    assert "drawn" not in verdict.rules[0].measure
    with pytest.raises(UsageError, match="no rule about answers that a temperature changes"):
        policy.about(0.5)


def test_evidence_that_no_rule_asks_for_may_be_of_any_answers(patch, tmp_path):
    paths = [
        write(tmp_path, belonging(patch, decoding=DRAWN), "refusal.json"),
        write(tmp_path, belonging(patch, suite="toxicity", decoding=CONTINUED), "toxicity.json"),
    ]
    assert run_gate(patch, policy=parse_policy(policy_bytes(rule(risk="toxicity"))), evidence=paths).ok


def test_a_measure_says_how_answers_were_had_wherever_that_matters(patch, tmp_path):
    judges = [identity(open_judge("refusal-head"))]
    path = write(tmp_path, belonging(patch, decoding=DRAWN, judges=judges))
    closed = rule(id="closed", kind=None, set=None, metric="closed/everyday", judge=None, max=1, min_n=1)
    price = rule(id="price", kind=None, metric="price/wikitext/ratio", judge=None, max=2, min_n=1)
    told = rule(id="told", system="M'")
    policy = parse_policy(policy_bytes(closed, price, told, rule())).about(1.0, 0.9)
    measures = {r.id: r.measure for r in run_gate(patch, policy=policy, evidence=[path]).rules}
    assert {name for name, text in measures.items() if "answers drawn at temperature 1" in text} == {
        "closed",
        "everyday",
    }


def test_a_fresh_measurement_draws_as_the_policy_says(patch, tiny, tmp_path):
    own = write_rows(tmp_path / "mine.jsonl", [{"prompt": "hello"}])
    policy = parse_policy(policy_bytes(rule(judge="refusal-head", max=1, min_n=1), decoding={"temperature": 1.0}))
    assert run_gate(patch, tiny, policy=policy, prompts=[own], max_new_tokens=2, store=tmp_path / "run").ok
    told = json.loads((tmp_path / "run/evidence-refusal.json").read_bytes())["decoding"]
    assert (told["temperature"], told["top_p"]) == (1.0, 1.0)


def test_the_default_is_that_of_the_risks_a_patch_fixes(patch, tmp_path):
    assert default_risks(patch) == ("refusal",)
    judges = [identity(open_judge(name)) for name in ("refusal-head", "harm-head")]
    verdict = run_gate(patch, evidence=[write(tmp_path, belonging(patch, judges=judges))])
    assert verdict.policy.name == "refusal"
    assert "harmful-declined" in verdict.failed


def test_a_measurement_that_is_no_number_stops_the_gate(patch, tiny, tmp_path, monkeypatch):
    import llmpatch.evals

    monkeypatch.setattr(llmpatch.evals, "evaluate", lambda *args, **kwargs: {"perplexity": float("nan")})
    own = write_rows(tmp_path / "mine.jsonl", [{"prompt": "hello"}])
    with pytest.raises(LlmpatchError, match="no number"):
        run_gate(patch, tiny, policy=parse_policy(policy_bytes(rule())), prompts=[own], store=tmp_path / "run")
    assert not (tmp_path / "run").exists()
