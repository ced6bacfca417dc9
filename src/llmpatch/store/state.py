"""What a store holds, as one document: a generation. Everything that can change is in it, so one rename changes it all.

    generation = parse_generation(data, where="generations/7.json")
    generation.state.installed, generation.state.active, generation.state.revoked

A generation names its parent and the sha256 of the parent's bytes; none is ever written twice. Pure: touches no disk.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmpatch.artifact.manifest import FingerprintSection, LongText, Name, RangeText, Sha256, Text, Time
from llmpatch.artifact.manifest import Version as VersionText
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.errors import IntegrityError, LlmpatchError
from llmpatch.recipe import describe
from llmpatch.versions import parse_version

if TYPE_CHECKING:
    from llmpatch.bases import Fingerprint

SCHEMA = "llmpatch/generation/v1"
NO_PARENT = "0" * 64
MAX_GENERATION_BYTES = 1 << 20
MAX_NUMBER = 1 << 40

Status = Literal["stored", "active", "superseded", "inactive", "rolled back", "revoked"]
Action = Literal[
    "install", "activate", "deactivate", "rollback", "pin", "unpin", "upgrade", "revoke", "gc", "repair", "none"
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class GateRecord(_Section):
    """Why a set may be active: its own gate passed, or somebody skipped it on purpose.

    ``verdict`` and ``attestation`` are the sha256 of what the gate said, kept in the store: as a verdict, and as a statement
    that the customer's key may have signed.
    """

    result: Literal["PASSED", "SKIPPED"]
    time: Time
    policy: Text | None = None
    policy_sha256: Sha256 | None = None
    verdict: Sha256 | None = None
    attestation: Sha256 | None = None


class ActiveSet(_Section):
    """What goes before everything one base reads: digests of patches, in order, gated as this set on this base."""

    base: Text
    fingerprint: FingerprintSection
    patches: Annotated[tuple[Sha256, ...], Field(min_length=1, max_length=16)]
    gate: GateRecord


class Installed(_Section):
    """A patch in the store. ``signer`` is the key that signed it, or none where an unsigned patch was allowed."""

    digest: Sha256
    name: Name
    version: VersionText
    base: Text
    status: Status = "stored"
    signer: Text | None = None
    source: LongText
    installed: Time


class State(_Section):
    """All that a store holds.

    Attributes:
        installed: Every patch that has a folder, by digest.
        active: At most one set of patches a base.
        pins: Name -> the range that upgrades stay in and that gc keeps.
        high_water: Name -> the highest version that was ever active.
        revoked: Digest -> why it must not be active again.
    """

    installed: Annotated[tuple[Installed, ...], Field(max_length=4096)] = ()
    active: Annotated[tuple[ActiveSet, ...], Field(max_length=256)] = ()
    pins: Annotated[dict[Name, RangeText], Field(max_length=1024)] = {}
    high_water: Annotated[dict[Name, VersionText], Field(max_length=4096)] = {}
    revoked: Annotated[dict[Sha256, LongText], Field(max_length=4096)] = {}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        known = [entry.digest for entry in self.installed]
        if len(set(known)) != len(known):
            raise ValueError("a digest is installed twice")
        active = self.active_digests
        if missing := active - set(known):
            raise ValueError(f"active but not installed: {min(missing)}")
        if wrong := active & set(self.revoked):
            raise ValueError(f"active but revoked: {min(wrong)}")
        return self

    @property
    def active_digests(self) -> set[str]:
        """Digests of all patches that are active on any base."""
        return {digest for group in self.active for digest in group.patches}

    def entry(self, digest: str) -> Installed | None:
        """The installed patch of a digest."""
        return next((entry for entry in self.installed if entry.digest == digest), None)


class Generation(_Section):
    """One state of a store and how it came about.

    ``restores`` is the number of the generation whose active sets a rollback brought back.
    """

    schema_: Annotated[Literal["llmpatch/generation/v1"], Field(alias="schema")] = "llmpatch/generation/v1"
    number: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    parent: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    parent_sha256: Sha256
    time: Time
    actor: Text
    action: Action
    reason: LongText
    restores: Annotated[int, Field(ge=0, le=MAX_NUMBER)] | None = None
    state: State

    @model_validator(mode="after")
    def _goes_back(self) -> Self:
        if self.number and self.parent >= self.number:
            raise ValueError(f"generation {self.number} has the parent {self.parent}")
        return self


FIRST = Generation.model_validate(
    {
        "schema": SCHEMA, "number": 0, "parent": 0, "parent_sha256": NO_PARENT, "time": "1970-01-01T00:00:00Z",
        "actor": "-", "action": "none", "reason": "an empty store", "state": State(),
    }
)  # fmt: skip


def parse_generation(data: bytes, *, where: str) -> Generation:
    """Read a generation.

    Raises:
        IntegrityError: oversized, not strict JSON, not of this schema, or contradicting itself.
    """
    if len(data) > MAX_GENERATION_BYTES:
        raise IntegrityError(f"{where} is larger than {MAX_GENERATION_BYTES:,} bytes", hint="llmpatch doctor")
    mapping = parse_object(data, where=where)
    try:
        return Generation.model_validate_json(json.dumps(mapping))
    except ValidationError as error:
        raise IntegrityError(f"{where}: {shown(describe(error), 300)}", hint="llmpatch doctor") from None


def make_generation(fields: Mapping[str, Any]) -> Generation:
    """A generation of checked fields.

    Raises:
        LlmpatchError: they do not make one (a reason too long, too many patches).
    """
    try:
        return Generation.model_validate({"schema": SCHEMA, **fields})
    except ValidationError as error:
        raise LlmpatchError(
            f"cannot record this in the store: {shown(describe(error), 300)}", hint="nothing was changed"
        ) from None


def render_generation(generation: Generation) -> bytes:
    """The bytes of a generation: the same content gives the same bytes.

    Raises:
        LlmpatchError: it would be larger than what is read back.
    """
    mapping = generation.model_dump(mode="json", by_alias=True, exclude_none=True)
    data = (json.dumps(mapping, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    if len(data) > MAX_GENERATION_BYTES:
        raise LlmpatchError("the store holds too many patches for one record", hint="llmpatch gc, then try again")
    return data


def with_active(state: State, active: tuple[ActiveSet, ...], gone: Status) -> State:
    """``state`` with other active sets, and each patch's status and the high-water marks to match.

    Args:
        state: Before.
        active: After.
        gone: Status of those that are active no longer.
    """
    now = {digest for group in active for digest in group.patches}
    before = state.active_digests

    def status(entry: Installed) -> Status:
        if entry.digest in state.revoked:
            return "revoked"
        if entry.digest in now:
            return "active"
        return gone if entry.digest in before else entry.status

    installed = tuple(entry.model_copy(update={"status": status(entry)}) for entry in state.installed)
    marks = raised(state.high_water, [entry for entry in state.installed if entry.digest in now])
    return changed(state, installed=installed, active=active, high_water=marks)


def set_of(groups: Sequence[ActiveSet], base: Fingerprint) -> ActiveSet | None:
    """The set for a base: that of the very same base first, else of one that does not differ."""
    from llmpatch.bases import Fingerprint

    found = [(Fingerprint(**group.fingerprint.model_dump()), group) for group in groups]
    same = [group for fingerprint, group in found if fingerprint == base]
    alike = [group for fingerprint, group in found if not fingerprint.differences(base)]
    return next(iter((*same, *alike)), None)


def undone(state: State, group: ActiveSet) -> bool:
    """Whether a patch of an earlier set was rolled back or deactivated since."""
    gone = {entry.digest for entry in state.installed if entry.status in ("rolled back", "inactive")}
    return bool(gone & set(group.patches))


def raised(marks: Mapping[str, str], entries: Collection[Installed]) -> dict[str, str]:
    """High-water marks that also count ``entries``."""
    found = dict(marks)
    for entry in entries:
        mark = found.get(entry.name)
        if mark is None or parse_version(mark) < parse_version(entry.version):
            found[entry.name] = entry.version
    return found


def changed(state: State, **fields: Any) -> State:
    """``state`` with some fields replaced, checked anew.

    Raises:
        LlmpatchError: they contradict each other or are too many.
    """
    values = {name: getattr(state, name) for name in State.model_fields} | fields
    try:
        return State.model_validate(values)
    except ValidationError as error:
        raise LlmpatchError(
            f"cannot record this in the store: {shown(describe(error), 300)}", hint="nothing was changed"
        ) from None
