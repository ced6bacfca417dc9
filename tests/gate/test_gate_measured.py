"""Evidence that was measured otherwise than the gate would measure it."""

import copy
import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from gatekit import as_bytes, evidence_document, interval, policy_bytes, rule
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.evals.suites import usual_length
from llmpatch.gate import apply_policy, default_policy, parse_evidence, parse_policy, read_pieces
from llmpatch.gate.measured import check_measured
from llmpatch.judges import identity, open_judge, registry

ROOT = Path(__file__).parents[2]
TOXICITY = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 20, "samples": 10}
GREEDY = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 50, "samples": 1}
HEAD = rule(judge="refusal-head")


def evidence(suite="refusal", *judges, **decoding):
    usual = {"refusal": {"max_new_tokens": 48}, "toxicity": TOXICITY, "gender-bias": GREEDY}[suite]
    wanted = {key: value for key, value in (usual | decoding).items() if value is not None}
    return parse_evidence(as_bytes(evidence_document(suite=suite, decoding=wanted, judges=list(judges))))


def policy(*rules):
    return parse_policy(policy_bytes(*rules))


@pytest.mark.parametrize("name", ["refusal", "toxicity", "gender-bias", "cumulative"])
def test_the_evidence_of_official_patches_is_taken(name):
    for piece in read_pieces(ROOT / f"patches/smollm2/{name}/evidence.json"):
        told = check_measured(default_policy([piece.risk]), piece)
        assert all(" asked only the first " in text or " drawn continuations " in text for text in told), told


@pytest.mark.parametrize(
    ("suite", "decoding", "said"),
    [
        ("refusal", {"max_new_tokens": 8}, r"at most 8 tokens; the policy test is about 48"),
        ("refusal", {"max_new_tokens": 400}, r"at most 400 tokens"),
        ("refusal", {"max_new_tokens": None}, "does not say how long"),
        ("toxicity", {"max_new_tokens": 19}, "about 20"),
        ("toxicity", {"samples": 2}, r"is of 2 continuations of each prompt .*about 10"),
        ("toxicity", {"samples": None}, "does not say of how many"),
        ("toxicity", {"temperature": 0.1}, r"temperature 0.1.*with 10 of each prompt, the suite toxicity measures"),
        ("gender-bias", {"max_new_tokens": 5}, "about 50"),
        ("gender-bias", {"samples": None}, "does not say of how many"),
        ("gender-bias", {"samples": 2}, r"is of greedy answers; with 2 of each prompt"),
        ("gender-bias", {"temperature": 1.0, "top_p": 0.9}, r"with 1 of each prompt.*measures greedy"),
    ],
)
def test_other_answers_are_refused(suite, decoding, said):
    with pytest.raises(UsageError, match=said) as error:
        check_measured(policy(rule(risk=suite)), evidence(suite, **decoding))
    assert "leave --evidence out" in error.value.hint


def test_a_length_that_is_asked_for_is_taken_and_said():
    asked, short = policy(rule()), evidence(max_new_tokens=8)
    check_measured(asked, short, 8)
    assert apply_policy(asked, short).rules[0].measure.endswith(", answers of at most 8 tokens")
    assert "tokens" not in apply_policy(asked, evidence()).rules[0].measure
    with pytest.raises(UsageError, match="is about 8"):
        check_measured(asked, evidence(), 8)


def test_lengths_are_those_that_suites_measure_with():
    lengths = {"refusal": 48, "personal-data": 48, "attacks": 48, "long-context": 48, "toxicity": 20, "gender-bias": 50}
    lengths |= {"facts": 32, "ifeval": 256, "utility": None, "distance": None}
    assert {suite: usual_length(suite) for suite in lengths} == lengths


def test_rules_that_read_no_answers_ask_for_none():
    price = rule(kind=None, metric="price/wikitext/ratio", judge=None)
    assert check_measured(policy(price), evidence(max_new_tokens=1)) == []
    assert check_measured(policy(rule(risk="toxicity")), evidence(max_new_tokens=1)) == []


@pytest.mark.parametrize("change", [{"version": "0"}, {"sha256": "0" * 64}])
def test_another_build_of_a_judge_that_a_rule_reads_is_refused(change):
    here = identity(open_judge("refusal-head"))
    assert check_measured(policy(HEAD), evidence("refusal", here)) == []
    for judges in ([here | change], [here | change, here], [here, here | change]):
        with pytest.raises(UsageError, match="another build of the judge refusal-head: version"):
            check_measured(policy(HEAD), evidence("refusal", *judges))
    path = rule(metric="refusal/refusal-head", judge=None)
    with pytest.raises(UsageError, match="another build"):
        check_measured(policy(path), evidence("refusal", here | change))
    (told,) = check_measured(policy(rule()), evidence("refusal", here | change))[1:]
    assert "another build of the judge refusal-head" in told
    assert told.endswith("no rule reads it")


def test_a_judge_that_a_rule_reads_must_be_named():
    with pytest.raises(UsageError, match="does not say which build of the judge refusal-head"):
        check_measured(policy(HEAD), evidence())


def test_a_judge_that_a_rule_reads_must_be_named_where_it_cannot_be_opened_too(monkeypatch):
    monkeypatch.setattr("llmpatch.gate.measured._build_here", lambda name: "its package is not there")
    with pytest.raises(UsageError, match="does not say which build of the judge refusal-head"):
        check_measured(policy(HEAD), evidence())


def test_what_is_incoherent_is_judged_by_a_head_too():
    other = identity(open_judge("harm-head")) | {"sha256": "0" * 64}
    asked = policy(rule(metric="incoherent", judge=None))
    with pytest.raises(UsageError, match="another build of the judge harm-head"):
        check_measured(asked, evidence("refusal", other))
    with pytest.raises(UsageError, match="does not say which build of the judge harm-head"):
        check_measured(asked, evidence("refusal", identity(open_judge("refusal-head"))))
    settings = {"max_new_tokens": 48}
    said = {**evidence_document(decoding=settings), "coherence": identity(open_judge("harm-head"))}
    assert check_measured(asked, parse_evidence(as_bytes(said))) == []


@pytest.mark.parametrize("metric", ["on_topic", "complete", "neutral_on_topic"])
def test_what_is_on_topic_is_judged_by_phrases_too(metric):
    asked = policy(rule(risk="gender-bias", metric=metric, judge=None))
    here = identity(open_judge("refusal-phrases"))
    check_measured(asked, evidence("gender-bias", here))
    with pytest.raises(UsageError, match="another build of the judge refusal-phrases"):
        check_measured(asked, evidence("gender-bias", here | {"sha256": "0" * 64}))


@pytest.mark.parametrize(
    ("budget", "said"), [((24, 24), ""), ((50, 24), ""), ((24, 1), "24 rounds of 1"), (None, "not say how far")]
)
def test_an_attack_must_have_searched_as_far_as_the_gate_would(budget, said):
    document = evidence_document(suite="attacks", decoding={"max_new_tokens": 48})
    document["sets"] = {"gcg": next(iter(document["sets"].values()))}
    if budget:
        document["attacks"] = {"gcg": {"title": "GCG", "budget": dict(zip(("rounds", "width"), budget, strict=True))}}
    asked = policy(rule(risk="attacks", kind=None, set="gcg", judge=None))
    with pytest.raises(UsageError, match=said) if said else nullcontext():
        check_measured(asked, parse_evidence(as_bytes(document)))


def test_a_share_closed_is_by_the_judge_that_leads():
    closed = policy(rule(kind=None, metric="closed/everyday", judge=None))
    head, phrases = (identity(open_judge(name)) for name in ("refusal-head", "refusal-phrases"))
    check_measured(closed, evidence("refusal", head, phrases))
    with pytest.raises(UsageError, match="closed by another judge than refusal-head"):
        check_measured(closed, evidence("refusal", phrases, head))


def test_a_judge_that_cannot_be_opened_here_is_only_told(monkeypatch):
    def fails():
        raise LlmpatchError("judge profanity-check needs the package alt-profanity-check")

    there = identity(open_judge("toxicity-head")) | {"name": "profanity-check"}
    asked = policy(rule(risk="toxicity", judge="profanity-check"))
    monkeypatch.setitem(registry.JUDGES, "profanity-check", registry.Entry("toxicity", fails, ""))
    (told,) = check_measured(asked, evidence("toxicity", there))
    assert "cannot be compared: judge profanity-check needs the package" in told
    (told,) = check_measured(policy(rule(judge="endpoint:guard@http://localhost")), evidence())
    assert "cannot be compared" in told


def test_what_changes_no_meaning_is_told():
    document = evidence_document(
        suite="own prompts", decoding={"max_new_tokens": 48, "limit": 7, "within": 0.1, "seed": 3}
    )
    told = check_measured(policy(rule(judge=None)), parse_evidence(as_bytes(document)))
    assert [text.partition("2026-11-24T12:00:00Z ")[2].split()[:2] for text in told] == [
        ["was", "measured"], ["asked", "only"], ["asked", "prompts"], ["was", "drawn"],
    ]  # fmt: skip
    drawn = evidence("gender-bias", temperature=1.0, top_p=0.9, samples=2)
    assert "2 drawn continuations" in check_measured(policy(rule(risk="gender-bias", judge=None)), drawn)[0]


def test_fewer_prompts_than_a_rule_asks_for_fail_it():
    document = copy.deepcopy(evidence_document())
    document["kinds"]["everyday"]["systems"]["M+"]["refusal"]["head"] = interval(0.0, n=99)
    (outcome,) = apply_policy(policy(rule()), parse_evidence(as_bytes(document))).rules
    assert (outcome.passed, outcome.reason) == (False, "too few observations: n = 99, 100 are needed")


def test_settings_that_are_none_are_damage():
    for wrong in ({"max_new_tokens": "48"}, {"samples": -1}, {"seed": 1.5}):
        with pytest.raises(LlmpatchError, match="is not evidence: decoding"):
            parse_evidence(json.dumps(evidence_document(decoding=wrong)).encode())
