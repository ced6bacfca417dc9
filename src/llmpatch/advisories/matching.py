"""Whether an advisory concerns a version of a patch, or a base: pure comparisons.

concerns(entry, "acme/refusal", "1.1.0", digest)       # an affected patch
same_base(reference, BaseFacts("smollm2", purl, fingerprint))
fixes(gap, "acme/refusal", "1.2.0")
"""

from __future__ import annotations

from dataclasses import dataclass

from llmpatch.advisories.fields import EVERYTHING, Event, VersionsRange
from llmpatch.advisories.record import AffectedPatch, BaseReference, Gap
from llmpatch.artifact.manifest import FingerprintSection
from llmpatch.versions import Version, parse_range, parse_version


@dataclass(frozen=True)
class BaseFacts:
    """What is known of a base here.

    Attributes:
        name: As it is called here.
        purl: Of where it was published.
        fingerprint: Part by part; ``None`` where nobody has loaded it.
    """

    name: str
    purl: str | None = None
    fingerprint: FingerprintSection | None = None


def same_base(wanted: BaseReference, base: BaseFacts) -> bool:
    """Whether an advisory's base is this one.

    Two fingerprints decide it, as they do for a patch (quantisation aside). Where one is missing, the purl without its
    commit, else the name: enough to be warned, not to be sure.
    """
    if wanted.fingerprint and base.fingerprint:
        return alike(base.fingerprint, wanted.fingerprint)
    if wanted.purl and base.purl:
        return wanted.purl.partition("@")[0] == base.purl.partition("@")[0]
    return wanted.name == base.name


def alike(one: FingerprintSection, other: FingerprintSection) -> bool:
    """Whether two fingerprints are of one base, quantisation aside."""
    from llmpatch.bases import Fingerprint

    return not Fingerprint(**one.model_dump()).differences(Fingerprint(**other.model_dump()))


def fixes(gap: Gap, name: str, version: str) -> bool:
    """Whether an advisory says that a patch closes its gap; pre-releases count like other versions."""
    found = parse_version(version)
    return any(f.patch == name and parse_range(f.versions).holds(found, prereleases=True) for f in gap.fixed_by)


def concerns(entry: AffectedPatch, name: str, version: str, digest: str) -> bool:
    """Whether a patch is one of those that an advisory says have a defect: its name, and its digest or version."""
    defect = entry.database_specific
    if name != defect.patch:
        return False
    found = parse_version(version)
    return digest in defect.digests or version in entry.versions or any(_inside(span, found) for span in entry.ranges)


def _inside(span: VersionsRange, version: Version) -> bool:
    """OSV's evaluation: walk the events in order of their versions, and see which was the last to apply."""
    inside = False
    for place, kind in sorted(_place(event) for event in span.events):
        if kind == "last_affected":
            inside = inside and version <= place
        elif version >= place:
            inside = kind == "introduced"
    return inside


def _place(event: Event) -> tuple[Version, str]:
    kind = next(iter(event.model_fields_set))
    text = str(getattr(event, kind))
    return (Version(0, 0, 0, 0, 0) if text == EVERYTHING else parse_version(text)), kind
