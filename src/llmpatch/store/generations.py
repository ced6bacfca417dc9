"""The chain of generations: read the current one, commit the next one, find the last good one after damage.

    store = Store(Path("store"))
    head = load(store)                         # head.generation.state
    commit(store, lambda head: Draft("pin", "because", new_state))

A generation is written under a number that nobody has (O_EXCL), then ``current`` is replaced in one rename: that is the
commit. What was written and never committed stays behind, harmless, until the doctor takes it away. Readers take no lock.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llmpatch.artifact.manifest import release_time
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.errors import IntegrityError, LlmpatchError
from llmpatch.files import read_bytes
from llmpatch.store.disk import disk_errors, locked, make_folder, replace_file, sync_folder, write_new
from llmpatch.store.state import (
    FIRST,
    MAX_GENERATION_BYTES,
    MAX_NUMBER,
    NO_PARENT,
    Action,
    Generation,
    State,
    changed,
    make_generation,
    parse_generation,
    raised,
    render_generation,
    with_active,
)

STORE_SCHEMA = "llmpatch/store/v1"
STORE_FILE = "store.json"
GRACE_SECONDS = 0.3
_REPAIR = "llmpatch doctor --repair"


@dataclass(frozen=True)
class Store:
    """Where a store lies. It comes into being with the first change to it."""

    root: Path

    @property
    def patches(self) -> Path:
        """Folder of patches, by digest."""
        return self.root / "patches"

    @property
    def generations(self) -> Path:
        """Folder of generations, by number."""
        return self.root / "generations"

    @property
    def verdicts(self) -> Path:
        """Folder of gate verdicts, by sha256."""
        return self.root / "verdicts"

    @property
    def compositions(self) -> Path:
        """Folder of what was measured of patches together, by sha256; it may not be there."""
        return self.root / "compositions"

    @property
    def current(self) -> Path:
        """The file that says which generation holds."""
        return self.root / "current"

    def generation(self, number: int) -> Path:
        """The file of a generation."""
        return self.generations / f"{number}.json"

    def folder(self, digest: str) -> Path:
        """The folder of a patch."""
        return self.patches / f"sha256-{digest}"


@dataclass(frozen=True)
class Head:
    """The generation that holds.

    Attributes:
        generation: What the store holds.
        sha256: Of its bytes; 64 zeros for the empty store.
        damage: What was wrong and which older generation was taken instead; empty for a whole store.
    """

    generation: Generation
    sha256: str
    damage: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """What the store holds."""
        return self.generation.state


@dataclass(frozen=True)
class Draft:
    """A change to commit: what, why, and everything after it."""

    action: Action
    reason: str
    state: State
    restores: int | None = None


def load(store: Store) -> Head:
    """The generation that holds; after damage, the last whole one, with what was wrong. Takes no lock.

    Raises:
        IntegrityError: damaged, and no generation is whole.
        LlmpatchError: the store cannot be read.
    """
    for _ in range(3):
        try:
            return _load_current(store)
        except IntegrityError as error:
            problem = error
    return _last_good(store, problem.message)


def ancestors(store: Store, head: Head) -> Iterator[Generation]:
    """The head's generation, its parent and so on to the first; stops where the chain is damaged."""
    generation = head.generation
    yield generation
    while generation.number:
        found = _parent(store, generation)
        if found is None:
            return
        generation = found
        yield generation


def commit(store: Store, change: Callable[[Head], Draft | None], *, repair: bool = False) -> tuple[Generation, bool]:
    """Change the store: all of it, or nothing.

    Args:
        store: Which.
        change: Called under the lock with what holds now; returns what shall hold, or ``None`` to leave it. What it
            writes must be harmless if nothing is committed. Called again if somebody else was faster.
        repair: Go on from the last good generation of a damaged store.

    Returns:
        The generation that holds afterwards, and whether it is a new one.

    Raises:
        IntegrityError: the store is damaged.
        LlmpatchError: the disk refuses, or another process holds the lock; whatever ``change`` raises.
    """
    with open_to_write(store):
        for _ in range(100):
            head = _load_to_change(store, repair)
            if head.damage and not repair:
                raise IntegrityError(f"the store {store.root} is damaged: {head.damage[0]}", hint=_REPAIR)
            draft = change(head)
            if draft is None:
                return head.generation, False
            if (made := _publish(store, head, draft)) is not None:
                return made, True
    raise LlmpatchError(f"other processes keep changing {store.root}", hint="try again")


@contextlib.contextmanager
def open_to_write(store: Store) -> Iterator[None]:
    """A store that is there, made if need be, and whose lock is held.

    Raises:
        LlmpatchError: the disk refuses, or another process holds the lock.
    """
    with disk_errors(store.root):
        make_folder(store.root)
        with locked(store.root / "lock"):
            _create(store)
            yield


def numbers(store: Store) -> list[int]:
    """Numbers of all generations on the disk, committed or not, ascending."""
    try:
        names = [path.stem for path in store.generations.iterdir() if path.suffix == ".json"]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LlmpatchError(
            f"cannot read the store {store.root}: {error.strerror}",
            hint="check its permissions, or LLMPATCH_STORE=/some/folder",
        ) from None
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal() and len(name) <= 13)


def read_generation(store: Store, number: int) -> tuple[Generation, str]:
    """A generation and the sha256 of its bytes.

    Raises:
        IntegrityError: missing or damaged.
    """
    if number == 0:
        return FIRST, NO_PARENT
    path = store.generation(number)
    try:
        data = read_bytes(path, limit=MAX_GENERATION_BYTES)
    except LlmpatchError as error:
        raise IntegrityError(error.message, hint=_REPAIR) from None
    found = parse_generation(data, where=str(path))
    if found.number != number:
        raise IntegrityError(f"{path} says that it is generation {found.number}", hint=_REPAIR)
    return found, hashlib.sha256(data).hexdigest()


def _load_current(store: Store) -> Head:
    pointer = _read_pointer(store)
    if pointer is None:
        if numbers(store):
            raise IntegrityError(f"{store.current} is missing", hint=_REPAIR)
        return Head(FIRST, NO_PARENT)
    number, wanted = pointer
    generation, digest = read_generation(store, number)
    if digest != wanted:
        raise IntegrityError(f"{store.generation(number)} is not the one that {store.current} names", hint=_REPAIR)
    return Head(generation, digest)


def _read_pointer(store: Store) -> tuple[int, str] | None:
    if not os.path.lexists(store.current):
        return None
    try:
        data = read_bytes(store.current, limit=4096)
    except LlmpatchError as error:
        raise IntegrityError(error.message, hint=_REPAIR) from None
    found = parse_object(data, where=str(store.current))
    number, digest = found.get("generation"), found.get("sha256")
    whole = set(found) == {"generation", "sha256"} and not isinstance(number, bool)
    if not (whole and isinstance(number, int) and isinstance(digest, str) and 0 <= number <= MAX_NUMBER):
        raise IntegrityError(f"{store.current}: {shown(str(found), 120)} names no generation", hint=_REPAIR)
    return number, digest


def _last_good(store: Store, problem: str) -> Head:
    """The highest whole generation whose parent is the one it names; revocations and marks of all whole ones hold."""
    whole: list[tuple[Generation, str]] = []
    for number in reversed(numbers(store)):
        with contextlib.suppress(IntegrityError):
            whole.append(read_generation(store, number))
    digests = {generation.number: digest for generation, digest in whole} | {0: NO_PARENT}
    for generation, digest in whole:
        if digests.get(generation.parent, generation.parent_sha256) == generation.parent_sha256:
            note = f"{problem}; generation {generation.number} is the last whole one"
            state = _strictest(generation.state, [other.state for other, _ in whole])
            return Head(generation.model_copy(update={"state": state}), digest, (note,))
    raise IntegrityError(f"{problem}, and no generation is whole", hint=f"{_REPAIR} starts an empty record")


def _strictest(state: State, others: list[State]) -> State:
    """Damage must not bring back what was revoked, nor lower a mark."""
    revoked = dict(state.revoked)
    marks = dict(state.high_water)
    for other in others:
        revoked |= other.revoked
        marks = raised(marks, [entry for entry in other.installed if entry.version == other.high_water.get(entry.name)])
    active = tuple(group for group in state.active if not set(group.patches) & revoked.keys())
    cleaned = changed(state, active=active, revoked=revoked, high_water=marks)
    return with_active(cleaned, active, "inactive")


def _load_to_change(store: Store, repair: bool) -> Head:
    try:
        return load(store)
    except IntegrityError as error:
        if not repair:
            raise
        return Head(FIRST, NO_PARENT, (error.message,))


def _create(store: Store) -> None:
    """The folders of a store, its version, and ``current`` for a store that has no generation yet."""
    for folder in (store.patches, store.generations, store.verdicts):
        make_folder(folder)
    if not (store.root / STORE_FILE).exists():
        replace_file(store.root / STORE_FILE, render_store_file())
    check_store_file(store)
    if not os.path.lexists(store.current) and not numbers(store):
        replace_file(store.current, _pointer(0, NO_PARENT))


def render_store_file() -> bytes:
    """The bytes of ``store.json``: which layout the store has."""
    return f'{{"schema": "{STORE_SCHEMA}"}}\n'.encode()


def check_store_file(store: Store) -> None:
    """Refuse a store of another layout, which a later llmpatch may have made.

    Raises:
        IntegrityError: ``store.json`` says something else.
    """
    path = store.root / STORE_FILE
    if path.exists() and read_bytes(path, limit=4096) != render_store_file():
        raise IntegrityError(
            f"{path} is not that of {STORE_SCHEMA}", hint="a later store needs a later llmpatch; else llmpatch doctor"
        )


def _pointer(number: int, digest: str) -> bytes:
    return f'{{"generation": {number}, "sha256": "{digest}"}}\n'.encode()


def _publish(store: Store, head: Head, draft: Draft) -> Generation | None:
    """Write a generation and make it current; ``None`` if the head has moved meanwhile."""
    number = _free_number(store, head)
    if number is None:
        return None
    generation = make_generation(
        {
            "number": number, "parent": head.generation.number, "parent_sha256": head.sha256, "time": release_time(),
            "actor": _actor(), "action": draft.action, "reason": shown(draft.reason or "-", 500), "state": draft.state,
            "restores": draft.restores,
        }
    )  # fmt: skip
    data = render_generation(generation)
    try:
        write_new(store.generation(number), data, 0o444)
    except FileExistsError:
        return None
    sync_folder(store.generations)
    if not head.damage and not _still(store, head):
        return None
    replace_file(store.current, _pointer(number, hashlib.sha256(data).hexdigest()))
    return generation


def _free_number(store: Store, head: Head) -> int | None:
    """The next number. One above the head's means a killed process, or a live one where locks do not work: wait for it."""
    taken = numbers(store)
    highest = taken[-1] if taken else 0
    if highest <= head.generation.number:
        return head.generation.number + 1
    with contextlib.suppress(FileNotFoundError):
        age = time.time() - store.generation(highest).stat().st_mtime
        if 0 <= age < GRACE_SECONDS:
            time.sleep(GRACE_SECONDS - age)
    return highest + 1 if head.damage or _still(store, head) else None


def _still(store: Store, head: Head) -> bool:
    try:
        return (_read_pointer(store) or (0, NO_PARENT)) == (head.generation.number, head.sha256)
    except IntegrityError:
        return False


def _parent(store: Store, generation: Generation) -> Generation | None:
    try:
        found, digest = read_generation(store, generation.parent)
    except IntegrityError:
        return None
    return found if digest == generation.parent_sha256 else None


def _actor() -> str:
    try:
        return shown(getpass.getuser(), 100) or "unknown"
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"
