"""Do what advisories ask: revoke in the store what its own vendor revokes.

    done = apply_revocations(store, audit)

One generation each, with the advisory's id and summary as its reason, so that ``llmpatch history`` tells what took a patch
out. Never undone: a withdrawn advisory does not bring a patch back.
"""

from __future__ import annotations

from llmpatch.advisories.auditing import Audit
from llmpatch.store import Done, Store, revoke


def apply_revocations(store: Store, audit: Audit) -> list[Done]:
    """Revoke the installed patches that an audit found revoked; bases that use them fall back to their last good set.

    Args:
        store: Which.
        audit: Of that store.

    Returns:
        What was done, a generation each; empty if the store had revoked them all.

    Raises:
        IntegrityError: the store is damaged.
        LlmpatchError: it cannot be written; what was revoked before stays revoked.
    """
    wanted = {
        defect.held.entry.digest: f"{defect.advisory.id}: {defect.advisory.summary}"
        for defect in reversed(audit.defects)  # of several advisories the first one is the reason
        if defect.revokes and not defect.revoked
    }
    return [revoke(store, digest, reason[:400]) for digest, reason in wanted.items()]
