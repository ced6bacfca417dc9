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

from llmpatch.store.activating import activate, activate_stack, check_one_base, deactivate, plan_activation
from llmpatch.store.algebra import Plan, check_measured, check_together, decide
from llmpatch.store.allowing import check_mark, distrusted
from llmpatch.store.collecting import Collected, collect
from llmpatch.store.composed import keep_record, known_here
from llmpatch.store.contents import check_revoked, pick, read_stored
from llmpatch.store.doctoring import Finding, examine, repair
from llmpatch.store.facts import Facts, Known, Lost, facts_of, known_of
from llmpatch.store.generations import Head, Store, ancestors, load
from llmpatch.store.installing import Done, install, pin
from llmpatch.store.interfaces import Gate, Judged, Verified, Verify
from llmpatch.store.locking import (
    Lock,
    check_lock_base,
    check_locked,
    locked_to,
    make_lock,
    parse_lock,
    render_lock,
    verify_stored,
)
from llmpatch.store.opening import Active, default_store, find_unambiguous, load_active, load_patch
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
    "Known",
    "Lock",
    "Lost",
    "Plan",
    "State",
    "Step",
    "Store",
    "Verified",
    "Verify",
    "activate",
    "activate_stack",
    "ancestors",
    "check_lock_base",
    "check_locked",
    "check_mark",
    "check_measured",
    "check_one_base",
    "check_revoked",
    "check_together",
    "collect",
    "deactivate",
    "decide",
    "default_store",
    "distrusted",
    "examine",
    "facts_of",
    "find_unambiguous",
    "install",
    "is_newer",
    "keep_record",
    "known_here",
    "known_of",
    "load",
    "load_active",
    "load_patch",
    "locked_to",
    "make_lock",
    "parse_lock",
    "pick",
    "pin",
    "plan_activation",
    "plan_upgrade",
    "read_stored",
    "render_lock",
    "repair",
    "revoke",
    "rollback",
    "signed_by",
    "unsigned",
    "upgrade",
    "verify_stored",
]
