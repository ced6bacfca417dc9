"""What may be active together: an algebra over the sets of fixes, as pure functions.

    decide(active, new)   # Plan("replace", patches=(...), replaced=(...)) | no-op | compose; or UsageError with advice

A patch that fixes all that another of the same vendor fixes, and more, takes its place. One that fixes nothing that is not
fixed already is left out. One that fixes something else goes behind the others, if that very set was measured. One that
fixes some of it is refused: nobody knows what two patches do to one risk, so a merged patch is needed. A vendor's own word
(``supersedes``, ``conflicts``, ``requires``) goes first. Knows no disk and no models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from llmpatch.artifact.manifest import Manifest, Relation
from llmpatch.errors import UsageError
from llmpatch.versions import Version, parse_range, parse_version

Kind = Literal["activate", "replace", "no-op", "compose"]


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
    """

    digest: str
    name: str
    version: Version
    fixes: frozenset[str]
    supersedes: tuple[Relation, ...] = ()
    requires: tuple[Relation, ...] = ()
    conflicts: tuple[Relation, ...] = ()

    @property
    def vendor(self) -> str:
        """The first part of the name."""
        return self.name.partition("/")[0]

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Plan:
    """What activating a patch would do.

    Attributes:
        kind: ``activate`` the first one, ``replace`` others, ``compose`` with others, or ``no-op``.
        patches: All that would be active, in order; with ``no-op`` all that are.
        replaced: Those that would be active no longer.
        why: In words.
    """

    kind: Kind
    patches: tuple[Facts, ...]
    replaced: tuple[Facts, ...] = field(default=())
    why: str = ""

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of all that would be active, in order."""
        return tuple(patch.digest for patch in self.patches)


def facts_of(manifest: Manifest, digest: str) -> Facts:
    """What the algebra needs of a manifest."""
    fixes = frozenset(fix.advisory or f"risk:{fix.risk}" for fix in manifest.fixes)
    return Facts(
        digest, manifest.name, parse_version(manifest.version), fixes, manifest.supersedes, manifest.requires,
        manifest.conflicts,
    )  # fmt: skip


def related(relations: Sequence[Relation], patch: Facts) -> bool:
    """Whether one of ``relations`` names ``patch``; pre-releases count like other versions.

    Raises:
        UsageError: a relation has a range that is none.
    """
    return any(
        r.name == patch.name and parse_range(r.versions).holds(patch.version, prereleases=True) for r in relations
    )


def decide(active: Sequence[Facts], new: Facts) -> Plan:
    """What activating ``new`` next to ``active`` would do.

    Raises:
        UsageError: it is refused: a version published twice, a downgrade, a conflict, something missing, or partial
            overlap; says with what, and what to do.
    """
    before = tuple(active)
    for patch in before:
        if patch.digest == new.digest:
            return Plan("no-op", before, why=f"{new.title} is active already")
    _check_same_name(before, new)
    replaced = tuple(patch for patch in before if replaces(new, patch))
    rest = tuple(patch for patch in before if patch not in replaced)
    if why := _needless(rest, replaced, new):
        return Plan("no-op", before, why=why)
    for patch in rest:
        _check_apart(patch, new)
    place = before.index(replaced[0]) if replaced else len(before)
    patches = tuple(p for p in (*before[:place], new, *before[place:]) if p not in replaced)
    check_requirements(patches)
    old = ", ".join(patch.title for patch in replaced)
    taken = f"{new.title} takes the place of {old}" if replaced else ""
    if rest:
        others = f"{new.title} is used together with {', '.join(patch.title for patch in rest)}"
        return Plan("compose", patches, replaced, f"{taken}; {others}" if taken else others)
    if replaced:
        return Plan("replace", patches, replaced, taken)
    return Plan("activate", patches, why=f"{new.title} is the first")


def replaces(new: Facts, old: Facts) -> bool:
    """Whether ``new`` takes the place of ``old``: it says so, or it is the same vendor's and fixes all of that and more."""
    if related(new.supersedes, old):
        return True
    if new.name == old.name:
        return new.version > old.version and new.fixes >= old.fixes
    return new.vendor == old.vendor and bool(old.fixes) and new.fixes > old.fixes


def check_requirements(patches: Sequence[Facts]) -> None:
    """Refuse a set in which a patch misses one that it requires.

    Raises:
        UsageError: names both.
    """
    for patch in patches:
        for relation in patch.requires:
            if not any(related([relation], other) for other in patches if other is not patch):
                wanted = relation.name if relation.versions == "*" else f"{relation.name}@{relation.versions}"
                raise UsageError(
                    f"{patch.title} requires {wanted}, which would not be active",
                    hint=f"activate {wanted} first, or deactivate {patch.name}",
                )


def _needless(rest: Sequence[Facts], replaced: Sequence[Facts], new: Facts) -> str:
    """Why ``new`` would add nothing; empty if it would."""
    for patch in rest:
        if related(patch.supersedes, new):
            return f"{patch.title} is active and supersedes {new.title}"
    # What new replaces by its vendor's word does not count as fixed already: a newer version is no repetition of the old.
    fixing = [*rest, *(p for p in replaced if p.name != new.name and not related(new.supersedes, p))]
    others = [patch for patch in fixing if patch.fixes & new.fixes]
    if any(patch in rest for patch in others) and new.fixes <= frozenset().union(*(patch.fixes for patch in others)):
        names = ", ".join(patch.title for patch in others)
        return f"all that {new.title} fixes is fixed by {names}; to use it instead, deactivate that first"
    return ""


def _check_same_name(active: Sequence[Facts], new: Facts) -> None:
    for old in active:
        if old.name != new.name or related(new.supersedes, old):
            continue
        if old.version == new.version:
            raise UsageError(
                f"another patch is active as {old.title}: {old.digest[:16]}, not {new.digest[:16]}",
                hint="a version is published once: ask its vendor which one is real",
            )
        if new.version < old.version:
            raise UsageError(
                f"{new.title} is older than the active {old.title}",
                hint="llmpatch rollback, or deactivate the newer one first",
            )
        if not new.fixes >= old.fixes:
            raise UsageError(
                f"{new.title} no longer fixes {', '.join(sorted(old.fixes - new.fixes))}, which {old.title} fixes",
                hint=f"keep {old.version}, or deactivate it first",
            )


def _check_apart(old: Facts, new: Facts) -> None:
    if related(new.conflicts, old) or related(old.conflicts, new):
        raise UsageError(f"{new.title} and {old.title} conflict", hint=f"deactivate {old.name} first")
    if not (both := old.fixes & new.fixes):
        return
    if new.fixes >= old.fixes:
        raise UsageError(
            f"{new.title} fixes all that {old.title} of another vendor fixes",
            hint=f"deactivate {old.name} first, then activate {new.name}",
        )
    raise UsageError(
        f"{new.title} and {old.title} both fix {', '.join(sorted(both))}, and each fixes more",
        hint=f"ask for a merged patch that fixes {', '.join(sorted(old.fixes | new.fixes))}, or deactivate {old.name}",
    )
