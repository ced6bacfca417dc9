"""One advisory: an OSV 1.7 record about a gap in a base or a defect in a patch. A closed profile of that schema.

    advisory = parse_advisory(data, where="x_ACME-2026-0001.json")
    advisory.vendor, advisory.withdrawn, advisory.gaps, advisory.defects
    render_advisory(advisory)                                         # bytes, the same for the same content

Every advisory is a valid OSV record (https://ossf.github.io/osv-schema/, 1.7.5); most OSV records are no advisory of ours:
no ecosystem has models or patches, so what is affected stands in ``database_specific``, which OSV leaves to whoever
publishes. Pure: knows no folder, store or model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from llmpatch.advisories.fields import (
    ID,
    AdvisoryId,
    Commit,
    Credit,
    Estimate,
    Markdown,
    RangeText,
    Reference,
    RepositoryRange,
    Section,
    Texts,
    UtcTime,
    Version,
    VersionsRange,
)
from llmpatch.artifact.manifest import FingerprintSection, LongText, Name, Sha256, Text
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.errors import IntegrityError, UsageError

OSV_VERSION = "1.7.5"
MAX_ADVISORY_BYTES = 256 << 10
_HINT = "docs/advisories.md lists every key; `llmpatch advisory new` drafts one"


class BaseReference(Section):
    """Which base. With a fingerprint it alone decides; without one, the purl or the name, which prove nothing."""

    name: Text
    purl: Annotated[str, Field(max_length=300, pattern=r"^pkg:[a-z0-9.+-]+/[A-Za-z0-9._/%@:?=&-]+$")] | None = None
    fingerprint: FingerprintSection | None = None


class Fixer(Section):
    """A patch that closes the gap on this base, and the sha256 of the evidence for it."""

    patch: Name
    versions: RangeText = "*"
    evidence: Sha256 | None = None


class Gap(Section):
    """A base that does what it should not."""

    base: BaseReference
    fixed_by: Annotated[tuple[Fixer, ...], Field(max_length=64)] = ()


class Defect(Section):
    """A patch with something wrong. ``digests`` name the affected ones beyond doubt, where they are known.

    ``revoke`` asks that they never be active again.
    """

    patch: Name
    digests: Annotated[tuple[Sha256, ...], Field(max_length=256)] = ()
    revoke: bool = False


class AffectedBase(Section):
    """An ``affected`` entry about a base. ``versions`` are its commits."""

    ranges: Annotated[tuple[RepositoryRange, ...], Field(max_length=8)] = ()
    versions: Annotated[tuple[Commit, ...], Field(max_length=256)] = ()
    database_specific: Gap


class AffectedPatch(Section):
    """An ``affected`` entry about a patch: versions in ``ranges`` or ``versions``, or those of the digests."""

    ranges: Annotated[tuple[VersionsRange, ...], Field(max_length=8)] = ()
    versions: Annotated[tuple[Version, ...], Field(max_length=256)] = ()
    database_specific: Defect

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not (self.ranges or self.versions or self.database_specific.digests):
            raise ValueError("names no version of the patch: ranges, versions or digests")
        return self


class Measured(Section):
    """One row of evidence: the base, and with the patch, on ``n`` prompts. A share, unless ``unit`` says otherwise."""

    name: Text
    n: Annotated[int, Field(ge=1)]
    unit: Text = "share"
    base: Estimate
    patched: Estimate | None = None


class Specific(Section):
    """What OSV has no key for: the risk as suites name it, codes of taxonomies (each with its year), numbers."""

    risk: Text | None = None
    avid: Texts = ()
    atlas: Texts = ()
    owasp_llm: Texts = ()
    nist_ai_600_1: Texts = ()
    evidence: Sha256 | None = None
    measured: Annotated[tuple[Measured, ...], Field(max_length=256)] = ()


def _subject(entry: Any) -> str:
    """Which kind an ``affected`` entry says it is; anything that names no patch is held against the form of a base."""
    specific = entry.get("database_specific") if isinstance(entry, dict) else getattr(entry, "database_specific", None)
    about_patch = "patch" in specific if isinstance(specific, dict) else isinstance(specific, Defect)
    return "patch" if about_patch else "base"


Affected = Annotated[
    Annotated[AffectedBase, Tag("base")] | Annotated[AffectedPatch, Tag("patch")], Discriminator(_subject)
]


class Advisory(Section):
    """An advisory of one vendor.

    ``affected`` says what it is about: bases or patches, of one kind. ``withdrawn`` is when it was found to be wrong: it
    counts no more. A vendor may report a defect of anybody's patch and revoke only its own.
    """

    schema_version: Annotated[str, Field(pattern=r"^1\.7\.[0-9]{1,4}$")]
    id: AdvisoryId
    published: UtcTime
    modified: UtcTime
    withdrawn: UtcTime | None = None
    aliases: Texts = ()
    related: Texts = ()
    summary: LongText
    details: Markdown | None = None
    affected: Annotated[tuple[Affected, ...], Field(min_length=1, max_length=64)]
    references: Annotated[tuple[Reference, ...], Field(max_length=64)] = ()
    credits: Annotated[tuple[Credit, ...], Field(max_length=64)] = ()
    database_specific: Specific = Specific()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.gaps and self.defects:
            raise ValueError("is about a base and about a patch: make two advisories")
        for entry in self.defects:
            found = entry.database_specific
            if found.revoke and found.patch.partition("/")[0] != self.vendor:
                raise ValueError(f"revokes {found.patch}, which is not {self.vendor}'s own")
        return self

    @property
    def vendor(self) -> str:
        """Who says so, as in the names of its patches."""
        found = re.match(ID, self.id)
        return found.group(1).lower() if found else ""

    @property
    def gaps(self) -> tuple[AffectedBase, ...]:
        """What it says of bases."""
        return tuple(entry for entry in self.affected if isinstance(entry, AffectedBase))

    @property
    def defects(self) -> tuple[AffectedPatch, ...]:
        """What it says of patches."""
        return tuple(entry for entry in self.affected if isinstance(entry, AffectedPatch))


def parse_advisory(data: bytes, *, where: str) -> Advisory:
    """Read an advisory.

    Raises:
        IntegrityError: oversized, not strict JSON, an unknown key, a wrong value; names it.
    """
    if len(data) > MAX_ADVISORY_BYTES:
        raise IntegrityError(f"{where} is larger than {MAX_ADVISORY_BYTES:,} bytes", hint=_HINT)
    mapping = parse_object(data, where=where)
    try:
        return _validate(mapping)
    except ValidationError as error:
        raise IntegrityError(f"{where} is not an advisory: {_why(error)}", hint=_HINT) from None


def make_advisory(mapping: Mapping[str, Any]) -> Advisory:
    """Check an advisory made by a caller.

    Raises:
        UsageError: an unknown or missing key, a wrong value; names it.
    """
    try:
        return _validate({"schema_version": OSV_VERSION, **mapping})
    except ValidationError as error:
        raise UsageError(f"advisory: {_why(error)}", hint=_HINT) from None


def render_advisory(advisory: Advisory) -> bytes:
    """The bytes of an advisory: the same content gives the same bytes. What is empty is left out."""
    mapping = advisory.model_dump(mode="json", exclude_defaults=True)
    return (json.dumps(mapping, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def _validate(mapping: Mapping[str, Any]) -> Advisory:
    # Through JSON, so that strictness applies to values and not to Python's choice of containers.
    return Advisory.model_validate_json(json.dumps(mapping, allow_nan=False))


def _why(error: ValidationError) -> str:
    from llmpatch.recipe import describe

    return shown(describe(error), 300)
