"""The audit: which known gaps are open on which base, what would close them, and which patches have a known defect.

    audit = make_audit(take_inventory(store), load_advisories(Path("advisories")))
    audit.gaps[0].status, audit.gaps[0].offers        # "open", ("acme/refusal@>=1.1,<2",)
    audit.problems()                                  # what a build should fail for, in words

A gap is closed by an active patch that the advisory names as its fix, or that says so itself in its signed manifest; not by
one that an advisory revokes. Pure: knows no disk, and applies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmpatch.advisories.authority import Distrusted, MayRevoke, anybody
from llmpatch.advisories.inventory import Deployment, Held, Inventory, made_for
from llmpatch.advisories.matching import concerns, fixes, same_base
from llmpatch.advisories.record import Advisory, AffectedPatch, Gap
from llmpatch.artifact.manifest import Member
from llmpatch.store import Installed
from llmpatch.versions import parse_version

SCHEMA = "llmpatch/audit/v1"
DOUBT = "To be revoked, says a key that is not known to be its vendor's: ask there, then `llmpatch revoke`."
Status = Literal["closed", "open"]
Part = Installed | Member  # each has a name, a version and a digest


@dataclass(frozen=True)
class OpenGap:
    """A known gap of a base that is here, open or closed.

    Attributes:
        advisory: Which.
        deployment: On which base.
        status: ``closed`` if an active patch fixes it.
        sure: Whether the fingerprint says that it is this base; else only its purl or name does.
        closed_by: The active patches that fix it.
        installed: Installed patches that would, if they were active.
        offers: Patches that the advisory names as a fix, as ``NAME@RANGE``, and that are not installed.
    """

    advisory: Advisory
    deployment: Deployment
    status: Status
    sure: bool
    closed_by: tuple[Held, ...] = ()
    installed: tuple[Held, ...] = ()
    offers: tuple[str, ...] = ()

    @property
    def fixable(self) -> bool:
        """Whether something is known that closes it."""
        return bool(self.closed_by or self.installed or self.offers)

    @property
    def remedy(self) -> str:
        """What closes it, or would, in a sentence."""
        if self.closed_by:
            return f"Closed by {', '.join(held.title for held in self.closed_by)}."
        if self.installed:
            return f"Installed and not active: {', '.join(held.title for held in self.installed)}."
        return f"To install: {', '.join(self.offers)}." if self.offers else "No patch is known that closes it."


@dataclass(frozen=True)
class KnownDefect:
    """An installed patch of which an advisory says that something is wrong with it.

    Attributes:
        advisory: Which.
        held: Which patch.
        bases: Names of the bases on which it is active.
        revokes: Whether the advisory, of the patch's own vendor, asks that it never be active again.
        doubted: Whether one asks for that in the vendor's name, and is not known to be the vendor's
            (:mod:`llmpatch.advisories.authority`).
        revoked: Whether the store has done so already.
        fixed: The versions in which the defect is fixed, ascending.
        member: Name and version of the part of ``held`` that the advisory is about; empty where it is the whole.
    """

    advisory: Advisory
    held: Held
    bases: tuple[str, ...]
    revokes: bool
    revoked: bool
    fixed: tuple[str, ...] = ()
    member: str = ""
    doubted: bool = False

    @property
    def active(self) -> bool:
        """Whether it is in front of any base."""
        return bool(self.bases)

    @property
    def remedy(self) -> str:
        """Where it is active, and what to do, in sentences."""
        where = f"Active on {', '.join(self.bases)}." if self.bases else "Not active."
        where += f" Composed of {self.member} among others." if self.member else ""
        revoked = " Revoked here." if self.revoked else " Revoked by its vendor." if self.revokes else ""
        doubt = f" {DOUBT}" if self.doubted else ""
        fixed = f" Fixed in {', '.join(self.fixed)}." if self.fixed else ""
        return f"{where}{revoked}{doubt}{fixed}"


@dataclass(frozen=True)
class Audit:
    """All that advisories say of what is here.

    Attributes:
        inventory: What was looked at.
        advisories: How many were held against it; withdrawn ones do not count.
        gaps: Of the bases.
        defects: Of the installed patches.
        left_out: Advisories, or vendors of them, that could not be had, and why: one of them may be the one that matters.
        distrusted: Active patches whose key is revoked.
        bare: Names of bases that had patches before this audit applied revocations, and have none now.
    """

    inventory: Inventory
    advisories: int
    gaps: tuple[OpenGap, ...]
    defects: tuple[KnownDefect, ...]
    left_out: tuple[str, ...] = ()
    distrusted: tuple[Distrusted, ...] = ()
    bare: tuple[str, ...] = ()

    @property
    def others(self) -> list[str]:
        """What is wrong now and no advisory says, in words."""
        return [*(one.text for one in self.distrusted), *map(bare_text, self.bare), *self.left_out]

    def problems(self, *, ignore_unfixed: bool = False) -> list[str]:
        """What is wrong now, in words: open gaps, defects of active patches, revoked keys, and what nobody could look at.

        Args:
            ignore_unfixed: Leave out gaps that nothing is known to close.
        """
        found = [
            f"{gap.advisory.id} is open on {gap.deployment.base.name}"
            for gap in self.gaps
            if gap.status == "open" and (gap.fixable or not ignore_unfixed)
        ]
        for defect in self.defects:
            if defect.active:
                what = "revokes" if defect.revokes else "names a defect of"
                who = f"{defect.member}, a part of {defect.held.title}" if defect.member else defect.held.title
                found.append(f"{defect.advisory.id} {what} {who}, which is active")
        return [*found, *self.others]


def make_audit(
    inventory: Inventory,
    advisories: Sequence[Advisory],
    *,
    left_out: Sequence[str] = (),
    distrusted: Sequence[Distrusted] = (),
    bare: Sequence[str] = (),
    may_revoke: MayRevoke = anybody,
) -> Audit:
    """Hold advisories against an inventory.

    Args:
        inventory: What is here.
        advisories: What is known.
        left_out: What could not be had of the advisories, and why.
        distrusted: Active patches whose key is revoked.
        bare: Names of bases that lost their last patch to a revocation just now.
        may_revoke: Whose word takes a patch out of use.
    """
    valid = [advisory for advisory in advisories if advisory.withdrawn is None]
    defects = [
        _defect(advisory, entry, held, part, inventory, may_revoke)
        for advisory in valid
        for held in inventory.installed
        for part, entry in _first(advisory, held)
    ]
    out = {defect.held.entry.digest for defect in defects if defect.revokes} | set(inventory.revoked)
    gaps = []
    for deployment in inventory.deployments:
        for advisory in valid:
            matching = [
                e.database_specific for e in advisory.gaps if same_base(e.database_specific.base, deployment.base)
            ]
            if matching:
                gaps.append(_gap(advisory, matching, deployment, inventory, out))
    return Audit(inventory, len(valid), tuple(gaps), tuple(defects), tuple(left_out), tuple(distrusted), tuple(bare))


def bare_text(name: str) -> str:
    """What it means that a base is among :attr:`Audit.bare`."""
    return f"nothing is active on {name} any more: what was is revoked"


def audit_json(audit: Audit) -> dict[str, Any]:
    """An audit as plain JSON: ``llmpatch/audit/v1``, docs/advisories.md."""
    return {
        "schema": SCHEMA,
        "store": str(audit.inventory.root),
        "generation": audit.inventory.generation,
        "advisories": audit.advisories,
        "left_out": list(audit.left_out),
        "distrusted": [
            _patch_json(one.held) | {"active_on": one.base, "key": str(one.held.entry.signer)}
            for one in audit.distrusted
        ],
        "bare": list(audit.bare),
        "problems": audit.problems(),
        "bases": [
            {
                "name": d.base.name,
                "fingerprint": d.base.fingerprint.model_dump() if d.base.fingerprint else None,
                "active": [_patch_json(held) for held in d.active],
            }
            for d in audit.inventory.deployments
        ],
        "gaps": [_gap_json(gap) for gap in audit.gaps],
        "defects": [_defect_json(defect) for defect in audit.defects],
    }


def _parts(held: Held) -> list[Part]:
    """A patch itself, and those that it was composed of: a defect of one of them is a defect of the whole."""
    return [held.entry, *(held.patch.manifest.members or ())]


def _first(advisory: Advisory, held: Held) -> list[tuple[Part, AffectedPatch]]:
    """The part of a patch that an advisory concerns and the entry that says so, if any; one that revokes comes first."""
    found = [
        (part, entry)
        for part in _parts(held)
        for entry in advisory.defects
        if concerns(entry, part.name, part.version, part.digest)
    ]
    return sorted(found, key=lambda pair: not pair[1].database_specific.revoke)[:1]


def _defect(
    advisory: Advisory, entry: AffectedPatch, held: Held, part: Part, inventory: Inventory, may_revoke: MayRevoke
) -> KnownDefect:
    bases = tuple(d.base.name for d in inventory.deployments if held in d.active)
    events = [event.fixed for span in entry.ranges for event in span.events if event.fixed]
    fixed = [version for version in events if parse_version(version) > parse_version(part.version)]
    revoked = any(one.digest in inventory.revoked for one in _parts(held))
    asked, heard = entry.database_specific.revoke, may_revoke(advisory, held, part.name)
    return KnownDefect(
        advisory, held, bases, asked and heard, revoked, tuple(sorted(set(fixed), key=parse_version)),
        "" if part.digest == held.entry.digest else f"{part.name} {part.version}", asked and not heard and not revoked,
    )  # fmt: skip


def _gap(
    advisory: Advisory, matching: Sequence[Gap], deployment: Deployment, inventory: Inventory, out: set[str]
) -> OpenGap:
    def closes(held: Held) -> bool:
        if held.entry.digest in out:
            return False
        named = any(fixes(gap, part.name, part.version) for gap in matching for part in _parts(held))
        return named or any(fix.advisory == advisory.id for fix in held.patch.manifest.fixes)

    closed_by = tuple(held for held in deployment.active if closes(held))
    others = [held for held in inventory.installed if held not in deployment.active]
    installed = tuple(held for held in others if made_for(held, deployment.base) and closes(held))
    here = [h for h in inventory.installed if h.entry.digest not in out and made_for(h, deployment.base)]
    offers = [
        f"{fix.patch}@{fix.versions}"
        for gap in matching
        for fix in gap.fixed_by
        if not any(held.entry.name == fix.patch and fixes(gap, fix.patch, held.entry.version) for held in here)
    ]
    sure = any(gap.base.fingerprint for gap in matching) and deployment.base.fingerprint is not None
    status: Status = "closed" if closed_by else "open"
    return OpenGap(advisory, deployment, status, sure, closed_by, installed, tuple(dict.fromkeys(offers)))


def _patch_json(held: Held) -> dict[str, str]:
    return {"name": held.entry.name, "version": held.entry.version, "digest": held.entry.digest}


def _gap_json(gap: OpenGap) -> dict[str, Any]:
    return {
        "advisory": gap.advisory.id,
        "summary": gap.advisory.summary,
        "modified": gap.advisory.modified,
        "base": gap.deployment.base.name,
        "status": gap.status,
        "matched": "fingerprint" if gap.sure else "name",
        "closed_by": [_patch_json(held) for held in gap.closed_by],
        "installed": [_patch_json(held) for held in gap.installed],
        "available": list(gap.offers),
    }


def _defect_json(defect: KnownDefect) -> dict[str, Any]:
    return {
        "advisory": defect.advisory.id,
        "summary": defect.advisory.summary,
        "modified": defect.advisory.modified,
        "patch": _patch_json(defect.held),
        "member": defect.member or None,
        "active_on": list(defect.bases),
        "revokes": defect.revokes,
        "revoked": defect.revoked,
        "doubted": defect.doubted,
        "fixed": list(defect.fixed),
    }
