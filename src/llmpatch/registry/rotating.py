"""Replace keys: of the root, of the online roles, of a vendor.

    rotate(folder, "online", add=[new], remove=[old], keys=[root_a, root_b, new_private])

A new root is signed by enough keys of the old one and of itself, so clients follow it from whichever root they know. New
online keys make clients forget the versions that the old ones claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata

from llmpatch.errors import UsageError
from llmpatch.registry.keys import tuf_key
from llmpatch.registry.layout import ONLINE, ROOT, SNAPSHOT, TIMESTAMP, TOP
from llmpatch.registry.repository import Repository, changing, open_repository
from llmpatch.registry.settling import Outcome, PrivateKeys, able, next_version, settle

if TYPE_CHECKING:
    from llmpatch.signing import PublicKey


def rotate(
    folder: Path,
    role: str,
    *,
    add: Sequence[PublicKey] = (),
    remove: Sequence[str] = (),
    threshold: int | None = None,
    keys: PrivateKeys,
    now: datetime | None = None,
) -> Outcome:
    """Add keys to a role and take others away.

    Args:
        folder: The registry.
        role: ``root``, ``online``, or a vendor.
        add: New public keys.
        remove: Ids of keys that count no longer.
        threshold: For ``root``: how many keys must sign from now on.
        keys: Private keys: enough root keys; for a root or online change the (new) online key too; for a vendor its new
            key if it is at hand, else the vendor signs anew by ``publish`` without patches.
        now: By default the clock.

    Raises:
        UsageError: no such role or key, a role without keys, a threshold that cannot be met.
        TrustError: none of ``keys`` is a root key.
    """
    now = now or datetime.now(UTC)
    if not add and not remove and threshold is None:
        raise UsageError("nothing to change", hint="--add NEW.pub.pem, --remove OLD.pub.pem")
    if threshold is not None and role != ROOT:
        raise UsageError("only the root has a threshold", hint="leave --threshold out")
    with changing(folder):
        state = open_repository(folder)
        made: dict[str, Metadata[Any]] = {}
        if role in (ROOT, ONLINE):
            root = made[ROOT] = next_version(state.root, now)
            for name in (ROOT, TOP) if role == ROOT else (SNAPSHOT, TIMESTAMP):
                _change(root.signed, root.signed.roles[name], name, add, remove)
                if role == ROOT:
                    root.signed.roles[name].threshold = threshold or state.root.signed.roles[ROOT].threshold
            _check(root.signed.roles)
            if role == ROOT:  # its keys sign the list of vendors, too
                made[TOP] = next_version(state.top, now)
        elif role in state.delegated:
            top = made[TOP] = next_version(state.top, now)
            _change(top.signed, top.signed.get_delegated_role(role), role, add, remove)
            _check({role: top.signed.get_delegated_role(role)})
            made |= _signed_anew(state, top, role, keys, now)
        else:
            raise UsageError(
                f"{role} is neither root, online nor a vendor of {folder}",
                hint=f"vendors: {', '.join(sorted(state.delegated)) or 'none'}",
            )
        return settle(folder, state, made, keys, now=now)


def _change(signed: Any, role: Any, name: str, add: Sequence[PublicKey], remove: Sequence[str]) -> None:
    for key in remove:
        if key not in role.keyids:
            raise UsageError(f"key {key[:16]} is not one of {name}", hint=f"its keys: {', '.join(role.keyids)}")
        signed.revoke_key(key, name)
    for new in add:
        signed.add_key(tuf_key(new), name)


def _check(roles: dict[str, Any]) -> None:
    for name, role in roles.items():
        if len(role.keyids) < role.threshold:
            raise UsageError(
                f"{name} would have {len(role.keyids)} keys, and {role.threshold} must sign",
                hint="--add a key, or a lower --threshold",
            )
    shared = set(roles[ROOT].keyids) & set(roles[TIMESTAMP].keyids) if ROOT in roles else set()
    if shared:
        raise UsageError("the online key would be a root key, too", hint="make a key of its own")


def _signed_anew(
    state: Repository, top: Metadata[Any], vendor: str, keys: PrivateKeys, now: datetime
) -> dict[str, Metadata[Any]]:
    """The vendor's role for its new key, if that and enough root keys are at hand and the old signature is void."""
    from dataclasses import replace

    after, before = replace(state, top=top), state.vendors.get(vendor)
    if before is None or after.vouched(vendor) or not (able(after, vendor, keys) and able(after, TOP, keys)):
        return {}
    return {vendor: next_version(before, now)}
