"""Advisories about the patches of storekit, and OSV's own rules to hold them against."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from storekit import base

TIME = "2026-11-24T00:00:00Z"
GAP, DEFECT = "x_ACME-2026-0001", "x_ACME-2026-0009"


def record(ident=GAP, affected=None, **changes) -> dict:
    made = {
        "schema_version": "1.7.5", "id": ident, "published": TIME, "modified": TIME, "summary": "tiny-llama: says it all",
        "affected": affected or [gap_in()],
    }  # fmt: skip
    return copy.deepcopy(made | changes)


def gap_in(fixed_by=(("acme/refusal", ">=1.0.0,<2"),), **reference) -> dict:
    """An affected base: by default that of storekit, by its fingerprint."""
    named = {"name": "tiny-llama", "fingerprint": base()["fingerprint"]} | reference
    fixers = [{"patch": name, "versions": versions} for name, versions in fixed_by]
    return {"database_specific": {"base": {k: v for k, v in named.items() if v is not None}, "fixed_by": fixers}}


def defect_in(*events, patch="acme/refusal", **specific) -> dict:
    ranges = [{"type": "SEMVER", "events": [dict([event]) for event in events]}] if events else []
    return {"ranges": ranges, "database_specific": {"patch": patch} | specific}


def defect(*events, ident=DEFECT, patch="acme/refusal", revoke=False, **changes) -> dict:
    events = events or (("introduced", "0"), ("fixed", "1.2.0"))
    specific = {"revoke": True} if revoke else {}
    made = {"affected": [defect_in(*events, patch=patch, **specific)], "summary": "over-refuses"}
    return record(ident, **(made | changes))


def write(folder: Path, *records: dict, vendor: str = "acme") -> Path:
    (folder / vendor).mkdir(parents=True, exist_ok=True)
    for one in records:
        (folder / vendor / f"{one['id']}.json").write_text(json.dumps(one), encoding="utf-8")
    return folder


def _array(items: dict, **more) -> dict:
    return {"type": "array", "items": items, **more}


def _closed(properties: dict, *required: str) -> dict:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


# No package on PyPI carries OSV's own JSON schema, so this is its text, version 1.7.5, in our words: the constraints of
# https://ossf.github.io/osv-schema/ on every key that an advisory of ours may use, and no other key at the top.
_TEXT, _MOMENT = {"type": "string"}, {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
_EVENTS = _array(
    {
        "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": False,
        "properties": dict.fromkeys(("introduced", "fixed", "last_affected", "limit"), _TEXT),
    },
    minItems=1, contains={"required": ["introduced"]},
)  # fmt: skip
_RANGE = _closed(
    {"type": {"enum": ["SEMVER", "ECOSYSTEM", "GIT"]}, "repo": _TEXT, "events": _EVENTS, "database_specific": {"type": "object"}},
    "type", "events",
) | {
    "if": {"properties": {"type": {"const": "GIT"}}}, "then": {"required": ["repo"]}, "else": {"not": {"required": ["repo"]}},
    "not": {"properties": {"events": {"allOf": [{"contains": {"required": [k]}} for k in ("fixed", "last_affected")]}}},
}  # fmt: skip
OSV = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_closed(
        {
            "schema_version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
            "id": {"type": "string", "pattern": r"^x_.+-.+$"},
            **dict.fromkeys(("modified", "published", "withdrawn"), _MOMENT),
            **dict.fromkeys(("aliases", "related", "upstream"), _array(_TEXT)),
            "summary": {"type": "string", "pattern": r"^[^\n]*$"},
            "details": _TEXT,
            "affected": _array(
                _closed(
                    {
                        "package": {"type": "object"}, "ranges": _array(_RANGE), "versions": _array(_TEXT),
                        "ecosystem_specific": {"type": "object"}, "database_specific": {"type": "object"},
                    }
                )
            ),
            "references": _array(
                _closed(
                    {
                        "type": {
                            "enum": [
                                "ADVISORY", "ARTICLE", "DETECTION", "DISCUSSION", "REPORT", "FIX", "GIT", "INTRODUCED",
                                "PACKAGE", "EVIDENCE", "WEB",
                            ]
                        },
                        "url": {"type": "string", "format": "uri"},
                    },
                    "type", "url",
                )
            ),
            "credits": _array(
                _closed(
                    {
                        "name": _TEXT, "contact": _array(_TEXT),
                        "type": {
                            "enum": [
                                "FINDER", "REPORTER", "ANALYST", "COORDINATOR", "REMEDIATION_DEVELOPER",
                                "REMEDIATION_REVIEWER", "REMEDIATION_VERIFIER", "TOOL", "SPONSOR", "OTHER",
                            ]
                        },
                    },
                    "name",
                )
            ),
            "database_specific": {"type": "object"},
        },
        "schema_version", "id", "modified",
    ),
}  # fmt: skip
