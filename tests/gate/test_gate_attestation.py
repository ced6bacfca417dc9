"""What a gate leaves behind: a statement that says what the verdict says, under a signature that finds every change."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from gatekit import as_bytes, evidence_document, policy_bytes, rule
from llmpatch.artifact import parse_patch
from llmpatch.errors import IntegrityError, LlmpatchError, TrustError
from llmpatch.gate import apply_policy, attest, parse_evidence, parse_policy, read_attestation, verdict_json
from patchkit import contents
from signkit import key, public

PATCHES = [
    parse_patch(contents(name=name, version="1.0.0", supersedes=[]), Path("p")) for name in ("acme/one", "acme/two")
]


def verdict(**changes):
    policy = parse_policy(policy_bytes(rule(**changes)), where="p")
    return apply_policy(policy, parse_evidence(as_bytes(evidence_document())))


def test_a_statement_is_a_test_result_of_in_toto():
    said = verdict()
    found = json.loads(attest(said, PATCHES))
    assert set(found) == {"_type", "subject", "predicateType", "predicate"}
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert [(s["name"], s["digest"]) for s in found["subject"]] == [
        ("acme/one@1.0.0", {"sha256": PATCHES[0].digest}), ("acme/two@1.0.0", {"sha256": PATCHES[1].digest}),
    ]  # fmt: skip
    predicate = found["predicate"]
    assert (predicate["result"], predicate["passedTests"], predicate["failedTests"]) == ("PASSED", ["everyday"], [])
    digests = [piece["digest"]["sha256"] for piece in predicate["configuration"]]
    assert digests[:2] == [said.policy.sha256, said.evidence[0].sha256]
    assert predicate["verdict"] == json.loads(json.dumps(verdict_json(said)))


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_a_signed_one_is_read_back_and_only_by_its_key(curve):
    data = attest(verdict(max=0.01), PATCHES, key("qa", curve))
    found = read_attestation(data, where="a", keys=[public("vendor"), public("qa", curve)])
    assert (found.result, found.failed, found.key_id) == ("FAILED", ("everyday",), public("qa", curve).id)
    assert list(found.patches.values()) == [patch.digest for patch in PATCHES]
    with pytest.raises(TrustError, match="none of those"):
        read_attestation(data, where="a", keys=[public("vendor")])


def test_an_unsigned_one_is_read_but_proves_nothing():
    data = attest(verdict(), PATCHES)
    assert read_attestation(data, where="a").key_id == ""
    with pytest.raises(TrustError, match="not signed"):
        read_attestation(data, where="a", keys=[public("qa")])


def test_one_that_does_not_say_when_is_no_attestation():
    statement = json.loads(attest(verdict(), PATCHES))
    del statement["predicate"]["verdict"]["created"]
    with pytest.raises(IntegrityError, match="does not say when"):
        read_attestation(json.dumps(statement).encode(), where="a")


def test_every_changed_bit_of_a_signed_one_is_found():
    data = attest(verdict(), PATCHES, key("qa"))
    bundle = json.loads(data)
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    for at in range(0, len(payload), 97):
        changed = bytearray(payload)
        changed[at] ^= 1
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
        with pytest.raises(TrustError):
            read_attestation(json.dumps(bundle).encode(), where="a", keys=[public("qa")])


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(extra=1),
        lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"),
        lambda s: s.update(subject=[]),
        lambda s: s["predicate"].update(result="WARNED"),
        lambda s: s["predicate"].update(result="FAILED"),
        lambda s: s["predicate"].update(failedTests=["everyday"]),
        lambda s: s["predicate"]["verdict"].update(result="FAILED"),
        lambda s: s["predicate"].pop("configuration"),
        lambda s: s["subject"][0]["digest"].update(sha256="x"),
    ],
)
def test_a_statement_at_odds_with_itself_is_refused(change):
    statement = json.loads(attest(verdict(), PATCHES))
    change(statement)
    with pytest.raises(IntegrityError):
        read_attestation(json.dumps(statement).encode(), where="a")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"{" * 999, b'{"mediaType": 1}', b" " * ((1 << 20) + 1)])
def test_rubbish_is_refused(data):
    with pytest.raises(LlmpatchError):
        read_attestation(data, where="a")
