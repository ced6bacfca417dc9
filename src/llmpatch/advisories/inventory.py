"""What is on this machine: every base the store knows of with what is active on it, and every installed patch.

    found = take_inventory(store)                       # what audits and bills of materials are made of
    found = take_inventory(store, base=load_base("smollm2"))
    found.deployments[0].base.name, found.deployments[0].active

Every byte of every installed patch is hashed. Loads no model: a base is known by what a store or a patch says of it, or is
given loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.advisories.matching import BaseFacts, alike
from llmpatch.artifact import Patch
from llmpatch.artifact.manifest import BaseSection, FingerprintSection
from llmpatch.errors import IntegrityError
from llmpatch.store import ActiveSet, GateRecord, Head, Installed, State, Store, load, read_stored

if TYPE_CHECKING:
    from llmpatch.bases import Base


@dataclass(frozen=True)
class Held:
    """An installed patch, every byte checked, and the store's entry for it."""

    entry: Installed
    patch: Patch

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.entry.name} {self.entry.version}"


@dataclass(frozen=True)
class Deployment:
    """A base and what goes before everything it reads.

    Attributes:
        base: What is known of the base.
        model_type: Of its architecture, where a patch for it says so.
        revision: Its commit, where a patch for it says so.
        active: In order; empty for an unpatched base.
        gate: Why they may be active.
    """

    base: BaseFacts
    model_type: str | None = None
    revision: str | None = None
    active: tuple[Held, ...] = ()
    gate: GateRecord | None = None


@dataclass(frozen=True)
class Inventory:
    """All of it, at one generation of the store.

    Attributes:
        root: Where the store lies.
        generation: Number of the generation.
        deployments: Sorted by the base's name.
        installed: All patches, active or not, sorted by name and version.
        revoked: Digests that the store never makes active again, and why.
    """

    root: Path
    generation: int
    deployments: tuple[Deployment, ...]
    installed: tuple[Held, ...]
    revoked: dict[str, str]


def take_inventory(store: Store, base: Base | None = None) -> Inventory:
    """Read what is installed and active.

    Args:
        store: Which.
        base: Only this base, whether the store knows of it or not. By default all that it knows of: those with something
            active, and those that an installed patch was made for.

    Raises:
        IntegrityError: the store, or an installed patch, is damaged.
    """
    head, held = _read(store)
    state = head.state
    held.sort(key=lambda h: (h.entry.name, h.entry.version, h.entry.digest))
    found = [_given(base, state, held)] if base is not None else _known(state, held)
    found.sort(key=lambda d: (d.base.name, str(d.base.fingerprint)))
    return Inventory(store.root, head.generation.number, tuple(found), tuple(held), dict(state.revoked))


def _read(store: Store, tries: int = 3) -> tuple[Head, list[Held]]:
    """The store at one generation; read again where another process has gone on from it, and deleted what it named."""
    head = load(store)
    if head.damage:
        raise IntegrityError(f"the store is damaged: {head.damage[0]}", hint="llmpatch doctor --repair")
    try:
        return head, [Held(entry, read_stored(store, entry.digest)) for entry in head.state.installed]
    except IntegrityError:
        if tries > 1 and load(store).generation != head.generation:
            return _read(store, tries - 1)
        raise


def made_for(held: Held, base: BaseFacts) -> bool:
    """Whether a patch was made for a base: its fingerprint, quantisation aside, is the base's."""
    return base.fingerprint is not None and alike(held.patch.manifest.base.fingerprint, base.fingerprint)


def _known(state: State, held: Sequence[Held]) -> list[Deployment]:
    found = [_of_set(group, held) for group in state.active]
    for one in held:
        wanted = one.patch.manifest.base
        if not any(d.base.fingerprint and alike(d.base.fingerprint, wanted.fingerprint) for d in found):
            found.append(_deployment(BaseFacts(wanted.name, wanted.purl, wanted.fingerprint), [wanted]))
    return found


def _of_set(group: ActiveSet, held: Sequence[Held]) -> Deployment:
    known = {one.entry.digest: one for one in held}
    active = tuple(known[digest] for digest in group.patches)
    sections = [one.patch.manifest.base for one in (*active, *held)]
    sections = [section for section in sections if alike(section.fingerprint, group.fingerprint)]
    return _deployment(BaseFacts(group.base, None, group.fingerprint), sections, active, group.gate)


def _given(base: Base, state: State, held: Sequence[Held]) -> Deployment:
    fingerprint = FingerprintSection(**vars(base.fingerprint))
    for exact in (True, False):
        for group in state.active:
            if group.fingerprint == fingerprint if exact else alike(group.fingerprint, fingerprint):
                return _of_set(group, held)
    sections = [one.patch.manifest.base for one in held if alike(one.patch.manifest.base.fingerprint, fingerprint)]
    return _deployment(BaseFacts(base.name, None, fingerprint), sections)


def _deployment(
    base: BaseFacts, sections: Iterable[BaseSection], active: tuple[Held, ...] = (), gate: GateRecord | None = None
) -> Deployment:
    """A deployment, with what patches for its base say of it beyond the fingerprint."""
    told = list(sections)
    purl = base.purl or next((section.purl for section in told if section.purl), None)
    revision = next((section.revision for section in told if section.revision), None)
    model_type = next((section.model_type for section in told), None)
    return Deployment(BaseFacts(base.name, purl, base.fingerprint), model_type, revision, active, gate)
