"""What the algebra needs to know of a patch, read from its manifest and from what was measured.

    facts = facts_of(patch.manifest, patch.digest)
    facts.fixes, facts.members, facts.measured

Pure: knows no disk and no models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmpatch.artifact.composition import Record
from llmpatch.artifact.manifest import Manifest, Relation
from llmpatch.versions import Version, parse_range, parse_version


@dataclass(frozen=True)
class Lost:
    """What a patch loses in a sequence: its measure alone and together with the others, on ``n`` prompts."""

    patch: str
    metric: str
    alone: float
    together: float
    n: int


@dataclass(frozen=True)
class Known:
    """What was measured of patches in one order: nothing lost, or what was.

    Attributes:
        patches: Digests, in the order of their rows.
        losses: By patch and measure; empty where all was kept.
    """

    patches: tuple[str, ...]
    losses: tuple[Lost, ...] = ()


@dataclass(frozen=True)
class Part:
    """A patch whose rows are part of another one."""

    name: str
    version: Version


@dataclass(frozen=True)
class Facts:
    """What the algebra needs to know of a patch.

    Attributes:
        digest: Its identity.
        name: ``vendor/slug``.
        version: Its version.
        fixes: Advisories it closes; a fix without one counts as the risk it names.
        supersedes: Patches that it takes the place of.
        requires: Patches that must be active with it.
        conflicts: Patches that must not.
        members: Digests of the patches whose rows are part of this one.
        parts: Those patches by name.
        measured: What its vendor measured of it together with others.
        parallel: Its members stand side by side, so nothing stands before or behind it.
    """

    digest: str
    name: str
    version: Version
    fixes: frozenset[str]
    supersedes: tuple[Relation, ...] = ()
    requires: tuple[Relation, ...] = ()
    conflicts: tuple[Relation, ...] = ()
    members: frozenset[str] = frozenset()
    parts: tuple[Part, ...] = ()
    measured: tuple[Known, ...] = ()
    parallel: bool = False

    @property
    def vendor(self) -> str:
        """The first part of the name."""
        return self.name.partition("/")[0]

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"


def facts_of(manifest: Manifest, digest: str) -> Facts:
    """What the algebra needs of a manifest."""
    fixes = frozenset(fix.advisory or f"risk:{fix.risk}" for fix in manifest.fixes)
    members = frozenset(member.digest for member in manifest.members or ())
    parts = tuple(Part(member.name, parse_version(member.version)) for member in manifest.members or ())
    return Facts(
        digest, manifest.name, parse_version(manifest.version), fixes, manifest.supersedes, manifest.requires,
        manifest.conflicts, members, parts, _vendors_word(manifest, digest), manifest.arrangement is not None,
    )  # fmt: skip


def _vendors_word(manifest: Manifest, digest: str) -> tuple[Known, ...]:
    """What the manifest says was measured, with the patch's own digest in the place of ``self``."""

    def named(text: str) -> str:
        return digest if text == "self" else text

    return tuple(
        Known(
            tuple(named(text) for text in piece.patches),
            tuple(
                Lost(named(lost.patch), f"{lost.risk}: {lost.metric}", lost.alone, lost.together, lost.n)
                for lost in piece.losses or ()
            ),
        )
        for piece in manifest.composition or ()
    )


def known_of(record: Record) -> tuple[Known, ...]:
    """What a composition record says was measured, for :func:`decide`; of patches side by side it says nothing of orders."""
    return (
        ()
        if record.arrangement
        else tuple(
            Known(
                measured.patches,
                tuple(Lost(f.patch, f"{f.risk}: {f.metric}", f.alone, f.together, f.change.n) for f in measured.hurt),
            )
            for measured in record.measured
        )
    )


def touches(relations: Sequence[Relation], patch: Facts) -> bool:
    """Whether one of ``relations`` names ``patch``, or a patch whose rows are part of it (errors as in :func:`related`)."""
    return related(relations, patch) or any(related(relations, part) for part in patch.parts)


def related(relations: Sequence[Relation], patch: Facts | Part) -> bool:
    """Whether one of ``relations`` names ``patch``; pre-releases count like other versions.

    Raises:
        UsageError: a relation has a range that is none.
    """
    return any(
        r.name == patch.name and parse_range(r.versions).holds(patch.version, prereleases=True) for r in relations
    )
