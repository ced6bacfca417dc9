"""What is signed: an in-toto statement that names every file of a patch by its sha256 (Model Signing v1.0).

    payload = make_statement("acme/refusal", files)     # bytes, always the same for the same files
    parse_statement(payload, where="patch.sig")         # file name -> sha256

Knows nothing about keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from llmpatch.artifact.layout import LIMITS, SIGNATURE_FILE
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.errors import IntegrityError, TrustError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_HINT = "sign it again with `llmpatch sign`, or with model-signing's `key` method over these five files"
_SERIALIZATION = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}


def make_statement(name: str, files: Mapping[str, bytes]) -> bytes:
    """The statement over some files.

    Args:
        name: What the files are together; no reader relies on it, since ``patch.json`` is one of the files.
        files: File name -> content.
    """
    digests = {key: hashlib.sha256(files[key]) for key in sorted(files)}
    root = hashlib.sha256(b"".join(digest.digest() for digest in digests.values())).hexdigest()
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            # model-signing would hash the signature itself if it lies in the folder and is not named here.
            "serialization": {**_SERIALIZATION, "ignore_paths": [SIGNATURE_FILE]},
            "resources": [
                {"name": key, "algorithm": "sha256", "digest": digest.hexdigest()} for key, digest in digests.items()
            ],
        },
    }
    return json.dumps(statement, indent=1).encode("ascii")


def parse_statement(payload: bytes, *, where: str) -> dict[str, str]:
    """The sha256 of each of the five files that a statement names.

    Args:
        payload: The signed bytes; check their signature first.
        where: What to call them in an error.

    Raises:
        IntegrityError: not a Model Signing v1.0 statement over files by sha256, or its root digest is wrong.
        TrustError: it does not cover exactly the five files of a patch.
    """
    statement = parse_object(payload, where=where)
    kind = (statement.get("_type"), statement.get("predicateType"))
    if kind != (STATEMENT_TYPE, PREDICATE_TYPE) or set(statement) != {"_type", "subject", "predicateType", "predicate"}:
        raise _foreign(where, f"a statement of type {kind[0]} with a predicate of type {kind[1]}")
    predicate = statement["predicate"]
    if not isinstance(predicate, dict) or set(predicate) != {"serialization", "resources"}:
        raise _foreign(where, "a predicate with other keys than serialization and resources")
    _check_serialization(predicate["serialization"], where)
    digests = _digests(predicate["resources"], where)
    _check_root(statement["subject"], digests, where)
    if set(digests) != set(LIMITS):
        names = ", ".join(shown(name) for name in sorted(set(digests) ^ set(LIMITS))[:3])
        raise TrustError(f"{where} does not cover exactly the files of a patch: {names}", hint=_HINT)
    return digests


def _check_serialization(value: Any, where: str) -> None:
    """``ignore_paths`` may say anything: which files are covered is checked against our own list."""
    if not isinstance(value, dict) or {key: value.get(key) for key in _SERIALIZATION} != _SERIALIZATION:
        raise _foreign(where, "another serialization than files by sha256 without links")
    ignored = value.get("ignore_paths", [])
    if not set(value) <= {*_SERIALIZATION, "ignore_paths"} or not isinstance(ignored, list):
        raise _foreign(where, "a serialization with unknown keys")
    if not all(isinstance(path, str) for path in ignored):
        raise _foreign(where, "ignored paths that are not text")


def _digests(resources: Any, where: str) -> dict[str, str]:
    """The resources, at most 64, in the order given, which the root digest depends on."""
    if not isinstance(resources, list) or len(resources) > 64:
        raise _foreign(where, "resources that are not a short list")
    digests: dict[str, str] = {}
    for resource in resources:
        if not isinstance(resource, dict) or set(resource) != {"name", "algorithm", "digest"}:
            raise _foreign(where, "a resource with other keys than name, algorithm and digest")
        name, digest = resource["name"], resource["digest"]
        if not isinstance(name, str) or resource["algorithm"] != "sha256" or not _is_sha256(digest):
            raise _foreign(where, "a resource without name or sha256")
        if name in digests:
            raise _foreign(where, f"{name} twice")
        digests[name] = digest
    return digests


def _check_root(subject: Any, digests: Mapping[str, str], where: str) -> None:
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests.values())).hexdigest()
    if not isinstance(subject, list) or len(subject) != 1 or not isinstance(subject[0], dict):
        raise _foreign(where, "not exactly one subject")
    if set(subject[0]) != {"name", "digest"} or not isinstance(subject[0]["name"], str):
        raise _foreign(where, "a subject with other keys than name and digest")
    if subject[0]["digest"] != {"sha256": root}:
        raise _foreign(where, "a subject that is not the sha256 of its resources")


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _foreign(where: str, what: str) -> IntegrityError:
    return IntegrityError(f"{where} holds {shown(what, 200)}, which no signature of a patch does", hint=_HINT)
