"""A lock file: exactly which patches, in which order, on which base, and what was measured of them together.

    lock = make_lock(patches, record)
    write_text(Path("llmpatch.lock"), render_lock(lock))
    lock = parse_lock(read_bytes(Path("llmpatch.lock"), limit=MAX_LOCK_BYTES), where="llmpatch.lock")

Digests cover every byte of a patch, so the same lock file means the same rows everywhere. It is no signature: who made a
patch is still decided by ``verify``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmpatch.artifact import Patch, release_time
from llmpatch.artifact.composition import MAX_RECORD_BYTES, Part, Record, RecordBase
from llmpatch.artifact.manifest import FingerprintSection, Time
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.errors import IntegrityError, TrustError, UsageError, WrongBaseError
from llmpatch.recipe import describe
from llmpatch.store.activating import check_one_base
from llmpatch.store.algebra import check_together
from llmpatch.store.facts import Known, facts_of, known_of
from llmpatch.store.generations import Store
from llmpatch.store.installing import install
from llmpatch.store.interfaces import Verified, Verify

if TYPE_CHECKING:
    from llmpatch.bases import Fingerprint

SCHEMA = "llmpatch/lock/v1"
MAX_LOCK_BYTES = MAX_RECORD_BYTES + (1 << 16)


class Lock(BaseModel):
    """An ordered set of patches on one base, and the composition evidence of exactly that order.

    ``created`` is the moment it was written. Without ``composition`` nobody measured them together, and activating needs a
    gate run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_: Annotated[Literal["llmpatch/lock/v1"], Field(alias="schema")] = "llmpatch/lock/v1"
    created: Time
    base: RecordBase
    patches: Annotated[tuple[Part, ...], Field(min_length=1, max_length=16)]
    composition: Record | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(set(self.digests)) != len(self.patches):
            raise ValueError("a patch is there twice")
        if self.composition is not None and self.composition.digests != self.digests:
            raise ValueError("the composition evidence is of other patches, or of another order")
        return self

    @property
    def digests(self) -> tuple[str, ...]:
        """Of all patches, in their order."""
        return tuple(part.digest for part in self.patches)

    @property
    def known(self) -> tuple[Known, ...]:
        """What was measured, for the algebra."""
        return known_of(self.composition) if self.composition else ()


def make_lock(patches: Sequence[Patch], record: Record | None = None) -> Lock:
    """A lock of patches in this order.

    Args:
        patches: Whole patches.
        record: What was measured of exactly these in exactly this order.

    Raises:
        UsageError: no patches, a set that cannot be put together, or a record of another one or another order.
        WrongBaseError: patches of different bases, or a record of another one.
    """
    if not patches:
        raise UsageError("a lock file needs a patch", hint="name at least one")
    check_one_base(patches)
    check_together([facts_of(patch.manifest, patch.digest) for patch in patches])
    digests = tuple(patch.digest for patch in patches)
    if record is not None and record.arrangement:
        raise UsageError(
            "the composition evidence is of patches side by side; a lock file puts them one after another",
            hint="lock the one patch that `llmpatch compose --parallel` made of them",
        )
    if record is not None and record.digests != digests:
        raise UsageError(
            f"the composition evidence is of {', then '.join(record.title(d) for d in record.digests)}",
            hint="name the same patches in the same order, or measure these: `llmpatch compose`",
        )
    base = patches[0].manifest.base
    parts = tuple(Part(name=p.manifest.name, version=p.manifest.version, digest=p.digest) for p in patches)
    made = RecordBase(name=base.name, fingerprint=base.fingerprint)
    if record is not None:
        _check_record(record, made)
    return Lock.model_validate(
        {"schema": SCHEMA, "created": release_time(), "base": made, "patches": parts, "composition": record}
    )


def parse_lock(data: bytes, *, where: str) -> Lock:
    """Read a lock file.

    Raises:
        IntegrityError: oversized, not strict JSON, not of this schema, or contradicting itself.
        WrongBaseError: its composition evidence was measured on another base.
    """
    if len(data) > MAX_LOCK_BYTES:
        raise IntegrityError(f"{where} is larger than {MAX_LOCK_BYTES:,} bytes", hint="this is no lock file of ours")
    mapping = parse_object(data, where=where)
    try:
        lock = Lock.model_validate_json(json.dumps(mapping))
    except ValidationError as error:
        raise IntegrityError(
            f"{where}: {shown(describe(error), 300)}", hint="write it anew: `llmpatch lock write`"
        ) from None
    if lock.composition is not None:
        _check_record(lock.composition, lock.base)
    return lock


def render_lock(lock: Lock) -> str:
    """The text of a lock file: the same content gives the same bytes."""
    mapping = lock.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(mapping, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def check_locked(lock: Lock, patches: Sequence[Patch]) -> None:
    """Refuse patches that are not the ones a lock file names, in its order.

    Raises:
        IntegrityError: a digest differs, or there are more or fewer.
        WrongBaseError: one was made for another base than the lock file names.
    """
    for part, patch in zip(lock.patches, patches, strict=False):
        _check_part(lock, part, patch)
    if len(patches) != len(lock.patches):
        raise IntegrityError(
            f"the lock file wants {len(lock.patches)} patches, here are {len(patches)}",
            hint="name all of them, in order",
        )


def check_lock_base(lock: Lock, name: str, fingerprint: Fingerprint) -> None:
    """Refuse a lock file of another base than this one.

    Raises:
        WrongBaseError: names both and the parts in which they differ.
    """
    if parts := _of(lock.base.fingerprint).differences(fingerprint):
        raise WrongBaseError(
            f"the lock file is of {shown(lock.base.name)}, not of {shown(name)}; they differ in: {', '.join(parts)}",
            hint="name the base that it was written for, or a lock file for this one",
        )


def locked_to(lock: Lock, part: Part, verify: Verify) -> Verify:
    """``verify``, and then refuse what is not the very patch that a lock file names, before it gets into a store."""

    def checked(path: Path) -> Verified:
        verified = verify(path)
        _check_part(lock, part, verified.patch)
        return verified

    return checked


def verify_stored(store: Store, lock: Lock, part: Part, verify: Verify, *, reason: str = "") -> None:
    """Verify an installed patch of a lock file again, as if it came fresh, and record who signed it.

    Raises:
        TrustError: its signature does not count under ``verify``, or it is revoked.
        LlmpatchError: as in :func:`locked_to` and :func:`~llmpatch.store.installing.install`.
    """

    def again(path: Path) -> Verified:
        try:
            return verify(path)
        except TrustError as error:
            raise TrustError(  # where it lies is the store's affair, and nobody is to countersign it there
                f"{part.name} {part.version} is installed, and not trusted any more: {error.message}",
                hint="get one that is signed as your trust policy wants, and name where it lies, its countersignatures "
                "beside it: `llmpatch lock install LOCK SOURCE...`",
            ) from None

    install(store, store.folder(part.digest), locked_to(lock, part, again), reason=reason)


def _check_part(lock: Lock, part: Part, patch: Patch) -> None:
    manifest = patch.manifest
    if (part.digest, part.name, part.version) != (patch.digest, manifest.name, manifest.version):
        raise IntegrityError(
            f"the lock file wants {part.name} {part.version} with digest {part.digest[:16]}; this is "
            f"{manifest.name} {manifest.version}, {patch.digest[:16]}",
            hint="get that very patch, or write a new lock file after measuring again",
        )
    if parts := _of(lock.base.fingerprint).differences(_of(manifest.base.fingerprint)):
        raise WrongBaseError(
            f"the lock file is of {shown(lock.base.name)}, and {part.name} {part.version} was made for "
            f"{shown(manifest.base.name)}; they differ in: {', '.join(parts)}",
            hint="write it anew: `llmpatch lock write`",
        )


def _check_record(record: Record, base: RecordBase) -> None:
    if parts := _of(record.base.fingerprint).differences(_of(base.fingerprint)):
        raise WrongBaseError(
            f"the composition evidence was measured on {shown(record.base.name)}, the lock file is of {shown(base.name)}; "
            f"they differ in: {', '.join(parts)}",
            hint="measure these patches on their own base: `llmpatch compose`",
        )


def _of(section: FingerprintSection) -> Fingerprint:
    from llmpatch.bases import Fingerprint

    return Fingerprint(**section.model_dump())
