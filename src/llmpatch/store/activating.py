"""Activate and deactivate: what goes before everything a base reads. Each is one generation, or nothing.

    done = activate(store, entry.digest, gate=gate)     # judged outside the lock, committed under it
    deactivate(store, entry.digest, gate=gate)

A set of patches may be active on a base if a gate passed on that very set there, now or before, or if somebody skipped the
gate, which the generation records. What was measured to lose something together is refused before any gate runs. Knows
nothing about how a patch is verified or judged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from llmpatch.artifact import Manifest, Patch, release_time
from llmpatch.artifact.manifest import FingerprintSection
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import GateError, IntegrityError, LlmpatchError, UsageError, WrongBaseError
from llmpatch.store.algebra import Plan, check_measured, check_requirements, check_together, decide
from llmpatch.store.allowing import check_allowed
from llmpatch.store.composed import known_here
from llmpatch.store.contents import check_members, keep_bytes, keep_verdict, kept_bytes, read_stored, title
from llmpatch.store.facts import Known, facts_of
from llmpatch.store.generations import Draft, Head, Store, ancestors, commit, load
from llmpatch.store.installing import Done, because
from llmpatch.store.interfaces import Gate, Judged
from llmpatch.store.state import Action, ActiveSet, GateRecord, State, set_of, with_active


class _MovedError(LlmpatchError):
    """The store changed between judging and committing."""


def plan_activation(
    store: Store, state: State, digest: str, *, downgrade: bool = False, revoked_keys: Collection[str] = ()
) -> tuple[Plan, list[Patch]]:
    """What activating an installed patch would do, and all patches that would be active on its base, in order.

    Raises:
        TrustError: it is revoked, or was signed by one of ``revoked_keys``.
        UsageError: it is not installed, lies outside of its pin or below the high-water mark, or is refused by
            :func:`~llmpatch.store.algebra.decide`.
        IntegrityError: it, or a patch that is active with it, is damaged.
    """
    check_allowed(state, digest, downgrade=downgrade, revoked_keys=revoked_keys)
    patch = read_stored(store, digest)
    check_members(state, patch.manifest)
    group = find_set(state, patch.manifest)
    known = {
        found.digest: found for found in [patch, *(read_stored(store, d) for d in (group.patches if group else ()))]
    }
    active = [facts_of(known[d].manifest, d) for d in (group.patches if group else ())]
    new = facts_of(patch.manifest, digest)
    plan = decide(active, new, known_here(store), downgrade=downgrade)
    return plan, [known[d] for d in plan.digests]


def activate(
    store: Store,
    digest: str,
    *,
    gate: Gate | None = None,
    skip_gate: bool = False,
    downgrade: bool = False,
    revoked_keys: Collection[str] = (),
    reason: str = "",
    action: Action = "activate",
) -> Done:
    """Make an installed patch active on its base.

    Args:
        store: Which.
        digest: Of an installed patch.
        gate: Judges the set that would be active. Without it the set must have passed before.
        skip_gate: Activate unjudged; recorded. Not enough for a set of several that nobody measured together.
        downgrade: Allow a version below the highest that was ever active.
        revoked_keys: Ids of keys that the trust policy revokes: what they signed is refused. What it would stand beside is not
            asked, so that one such patch does not keep the others from being mended.
        reason: Recorded.
        action: Recorded.

    Raises:
        GateError: the gate did not pass; nothing changed.
        LlmpatchError: as in :func:`plan_activation`, and no gate where one is needed.
    """

    def planned(state: State) -> tuple[Plan, list[Patch]]:
        return plan_activation(store, state, digest, downgrade=downgrade, revoked_keys=revoked_keys)

    return _carry_out(store, planned, digest, gate, skip_gate, reason, action)


def activate_stack(
    store: Store,
    digests: Sequence[str],
    *,
    known: Sequence[Known] = (),
    gate: Gate | None = None,
    skip_gate: bool = False,
    downgrade: bool = False,
    revoked_keys: Collection[str] = (),
    reason: str = "",
) -> Done:
    """Make exactly these installed patches active on their base, in this order, in one generation.

    Args:
        store: Which.
        digests: Of installed patches for one base, in the order of their rows.
        known: What was measured of them together, beside what this store and their vendors know.
        gate: Judges them as one set. Without it the set must have passed before.
        skip_gate: Activate unjudged; recorded. Of several patches only where ``known`` or a vendor measured this very order.
        downgrade: Allow versions below the highest that was ever active.
        revoked_keys: Ids of keys that the trust policy revokes.
        reason: Recorded.

    Raises:
        GateError: the gate did not pass; nothing changed.
        WrongBaseError: they are not all for one base.
        LlmpatchError: one is not installed, revoked, damaged, older than what was active or outside of its pin; the set is
            refused by :func:`~llmpatch.store.algebra.check_together` or :func:`~llmpatch.store.algebra.check_measured`.
    """

    def planned(state: State) -> tuple[Plan, list[Patch]]:
        return plan_stack(store, state, digests, known, downgrade=downgrade, revoked_keys=revoked_keys)

    return _carry_out(store, planned, digests[0], gate, skip_gate, reason, "activate", known)


def plan_stack(
    store: Store,
    state: State,
    digests: Sequence[str],
    known: Sequence[Known] = (),
    *,
    downgrade: bool = False,
    revoked_keys: Collection[str] = (),
) -> tuple[Plan, list[Patch]]:
    """What :func:`activate_stack` would do (errors as there)."""
    for digest in digests:
        check_allowed(state, digest, downgrade=downgrade, revoked_keys=revoked_keys)
    patches = [read_stored(store, digest) for digest in digests]
    for patch in patches:
        check_members(state, patch.manifest)
    check_one_base(patches)
    facts = tuple(facts_of(patch.manifest, patch.digest) for patch in patches)
    check_together(facts)
    check_measured(facts, [*known, *known_here(store)])
    group = find_set(state, patches[0].manifest)
    if group is not None and group.patches == tuple(digests):
        return Plan("no-op", facts, why="exactly these are active already"), patches
    old = [read_stored(store, d) for d in (group.patches if group else ()) if d not in digests]
    titles = ", then ".join(patch.title for patch in facts)
    return Plan(
        "replace" if group else "activate", facts, tuple(facts_of(p.manifest, p.digest) for p in old), titles
    ), patches


def _carry_out(
    store: Store,
    planned: Callable[[State], tuple[Plan, list[Patch]]],
    digest: str,
    gate: Gate | None,
    skip_gate: bool,
    reason: str,
    action: Action,
    known: Sequence[Known] = (),
) -> Done:
    """Plan, judge outside the lock, and commit under it if the store still asks for the same."""
    for _ in range(5):
        head = _whole(store)
        plan, patches = planned(head.state)
        again = plan.kind == "no-op"  # what is active already is judged again where nothing says that it passed
        if again and (gate is None or skip_gate or _sound(store, head.state, patches, digest)):
            return Done(False, plan.why, head.generation)
        wanted = _base(head.state, patches, digest)
        judged = None if skip_gate else _judge(gate, patches)
        skipped = skip_gate and (len(patches) == 1 or _vouched(patches, [*known, *known_here(store)]))
        record = _record(store, head, wanted, plan.digests, judged, skipped)

        def change(now: Head, plan: Plan = plan, record: GateRecord = record, judged: Judged | None = judged) -> Draft:
            same, found = planned(now.state)
            if (same.kind == "no-op") != (plan.kind == "no-op") or same.digests != plan.digests:
                raise _MovedError("the store changed", hint="run it again")
            made = _set(now.state, found, digest, _kept(store, record, judged))
            why = f"{same.why}, and the gate passes" if same.kind == "no-op" else same.why
            return Draft(action, because(why, reason), with_active(now.state, made, "superseded"))

        try:
            generation, _ = commit(store, change)
            return Done(True, generation.reason if again else plan.why, generation)
        except _MovedError:
            continue
    raise LlmpatchError("other processes keep changing what is active", hint="try again")


def _sound(store: Store, state: State, patches: Sequence[Patch], digest: str) -> bool:
    """Whether the active set that holds a patch was judged, and what the gate said is there; or the patch is in none."""
    group = find_set(state, patches[0].manifest) if patches else None
    if group is None or digest not in group.patches:
        return True
    try:
        for kept in (group.gate.verdict, group.gate.attestation):
            if kept is not None:
                kept_bytes(store, kept)
    except IntegrityError:
        return False
    return group.gate.result == "PASSED"


def check_one_base(patches: Sequence[Patch]) -> None:
    """Refuse patches of different bases.

    Raises:
        WrongBaseError: names two of them and the parts in which their bases differ.
    """
    from llmpatch.bases import Fingerprint

    first = patches[0].manifest
    wanted = Fingerprint(**first.base.fingerprint.model_dump())
    for patch in patches[1:]:
        base = patch.manifest.base
        parts = wanted.differences(Fingerprint(**base.fingerprint.model_dump()))
        if base.hidden_size != first.base.hidden_size:
            parts.insert(0, "hidden size")
        if parts:
            raise WrongBaseError(
                f"{first.name} {first.version} was made for {shown(first.base.name)}, {patch.manifest.name} "
                f"{patch.manifest.version} for {shown(base.name)}; they differ in: {', '.join(parts)}",
                hint="put only patches of one base together",
            )


def deactivate(
    store: Store, digest: str, *, gate: Gate | None = None, skip_gate: bool = False, reason: str = ""
) -> Done:
    """Take a patch out of what is active. What stays active with it needs a gate like any set.

    Raises:
        UsageError: it is not active; another active patch requires it; the rest was never judged, or was measured to lose
            something (then ``revoke`` it, or deactivate more).
        GateError: the rest does not pass; nothing changed.
    """
    for _ in range(5):
        head = _whole(store)
        groups = [group for group in head.state.active if digest in group.patches]
        if not groups:
            raise UsageError(f"{digest[:16]} is not active", hint="llmpatch list")
        rests = [_without(store, head, group, digest, gate, skip_gate) for group in groups]
        expected = {group.patches for group in groups}

        def change(now: Head, rests: list[_Rest] = rests, expected: set[tuple[str, ...]] = expected) -> Draft:
            if {group.patches for group in now.state.active if digest in group.patches} != expected:
                raise _MovedError("the store changed", hint="run it again")
            kept = [group for group in now.state.active if digest not in group.patches]
            made = [rest.keep(store) for rest in rests]
            active = (*kept, *(group for group in made if group is not None))
            entry = now.state.entry(digest)
            why = f"deactivate {title(entry) if entry else digest[:16]}"
            return Draft("deactivate", because(why, reason), with_active(now.state, active, "inactive"))

        try:
            generation, _ = commit(store, change)
            return Done(True, generation.reason, generation)
        except _MovedError:
            continue
    raise LlmpatchError("other processes keep changing what is active", hint="try again")


def find_set(state: State, manifest: Manifest) -> ActiveSet | None:
    """The active set of the base that a patch was made for."""
    from llmpatch.bases import Fingerprint

    return set_of(state.active, Fingerprint(**manifest.base.fingerprint.model_dump()))


@dataclass(frozen=True)
class _Rest:
    """What is left of a set, and why it may be active."""

    group: ActiveSet | None
    judged: Judged | None = None

    def keep(self, store: Store) -> ActiveSet | None:
        """The set, its verdict kept in the store."""
        if self.group is None:
            return None
        return self.group.model_copy(update={"gate": _kept(store, self.group.gate, self.judged)})


def _without(store: Store, head: Head, group: ActiveSet, digest: str, gate: Gate | None, skip_gate: bool) -> _Rest:
    patches = [read_stored(store, d) for d in group.patches if d != digest]
    if not patches:
        return _Rest(None)
    facts, known = [facts_of(patch.manifest, patch.digest) for patch in patches], known_here(store)
    check_requirements(facts)
    check_measured(facts, known)
    digests = tuple(patch.digest for patch in patches)
    judged = None if skip_gate else _judge(gate, patches)
    skipped = skip_gate and (len(patches) == 1 or _vouched(patches, known))
    record = _record(store, head, group.fingerprint, digests, judged, skipped)
    return _Rest(group.model_copy(update={"patches": digests, "gate": record}), judged)


def _judge(gate: Gate | None, patches: Sequence[Patch]) -> Judged | None:
    if gate is None:
        return None
    judged = gate(patches)
    if not judged.passed:
        raise GateError(
            f"the policy {shown(judged.policy)} is not met: {', '.join(judged.failed)}",
            hint="nothing was changed; `llmpatch gate` shows each rule"
            + (", or --skip-gate on your own responsibility" if len(patches) == 1 else ""),
        )
    return judged


def _record(
    store: Store, head: Head, base: FingerprintSection, digests: tuple[str, ...], judged: Judged | None, skipped: bool
) -> GateRecord:
    """Why a set may be active.

    Raises:
        UsageError: for no reason.
    """
    if judged is not None:
        return GateRecord(
            result="PASSED", time=release_time(), policy=judged.policy, policy_sha256=judged.policy_sha256
        )
    if skipped:
        return GateRecord(result="SKIPPED", time=release_time())
    for generation in ancestors(store, head):
        for group in generation.state.active:
            same = group.patches == digests and group.fingerprint == base
            if same and group.gate.result == "PASSED":
                return group.gate
    if len(digests) > 1:
        raise UsageError(
            f"these {len(digests)} patches were never measured together, and patches do not simply add up",
            hint="run the gate on the set: --base BASE; skipping it needs the vendor's evidence for this very set",
        )
    raise UsageError("no gate has passed for this patch here", hint="--base BASE runs it; --skip-gate goes without")


def _vouched(patches: Sequence[Patch], known: Sequence[Known]) -> bool:
    """Whether one of the patches, or ``known``, brings evidence that this very sequence loses nothing."""
    digests = tuple(patch.digest for patch in patches)
    measured = [piece for patch in patches for piece in facts_of(patch.manifest, patch.digest).measured]
    return any(piece.patches == digests and not piece.losses for piece in (*known, *measured))


def _kept(store: Store, record: GateRecord, judged: Judged | None) -> GateRecord:
    if judged is None:
        return record
    kept: dict[str, str] = {"verdict": keep_verdict(store, judged.verdict)}
    if judged.attestation is not None:
        kept["attestation"] = keep_bytes(store, judged.attestation)
    return record.model_copy(update=kept)


def _base(state: State, patches: Sequence[Patch], digest: str) -> FingerprintSection:
    """The base on which a patch would be active, as its active set names it."""
    manifest = next(patch.manifest for patch in patches if patch.digest == digest)
    old = find_set(state, manifest)
    return old.fingerprint if old else manifest.base.fingerprint


def _set(state: State, patches: Sequence[Patch], digest: str, record: GateRecord) -> tuple[ActiveSet, ...]:
    """All active sets, with ``patches`` in the place of what was active on the base of ``digest``."""
    manifest = next(patch.manifest for patch in patches if patch.digest == digest)
    old = find_set(state, manifest)
    made = ActiveSet(
        base=old.base if old else manifest.base.name, fingerprint=_base(state, patches, digest),
        patches=tuple(patch.digest for patch in patches), gate=record,
    )  # fmt: skip
    if old is None:
        return (*state.active, made)
    return tuple(made if found is old else found for found in state.active)


def _whole(store: Store) -> Head:
    head = load(store)
    if head.damage:
        raise IntegrityError(f"the store is damaged: {head.damage[0]}", hint="llmpatch doctor --repair")
    return head
