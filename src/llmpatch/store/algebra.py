"""What may be active together: an algebra over the sets of fixes, as pure functions.

    decide(active, new)   # Plan("replace", patches=(...), replaced=(...)) | no-op | compose; or UsageError with advice

A patch that fixes all that another of the same vendor fixes, and more, takes its place. One that fixes nothing that is not
fixed already is left out. One that fixes something else goes behind the others, if that very set was measured. One that
fixes some of it is refused: nobody knows what two patches do to one risk, so a merged patch is needed. A vendor's own word
(``supersedes``, ``conflicts``, ``requires``) goes first. A composed patch takes the place of its members. An order that was
measured to lose something is refused, by name and with the numbers. Knows no disk and no models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from llmpatch.errors import UsageError
from llmpatch.store.facts import Facts, Known, related, touches

Kind = Literal["activate", "replace", "no-op", "compose"]


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


def decide(active: Sequence[Facts], new: Facts, known: Sequence[Known] = (), *, downgrade: bool = False) -> Plan:
    """What activating ``new`` next to ``active`` would do.

    Args:
        active: What is active, in order.
        new: What is to be.
        known: What was measured here of patches together, beside what their vendors say.
        downgrade: Whether ``new`` may take the place of a newer version of itself.

    Raises:
        UsageError: it is refused: a version published twice, a downgrade, a conflict, something missing, partial
            overlap, a patch that stands with no other, or an order that was measured to lose something; says with what, and
            what to do.
    """
    before = tuple(active)
    for patch in before:
        if patch.digest == new.digest:
            return Plan("no-op", before, why=f"{new.title} is active already")
    newer = tuple(patch for patch in before if downgrade and patch.name == new.name and patch.version > new.version)
    _check_same_name([patch for patch in before if patch not in newer], new)
    replaced = tuple(patch for patch in before if patch in newer or replaces(new, patch))
    rest = tuple(patch for patch in before if patch not in replaced)
    if why := _needless(rest, replaced, new):
        return Plan("no-op", before, why=why)
    for patch in rest:
        _check_apart(patch, new)
    place = before.index(replaced[0]) if replaced else len(before)
    patches = tuple(p for p in (*before[:place], new, *before[place:]) if p not in replaced)
    check_stands_alone(patches)
    check_requirements(patches)
    check_measured(patches, known)
    old = ", ".join(patch.title for patch in replaced)
    taken = f"{new.title} takes the place of {old}" if replaced else ""
    if rest:
        others = f"{new.title} is used together with {', '.join(patch.title for patch in rest)}"
        return Plan("compose", patches, replaced, f"{taken}; {others}" if taken else others)
    if replaced:
        return Plan("replace", patches, replaced, taken)
    return Plan("activate", patches, why=f"{new.title} is the first")


def replaces(new: Facts, old: Facts) -> bool:
    """Whether ``new`` takes the place of ``old``: it says so, holds its rows, or is the same vendor's and fixes more."""
    if related(new.supersedes, old) or old.digest in new.members:
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
            if not any(touches([relation], other) for other in patches if other is not patch):
                wanted = relation.name if relation.versions == "*" else f"{relation.name}@{relation.versions}"
                raise UsageError(
                    f"{patch.title} requires {wanted}, which would not be active",
                    hint=f"activate {wanted} first, or deactivate {patch.name}",
                )


def check_measured(patches: Sequence[Facts], known: Sequence[Known] = ()) -> None:
    """Refuse an order in which something was measured to be lost: the very one, or one whose patches stand in it so.

    Of the very order, who saw a loss counts more than who saw none; that nothing was lost in all of it counts more than a
    loss in a part of it.

    Raises:
        UsageError: names who loses what behind whom, with the numbers.
    """
    order = tuple(patch.digest for patch in patches)
    titles = {patch.digest: patch.title for patch in patches}
    found = [*known, *(piece for patch in patches for piece in patch.measured)]
    if not any(piece.patches == order and piece.losses for piece in found) and any(
        piece.patches == order for piece in found
    ):
        return
    for piece in sorted(found, key=lambda piece: len(piece.patches)):
        if piece.losses and _stands_in(piece.patches, order):
            lost = min(piece.losses, key=lambda lost: lost.together - lost.alone)
            others = " and ".join(titles[digest] for digest in piece.patches if digest != lost.patch)
            raise UsageError(
                f"{titles[lost.patch]} loses together with {others}: {lost.metric} is {lost.together:.3f}, alone "
                f"{lost.alone:.3f} (n={lost.n}, order {', '.join(titles[digest] for digest in piece.patches)})",
                hint="look for an order that works: `llmpatch compose --search`; or use a cumulative patch, or one of them",
            )


def check_together(patches: Sequence[Facts]) -> None:
    """Refuse what cannot be put into one stack, whatever its order.

    Raises:
        UsageError: a patch twice, two versions of one, one that supersedes, contains or conflicts with another, one that
            requires what is not there, one whose members stand side by side; names both and says what to do.
    """
    check_stands_alone(patches)
    for i, one in enumerate(patches):
        for other in patches[:i]:
            if one.digest == other.digest:
                raise UsageError(f"{one.title} is there twice", hint="name each patch once")
            if one.name == other.name:
                raise UsageError(
                    f"{other.title} and {one.title} are two versions of one patch", hint="keep the newer one"
                )
            for new, old in ((one, other), (other, one)):
                _check_pair(new, old)
    check_requirements(patches)


def check_stands_alone(patches: Sequence[Facts]) -> None:
    """Refuse a patch whose members stand side by side together with any other.

    Raises:
        UsageError: names it and says what to do.
    """
    if len(patches) > 1 and (one := next((patch for patch in patches if patch.parallel), None)):
        raise UsageError(
            f"{one.title} holds patches side by side: no other goes before or behind it",
            hint="compose the single patches (`llmpatch compose --parallel P1 P2 ...`), or deactivate the others first",
        )


def _check_pair(new: Facts, old: Facts) -> None:
    """Refuse two patches of which ``new`` makes ``old`` needless or impossible."""
    if related(new.supersedes, old):
        raise UsageError(f"{new.title} supersedes {old.title}", hint=f"leave {old.name} out")
    if old.digest in new.members:
        raise UsageError(f"{old.title} is part of {new.title}", hint=f"leave {old.name} out")
    if new.members & old.members:
        raise UsageError(
            f"{new.title} and {old.title} have a part in common", hint="compose the single patches instead"
        )
    if touches(new.conflicts, old):
        raise UsageError(f"{new.title} and {old.title} conflict", hint=f"leave one of them out: {new.name} says so")


def _stands_in(part: Sequence[str], order: Sequence[str]) -> bool:
    """Whether ``part`` is a subsequence of ``order``."""
    rest = iter(order)
    return all(digest in rest for digest in part)


def _needless(rest: Sequence[Facts], replaced: Sequence[Facts], new: Facts) -> str:
    """Why ``new`` would add nothing; empty if it would."""
    for patch in rest:
        if related(patch.supersedes, new):
            return f"{patch.title} is active and supersedes {new.title}"
        if new.digest in patch.members:
            return f"{new.title} is part of {patch.title}, which is active"
    # What new replaces by its vendor's word does not count as fixed already: a newer version is no repetition of the old.
    kept = (p for p in replaced if p.name != new.name and not related(new.supersedes, p))
    fixing = [*rest, *(p for p in kept if p.digest not in new.members)]
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
    if touches(new.conflicts, old) or touches(old.conflicts, new):
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
