"""The small parts of an advisory: ids, times, ranges of versions, references, estimates. As OSV 1.7 has them, or narrower.

Pure: what they mean together is said in :mod:`llmpatch.advisories.record`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from llmpatch.artifact.manifest import Text, Time, printable
from llmpatch.versions import range_text, version_text

EVERYTHING = "0"  # OSV: introduced before any version
ID = r"^x_([A-Z0-9]+(?:-[A-Z0-9]+)*)-[0-9]{4}-[0-9]{4,8}$"


def _in_utc(text: str) -> str:
    if not text.endswith("Z"):
        raise ValueError("OSV wants times in UTC, ending in Z")
    return text


def _markdown(text: str) -> str:
    printable(text.replace("\n", "").replace("\t", ""))
    return text


def _a_start(text: str) -> str:
    return text if text == EVERYTHING else version_text(text)


AdvisoryId = Annotated[str, Field(max_length=96, pattern=ID)]
UtcTime = Annotated[Time, AfterValidator(_in_utc)]
Markdown = Annotated[str, Field(min_length=1, max_length=20_000), AfterValidator(_markdown)]
Version = Annotated[str, Field(max_length=64), AfterValidator(version_text)]
Start = Annotated[str, Field(max_length=64), AfterValidator(_a_start)]
RangeText = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(range_text)]
Url = Annotated[str, Field(max_length=500, pattern=r"^https?://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Texts = Annotated[tuple[Text, ...], Field(max_length=64)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]


class Section(BaseModel):
    """A frozen part of an advisory that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Event(Section):
    """One end of a range: exactly one of the keys."""

    introduced: Start | None = None
    fixed: Version | None = None
    last_affected: Version | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(self.model_fields_set) != 1 or getattr(self, next(iter(self.model_fields_set))) is None:
            raise ValueError("an event has exactly one of introduced, fixed, last_affected")
        return self


class VersionsRange(Section):
    """Versions of a patch, between events."""

    type: Literal["SEMVER"]
    events: Annotated[tuple[Event, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        kinds = {next(iter(event.model_fields_set)) for event in self.events}
        if "introduced" not in kinds:
            raise ValueError("a range without introduced")
        if {"fixed", "last_affected"} <= kinds:
            raise ValueError("a range with both fixed and last_affected")
        return self


class RepositoryEvent(Section):
    """All commits: which of them are meant is said by ``versions``, and for certain by the fingerprint."""

    introduced: Literal["0"]


class RepositoryRange(Section):
    """Where a base is published."""

    type: Literal["GIT"]
    repo: Url
    events: Annotated[tuple[RepositoryEvent], Field(min_length=1, max_length=1)]


class Reference(Section):
    """Where to read more; ``FIX`` is where the patch is, ``EVIDENCE`` what was measured."""

    type: Literal[
        "ADVISORY",
        "ARTICLE",
        "DETECTION",
        "DISCUSSION",
        "REPORT",
        "FIX",
        "GIT",
        "INTRODUCED",
        "PACKAGE",
        "EVIDENCE",
        "WEB",
    ]
    url: Url


class Credit(Section):
    """Who found it, or helped."""

    name: Text
    contact: Annotated[tuple[Text, ...], Field(max_length=8)] = ()
    type: (
        Literal[
            "FINDER", "REPORTER", "ANALYST", "COORDINATOR", "REMEDIATION_DEVELOPER", "REMEDIATION_REVIEWER",
            "REMEDIATION_VERIFIER", "TOOL", "SPONSOR", "OTHER",
        ]
        | None
    ) = None  # fmt: skip


class Estimate(Section):
    """A measurement and its 95 % interval."""

    value: Number
    low: Number
    high: Number

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value:g} is not within its interval [{self.low:g}, {self.high:g}]")
        return self
