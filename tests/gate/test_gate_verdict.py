import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gatekit import as_bytes, evidence_document, interval, policy_bytes, rule
from llmpatch.errors import UsageError
from llmpatch.gate import Verdict, apply_policy, parse_evidence, parse_policy, verdict_json


def judged(document=None, **changes):
    """The outcome of one rule."""
    evidence = parse_evidence(as_bytes(document or evidence_document()))
    return apply_policy(parse_policy(policy_bytes(rule(**changes))), evidence).rules[0]


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({}, (0.05, 0.03, 0.07)),
        ({"judge": "phrases"}, (0.05, 0.05, 0.05)),
        ({"metric": "refusal/head", "judge": None}, (0.05, 0.03, 0.07)),
        ({"kind": None, "set": "everyday", "metric": "loops", "judge": None}, (0.01, 0.0, 0.03)),
        ({"system": "M"}, (0.04, 0.02, 0.06)),
        ({"change": "difference"}, (0.01, 0.0, 0.03)),  # the paired interval, where there is one
        ({"change": "difference", "judge": "phrases"}, (0.01, 0.01, 0.01)),
        ({"change": "ratio", "metric": "perplexity", "judge": None, "max": 2}, (1.1, 1.1, 1.1)),
        ({"change": "ratio", "max": 9}, (0.05 / 0.04, 0.03 / 0.06, 0.07 / 0.02)),
        ({"kind": None, "metric": "price/wikitext/ratio", "judge": None, "max": 2, "min_n": 30}, (1.02, 1.01, 1.03)),
        ({"kind": None, "metric": "closed/everyday", "judge": None, "max": 2}, (0.9, 0.8, 1.0)),
    ],
)  # fmt: skip
def test_a_rule_finds_its_measurement(changes, numbers):
    found = judged(**changes)
    assert found.reason == ""
    assert (found.measured.value, found.measured.low, found.measured.high) == pytest.approx(numbers)


def test_unpaired_ends_are_subtracted_crosswise():
    document = evidence_document()
    document["kinds"]["everyday"]["paired"] = {}
    found = judged(document, change="difference", max=0.05)
    assert (found.measured.low, found.measured.high) == (-0.03, 0.05)
    assert found.passed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max": 0.06}, "the upper end 0.07 is above 0.06"),
        ({"max": 0.04, "use": "estimate"}, "0.05 is above 0.04"),
        ({"max": None, "min": 0.04}, "the lower end 0.03 is below 0.04"),
        ({"min": 0.04, "max": 0.2}, "the lower end 0.03 is below 0.04"),
        ({"min_n": 201}, "too few observations: n = 200, 201 are needed"),
        ({"metric": "refusel"}, "no 'refusel' in kinds/everyday/M+; it has n, refusal, loops, perplexity"),
        ({"judge": "other"}, "it has head, phrases"),
        ({"judge": None}, "name one of head, phrases"),
        ({"kind": "harmful"}, "no 'harmful' in kinds; it has everyday"),
        ({"kind": None, "set": "mine"}, "no 'mine' in sets"),
        ({"system": "M'"}, "it has M, M+"),
        ({"metric": "n", "judge": None}, "no n and no interval"),
        ({"metric": "loops", "judge": "head"}, "it has nothing"),
        ({"risk": "toxicity"}, "no evidence of the risk toxicity"),
        ({"kind": None, "metric": "price/latency/token_ratio", "judge": None}, "no 'latency' in price/M+; it has wikitext"),
        ({"kind": None, "metric": "price/wikitext/base", "judge": None}, "no n and no interval"),
        ({"kind": None, "metric": "closed/mine", "judge": None}, "no 'mine' in closed"),
        ({"change": "ratio", "metric": "loops", "judge": None}, "reaches 0"),
    ],
)  # fmt: skip
def test_what_is_missing_or_too_little_fails_with_its_reason(changes, said):
    found = judged(**changes)
    assert not found.passed
    assert said in found.reason


def test_one_failed_rule_fails_the_whole():
    policy = parse_policy(policy_bytes(rule(), rule(id="strict", max=0.01), rule(id="free", max=1)))
    verdict = apply_policy(policy, parse_evidence(as_bytes(evidence_document())))
    assert (verdict.result, verdict.ok, verdict.passed, verdict.failed) == (
        "FAILED", False, ("everyday", "free"), ("strict",)
    )  # fmt: skip
    assert apply_policy(parse_policy(policy_bytes(rule())), parse_evidence(as_bytes(evidence_document()))).ok


def test_a_policy_over_two_risks_takes_evidence_of_each():
    policy = parse_policy(policy_bytes(rule(), rule(id="other", risk="toxicity", max=0.5)))
    pieces = [parse_evidence(as_bytes(evidence_document(suite=s))) for s in ("refusal", "toxicity")]
    assert apply_policy(policy, pieces).ok
    assert apply_policy(policy, pieces[:1]).failed == ("other",)
    with pytest.raises(UsageError, match="two pieces"):
        apply_policy(policy, pieces[:1] * 2)


def test_the_json_is_of_its_schema_and_holds_no_infinity(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    policy = parse_policy(policy_bytes(rule(), rule(id="gone", kind="harmful")))
    verdict = apply_policy(policy, parse_evidence(as_bytes(evidence_document())))
    text = json.dumps(verdict_json(verdict), allow_nan=False)
    assert list(json.loads(text)) == [
        "schema", "result", "created", "tool", "patch", "policy", "evidence", "rules", "passed", "failed",
    ]  # fmt: skip
    assert verdict_json(TypeAdapter(Verdict).validate_json(text)) == verdict_json(verdict)
    assert json.loads(text)["created"] == "2023-11-14T22:13:20Z"
    assert json.loads(text)["policy"]["sha256"] == policy.digest()
    assert json.loads(text)["rules"][1]["measured"] is None


unit = st.floats(0, 1).map(lambda x: round(x, 6))
gaps = st.floats(0, 0.5).map(lambda x: round(x, 6))


@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from([None, "difference", "ratio"]),
    use=st.sampled_from(["interval", "estimate"]),
    upward=st.booleans(),
    bound=st.floats(-2, 2),
    n=st.integers(50, 150),
    values=st.tuples(unit, gaps, gaps),
    base=st.tuples(unit, gaps, gaps),
    step=gaps,
    more=st.integers(0, 100),
)
def test_a_better_number_never_turns_pass_into_fail(kind, use, upward, bound, n, values, base, step, more):
    def outcome(shift, extra):
        value, below, above = values
        moved = interval(value + shift, value + shift - below, value + shift + above, n + extra)
        document = evidence_document()
        systems = document["kinds"]["everyday"]["systems"]
        systems["M"]["loops"] = interval(base[0], base[0] - base[1], base[0] + base[2], 500)
        systems["M+"]["loops"] = moved
        limits = {"min": bound, "max": None} if upward else {"min": None, "max": bound}
        return judged(document, metric="loops", judge=None, change=kind, use=use, **limits)

    before, after = outcome(0.0, 0), outcome(step if upward else -step, more)
    assert not (before.passed and not after.passed), (before, after)
    assert before.passed == (not before.reason)


@given(st.floats(-1, 1), st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_the_interval_asks_for_no_less_than_the_estimate(bound, gap):
    document = evidence_document()
    document["kinds"]["everyday"]["systems"]["M+"]["loops"] = interval(0.1, 0.1 - gap, 0.1 + gap)
    for limits in ({"min": bound, "max": None}, {"max": bound}):
        strict, loose = (
            judged(document, metric="loops", judge=None, use=u, **limits) for u in ("interval", "estimate")
        )
        assert loose.passed or not strict.passed
