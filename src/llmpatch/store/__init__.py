"""The store: patches on this machine, and which of them are active on which base.

    store = default_store()
    entry = install(store, Path("refusal.lpatch"), verify)
    activate(store, entry.digest, gate=gate)
    load_patch("acme/refusal"), load_active(store, base.fingerprint)
    rollback(store)

Patches lie under their digest, read-only. What can change is one document, a generation; each names its parent by sha256,
and one rename of ``current`` commits. Knows nothing about keys, registries, models and policies: it is given a ``verify``
and a ``gate``. docs/store.md explains it.
"""

from __future__ import annotations

from llmpatch.store.activating import activate, deactivate, plan_activation
from llmpatch.store.algebra import Facts, Plan, decide, facts_of
from llmpatch.store.collecting import Collected, collect
from llmpatch.store.contents import pick, read_stored
from llmpatch.store.doctoring import Finding, examine, repair
from llmpatch.store.generations import Head, Store, ancestors, load
from llmpatch.store.installing import Done, install, pin
from llmpatch.store.interfaces import Gate, Judged, Verified, Verify
from llmpatch.store.opening import Active, default_store, load_active, load_patch
from llmpatch.store.restoring import revoke, rollback
from llmpatch.store.state import ActiveSet, GateRecord, Generation, Installed, State
from llmpatch.store.upgrading import Step, is_newer, plan_upgrade, upgrade
from llmpatch.store.verifying import signed_by, unsigned

__all__ = [
    "Active",
    "ActiveSet",
    "Collected",
    "Done",
    "Facts",
    "Finding",
    "Gate",
    "GateRecord",
    "Generation",
    "Head",
    "Installed",
    "Judged",
    "Plan",
    "State",
    "Step",
    "Store",
    "Verified",
    "Verify",
    "activate",
    "ancestors",
    "collect",
    "deactivate",
    "decide",
    "default_store",
    "examine",
    "facts_of",
    "install",
    "is_newer",
    "load",
    "load_active",
    "load_patch",
    "pick",
    "pin",
    "plan_activation",
    "plan_upgrade",
    "read_stored",
    "repair",
    "revoke",
    "rollback",
    "signed_by",
    "unsigned",
    "upgrade",
]
