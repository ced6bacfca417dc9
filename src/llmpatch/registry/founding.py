"""Found a registry and keep it: who may do what in it, and that it is signed anew before it expires.

    create(folder, root_keys=[a, b], online_key=online, threshold=2, keys=[a_private, b_private, online_private])
    add_vendor(folder, "acme", [acme], keys=[a_private, b_private])
    refresh(folder, keys=[online_private])

Every function takes all private keys at hand and signs with those that count. What lacks signatures waits as a draft for
:func:`cosign`; what is signed becomes visible when the online key is among the keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, Targets

from llmpatch.errors import IntegrityError, TrustError, UsageError
from llmpatch.registry.drafts import check_seen, open_drafts
from llmpatch.registry.keys import tuf_key
from llmpatch.registry.layout import (
    DRAFTS,
    METADATA,
    OFFLINE_LIFE,
    ONLINE_LIFE,
    ROOT,
    SNAPSHOT,
    TIMESTAMP,
    TOP,
    check_vendor,
    vendor_paths,
)
from llmpatch.registry.repository import changing, open_repository
from llmpatch.registry.settling import Outcome, PrivateKeys, able, next_version, settle

if TYPE_CHECKING:
    from llmpatch.signing import PublicKey


def create(
    folder: Path,
    *,
    root_keys: Sequence[PublicKey],
    online_key: PublicKey,
    threshold: int = 1,
    keys: PrivateKeys,
    now: datetime | None = None,
) -> Outcome:
    """Make a registry.

    Args:
        folder: New or empty; what a web server serves.
        root_keys: Whose signatures decide who may do what. Kept offline.
        online_key: Signs every few days that this is the newest state. Can make nothing new appear.
        threshold: How many of the root keys must sign.
        keys: The private keys at hand.
        now: By default the clock.

    Raises:
        UsageError: there is a registry already; a threshold that cannot be met, or an online key that is a root key.
        LlmpatchError: the disk refuses.
    """
    now = now or datetime.now(UTC)
    ids = {key.id for key in root_keys}
    if not 1 <= threshold <= len(ids):
        raise UsageError(f"a threshold of {threshold} with {len(ids)} root keys", hint="1 to the number of root keys")
    if online_key.id in ids:
        raise UsageError(
            "the online key is a root key, too", hint="make a key of its own, which can do little if stolen"
        )
    with changing(folder):
        if (folder / METADATA).exists() or (folder / DRAFTS).exists():
            raise UsageError(f"{folder} is a registry already, or half of one", hint="choose a new folder")
        root = Root(version=1, expires=now + OFFLINE_LIFE, consistent_snapshot=True)
        for role in (ROOT, TOP):
            for key in root_keys:
                root.add_key(tuf_key(key), role)
            root.roles[role].threshold = threshold
        for role in (SNAPSHOT, TIMESTAMP):
            root.add_key(tuf_key(online_key), role)
        top = Targets(version=1, expires=now + OFFLINE_LIFE, delegations=Delegations({}, {}))
        return settle(folder, None, {ROOT: Metadata(root), TOP: Metadata(top)}, keys, now=now)


def add_vendor(
    folder: Path, vendor: str, vendor_keys: Sequence[PublicKey], *, keys: PrivateKeys, now: datetime | None = None
) -> Outcome:
    """Let a vendor publish ``patches/VENDOR/*`` and ``advisories/VENDOR/*``, signed by any one of its keys.

    Raises:
        UsageError: no registry, a name that cannot be one or is taken.
        TrustError: none of ``keys`` is a root key.
    """
    check_vendor(vendor)
    now = now or datetime.now(UTC)
    with changing(folder):
        state = open_repository(folder)
        if vendor in state.delegated:
            raise UsageError(f"{vendor} is a vendor already", hint="llmpatch registry rotate changes its keys")
        top = next_version(state.top, now)
        role = DelegatedRole(
            name=vendor, keyids=[], threshold=1, terminating=True, paths=vendor_paths(vendor), path_hash_prefixes=None
        )
        delegations = top.signed.delegations
        if delegations is None or delegations.roles is None:
            raise IntegrityError(f"{folder}: the targets role delegates in another way than ours", hint="")
        delegations.roles[vendor] = role
        for key in vendor_keys:
            top.signed.add_key(tuf_key(key), vendor)
        return settle(folder, state, {TOP: top}, keys, now=now)


def refresh(folder: Path, *, keys: PrivateKeys, life: timedelta = ONLINE_LIFE, now: datetime | None = None) -> Outcome:
    """Make visible what was published, and say anew that this is the newest state.

    Every role that ``keys`` may sign, and that has lived more than half of its life, is signed anew as well.

    Args:
        folder: The registry.
        keys: The online key, and any others.
        life: How long it holds without another refresh.
        now: By default the clock.

    Raises:
        TrustError: none of ``keys`` is the online key.
    """
    now = now or datetime.now(UTC)
    with changing(folder):
        state = open_repository(folder)
        roles: Mapping[str, Metadata[Any]] = {ROOT: state.root, TOP: state.top, **state.vendors}
        old = {role: found for role, found in roles.items() if found.signed.expires - now < OFFLINE_LIFE / 2}
        made = {role: next_version(found, now) for role, found in old.items() if able(state, role, keys)}
        outcome = settle(folder, state, made, keys, now=now, life=life)
    if not outcome.visible:
        raise TrustError(
            f"none of the keys is the online key of {folder}: nothing became visible",
            hint="--key ONLINE.pem; `llmpatch registry rotate FOLDER online` replaces a lost one",
        )
    return outcome


def cosign(folder: Path, *, keys: PrivateKeys, seen: str | None = None, now: datetime | None = None) -> Outcome:
    """Add signatures to what waits as a draft; what is complete goes into place.

    Args:
        folder: The registry.
        keys: The private keys at hand.
        seen: The digest of the draft that ``drafted`` showed; without it whatever waits is signed.
        now: By default the clock.

    Raises:
        UsageError: nothing waits, or it was overtaken by a newer change.
        TrustError: none of ``keys`` counts for it.
        IntegrityError: it is not the draft that was seen.
    """
    now = now or datetime.now(UTC)
    with changing(folder):
        old, made = open_drafts(folder)
        if seen is not None:
            check_seen(folder, old, made, seen)
        return settle(folder, old, made, keys, now=now, signing=True)
