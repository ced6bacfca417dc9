"""A bill of materials as CycloneDX 1.6: bases, patches, patched bases with their pedigree, and what is known of them (VEX).

    json.dumps(bill_of_materials(inventory))                    # what is here
    json.dumps(bill_of_materials(inventory, audit))             # with vulnerabilities and their analysis

A patched base is a component whose ancestor is the base and whose ``pedigree.patches`` resolve advisories; a gap that such a
patch closes is ``resolved_with_pedigree``. The same inventory gives the same bytes at the same ``SOURCE_DATE_EPOCH``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from llmpatch import __version__
from llmpatch.advisories.auditing import Audit, KnownDefect, OpenGap
from llmpatch.advisories.inventory import Deployment, Held, Inventory
from llmpatch.advisories.record import Advisory
from llmpatch.artifact.manifest import FingerprintSection, release_time
from llmpatch.catalogue import CATALOGUE
from llmpatch.files import digest_json

Json = dict[str, Any]
_KIND = "machine-learning-model"


def bill_of_materials(inventory: Inventory, audit: Audit | None = None) -> Json:
    """The whole document.

    Args:
        inventory: What is on this machine.
        audit: Of that inventory: its gaps and defects become vulnerabilities.
    """
    closed = [gap for gap in audit.gaps if gap.status == "closed"] if audit else []
    patched = [deployment for deployment in inventory.deployments if deployment.active]
    components = [
        *(_base(deployment) for deployment in inventory.deployments),
        *(_patch(held) for held in inventory.installed),
        *(_patched(deployment, closed) for deployment in patched),
    ]
    bill: Json = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": release_time(),
            "tools": {"components": [{"type": "application", "name": "llmpatch", "version": __version__}]},
            "properties": [
                _property("generation", inventory.generation),
                *(_property("problem", text) for text in (audit.others if audit else ())),
            ],
        },
        "components": components,
        "dependencies": [
            {"ref": _patched_ref(d), "dependsOn": [_base_ref(d), *(_patch_ref(held) for held in d.active)]}
            for d in patched
        ],
    }
    if audit is not None:
        bill["vulnerabilities"] = _vulnerabilities(audit)
    # A serial number of its own for each content, and the same one for the same content.
    return {"serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"llmpatch:{digest_json(bill)}").urn, **bill}


def _base(deployment: Deployment, *, ref: bool = True) -> Json:
    base = deployment.base
    found: Json = {"type": _KIND, **({"bom-ref": _base_ref(deployment)} if ref else {}), "name": base.name}
    if deployment.revision:
        found["version"] = deployment.revision
    if base.fingerprint and (sha256 := _file_sha256(base.name, base.fingerprint)):
        found["hashes"] = [_hash(sha256)]
    if base.purl:
        found["purl"] = base.purl
    if deployment.model_type:
        found["modelCard"] = {"modelParameters": {"architectureFamily": deployment.model_type}}
    if base.fingerprint:
        parts = base.fingerprint.model_dump()
        found["properties"] = [_property(f"fingerprint:{part}", value) for part, value in parts.items()]
    return found


def _patch(held: Held) -> Json:
    """A patch and its files. The manifest's figures are its model card; files carry the hashes."""
    manifest = held.patch.manifest
    group, _, name = manifest.name.partition("/")
    signer = held.entry.signer or "none: its signature was not checked"
    found: Json = {
        "type": _KIND,
        "bom-ref": _patch_ref(held),
        "supplier": {"name": group},
        "group": group,
        "name": name,
        "version": manifest.version,
        "description": manifest.summary,
        "licenses": [{"license": {"name": manifest.license}}],
        "purl": f"pkg:generic/{manifest.name}@{manifest.version}",
        "components": [
            {"type": "file", "bom-ref": f"{_patch_ref(held)}/{file}", "name": file, "hashes": [_hash(sha256)]}
            for file, sha256 in sorted(held.patch.files.items())
        ],
        "properties": [
            _property("digest", held.entry.digest),
            _property("status", held.entry.status),
            _property("signer", signer),
            _property("base", manifest.base.name),
        ],
    }
    if manifest.fixes:
        metrics = [metric for fix in manifest.fixes for metric in _metrics(fix.metric, fix.before, fix.after, fix.n)]
        found["modelCard"] = {"quantitativeAnalysis": {"performanceMetrics": metrics}}
    return found


def _metrics(name: str, before: float, after: float, n: int) -> Iterator[Json]:
    for where, value in (("base", before), ("patched", after)):
        yield {"type": name, "value": f"{value:g}", "slice": f"{where}, n = {n}"}


def _patched(deployment: Deployment, closed: Iterable[OpenGap]) -> Json:
    """A base with patches in front: ancestor, patches, and what they resolve."""
    mine = [gap for gap in closed if gap.deployment == deployment]
    names = " + ".join([deployment.base.name, *(held.title for held in deployment.active)])
    gate = deployment.gate
    properties = [_property("gate", gate.result)] if gate else []
    if gate and gate.policy:
        properties.append(_property("gate:policy", gate.policy))
    for part in ("policy_sha256", "verdict", "attestation") if gate else ():
        if value := getattr(gate, part):
            properties.append(_property(f"gate:{part}", value))
    return {
        "type": _KIND,
        "bom-ref": _patched_ref(deployment),
        "name": names,
        "modified": True,
        "pedigree": {
            "ancestors": [_base(deployment, ref=False)],
            "patches": [_pedigree(held, mine) for held in deployment.active],
        },
        "properties": properties,
    }


def _pedigree(held: Held, closed: Iterable[OpenGap]) -> Json:
    """One patch, where it is, and what it resolves: the advisories that say so, and the risks it names itself."""
    resolved = {gap.advisory.id: gap.advisory.summary for gap in closed if held in gap.closed_by}
    for fix in held.patch.manifest.fixes:
        if fix.advisory:
            resolved.setdefault(fix.advisory, f"{fix.risk}: {fix.metric}")
    issues = [{"type": "security", "id": name, "description": text} for name, text in resolved.items()]
    url = f"pkg:generic/{held.entry.name}@{held.entry.version}#{held.entry.digest}"
    return {"type": "unofficial", "diff": {"url": url}, **({"resolves": issues} if issues else {})}


def _vulnerabilities(audit: Audit) -> list[Json]:
    found = []
    for gap in audit.gaps:
        ref = _patched_ref(gap.deployment) if gap.deployment.active else _base_ref(gap.deployment)
        found.append(_vulnerability(gap.advisory, ref, _of_gap(gap), gap.remedy))
    for defect in audit.defects:
        found.append(_vulnerability(defect.advisory, _patch_ref(defect.held), _of_defect(defect), defect.remedy))
    seen: dict[str, int] = {}
    for one in found:  # two registries can carry another advisory under one id
        number = seen[one["bom-ref"]] = seen.get(one["bom-ref"], 0) + 1
        one["bom-ref"] += f"#{number}" if number > 1 else ""
    return found


def _vulnerability(advisory: Advisory, ref: str, analysis: Json, remedy: str) -> Json:
    found: Json = {
        "bom-ref": f"{advisory.id}@{ref}",
        "id": advisory.id,
        "source": {"name": advisory.vendor},
        "description": advisory.summary,
        "recommendation": remedy,
        "published": advisory.published,
        "updated": advisory.modified,
        "analysis": analysis,
        "affects": [{"ref": ref}],
    }
    if advisory.details:
        found["detail"] = advisory.details
    if advisory.references:
        found["advisories"] = [{"title": one.type, "url": one.url} for one in advisory.references]
    return found


def _of_gap(gap: OpenGap) -> Json:
    if gap.status == "closed":
        return {"state": "resolved_with_pedigree", "response": ["update"], "detail": gap.remedy}
    return {"state": "exploitable", "response": ["update" if gap.fixable else "can_not_fix"], "detail": gap.remedy}


def _of_defect(defect: KnownDefect) -> Json:
    if not defect.active:
        return {"state": "not_affected", "justification": "code_not_reachable", "detail": defect.remedy}
    responses = [*(["update"] if defect.fixed else []), "rollback"]
    return {"state": "exploitable", "response": responses, "detail": defect.remedy}


def _file_sha256(name: str, fingerprint: FingerprintSection) -> str:
    """The sha256 of the model's file, where the catalogue knows the very file that was loaded."""
    for entry in CATALOGUE:
        if entry.name == name and fingerprint.quantisation.endswith(f":{entry.sha256[:16]}"):
            return entry.sha256
    return ""


def _base_ref(deployment: Deployment) -> str:
    base = deployment.base
    return f"base:{base.name}:{digest_json(base.fingerprint.model_dump() if base.fingerprint else None)[:16]}"


def _patch_ref(held: Held) -> str:
    return f"patch:{held.entry.digest}"


def _patched_ref(deployment: Deployment) -> str:
    digests = [held.entry.digest for held in deployment.active]
    return f"patched:{digest_json([_base_ref(deployment), *digests])}"


def _hash(sha256: str) -> Json:
    return {"alg": "SHA-256", "content": sha256}


def _property(name: str, value: object) -> Json:
    return {"name": f"llmpatch:{name}", "value": str(value)}
