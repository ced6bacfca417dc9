"""The folder of a registry, as those see it who write it: read what is there and check it, write one thing at a time.

    with changing(folder) as state: ...                # under its lock, everything checked
    save(folder, "acme", metadata)                     # metadata/7.acme.json, whole or not there

Numbered files are only added; ``timestamp.json`` alone is replaced, last, and by that a change is visible. What was written
before that and not made visible does no harm, and the next change goes on from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from llmpatch.artifact.strict_json import parse_object
from llmpatch.errors import IntegrityError, UsageError
from llmpatch.files import read_bytes, write_bytes
from llmpatch.registry.layout import (
    DRAFTS,
    MAX_ROLE_BYTES,
    MAX_ROOT_BYTES,
    METADATA,
    ROOT,
    SNAPSHOT,
    TIMESTAMP,
    TOP,
)
from llmpatch.store.disk import disk_errors, locked, make_folder

S = TypeVar("S", Root, Targets, Snapshot, Timestamp)
_HINT = "restore the folder from a copy; nothing in it is changed by hand"


@dataclass(frozen=True)
class Repository:
    """What a registry's folder holds, checked.

    Attributes:
        folder: Where.
        roots: All roots, each signed by itself and by the one before.
        top: The newest top-level targets role, which names the vendors.
        vendors: Newest role of each vendor that has published. Each is signed as it is delegated now, or was made visible
            under a key that has been replaced since.
        snapshot: The one that is visible, or ``None`` before the first time; signed under one of ``roots``.
        timestamp: The one that holds, likewise.
    """

    folder: Path
    roots: tuple[Metadata[Root], ...]
    top: Metadata[Targets]
    vendors: dict[str, Metadata[Targets]]
    snapshot: Metadata[Snapshot] | None
    timestamp: Metadata[Timestamp] | None

    @property
    def root(self) -> Metadata[Root]:
        """The newest root."""
        return self.roots[-1]

    @property
    def delegated(self) -> dict[str, Any]:
        """The vendors' roles, by name."""
        found = self.top.signed.delegations
        return dict(found.roles or {}) if found is not None else {}

    def vouched(self, vendor: str) -> bool:
        """Whether a vendor's newest role is signed as it is delegated now."""
        return is_signed(self.top, vendor, self.vendors[vendor])


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Hold the lock of a registry's folder, and explain what the disk refuses."""
    with disk_errors(folder, what="registry"):
        make_folder(folder)
        with locked(folder / ".lock", hint="put the registry on a local disk"):
            yield


def open_repository(folder: Path) -> Repository:
    """Read a registry's folder.

    Raises:
        UsageError: there is none, or its first root still lacks signatures.
        IntegrityError: something in it is damaged or not signed as it should be.
    """
    roots = _roots(folder)
    if not roots:
        waiting = (folder / DRAFTS / f"{ROOT}.json").exists()
        hint = "llmpatch registry sign FOLDER --key KEY" if waiting else "llmpatch registry init FOLDER"
        raise UsageError(f"{folder} is not a registry{' yet: its root lacks signatures' if waiting else ''}", hint=hint)
    top = newest(folder, TOP, Targets, lambda found: is_signed(roots[-1], TOP, found))
    if top is None:
        raise IntegrityError(f"{folder}: no targets role is signed by the root's keys", hint=_HINT)
    timestamp, snapshot = _visible(folder, roots)
    state = Repository(folder, roots, top, {}, snapshot, timestamp)
    for vendor in state.delegated:

        def stands(found: Metadata[Targets], vendor: str = vendor) -> bool:
            return is_signed(top, vendor, found) or _committed(snapshot, vendor, found)

        role = newest(folder, vendor, Targets, stands)
        if role is not None:
            state.vendors[vendor] = role
    return state


def _visible(
    folder: Path, roots: tuple[Metadata[Root], ...]
) -> tuple[Metadata[Timestamp] | None, Metadata[Snapshot] | None]:
    """The timestamp that holds and its snapshot, each signed under one of the roots."""
    path = folder / METADATA / f"{TIMESTAMP}.json"
    if not path.exists():
        return None, None
    timestamp = load(path, Timestamp)
    beside = folder / METADATA / f"{timestamp.signed.snapshot_meta.version}.{SNAPSHOT}.json"
    snapshot = load(beside, Snapshot)
    for role, found, where in ((TIMESTAMP, timestamp, path), (SNAPSHOT, snapshot, beside)):
        if not any(is_signed(root, role, found) for root in roots):
            raise IntegrityError(f"{where} is not signed by the online key of this registry", hint=_HINT)
    return timestamp, snapshot


def _committed(snapshot: Metadata[Snapshot] | None, vendor: str, found: Metadata[Targets]) -> bool:
    """Whether a role is, to the byte, what the visible snapshot names."""
    listed = snapshot.signed.meta.get(f"{vendor}.json") if snapshot is not None else None
    return listed is not None and listed.hashes == {"sha256": hashlib.sha256(render(found)).hexdigest()}


def newest(folder: Path, role: str, kind: type[S], stands: Callable[[Metadata[S]], bool]) -> Metadata[S] | None:
    """The highest version of a role that ``stands``; ``None`` without any.

    Higher ones that do not were left by an interrupted change, by a key that was replaced since, or by a stranger: they were
    never visible, and the next change writes over them.
    """
    for number in sorted(_numbers(folder, role), reverse=True):
        found = load(folder / METADATA / f"{number}.{role}.json", kind)
        if found.signed.version == number and stands(found):
            return found
    return None


def earlier(folder: Path, role: str, kind: type[S], number: int) -> Iterator[Metadata[S]]:
    """The versions of a role before one, newest first; each was the newest in its time."""
    for before in sorted(_numbers(folder, role), reverse=True):
        if before < number:
            yield load(folder / METADATA / f"{before}.{role}.json", kind)


def load(path: Path, kind: type[S]) -> Metadata[S]:
    """Read one metadata file, unchecked.

    Raises:
        IntegrityError: not metadata of this kind.
    """
    return parse(read_bytes(path, limit=MAX_ROLE_BYTES), kind, where=str(path))


def parse(data: bytes, kind: type[S], *, where: str) -> Metadata[S]:
    """Read metadata out of bytes (errors as in :func:`load`)."""
    parse_object(data, where=where)
    try:
        found = cast("Metadata[S]", Metadata.from_bytes(data))
    except (DeserializationError, ValueError, KeyError, TypeError, AttributeError):
        raise IntegrityError(f"{where} is not TUF metadata", hint=_HINT) from None
    if not isinstance(found.signed, kind):
        raise IntegrityError(f"{where} is {found.signed.type}, not {kind.type}", hint=_HINT)
    return found


def parse_root(data: bytes, *, where: str) -> Metadata[Root]:
    """Read a root to trust: signed by enough of its own keys.

    Raises:
        UsageError: it is none.
    """
    try:
        if len(data) > MAX_ROOT_BYTES:
            raise IntegrityError(f"{where} is larger than {MAX_ROOT_BYTES:,} bytes", hint="")
        root = parse(data, Root, where=where)
    except IntegrityError as error:
        raise UsageError(error.message, hint="give a file N.root.json of the registry") from None
    if not is_signed(root, ROOT, root):
        raise UsageError(
            f"{where} is not signed by enough of its own keys", hint="ask the registry's owner for the root"
        )
    return root


def is_signed(delegator: Metadata[Root] | Metadata[Targets], role: str, metadata: Metadata[Any]) -> bool:
    """Whether enough of a role's keys signed."""
    try:
        delegator.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError):
        return False
    return True


def render(metadata: Metadata[Any]) -> bytes:
    """The bytes of a metadata file."""
    return metadata.to_bytes(JSONSerializer(compact=False)) + b"\n"


def save(folder: Path, role: str, metadata: Metadata[Any]) -> None:
    """Write metadata under its number; the timestamp under its name alone.

    Raises:
        LlmpatchError: the disk refuses; nothing half is left.
    """
    name = f"{role}.json" if role == TIMESTAMP else f"{metadata.signed.version}.{role}.json"
    write_bytes(folder / METADATA / name, render(metadata))


def _roots(folder: Path) -> tuple[Metadata[Root], ...]:
    """All roots, after a check of each one against the one before it."""
    found_all: list[Metadata[Root]] = []
    for number in sorted(_numbers(folder, ROOT)):
        last = found_all[-1] if found_all else None
        path = folder / METADATA / f"{number}.{ROOT}.json"
        found = load(path, Root)
        follows = last is None or (is_signed(last, ROOT, found) and found.signed.version == last.signed.version + 1)
        if not follows or not is_signed(found, ROOT, found) or found.signed.version != number:
            raise IntegrityError(f"{path} does not follow from the root before it", hint=_HINT)
        found_all.append(found)
    return tuple(found_all)


def _numbers(folder: Path, role: str) -> list[int]:
    form = re.compile(rf"([1-9][0-9]{{0,8}})\.{re.escape(role)}\.json")
    try:
        return [int(found[1]) for path in (folder / METADATA).iterdir() if (found := form.fullmatch(path.name))]
    except FileNotFoundError:
        return []


def highest(folder: Path, role: str) -> int:
    """The highest number that a file of a role has; 0 without any."""
    return max(_numbers(folder, role), default=0)
