"""Collect: take away patches that nothing needs any more, and what interrupted work left behind.

    found = collect(store, keep=3, dry_run=True)
    found.patches, found.leftovers

Kept: what is active, what was active in the last ``keep`` different sets (so that rollbacks work), what a pin names, and
what was never active and is not older than what was. The record of generations is never shortened.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from llmpatch.errors import UsageError
from llmpatch.store.contents import title
from llmpatch.store.disk import disk_errors, leftovers, locked, remove
from llmpatch.store.generations import Draft, Head, Store, ancestors, commit, load
from llmpatch.store.state import Installed, State, changed
from llmpatch.versions import parse_range, parse_version

KEEP = 3


@dataclass(frozen=True)
class Collected:
    """What was taken away, or would be.

    Attributes:
        patches: Installed patches.
        leftovers: Files and folders that no generation names.
        size: Bytes of both.
    """

    patches: tuple[Installed, ...]
    leftovers: tuple[Path, ...]
    size: int


def collect(store: Store, *, keep: int = KEEP, dry_run: bool = False, reason: str = "") -> Collected:
    """Forget patches that nothing needs, then delete their folders.

    Args:
        store: Which.
        keep: How many different active sets, the present one counted, stay ready to be rolled back to.
        dry_run: Only say what would go.
        reason: Recorded.

    Raises:
        UsageError: ``keep`` is below 1.
        IntegrityError: the store is damaged: nothing is deleted then.
    """
    if keep < 1:
        raise UsageError(f"cannot keep {keep} sets", hint="keep at least the active one")
    if dry_run or not store.root.is_dir():
        return _measure(store, needless(store, load(store), keep))
    gone: list[Installed] = []

    def change(head: Head) -> Draft | None:
        gone[:] = needless(store, head, keep)
        if not gone:
            return None
        entries = tuple(entry for entry in head.state.installed if entry not in gone)
        why = reason or f"collect {', '.join(title(entry) for entry in gone)}"
        return Draft("gc", why, changed(head.state, installed=entries))

    commit(store, change)
    with disk_errors(store.root), locked(store.root / "lock"):
        found = _measure(store, [])
        for path in found.leftovers:
            remove(path)
    ours = {store.folder(entry.digest) for entry in gone}
    return Collected(tuple(gone), tuple(path for path in found.leftovers if path not in ours), found.size)


def needless(store: Store, head: Head, keep: int = KEEP) -> list[Installed]:
    """Installed patches that nothing needs (see the module)."""
    needed = _recent(store, head, keep)
    return [e for e in head.state.installed if e.digest not in needed and not _wanted(e, head.state)]


def unnamed(store: Store, state: State) -> list[Path]:
    """What interrupted work left, and folders of patches that are not installed."""
    found = [
        path
        for folder in (store.root, store.patches, store.generations, store.verdicts, store.compositions)
        for path in leftovers(folder)
    ]
    known = {store.folder(entry.digest).name for entry in state.installed}
    if store.patches.is_dir():
        found += [p for p in store.patches.iterdir() if p.name not in known and p.name.startswith("sha256-")]
    return sorted(found)


def _recent(store: Store, head: Head, keep: int) -> set[str]:
    sets: list[frozenset[str]] = []
    for generation in ancestors(store, head):
        digests = frozenset(generation.state.active_digests)
        if digests not in sets:
            sets.append(digests)
        if len(sets) > keep:
            break
    return {digest for digests in sets[:keep] for digest in digests}


def _wanted(entry: Installed, state: State) -> bool:
    if entry.digest in state.revoked:
        return False
    version, pin = parse_version(entry.version), state.pins.get(entry.name)
    if pin is not None and parse_range(pin).holds(version, prereleases=True):
        return True
    mark = state.high_water.get(entry.name)
    return entry.status == "stored" and (mark is None or version > parse_version(mark))


def _measure(store: Store, gone: list[Installed]) -> Collected:
    paths = unnamed(store, load(store).state)
    folders = [store.folder(entry.digest) for entry in gone]
    return Collected(tuple(gone), tuple(paths), sum(_size(path) for path in {*paths, *folders}))


def _size(path: Path) -> int:
    if not os.path.lexists(path):  # somebody else took it away
        return 0
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(inner.lstat().st_size for inner in path.rglob("*") if inner.is_file())
