"""The doctor: finds and explains whatever is inconsistent in a store, and repairs what is safe to repair.

    for finding in examine(store): print(finding.code, finding.message, finding.advice)
    repair(store)      # what it did; what is left needs a person

Safe is: pick the last whole generation, delete what no generation names, make files read-only again, forget a missing
patch that is not active. Never: choose another active patch, trust a damaged one, drop a revocation.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from llmpatch.artifact import release_time
from llmpatch.errors import IntegrityError, LlmpatchError
from llmpatch.store.collecting import unnamed
from llmpatch.store.composed import known_here
from llmpatch.store.contents import kept_bytes, read_stored, title
from llmpatch.store.disk import disk_errors, locked, make_folder, remove, replace_file
from llmpatch.store.generations import (
    STORE_FILE,
    Draft,
    Head,
    Store,
    ancestors,
    check_store_file,
    commit,
    load,
    numbers,
    read_generation,
    render_store_file,
)
from llmpatch.store.state import FIRST, NO_PARENT, Installed, State, changed

_KNOWN = {STORE_FILE, "lock", "current", "patches", "generations", "verdicts", "compositions", "trust.json"}


@dataclass(frozen=True)
class Finding:
    """One inconsistency.

    Attributes:
        code: What kind, for scripts.
        message: What and where.
        advice: What to do.
        repairable: Whether the doctor may do it.
    """

    code: str
    message: str
    advice: str
    repairable: bool


def examine(store: Store) -> list[Finding]:
    """Everything that is wrong with a store; empty for a whole one. Changes nothing."""
    if not os.path.lexists(store.root):
        return []
    if not store.root.is_dir():
        return [Finding("layout", f"{store.root} is no folder", "set LLMPATCH_STORE, or move it away", False)]
    found = list(_layout(store))
    head = _head(store)
    if head is None:
        advice = "--repair starts an empty record and takes up the whole patches; revocations are lost, so audit again"
        return [*found, Finding("no-generation", "no generation is whole", advice, True)]
    advice = "--repair goes on from there"
    found += [Finding("current", text, advice, True) for text in head.damage]
    found += _chain(store, head)
    for entry in head.state.installed:
        found += _patch(store, entry, head.state)
    for path in unnamed(store, head.state):
        found.append(Finding("leftover", f"{path} belongs to nothing", "--repair or `llmpatch gc` deletes it", True))
    return [*found, *_verdicts(store, head), *_records(store)]


def repair(store: Store) -> list[Finding]:
    """Repair what is safe.

    Returns:
        What is still wrong.

    Raises:
        LlmpatchError: the disk refuses, or another process holds the lock.
    """
    with disk_errors(store.root):
        make_folder(store.root)
        with locked(store.root / "lock"):
            _repair_layout(store)
    _repair_record(store)
    with disk_errors(store.root), locked(store.root / "lock"):
        head = load(store)
        for path in unnamed(store, head.state):
            remove(path)
        for number in _uncommitted(store, head):
            remove(store.generation(number))
        for entry in head.state.installed:
            _make_read_only(store, entry)
    return examine(store)


def _records(store: Store) -> Iterator[Finding]:
    """What was measured of patches together: while it cannot be read, nothing is activated."""
    try:
        known_here(store)
    except LlmpatchError as error:
        yield Finding("composition", error.message, error.hint or "delete it, and measure again", False)


def _head(store: Store) -> Head | None:
    try:
        return load(store)
    except IntegrityError:
        return None


def _layout(store: Store) -> Iterator[Finding]:
    if not (store.root / STORE_FILE).exists():
        yield Finding("layout", f"{store.root / STORE_FILE} is missing", "--repair writes it", True)
    try:
        check_store_file(store)
    except LlmpatchError as error:
        yield Finding("layout", error.message, "use the llmpatch that made the store", False)
    for path in sorted(store.root.iterdir()):
        if path.name not in _KNOWN and not path.name.startswith("."):
            yield Finding("foreign", f"{path} is no part of a store", "move it out", False)


def _chain(store: Store, head: Head) -> Iterator[Finding]:
    past = list(ancestors(store, head))
    if (last := past[-1]).number:
        message = f"the history ends at generation {last.number}: its parent {last.parent} is missing or was changed"
        yield Finding("history", message, "what is active is not affected; rolling back further is not possible", False)
    for number in _uncommitted(store, head):
        message = f"{store.generation(number)} was never committed: its writer was interrupted"
        yield Finding("uncommitted", message, "--repair deletes it", True)


def _uncommitted(store: Store, head: Head) -> list[int]:
    """Generations after the head's, and torn ones before it, that no whole history holds."""
    committed = {generation.number for generation in ancestors(store, head)}
    found = []
    for number in numbers(store):
        if number in committed:
            continue
        torn = True
        with contextlib.suppress(IntegrityError):
            torn = read_generation(store, number)[0].parent in committed
        if torn and number > min(committed):
            found.append(number)
    return found


def _patch(store: Store, entry: Installed, state: State) -> Iterator[Finding]:
    active = entry.digest in state.active_digests
    try:
        read_stored(store, entry.digest)
    except LlmpatchError as error:
        there = store.folder(entry.digest).exists()
        word = "damaged" if there else "missing"
        advice = f"install {title(entry)} again" + (", or roll back" if active else "; --repair forgets it")
        yield Finding(f"patch-{word}", f"{title(entry)} is {word}: {error.message}", advice, not active)
        return
    if any(path.stat().st_mode & 0o222 for path in (store.folder(entry.digest), *store.folder(entry.digest).iterdir())):
        yield Finding("writable", f"{store.folder(entry.digest)} is not read-only", "--repair makes it so", True)


def _verdicts(store: Store, head: Head) -> Iterator[Finding]:
    for group in head.state.active:
        for part, wanted in (("verdict", group.gate.verdict), ("attestation", group.gate.attestation)):
            if wanted is None:
                continue
            try:
                kept_bytes(store, wanted)
            except LlmpatchError:
                path = store.verdicts / f"{wanted}.json"
                message = f"the {part} of what is active on {group.base} is missing or was changed: {path}"
                yield Finding(part, message, "run the gate again: llmpatch activate NAME --base BASE", False)


def _repair_layout(store: Store) -> None:
    path = store.root / STORE_FILE
    if not path.exists():
        replace_file(path, render_store_file())
    for folder in (store.patches, store.generations, store.verdicts):
        make_folder(folder)


def _repair_record(store: Store) -> None:
    """Go on from the last whole generation, without patches that are gone and not active."""

    def change(head: Head) -> Draft | None:
        state = FIRST.state if head.sha256 == NO_PARENT and head.damage else head.state
        if head.damage:
            state = changed(state, installed=(*state.installed, *_adopted(store, state)))
        gone = [e for e in state.installed if e.digest not in state.active_digests and not _is_whole(store, e.digest)]
        kept = tuple(entry for entry in state.installed if entry not in gone)
        if not head.damage and not gone:
            return None
        names = f", forget {', '.join(title(entry) for entry in gone)}" if gone else ""
        why = f"go on after damage{names}" if head.damage else f"repair{names}"
        return Draft("repair", why, changed(state, installed=kept))

    commit(store, change, repair=True)


def _adopted(store: Store, state: State) -> list[Installed]:
    """Whole patches whose record is lost. Not active, and without a signer: nobody remembers who vouched."""
    known = {entry.digest for entry in state.installed}
    found = {(entry.name, entry.version): entry for entry in state.installed}
    for path in sorted(store.patches.glob("sha256-*")):
        digest = path.name.removeprefix("sha256-")
        with contextlib.suppress(LlmpatchError):
            manifest = read_stored(store, digest).manifest
            made = Installed(
                digest=digest, name=manifest.name, version=manifest.version, base=manifest.base.name,
                status="revoked" if digest in state.revoked else "stored", source="found by the doctor",
                installed=release_time(),
            )  # fmt: skip
            found.setdefault((made.name, made.version), made)
    return [entry for entry in found.values() if entry.digest not in known]


def _is_whole(store: Store, digest: str) -> bool:
    try:
        read_stored(store, digest)
    except LlmpatchError:
        return False
    return True


def _make_read_only(store: Store, entry: Installed) -> None:
    folder = store.folder(entry.digest)
    if folder.is_dir() and not folder.is_symlink():
        for path in (*folder.iterdir(), folder):
            if not path.is_symlink() and path.stat().st_mode & 0o222:
                os.chmod(path, path.stat().st_mode & 0o555)  # noqa: PTH101
