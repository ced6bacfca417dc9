"""Advisories: known gaps of bases and known defects of patches, and what they mean for this machine.

    advisories = load_advisories(Path("advisories"))                       # VENDOR/x_VENDOR-2026-0001.json: OSV 1.7
    audit = make_audit(take_inventory(default_store()), advisories)
    audit.problems(), audit_sarif(audit), bill_of_materials(audit.inventory, audit)
    apply_revocations(default_store(), audit)

Knows the store and its patches; knows no registry: it is given files, from wherever they were fetched. docs/advisories.md
explains it.
"""

from __future__ import annotations

from llmpatch.advisories.auditing import Audit, KnownDefect, OpenGap, audit_json, make_audit
from llmpatch.advisories.authority import anybody, by_keys, distrusted
from llmpatch.advisories.cyclonedx import bill_of_materials
from llmpatch.advisories.drafting import draft_defect, draft_gap
from llmpatch.advisories.folder import load_advisories, load_advisory, read_advisory, usable_advisories
from llmpatch.advisories.inventory import Deployment, Held, Inventory, take_inventory
from llmpatch.advisories.record import MAX_ADVISORY_BYTES, Advisory, make_advisory, parse_advisory, render_advisory
from llmpatch.advisories.revoking import apply_revocations
from llmpatch.advisories.sarif import audit_sarif

__all__ = [
    "MAX_ADVISORY_BYTES",
    "Advisory",
    "Audit",
    "Deployment",
    "Held",
    "Inventory",
    "KnownDefect",
    "OpenGap",
    "anybody",
    "apply_revocations",
    "audit_json",
    "audit_sarif",
    "bill_of_materials",
    "by_keys",
    "distrusted",
    "draft_defect",
    "draft_gap",
    "load_advisories",
    "load_advisory",
    "make_advisory",
    "make_audit",
    "parse_advisory",
    "read_advisory",
    "render_advisory",
    "take_inventory",
    "usable_advisories",
]
