"""Upgrade: for every active patch, the highest installed version that its pin allows.

    steps = plan_upgrade(store, load(store).state)      # what would happen, and what would not and why
    upgrade(store, gate=gate)

What was rolled back or revoked is no candidate: going there again takes an explicit activation.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from llmpatch.errors import LlmpatchError
from llmpatch.store.activating import activate, plan_activation
from llmpatch.store.allowing import lost_key
from llmpatch.store.generations import Store, load
from llmpatch.store.interfaces import Gate
from llmpatch.store.state import Installed, State
from llmpatch.versions import parse_range, parse_version


@dataclass(frozen=True)
class Step:
    """One upgrade.

    Attributes:
        old: What is active.
        new: What would be.
        why: What would happen in words, or why it is refused.
        refused: Whether the algebra refuses it.
        done: Whether it was carried out.
        error: What stopped it, where it was tried.
    """

    old: Installed
    new: Installed
    why: str
    refused: bool = False
    done: bool = False
    error: LlmpatchError | None = None


def plan_upgrade(
    store: Store, state: State, names: Sequence[str] = (), *, revoked_keys: Collection[str] = ()
) -> list[Step]:
    """What an upgrade would do.

    Args:
        store: Which.
        state: What it holds.
        names: Only these patches; all active ones by default.
        revoked_keys: Ids of keys that the trust policy revokes: what they signed is refused.

    Raises:
        IntegrityError: a patch is damaged.
    """
    steps = []
    for old in state.installed:
        if old.digest not in state.active_digests or (names and old.name not in names):
            continue
        new = _newest(state, old, revoked_keys)
        if new is None:
            continue
        try:
            plan, _ = plan_activation(store, state, new.digest, revoked_keys=revoked_keys)
        except LlmpatchError as error:
            steps.append(Step(old, new, f"{error.message} ({error.hint})", refused=True))
            continue
        if plan.kind != "no-op" and old.digest not in {lost.digest for lost in plan.replaced}:
            why = f"it is for another {old.base} than the one that {old.version} is active on"
            steps.append(Step(old, new, f"{why} (llmpatch activate {new.name}@{new.version})", refused=True))
            continue
        vendor = new.name.partition("/")[0]
        if others := [lost.title for lost in plan.replaced if lost.vendor != vendor]:
            why = (
                f"{plan.why}; {', '.join(others)} is another vendor's (llmpatch activate {new.name}, if you want that)"
            )
            steps.append(Step(old, new, why, refused=True))
            continue
        steps.append(Step(old, new, plan.why, refused=plan.kind == "no-op"))
    return steps


def upgrade(
    store: Store,
    *,
    names: Sequence[str] = (),
    gate: Gate | None = None,
    skip_gate: bool = False,
    revoked_keys: Collection[str] = (),
    reason: str = "",
) -> list[Step]:
    """Carry out :func:`plan_upgrade`, one generation a step. What is refused or fails stays as it is, and keeps no other away.

    Raises:
        LlmpatchError: the store cannot be read; what one step raises is that step's ``error``
            (:func:`~llmpatch.store.activating.activate`).
    """
    steps = []
    for step in plan_upgrade(store, load(store).state, names, revoked_keys=revoked_keys):
        if step.refused:
            steps.append(step)
            continue
        # What the steps before it made active, too, stays out of its reach.
        now = plan_upgrade(store, load(store).state, [step.old.name], revoked_keys=revoked_keys)
        again = next((found for found in now if found.new.digest == step.new.digest), None)
        if again is None or again.refused:
            gone = f"{step.old.name} {step.old.version} is active no longer: a step before this one took its place"
            steps.append(again or replace(step, why=gone, refused=True))
            continue
        try:
            done = activate(
                store, step.new.digest, gate=gate, skip_gate=skip_gate, revoked_keys=revoked_keys, reason=reason,
                action="upgrade",
            )  # fmt: skip
        except LlmpatchError as error:
            steps.append(replace(step, why=error.message, refused=True, error=error))
            continue
        steps.append(Step(step.old, step.new, done.why, done=done.changed))
    return steps


def is_newer(state: State, old: Installed, version: str) -> bool:
    """Whether a version is above ``old`` and within its pin."""
    before, found = parse_version(old.version), parse_version(version)
    testing = before.prerelease and found.release == before.release
    return found > before and parse_range(state.pins.get(old.name, "*")).holds(found, prereleases=testing)


def _newest(state: State, old: Installed, revoked_keys: Collection[str]) -> Installed | None:
    """The highest candidate, one whose key was revoked only where there is no other, to say so.

    Whoever uses a pre-release is offered the later ones of the same numbers, too.
    """
    usable = [e for e in state.installed if (e.name, e.base) == (old.name, old.base)]
    usable = [e for e in usable if e.status not in ("rolled back", "revoked") and is_newer(state, old, e.version)]
    usable = [e for e in usable if not lost_key(e, revoked_keys)] or usable
    return max(usable, key=lambda entry: parse_version(entry.version), default=None)
