"""An audit as SARIF 2.1.0, for code scanning: a rule for each advisory, a result for each open gap and each defect.

    json.dumps(audit_sarif(audit))

What no advisory says has rules of its own: a patch of a revoked key, a base that was left without patches, and advisories that
could not be had.

A result lies in the store's current generation, which is what says that something is active or not; the base and the patch
are its logical locations. The fingerprint of a result stays the same from run to run, so that a dismissed one stays so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from llmpatch import __version__
from llmpatch.advisories.auditing import Audit, bare_text
from llmpatch.advisories.record import Advisory
from llmpatch.files import digest_json

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "STORE"
_DISTRUSTED, _BARE, _LEFT_OUT = "llmpatch-distrusted", "llmpatch-bare", "llmpatch-left-out"
_OWN = {
    _DISTRUSTED: "An active patch was signed by a key that is revoked",
    _BARE: "A revocation left a base without patches",
    _LEFT_OUT: "Some advisories could not be had, so the audit is not complete",
}

Json = dict[str, Any]


def audit_sarif(audit: Audit) -> Json:
    """One run. Gaps that are closed are no results; defects of patches that are not active are notes."""
    results = [*_gaps(audit), *_defects(audit), *_others(audit)]
    named = {result["ruleId"] for result in results}
    met = [*(gap.advisory for gap in audit.gaps), *(defect.advisory for defect in audit.defects)]
    found = {advisory.id: advisory for advisory in met if advisory.id in named}
    rules = [_rule(found[name]) for name in sorted(found)]
    rules += [_own_rule(name) for name in _OWN if name in named]
    index = {rule["id"]: number for number, rule in enumerate(rules)}
    driver = {"name": "llmpatch", "version": __version__, "semanticVersion": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "originalUriBaseIds": {_ROOT: {"uri": f"{audit.inventory.root.absolute().as_uri()}/"}},
        "results": [result | {"ruleIndex": index[result["ruleId"]]} for result in results],
        "columnKind": "utf16CodeUnits",
    }
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(advisory: Advisory) -> Json:
    rule: Json = {"id": advisory.id, "shortDescription": {"text": advisory.summary}}
    if advisory.details:
        rule["fullDescription"] = {"text": advisory.summary}
        rule["help"] = {"text": advisory.details, "markdown": advisory.details}
    if urls := [reference.url for reference in advisory.references if reference.type in ("ADVISORY", "WEB", "REPORT")]:
        rule["helpUri"] = urls[0]
    specific = advisory.database_specific
    tags = [*specific.avid, *specific.atlas, *specific.owasp_llm]
    return rule | {"properties": {"tags": ["security", "model", *tags]}}


def _own_rule(name: str) -> Json:
    return {
        "id": name,
        "shortDescription": {"text": _OWN[name]},
        "properties": {"tags": ["security", "model"]},
    }


def _gaps(audit: Audit) -> Iterator[Json]:
    for gap in audit.gaps:
        if gap.status == "open":
            base = gap.deployment.base
            text = f"{base.name}: {gap.advisory.summary}. {gap.remedy}"
            place = digest_json([base.name, base.fingerprint.model_dump() if base.fingerprint else None])
            names = [{"name": base.name, "kind": "model"}]
            yield _result(audit, gap.advisory.id, "error", text, place, names)


def _defects(audit: Audit) -> Iterator[Json]:
    for defect in audit.defects:
        if defect.revoked and not defect.active:
            continue
        level = "note" if not defect.active else "error" if defect.revokes else "warning"
        names = [{"name": defect.held.title, "kind": "patch"}, *({"name": b, "kind": "model"} for b in defect.bases)]
        text = f"{defect.held.title}: {defect.advisory.summary}. {defect.remedy}"
        yield _result(audit, defect.advisory.id, level, text, defect.held.entry.digest, names)


def _others(audit: Audit) -> Iterator[Json]:
    for one in audit.distrusted:
        names = [{"name": one.held.title, "kind": "patch"}, {"name": one.base, "kind": "model"}]
        place = digest_json([one.held.entry.digest, one.base])
        yield _result(audit, _DISTRUSTED, "error", one.text, place, names)
    for name in audit.bare:
        yield _result(audit, _BARE, "error", bare_text(name), digest_json([name]), [{"name": name, "kind": "model"}])
    for text in audit.left_out:
        yield _result(
            audit, _LEFT_OUT, "error", text, digest_json([text]), [{"name": "advisories", "kind": "resource"}]
        )


def _result(audit: Audit, rule: str, level: str, text: str, place: str, names: list[Json]) -> Json:
    uri = f"generations/{audit.inventory.generation}.json" if audit.inventory.generation else "store.json"
    location = {
        "physicalLocation": {"artifactLocation": {"uri": uri, "uriBaseId": _ROOT}},
        "logicalLocations": names,
    }
    identity = hashlib.sha256(f"{rule}\n{place}".encode()).hexdigest()
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": text},
        "locations": [location],
        "partialFingerprints": {"llmpatch/v1": identity},
    }
