"""Go back: roll back to what was active before, and revoke what must never be active again.

    rollback(store)                  # undoes the last change of what is active; again, the one before
    rollback(store, to=7)
    revoke(store, digest, "x_ACME-2026-0002: raises over-refusal")

Both are new generations: nothing is forgotten. Pins, high-water marks and revocations stay as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from llmpatch.errors import IntegrityError, LlmpatchError, TrustError, UsageError
from llmpatch.store.contents import check_members, read_stored, title
from llmpatch.store.generations import Draft, Head, Store, ancestors, commit
from llmpatch.store.installing import Done, because
from llmpatch.store.state import ActiveSet, Generation, State, changed, set_of, undone, with_active

if TYPE_CHECKING:
    from llmpatch.bases import Fingerprint


def rollback(store: Store, *, to: int | None = None, only: Fingerprint | None = None, reason: str = "") -> Done:
    """Make active what was active in an earlier generation.

    Args:
        store: Which.
        to: Number of the generation; by default what was active before the last change that still holds, the newest
            such that holds nothing revoked.
        only: Refuse to change what is active on any other base.
        reason: Recorded.

    Raises:
        TrustError: something in it is revoked.
        UsageError: there is no such generation, nothing to go back to, or a patch of it was collected; another base would
            change, with ``only``.
        IntegrityError: a patch of it, or the record, is damaged.
    """

    def change(head: Head) -> Draft | None:
        past = list(ancestors(store, head))
        target = _named(past, to) if to is not None else _before(past, partial(_revoked_in, store, head.state))
        if _same(target.state, head.state):
            return None
        if only and _without(head.state, only) != _without(target.state, only):
            raise UsageError(
                f"what was active in generation {target.number} differs on another base, too",
                hint="`llmpatch rollback` changes all bases of the store; or activate here what is wanted here",
            )
        _check_usable(store, head.state, target)
        state = with_active(head.state, target.state.active, "rolled back")
        why = f"back to what was active in generation {target.number}"
        return Draft("rollback", because(why, reason), state, restores=target.number)

    generation, new = commit(store, change)
    if not new:
        return Done(False, "that is what is active", generation)
    return Done(True, generation.reason, generation)


def _without(state: State, base: Fingerprint) -> set[tuple[object, ...]]:
    """What is active on all other bases."""
    mine = set_of(state.active, base)
    return _sets(group for group in state.active if group is not mine)


def revoke(store: Store, digest: str, reason: str) -> Done:
    """Put a digest on the list of those that are never active again. Bases that use it fall back.

    Each falls back to the last set that was active there, whole and free of revoked patches; without one to nothing. What was
    rolled back or deactivated does not come back: somebody had a reason.

    Raises:
        IntegrityError: the store is damaged.
    """

    def change(head: Head) -> Draft | None:
        if digest in head.state.revoked:
            return None
        revoked = {**head.state.revoked, digest: reason or "revoked"}
        past = list(ancestors(store, head))
        falls = [
            _fall(store, group, past, revoked) if _holds(store, group, digest) else group for group in head.state.active
        ]
        active = tuple(group for group in falls if group is not None)
        # Who goes with it was not deactivated by anybody: it may be fallen back to.
        marked = with_active(head.state, active, "superseded")
        entries = tuple(
            e.model_copy(update={"status": "revoked"}) if e.digest in revoked else e for e in marked.installed
        )
        state = changed(marked, installed=entries, revoked=revoked)
        entry = head.state.entry(digest)
        return Draft("revoke", because(f"revoke {title(entry) if entry else digest[:16]}", reason), state)

    generation, new = commit(store, change)
    if not new:
        return Done(False, f"{digest[:16]} is revoked already", generation)
    return Done(True, generation.reason, generation)


def whole_set(store: Store, state: State, group: ActiveSet) -> bool:
    """Whether every patch of a set is installed, whole and not revoked."""
    try:
        _check_group(store, state, group, "")
    except (TrustError, UsageError, IntegrityError):
        return False
    return True


def _before(past: Sequence[Generation], revoked: Callable[[Generation], bool]) -> Generation:
    """What was active before the last change that still holds: changes that were rolled back do not count again."""
    at = {generation.number: i for i, generation in enumerate(past)}
    start, now = 0, past[0].state
    while True:
        change = _last_change(past, start)
        while change is not None and (back := past[change].restores) is not None and back in at:
            change = _last_change(past, at[back])
        if change is None:
            raise UsageError("nothing was active before", hint="llmpatch deactivate, or llmpatch history")
        target = past[change + 1]
        if not _same(target.state, now) and not revoked(target):
            return target
        start = change + 1


def _last_change(past: Sequence[Generation], start: int) -> int | None:
    """Index of the newest generation from ``start`` on that changed what is active (``past`` is newest first)."""
    for i in range(start, len(past) - 1):
        if not _same(past[i].state, past[i + 1].state):
            return i
    return None


def _same(one: State, other: State) -> bool:
    return _sets(one.active) == _sets(other.active)


def _sets(groups: Iterable[ActiveSet]) -> set[tuple[object, ...]]:
    return {(group.fingerprint, group.patches) for group in groups}


def _revoked_in(store: Store, now: State, generation: Generation) -> bool:
    """Whether something revoked was active then, by itself or as a member of a composed patch."""
    for digest in generation.state.active_digests:
        if digest in now.revoked:
            return True
        try:
            check_members(now, read_stored(store, digest).manifest)
        except TrustError:
            return True
        except LlmpatchError:
            continue  # damaged or gone: that is said when it is to be used
    return False


def _named(past: Sequence[Generation], number: int) -> Generation:
    for generation in past:
        if generation.number == number:
            return generation
    raise UsageError(f"the history has no generation {number}", hint="llmpatch history")


def _check_usable(store: Store, state: State, target: Generation) -> None:
    for group in target.state.active:
        _check_group(store, state, group, f"generation {target.number}: ")


def _check_group(store: Store, state: State, group: ActiveSet, where: str) -> None:
    for digest in group.patches:
        if digest in state.revoked:
            raise TrustError(
                f"{where}{digest[:16]} is revoked: {state.revoked[digest]}", hint="choose another generation: --to N"
            )
        if state.entry(digest) is None:
            raise UsageError(f"{where}{digest[:16]} is no longer in the store", hint="install that patch again")
        check_members(state, read_stored(store, digest).manifest)


def _holds(store: Store, group: ActiveSet, digest: str) -> bool:
    """Whether a patch is in a set, by itself or as part of a composed one; what is damaged is not asked."""
    if digest in group.patches:
        return True
    for other in group.patches:
        with contextlib.suppress(LlmpatchError):
            members = read_stored(store, other).manifest.members or ()
            if any(member.digest == digest for member in members):
                return True
    return False


def _fall(store: Store, group: ActiveSet, past: Sequence[Generation], revoked: dict[str, str]) -> ActiveSet | None:
    now = changed(past[0].state, active=(), revoked=revoked)
    for generation in past:
        for old in generation.state.active:
            if old.fingerprint == group.fingerprint and not undone(now, old) and whole_set(store, now, old):
                return old
    return None
