"""What was measured of patches in one order: a record, as a closed schema that is read as strictly as a manifest.

    record = parse_record(Path("runs/compose/composition.json").read_bytes(), where="composition.json")
    record.measured[0].patches, [figure.hurt for figure in record.measured[0].figures]

``llmpatch compose`` writes it; a lock file holds one; the store keeps them and refuses a set that was measured to lose.
Knows nothing about how anything was measured.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmpatch.artifact.manifest import FingerprintSection, Name, Sha256, Text, Time, Version
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.errors import IntegrityError, UsageError

SCHEMA = "llmpatch/composition/v1"
MAX_RECORD_BYTES = 1 << 20
_HINT = "give the composition.json that `llmpatch compose` wrote"

Count = Annotated[int, Field(ge=1, le=1 << 40)]
Number = Annotated[float, Field(ge=-1e6, le=1e6)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RecordBase(_Section):
    """The base it was measured on."""

    name: Text
    fingerprint: FingerprintSection


class Part(_Section):
    """One of the patches, in the order of their rows."""

    name: Name
    version: Version
    digest: Sha256


class Estimate(_Section):
    """An estimate with its 95 % interval."""

    n: Count
    value: Number
    low: Number
    high: Number

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("an estimate is not within its interval")
        return self


class Figure(_Section):
    """One measure of one patch: without any patch (``before``), behind it ``alone``, and behind all of them ``together``.

    Means over the same prompts, all as shares of which more is better. ``kept`` is the share of the gain of ``alone`` that
    is there ``together``; without a gain there is none. ``change`` is ``together`` less ``alone``, paired. ``aim`` is false
    for what the patch should leave as it was. ``hurt``: more was lost than chance and the tolerance allow.
    """

    patch: Sha256
    risk: Text
    metric: Text
    aim: bool
    before: Number
    alone: Number
    together: Number
    kept: Estimate | None = None
    change: Estimate
    hurt: bool


class Measured(_Section):
    """What was measured behind exactly these patches, in this order."""

    patches: Annotated[tuple[Sha256, ...], Field(min_length=2, max_length=16)]
    figures: Annotated[tuple[Figure, ...], Field(min_length=1, max_length=256)]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(set(self.patches)) != len(self.patches):
            raise ValueError("a patch is there twice")
        if any(figure.patch not in self.patches for figure in self.figures):
            raise ValueError("a figure is of a patch that was not there")
        return self

    @property
    def hurt(self) -> tuple[Figure, ...]:
        """The figures that say that something was lost."""
        return tuple(figure for figure in self.figures if figure.hurt)


class Record(_Section):
    """Composition evidence: all patches together first, then the pairs that were looked at to find who hurts whom.

    ``evidence`` is the sha256 of the full evidence of each risk, by risk. With ``arrangement: parallel`` the patches stood
    side by side: it says nothing of them one after another.
    """

    schema_: Annotated[Literal["llmpatch/composition/v1"], Field(alias="schema")] = "llmpatch/composition/v1"
    created: Time
    base: RecordBase
    patches: Annotated[tuple[Part, ...], Field(min_length=2, max_length=16)]
    arrangement: Literal["parallel"] | None = None
    limit: Count | None = None
    measured: Annotated[tuple[Measured, ...], Field(min_length=1, max_length=256)]
    evidence: Annotated[dict[Text, Sha256], Field(max_length=64)] = {}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        digests = tuple(part.digest for part in self.patches)
        if self.measured[0].patches != digests:
            raise ValueError("the first measurement is not of all patches in their order")
        if any(not set(measured.patches) <= set(digests) for measured in self.measured):
            raise ValueError("a measurement is of other patches")
        return self

    @property
    def digests(self) -> tuple[str, ...]:
        """Of all patches, in their order."""
        return tuple(part.digest for part in self.patches)

    def title(self, digest: str) -> str:
        """Name and version of one of the patches."""
        return next(f"{part.name} {part.version}" for part in self.patches if part.digest == digest)


def make_record(fields: dict[str, Any]) -> Record:
    """A record out of fields made by a caller.

    Raises:
        UsageError: an unknown or missing key, a wrong value.
    """
    try:
        return Record.model_validate_json(json.dumps({"schema": SCHEMA, **fields}, allow_nan=False))
    except (ValidationError, TypeError, ValueError) as error:
        raise UsageError(f"composition record: {shown(str(error), 300)}", hint="measure again") from None


def parse_record(data: bytes, *, where: str) -> Record:
    """Read a record.

    Raises:
        IntegrityError: oversized, not strict JSON, not of this schema, or contradicting itself.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise IntegrityError(f"{where} is larger than {MAX_RECORD_BYTES:,} bytes", hint=_HINT)
    return read_record(parse_object(data, where=where), where=where)


def read_record(mapping: dict[str, Any], *, where: str) -> Record:
    """The same of an object that the strict reader has read (errors as in :func:`parse_record`)."""
    from llmpatch.recipe import describe

    try:
        return Record.model_validate_json(json.dumps(mapping))
    except ValidationError as error:
        raise IntegrityError(f"{where}: {shown(describe(error), 300)}", hint=_HINT) from None


def render_record(record: Record) -> bytes:
    """The bytes of a record: the same content gives the same bytes."""
    mapping = record.model_dump(mode="json", by_alias=True, exclude_none=True)
    return (json.dumps(mapping, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
