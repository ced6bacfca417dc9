"""What a gate leaves behind: an in-toto statement with a test-result v0.1, signed with the customer's key if there is one.

    data = attest(verdict, [patch], key)                            # a Sigstore bundle with the statement; plain without key
    found = read_attestation(data, where="attestation.json", keys=[load_public_key(Path("qa.pub.pem"))])
    found.result, found.patches, found.key_id

The statement says which patches, in order, were held against which policy on which base, which rules passed and which did
not; under ``verdict`` it carries the whole verdict, so that it can be read alone. The envelope is that of ``patch.sig``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmpatch.artifact.manifest import Sha256, Text
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.errors import IntegrityError, TrustError
from llmpatch.files import digest_json
from llmpatch.gate.verdict import Verdict, verdict_json
from llmpatch.recipe import describe
from llmpatch.signing.bundle import make_bundle, parse_bundle
from llmpatch.signing.statement import STATEMENT_TYPE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from llmpatch.artifact import Patch
    from llmpatch.signing import PublicKey

PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
MAX_ATTESTATION_BYTES = 1 << 20
_HINT = "run the gate again: llmpatch activate NAME --base BASE"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Digest(_Section):
    sha256: Sha256


class _Subject(_Section):
    name: Text
    digest: _Digest


class _Descriptor(_Section):
    name: Text
    digest: _Digest
    annotations: dict[str, Any] = {}


class _Predicate(_Section):
    result: Literal["PASSED", "FAILED"]
    configuration: Annotated[tuple[_Descriptor, ...], Field(min_length=1, max_length=64)]
    passed_tests: Annotated[tuple[Text, ...], Field(max_length=1024, alias="passedTests")]
    warned_tests: Annotated[tuple[Text, ...], Field(max_length=0, alias="warnedTests")]
    failed_tests: Annotated[tuple[Text, ...], Field(max_length=1024, alias="failedTests")]
    verdict: dict[str, Any]


class _Statement(_Section):
    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[tuple[_Subject, ...], Field(min_length=1, max_length=16)]
    predicate_type: Annotated[Literal["https://in-toto.io/attestation/test-result/v0.1"], Field(alias="predicateType")]
    predicate: _Predicate


@dataclass(frozen=True)
class Attestation:
    """An attestation that has been read.

    Attributes:
        result: ``PASSED`` or ``FAILED``.
        patches: Name and version -> digest, in the order of their rows.
        passed: Rules that passed.
        failed: Rules that did not.
        key_id: The key that signed it; empty for a plain statement. Checked only where keys were given.
        statement: The whole of it.
    """

    result: str
    patches: Mapping[str, str]
    passed: tuple[str, ...]
    failed: tuple[str, ...]
    key_id: str
    statement: Mapping[str, Any] = field(repr=False)


def attest(verdict: Verdict, patches: Sequence[Patch], key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """The attestation of a verdict.

    Args:
        verdict: What the gate said.
        patches: Of which patches, in the order in which they were judged.
        key: The customer's private key; without one the statement is left plain.
    """
    manifests = [(patch.manifest, patch.digest) for patch in patches]
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [_descriptor(f"{manifest.name}@{manifest.version}", digest) for manifest, digest in manifests],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "result": verdict.result,
            "configuration": _configuration(verdict),
            "passedTests": list(verdict.passed),
            "warnedTests": [],
            "failedTests": list(verdict.failed),
            "verdict": verdict_json(verdict),
        },
    }
    payload = (json.dumps(statement, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")
    return payload if key is None else make_bundle(payload, key)


def read_attestation(data: bytes, *, where: str, keys: Sequence[PublicKey] = ()) -> Attestation:
    """Read an attestation, and check who signed it.

    Args:
        data: A bundle, or a plain statement.
        where: What to call it in an error.
        keys: One of them must have signed it; without any, no signature is checked.

    Raises:
        TrustError: it is not signed, or by none of ``keys``, or was changed after it was signed.
        IntegrityError: oversized, not strict JSON, no attestation of a gate, or at odds with the verdict in it.
    """
    if len(data) > MAX_ATTESTATION_BYTES:
        raise IntegrityError(f"{where} is larger than {MAX_ATTESTATION_BYTES:,} bytes", hint=_HINT)
    key_id, payload = "", data
    if "mediaType" in parse_object(data, where=where):
        bundle = parse_bundle(data, where=where, limit=MAX_ATTESTATION_BYTES)
        key_id, payload = bundle.key_id, bundle.payload
        if keys:
            _signer(keys, key_id, where).check(bundle.signature, bundle.message)
    elif keys:
        raise TrustError(f"{where} is not signed", hint="--attest-key signs it when the gate runs")
    mapping = parse_object(payload, where=where)
    try:
        found = _Statement.model_validate_json(json.dumps(mapping))
    except ValidationError as error:
        raise IntegrityError(
            f"{where} is no attestation of a gate: {shown(describe(error), 300)}", hint=_HINT
        ) from None
    said, predicate = found.predicate.verdict, found.predicate
    if not isinstance(said.get("created"), str):
        raise IntegrityError(f"{where} does not say when the verdict was given", hint=_HINT)
    summary = {
        "result": predicate.result, "passed": list(predicate.passed_tests), "failed": list(predicate.failed_tests),
    }  # fmt: skip
    if {key: said.get(key) for key in summary} != summary or (predicate.result == "PASSED") == bool(
        predicate.failed_tests
    ):
        raise IntegrityError(f"{where} says something else than the verdict in it", hint=_HINT)
    patches = {subject.name: subject.digest.sha256 for subject in found.subject}
    return Attestation(predicate.result, patches, predicate.passed_tests, predicate.failed_tests, key_id, mapping)


def _signer(keys: Sequence[PublicKey], key_id: str, where: str) -> PublicKey:
    for key in keys:
        if key.id == key_id:
            return key
    raise TrustError(
        f"{where} is signed by key {key_id[:16]}, which is none of those given", hint="give that key, if it is yours"
    )


def _configuration(verdict: Verdict) -> list[dict[str, Any]]:
    """The policy, and each piece of evidence with the base it was measured on."""
    found = [_descriptor(f"policy {verdict.policy.name}"[:200], verdict.policy.sha256)]
    for piece in verdict.evidence:
        base = {"name": piece.base, "fingerprint": dict(piece.fingerprint)}
        notes = {
            "suite": piece.suite,
            "created": piece.created,
            "fresh": piece.fresh,
            "prefix_sha256": piece.prefix_sha256,
        }
        found.append(_descriptor(f"evidence of {piece.risk}"[:200], piece.sha256, notes))
        found.append(_descriptor(f"base {piece.base}"[:200], digest_json(base["fingerprint"]), base))
    return found


def _descriptor(name: str, sha256: str, annotations: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}, **({"annotations": annotations} if annotations else {})}
