"""Sign what was made, put what is signed into place, and make it visible, in the one order that never shows half.

    settle(folder, state, {"acme": metadata}, keys, now=now)

Targets were written before; then come the roles of vendors, the top-level targets, the snapshot, a new root, and last the
timestamp, which is what clients ask for first and what makes the rest visible.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp

from llmpatch.errors import TrustError, UsageError
from llmpatch.files import write_bytes
from llmpatch.registry.keys import signers
from llmpatch.registry.layout import (
    DRAFTS,
    MAX_ROLE_BYTES,
    OFFLINE_LIFE,
    ONLINE_LIFE,
    ROOT,
    SNAPSHOT,
    TIMESTAMP,
    TOP,
    stored_path,
)
from llmpatch.registry.repository import Repository, highest, is_signed, render, save
from llmpatch.signing import PublicKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

PrivateKeys = Sequence["ec.EllipticCurvePrivateKey"]


@dataclass(frozen=True)
class Outcome:
    """What became of a change.

    Attributes:
        written: Roles that were put into place, with their versions: ``("acme 3",)``.
        waiting: Roles that wait for more, and for what.
        visible: Whether clients see it.
        expires: Until when, if it is visible.
        notes: What else should be known.
    """

    written: tuple[str, ...]
    waiting: tuple[str, ...] = ()
    visible: bool = False
    expires: datetime | None = None
    notes: tuple[str, ...] = ()


def next_version(metadata: Metadata[Any], now: datetime) -> Metadata[Any]:
    """An unsigned copy with the next number and a whole life ahead."""
    signed = copy.deepcopy(metadata.signed)  # TUF's own dictionaries share their lists
    signed.version += 1
    signed.expires = now + OFFLINE_LIFE
    return Metadata(signed)


def able(state: Repository, role: str, keys: PrivateKeys) -> bool:
    """Whether keys are enough to sign a role as it is delegated now."""
    ids = {PublicKey.of(key.public_key()).id for key in keys}
    wanted = state.delegated[role] if role in state.delegated else state.root.signed.roles[role]
    return len(ids & set(wanted.keyids)) >= wanted.threshold


def settle(
    folder: Path,
    old: Repository | None,
    made: Mapping[str, Metadata[Any]],
    keys: PrivateKeys,
    *,
    now: datetime,
    life: timedelta = ONLINE_LIFE,
    signing: bool = False,
) -> Outcome:
    """Sign ``made``, and put it into place if it has all signatures; make the registry visible if the online key is there.

    Args:
        folder: The registry.
        old: What it holds; ``None`` for a new one.
        made: New metadata by role: ``root``, ``targets``, vendors.
        keys: Private keys at hand.
        now: The time.
        life: How long the visible state holds.
        signing: Whether ``made`` are drafts that were there before.

    Raises:
        TrustError: none of the keys counts for what was made.
        UsageError: a draft of the same role waits, or this one was overtaken.
    """
    new = _after(folder, old, made)
    _check_drafts(folder, old, made, signing)
    added = _sign(old, new, made, keys)
    if made and not added:
        raise TrustError(
            f"none of the keys may sign {', '.join(sorted(made))} of {folder}", hint="--key KEY, once for each key"
        )
    online = _online(new.root, keys)
    waiting = _waiting(old, new, made, online=bool(online))
    if waiting:
        for role in (ROOT, TOP):
            if role in made:
                write_bytes(folder / DRAFTS / f"{role}.json", render(made[role]))
        return Outcome((), tuple(waiting))
    if online:
        _check_alive(new, now)
    for role in sorted(set(made) - {ROOT, TOP}):
        _save(folder, role, made[role])
    if TOP in made:
        _save(folder, TOP, made[TOP])
    written = tuple(f"{role} {metadata.signed.version}" for role, metadata in made.items())
    expires = now + life
    notes = _commit(new, online, expires, new_root=ROOT in made) if online else []
    # Clients refuse all of it once any of these is over, and of a vendor what its own role says.
    expires = min(expires, new.root.signed.expires, new.top.signed.expires)
    notes += [
        f"what {vendor} says holds until {role.signed.expires:%Y-%m-%d} only: its vendor must sign it anew"
        for vendor, role in sorted(new.vendors.items())
        if online and role.signed.expires < expires
    ]
    for role in (ROOT, TOP):
        if role in made:
            (folder / DRAFTS / f"{role}.json").unlink(missing_ok=True)
    return Outcome(written, (), bool(online), expires if online else None, tuple(notes))


def _check_alive(new: Repository, now: datetime) -> None:
    """No client would take what is made visible under a root, or top-level targets, that are over."""
    for name, role in (("root", new.root), ("targets", new.top)):
        if role.signed.expires <= now:
            raise TrustError(
                f"the {name} of {new.folder} was over on {role.signed.expires:%Y-%m-%d}: clients refuse all there is",
                hint="sign it anew with the offline keys, then refresh (docs/registry.md)",
            )


def _after(folder: Path, old: Repository | None, made: Mapping[str, Metadata[Any]]) -> Repository:
    """The registry as it will be."""
    if old is None:
        return Repository(folder, (made[ROOT],), made[TOP], {}, None, None)
    roots = (*old.roots, made[ROOT]) if ROOT in made else old.roots
    vendors = {**old.vendors, **{role: found for role, found in made.items() if role not in (ROOT, TOP)}}
    return replace(old, roots=roots, top=made.get(TOP, old.top), vendors=vendors)


def _check_drafts(folder: Path, old: Repository | None, made: Mapping[str, Metadata[Any]], signing: bool) -> None:
    for role in {ROOT, TOP} & made.keys():
        if not signing and (folder / DRAFTS / f"{role}.json").exists():
            raise UsageError(
                f"a draft of {role} waits for signatures in {folder / DRAFTS}",
                hint="`llmpatch registry sign` completes it; delete the folder to drop it",
            )
        before = 0
        if old is not None:
            before = old.root.signed.version if role == ROOT else old.top.signed.version
        if made[role].signed.version != before + 1:
            raise UsageError(f"the draft of {role} was overtaken", hint=f"delete {folder / DRAFTS} and do it again")


def _sign(old: Repository | None, new: Repository, made: Mapping[str, Metadata[Any]], keys: PrivateKeys) -> int:
    """Add the signatures that count, and say how many."""
    having, added = signers(keys), 0
    for role, metadata in made.items():
        wanted = set((new.delegated[role] if role in new.delegated else new.root.signed.roles[role]).keyids)
        if role == ROOT and old is not None:
            wanted |= set(old.root.signed.roles[ROOT].keyids)
        for key in sorted(wanted & having.keys()):
            metadata.sign(having[key], append=True)
            added += 1
    return added


def _waiting(old: Repository | None, new: Repository, made: Mapping[str, Metadata[Any]], *, online: bool) -> list[str]:
    """What still lacks signatures."""
    found = []
    for role, metadata in made.items():
        delegators: list[Metadata[Any]] = [new.top if role in new.delegated else new.root]
        if role == ROOT and old is not None:
            delegators.append(old.root)
        if not all(is_signed(delegator, role, metadata) for delegator in delegators):
            found.append(f"{role} {metadata.signed.version} needs more signatures")
    if not found and ROOT in made and not online:
        # A root replaces who may sign: without a timestamp by its online key clients would be refused until there is one.
        found.append("a new root is put into place only together with a signature by its online key")
    if not found and ROOT in made and TOP not in made and not is_signed(new.root, TOP, new.top):
        found.append("targets must be signed by the new root's keys")
    return found


def _online(root: Metadata[Root], keys: PrivateKeys) -> dict[str, Any]:
    """Signers of the online roles; empty if one of the two cannot be signed."""
    having, found = signers(keys), {}
    for role in (SNAPSHOT, TIMESTAMP):
        wanted = root.signed.roles[role]
        usable = [having[key] for key in wanted.keyids if key in having]
        if len(usable) < wanted.threshold:
            return {}
        found[role] = usable
    return found


def _commit(state: Repository, online: Mapping[str, Any], expires: datetime, *, new_root: bool) -> list[str]:
    """Write a snapshot and, last, the timestamp."""
    _check_targets(state)
    meta, notes = {f"{TOP}.json": _described(state.top)}, []
    before = state.snapshot.signed.meta if state.snapshot is not None else {}
    for vendor, found in state.vendors.items():
        meta[f"{vendor}.json"] = _described(found)
        if not state.vouched(vendor):
            seen = before.get(f"{vendor}.json")
            if seen is None:
                del meta[f"{vendor}.json"]
                notes.append(
                    f"what {vendor} published was never visible, and is not: let it publish again by its new key"
                )
                continue
            meta[f"{vendor}.json"] = seen
            notes.append(
                f"clients refuse {vendor} until it signs anew: llmpatch registry publish FOLDER --key ITS-NEW-KEY"
            )
    snapshot = Metadata(Snapshot(version=highest(state.folder, SNAPSHOT) + 1, expires=expires, meta=meta))
    number = state.timestamp.signed.version + 1 if state.timestamp is not None else 1
    timestamp = Metadata(Timestamp(version=number, expires=expires))
    for signer in online[SNAPSHOT]:
        snapshot.sign(signer, append=True)
    timestamp.signed.snapshot_meta = _described(snapshot)
    for signer in online[TIMESTAMP]:
        timestamp.sign(signer, append=True)
    _save(state.folder, SNAPSHOT, snapshot)
    if new_root:
        _save(state.folder, ROOT, state.root)
    save(state.folder, TIMESTAMP, timestamp)
    return notes


def _check_targets(state: Repository) -> None:
    """Every file that would be visible is there."""
    for role in state.vendors.values():
        for path, info in role.signed.targets.items():
            file = state.folder / stored_path(path, info.hashes.get("sha256", ""))
            if not file.is_file() or file.stat().st_size != info.length:
                raise UsageError(f"{file} is missing or has another size", hint="publish it again; nothing was changed")


def _described(metadata: Metadata[Any]) -> MetaFile:
    """Version, length and hash of metadata, as the role above it names them."""
    return MetaFile.from_data(metadata.signed.version, render(metadata), ["sha256"])


def _save(folder: Path, role: str, metadata: Metadata[Any]) -> None:
    if len(render(metadata)) > MAX_ROLE_BYTES:
        raise UsageError(f"the role {role} would be larger than {MAX_ROLE_BYTES:,} bytes", hint="withdraw old targets")
    save(folder, role, metadata)
