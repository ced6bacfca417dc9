"""Versions of patches and ranges of them: ``N.N.N[-(alpha|beta|rc).N]``, ordered as SemVer and PEP 440 both order it.

    parse_version("1.2.0-rc.1") < parse_version("1.2.0")          # True
    parse_range(">=1.2,<2").holds(parse_version("1.10.0"))        # True
    parse_request("acme/refusal@>=1.2,<2")                        # Request(name="acme/refusal", range=...)

A range is clauses joined by commas, all of which must hold: ``>= > <= < == != ~=`` and a version, whose last parts may be
left out; no sign means ``==``; ``*`` is any. ``~=1.2`` is ``>=1.2,<2`` and ``~=1.2.3`` is ``>=1.2.3,<1.3``. Knows nothing
about what has a version.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from llmpatch.errors import UsageError

STAGES = ("alpha", "beta", "rc")
_FINAL = len(STAGES)
_NUMBER = r"(0|[1-9][0-9]{0,8})"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-(alpha|beta|rc)\.{_NUMBER})?")
PATTERN = f"^{_VERSION.pattern}$"  # for schemas
_CLAUSE = re.compile(rf"(>=|<=|>|<|==|!=|~=)? *({_NUMBER}(?:\.{_NUMBER})?|{_VERSION.pattern})")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*/[a-z0-9]+(-[a-z0-9]+)*")
MAX_RANGE = 128
_RANGE_HINT = "write it as '>=1.2,<2', '1.2.0', '~=1.2' or '*'"


@dataclass(frozen=True, order=True)
class Version:
    """A version. ``stage`` is 0 alpha, 1 beta, 2 rc, 3 released; comparing compares the fields in order."""

    major: int
    minor: int
    patch: int
    stage: int = _FINAL
    serial: int = 0

    @property
    def prerelease(self) -> bool:
        """Whether it is an alpha, beta or release candidate."""
        return self.stage < _FINAL

    @property
    def release(self) -> tuple[int, int, int]:
        """Its three numbers."""
        return self.major, self.minor, self.patch

    def successor(self) -> Version:
        """The least version above this one."""
        if self.prerelease:
            return Version(*self.release, self.stage, self.serial + 1)
        return Version(self.major, self.minor, self.patch + 1, 0, 0)

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        return f"{text}-{STAGES[self.stage]}.{self.serial}" if self.prerelease else text


@dataclass(frozen=True)
class Clause:
    """From ``low`` on and below ``high`` (``None`` is without end); outside of that with ``negated``."""

    low: Version | None
    high: Version | None
    negated: bool = False

    def holds(self, version: Version) -> bool:
        """Whether ``version`` satisfies the clause."""
        inside = (self.low is None or self.low <= version) and (self.high is None or version < self.high)
        return inside != self.negated


@dataclass(frozen=True)
class Range:
    """A range of versions.

    Attributes:
        text: As it was written.
        clauses: All must hold.
        named: Numbers of the pre-releases that the text names.
    """

    text: str
    clauses: tuple[Clause, ...]
    named: frozenset[tuple[int, int, int]] = frozenset()

    def holds(self, version: Version, *, prereleases: bool = False) -> bool:
        """Whether ``version`` is in the range.

        Args:
            version: What to look at.
            prereleases: Take pre-releases like any other. By default one is in the range only if the range names a
                pre-release of the same three numbers, so that nobody gets one unasked.
        """
        if version.prerelease and not prereleases and version.release not in self.named:
            return False
        return all(clause.holds(version) for clause in self.clauses)


@dataclass(frozen=True)
class Request:
    """``NAME`` or ``NAME@RANGE``. Without a range, ``range`` is ``None``: the caller knows what is meant."""

    name: str
    range: Range | None


def parse_version(text: str) -> Version:
    """Read a version.

    Raises:
        UsageError: it has another form; ``v1.2.0``, ``1.2`` and ``1.2.0-1`` have.
    """
    found = _VERSION.fullmatch(text) if len(text) <= 64 else None
    if found is None:
        raise UsageError(f"{text[:64]!r} is not a version", hint="write N.N.N, or N.N.N-rc.N (alpha, beta, rc)")
    return _version(found.groups())


def version_text(text: str) -> str:
    """The text of a version, for a schema.

    Raises:
        ValueError: it is none.
    """
    return _checked(text, parse_version)


def range_text(text: str) -> str:
    """The text of a range, for a schema.

    Raises:
        ValueError: it is none.
    """
    return _checked(text, parse_range)


def _checked(text: str, parse: Callable[[str], object]) -> str:
    try:
        parse(text)
    except UsageError as error:
        raise ValueError(error.message) from None
    return text


def parse_range(text: str) -> Range:
    """Read a range.

    Raises:
        UsageError: names the clause that is not one.
    """
    if len(text) > MAX_RANGE:
        raise UsageError(f"a version range of {len(text)} characters, at most {MAX_RANGE} allowed", hint=_RANGE_HINT)
    if text.strip(" ") == "*":
        return Range(text, ())
    clauses, named = [], set()
    for part in text.split(","):
        found = _CLAUSE.fullmatch(part.strip(" "))
        if found is None:
            raise UsageError(f"{part[:64]!r} in the version range {text!r} is not a clause", hint=_RANGE_HINT)
        clause, version = _clause(found.group(1) or "==", found.group(2))
        clauses.append(clause)
        if version is not None and version.prerelease:
            named.add(version.release)
    return Range(text, tuple(clauses), frozenset(named))


def parse_request(text: str) -> Request:
    """Read ``NAME`` or ``NAME@RANGE``.

    Raises:
        UsageError: the name is not ``vendor/slug``, or the range is not one.
    """
    name, sign, versions = text.partition("@")
    if len(name) > 128 or not _NAME.fullmatch(name):
        raise UsageError(f"{name[:128]!r} is not the name of a patch", hint="write VENDOR/SLUG or VENDOR/SLUG@RANGE")
    return Request(name, parse_range(versions) if sign else None)


def is_request(text: str) -> bool:
    """Whether ``text`` looks like ``NAME`` or ``NAME@RANGE``; the range is not read."""
    return _NAME.fullmatch(text.partition("@")[0]) is not None


def _version(groups: tuple[str | None, ...]) -> Version:
    major, minor, patch, stage, serial = groups
    if stage is None:
        return Version(int(major or 0), int(minor or 0), int(patch or 0))
    return Version(int(major or 0), int(minor or 0), int(patch or 0), STAGES.index(stage), int(serial or 0))


def _clause(sign: str, text: str) -> tuple[Clause, Version | None]:
    """One clause, and its version where it was written in full.

    A version with parts left out stands for all that begin so, their pre-releases included.
    """
    full = _VERSION.fullmatch(text)
    if full:
        version = _version(full.groups())
        low, high = version, version.successor()
    else:
        version = None
        low, high = _span([int(digits) for digits in text.split(".")])
    if sign == "~=":
        numbers = [int(digits) for digits in text.partition("-")[0].split(".")]
        return Clause(low, _span(numbers[: max(1, len(numbers) - 1)])[1]), version
    ends: dict[str, tuple[Version | None, Version | None]] = {
        "==": (low, high), "!=": (low, high), ">=": (low, None), ">": (high, None), "<": (None, low), "<=": (None, high),
    }  # fmt: skip
    return Clause(*ends[sign], negated=sign == "!="), version


def _span(numbers: list[int]) -> tuple[Version, Version]:
    """The first version that begins with ``numbers``, and the first one after all that do."""
    first = [*numbers, 0, 0]
    after = [*numbers[:-1], numbers[-1] + 1, 0, 0]
    return Version(first[0], first[1], first[2], 0, 0), Version(after[0], after[1], after[2], 0, 0)
