"""Ask a registry: what is there, checked against the pinned root, never older than before; then fetch single files.

    found = look(load_registry("acme"))                    # one process at a time asks; the answer needs no lock
    offers(found)                                          # what can be installed
    path = download(found, "patches/acme/refusal-1.0.0.lpatch")
    data = read_target(found, "advisories/acme/x_ACME-2026-0001.json")

The workflow is TUF's: root after root from the pinned one, timestamp, snapshot, targets, then the role of each vendor, each
signed, none expired, none older than seen, each at most so large. A vendor's role counts for its own paths only.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig

from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, LlmpatchError, TrustError, UsageError
from llmpatch.files import read_bytes
from llmpatch.registry.configured import Registry
from llmpatch.registry.failures import explained
from llmpatch.registry.fetching import open_fetcher
from llmpatch.registry.keys import our_key
from llmpatch.registry.layout import (
    MAX_ROLE_BYTES,
    MAX_ROOT_BYTES,
    MAX_ROTATIONS,
    MAX_SNAPSHOT_BYTES,
    MAX_TIMESTAMP_BYTES,
    METADATA,
    PATCHES,
    Offer,
    read_offer,
    stored_path,
    target_limit,
    vendor_of,
    vendor_paths,
)
from llmpatch.registry.marks import Marks, check_marks
from llmpatch.registry.repository import parse
from llmpatch.store.disk import locked, make_folder, replace_file

if TYPE_CHECKING:
    from tuf.api.metadata import DelegatedRole, TargetFile

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)
MAX_STRANGE = 20  # of one vendor's: its flood hides nobody else's line
WAIT_SECONDS = 300.0  # for another process that asks: as long as a slow server may keep it
_LIMITS = UpdaterConfig(
    max_root_rotations=MAX_ROTATIONS,
    root_max_length=MAX_ROOT_BYTES,
    timestamp_max_length=MAX_TIMESTAMP_BYTES,
    snapshot_max_length=MAX_SNAPSHOT_BYTES,
    targets_max_length=MAX_ROLE_BYTES,
)


@dataclass(frozen=True)
class Found:
    """What a registry says, every signature checked.

    Attributes:
        registry: Which.
        vendors: All that may publish there.
        keys: Vendor -> ids of the keys that signed what it says there; a registry may name others without their doing.
        targets: Path -> size and sha256, of the vendors that were asked for.
        expires: When the first of what was read, the root and the roles of vendors among it, must have been signed anew.
        notes: What was left out, and why; to be shown.
        offline: Whether this is what the last visit left.
        snapshot: Its version: which roles and targets go together.
    """

    registry: Registry
    vendors: frozenset[str]
    targets: Mapping[str, TargetFile] = field(repr=False)
    expires: datetime
    notes: tuple[str, ...] = ()
    offline: bool = False
    snapshot: int = 0
    keys: Mapping[str, frozenset[str]] = field(default_factory=dict, repr=False)


def look(registry: Registry, *, vendors: Collection[str] | None = None, offline: bool = False) -> Found:
    """Bring what is known of a registry up to date.

    Args:
        registry: Which.
        vendors: Whose targets are wanted; all by default, and then one whose role is refused is left out with a note.
        offline: Use what the last visit left, if it has not expired.

    Raises:
        TrustError: not signed by whom the root says, expired, or older than seen before.
        IntegrityError: damaged or oversized.
        LlmpatchError: cannot be reached, too slow; another process held the cache too long.
    """
    where = f"registry {registry.name}"
    with explained(where):
        make_folder(registry.metadata)
        make_folder(registry.files)
        with locked(registry.folder / "lock", seconds=WAIT_SECONDS, hint="put LLMPATCH_HOME on a local disk"):
            fetcher = open_fetcher(registry.url, registry.metadata, offline=offline)
            updater = Updater(
                str(registry.metadata),
                registry.url + METADATA,
                fetcher=fetcher,
                config=_LIMITS,
                bootstrap=registry.root,
            )
            updater.refresh()
            root, timestamp = _cached(registry, "root", Root), _cached(registry, "timestamp", Timestamp)
            snapshot = _cached(registry, "snapshot", Snapshot)
            top = _cached(registry, "targets", Targets)
            roles, notes = _roles(top, snapshot)
            check_marks(registry.folder / "seen.json", _marks(root, timestamp, snapshot), where=where)
            expires = [root.expires, timestamp.expires, snapshot.expires, top.expires]
            targets: dict[str, TargetFile] = {}
            keys: dict[str, frozenset[str]] = {}
            for vendor in roles if vendors is None else sorted(set(vendors) & roles.keys()):
                try:
                    with explained(f"{where}, vendor {vendor}"):
                        updater.get_targetinfo(f"{PATCHES}/{vendor}/-")
                        said = _read(registry, vendor, Targets)
                        found, strange = _own(said.signed, roles[vendor])
                        keys[vendor] = _signed_by(top, vendor, said)
                except (TrustError, IntegrityError) as error:
                    if vendors is not None:
                        raise
                    notes.append(f"left out: {error.message}")
                    continue
                targets |= found
                expires.append(said.signed.expires)
                notes += strange
    return Found(
        registry,
        frozenset(roles),
        targets,
        min(expires),
        tuple(notes),
        offline,
        snapshot.version,
        keys,
    )


def offers(found: Found) -> tuple[list[Offer], list[str]]:
    """The patches in what was found, and what was left out and why."""
    made, notes = [], list(found.notes)
    for path, info in sorted(found.targets.items()):
        if path.startswith(f"{PATCHES}/"):
            try:
                made.append(read_offer(path, info.custom))
            except IntegrityError as error:
                notes.append(f"left out: {error.message}")
    return made, notes


def download(found: Found, path: str) -> Path:
    """Fetch a target, or take it from the cache, and say where it lies.

    Raises:
        UsageError: the registry has no such target.
        IntegrityError: it is not what was signed, or larger than a target may be.
        LlmpatchError: it cannot be fetched or kept; offline, and it was not fetched before.
    """
    info = found.targets.get(path)
    if info is None:
        raise UsageError(f"registry {found.registry.name} has no {shown(path, 200)}", hint="llmpatch search")
    digest, where = info.hashes.get("sha256"), f"registry {found.registry.name}: {shown(path, 200)}"
    if digest is None or info.length > target_limit(path):
        raise IntegrityError(f"{where}: no sha256, or {info.length:,} bytes, too many", hint="tell its vendor")
    stored = stored_path(path, digest)
    kept = found.registry.files / stored.rpartition("/")[2]
    with explained(where):
        if _whole(kept, digest, info.length):
            return kept
        fetcher = open_fetcher(found.registry.url, found.registry.metadata, offline=found.offline)
        data = fetcher.download_bytes(found.registry.url + quote(stored), info.length)
        info.verify_length_and_hashes(data)
        replace_file(kept, data, 0o444)
    return kept


def read_target(found: Found, path: str) -> bytes:
    """The bytes of a target (errors as in :func:`download`)."""
    kept = download(found, path)
    data = read_bytes(kept, limit=target_limit(path))
    if hashlib.sha256(data).hexdigest() != found.targets[path].hashes["sha256"]:
        raise IntegrityError(f"{kept} was changed while it was read", hint="try again")
    return data


def _read(registry: Registry, role: str, kind: type[T]) -> Metadata[T]:
    """What TUF has just checked and left in its cache, which we hold the lock of."""
    path = registry.metadata / f"{quote(role, '')}.json"
    return parse(read_bytes(path, limit=MAX_ROLE_BYTES), kind, where=str(path))


def _cached(registry: Registry, role: str, kind: type[T]) -> T:
    """:func:`_read`, without its signatures."""
    return _read(registry, role, kind).signed


def _roles(top: Targets, snapshot: Snapshot) -> tuple[dict[str, DelegatedRole], list[str]]:
    """The vendors that have published something, each with nothing but its own paths."""
    delegated = top.delegations.roles if top.delegations is not None else None
    found, notes = {}, []
    for name, role in (delegated or {}).items():
        if not role.paths or not set(role.paths) <= set(vendor_paths(name)):
            notes.append(f"left out: the role {shown(name)}, which is not a vendor's")
        elif f"{name}.json" in snapshot.meta:
            found[name] = role
    return found, notes


def _signed_by(top: Targets, vendor: str, role: Metadata[Targets]) -> frozenset[str]:
    """The ids, as `llmpatch keys show` calls them, of the keys whose signatures a vendor's role bears."""
    signed = top.get_verification_result(vendor, role.signed_bytes, role.signatures).signed
    ids = set()
    for key in signed.values():
        with contextlib.suppress(IntegrityError):  # a kind that signs no patches is nobody's
            ids.add(our_key(key).id)
    return frozenset(ids)


def _own(signed: Targets, role: DelegatedRole) -> tuple[dict[str, TargetFile], list[str]]:
    """The targets that a vendor may publish; others it claims are named and left out."""
    found, notes = {}, []
    for path, info in signed.targets.items():
        try:
            own = vendor_of(path) == role.name and role.is_delegated_path(path)
        except UsageError:
            own = False
        if own:
            found[path] = info
        else:
            notes.append(f"left out: {shown(path, 120)}, which {role.name} may not publish")
    more = len(notes) - MAX_STRANGE
    return found, [*notes[:MAX_STRANGE], *([f"left out: {more:,} more of {role.name}"] if more > 0 else [])]


def _marks(root: Root, timestamp: Timestamp, snapshot: Snapshot) -> Marks:
    online = [*root.roles["timestamp"].keyids, *root.roles["snapshot"].keyids]
    return Marks(
        online=tuple(sorted(set(online))), root=root.version, timestamp=timestamp.version, snapshot=snapshot.version,
        roles={name.removesuffix(".json"): info.version for name, info in snapshot.meta.items()},
    )  # fmt: skip


def _whole(path: Path, digest: str, length: int) -> bool:
    try:
        return hashlib.sha256(read_bytes(path, limit=length)).hexdigest() == digest
    except LlmpatchError:
        return False
