"""Open what is installed: one patch by name, or all that is active on a base.

    patch = load_patch("llmpatch/refusal")              # a path, an installed name, a name under ./patches
    active = load_active(store, base.fingerprint)       # active.patches, active.generation, active.notes

Every byte is hashed again at each load.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmpatch.artifact import Patch, find_patch
from llmpatch.artifact import load_patch as load_from_path
from llmpatch.catalogue import store_folder
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from llmpatch.store.contents import check_members, pick, read_stored
from llmpatch.store.generations import Head, Store, ancestors, load
from llmpatch.store.state import ActiveSet, set_of, undone
from llmpatch.versions import is_request

if TYPE_CHECKING:
    from llmpatch.bases import Fingerprint

OnFailure = Literal["refuse", "serve_unpatched"]


@dataclass(frozen=True)
class Active:
    """What goes before everything that a base reads.

    Attributes:
        patches: In order; empty for an unpatched base.
        digests: Of those patches.
        generation: Number of the generation it comes from.
        notes: What was wrong and what was done about it; to be shown and logged.
    """

    patches: tuple[Patch, ...]
    digests: tuple[str, ...]
    generation: int
    notes: tuple[str, ...] = ()


def default_store() -> Store:
    """The store in :func:`llmpatch.catalogue.store_folder`."""
    return Store(store_folder())


def load_patch(path_or_name: str | Path, *, store: Store | None = None) -> Patch:
    """Read a patch: what lies at a path, or is installed under a name, or lies under a name in ``./patches``.

    Args:
        path_or_name: A folder or file, ``vendor/slug`` or ``vendor/slug@RANGE``. A name alone means the version that is
            active, else the highest installed one.
        store: By default :func:`default_store`.

    Raises:
        UsageError: there is no such path or name.
        TrustError: only revoked versions are installed, or it holds the rows of a revoked patch.
        IntegrityError: the patch is damaged, foreign or oversized.
    """
    text = str(path_or_name)
    if isinstance(path_or_name, Path) or not is_request(text) or os.path.lexists(Path(text).expanduser()):
        return load_from_path(path_or_name)
    store = store or default_store()
    state = load(store).state
    name = text.partition("@")[0]
    if any(entry.name == name for entry in state.installed):
        try:
            found = read_stored(store, pick(state, text).digest)
        except IntegrityError:  # unless it was collected between the two reads, this says the same again
            found = read_stored(store, pick(load(store).state, text).digest)
        check_members(state, found.manifest)
        return found
    if text == name:
        return load_from_path(text)
    raise UsageError(f"{name} is not installed", hint="llmpatch list; llmpatch install PATH")


def find_unambiguous(name: str, *, store: Store | None = None) -> Path:
    """Where a patch lies that is about to be verified, signed or packed, so that it is the one that other commands would use.

    Args:
        name: ``vendor/slug`` below ``./patches``.
        store: By default :func:`default_store`.

    Raises:
        UsageError: there is none; or the name is one of an installed patch, too, which is another one.
    """
    path, state = find_patch(name), load(store or default_store()).state
    if any(entry.name == name for entry in state.installed):
        hint = f"say which one is meant: {path}"
        try:
            used = pick(state, name)
        except LlmpatchError as error:
            raise UsageError(f"{name} is a name of the store, too: {error.message}", hint=hint) from None
        if load_from_path(path).digest != used.digest:
            raise UsageError(f"{name} is installed in version {used.version}, and {path} is another patch", hint=hint)
    return path


def load_active(store: Store, base: Fingerprint, *, on_failure: OnFailure = "refuse") -> Active:
    """All that is active on a base, every byte checked.

    A damaged patch or record is not used: the newest earlier set of this base that is whole and not revoked takes its
    place, and a note says so.

    Args:
        store: Which.
        base: Fingerprint of the loaded base.
        on_failure: What to do if nothing is whole: ``refuse`` raises, ``serve_unpatched`` gives no patches and a note.

    Raises:
        IntegrityError: nothing is whole, and ``on_failure`` is ``refuse``.
    """
    try:
        for _ in range(3):
            head = load(store)
            found = _first_whole(store, head, base)
            if not found.notes or load(store).sha256 == head.sha256:
                break
        return found
    except IntegrityError as error:
        if on_failure == "refuse":
            raise IntegrityError(error.message, hint=f"{error.hint}; on purpose only: serve unpatched") from None
        return Active((), (), 0, (f"unpatched: {error.message}",))


def _first_whole(store: Store, head: Head, base: Fingerprint) -> Active:
    """The head's set for a base, or the newest earlier one that is whole."""
    if set_of(head.state.active, base) is None:
        if head.damage:  # the lost record may have been what made a patch active
            raise IntegrityError(f"nobody knows what is active: {head.damage[0]}", hint="llmpatch doctor --repair")
        return Active((), (), head.generation.number)
    problem = ""
    for number, group in _candidates(store, head, base):
        if set(group.patches) & head.state.revoked.keys() or undone(head.state, group):
            continue
        try:
            patches = tuple(read_stored(store, digest) for digest in group.patches)
            for patch in patches:
                check_members(head.state, patch.manifest)
        except LlmpatchError as error:
            problem = problem or error.message
            continue
        instead = (f"{problem}; used instead: what was active in generation {number}",) if problem else ()
        return Active(patches, group.patches, number, (*head.damage, *instead))
    raise IntegrityError(f"no set of patches for this base is whole: {problem}", hint="llmpatch doctor")


def _candidates(store: Store, head: Head, base: Fingerprint) -> Iterator[tuple[int, ActiveSet]]:
    for generation in ancestors(store, head):
        group = set_of(generation.state.active, base)
        if group is not None:
            yield generation.number, group
