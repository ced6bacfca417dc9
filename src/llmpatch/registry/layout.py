"""What lies where in a registry, how large it may be and how long it holds. Needs no ``tuf``.

    target_path("acme/refusal", "1.0.0")            # patches/acme/refusal-1.0.0.lpatch
    read_offer("patches/acme/refusal-1.0.0.lpatch", custom)

    FOLDER/metadata/N.root.json, N.targets.json, N.VENDOR.json, N.snapshot.json, timestamp.json
    FOLDER/targets/patches/VENDOR/SHA256.SLUG-VERSION.lpatch
    FOLDER/targets/advisories/VENDOR/SHA256.ID.json
    FOLDER/drafts/ROLE.json        waiting for more signatures; no client looks there

Only ``timestamp.json`` is ever replaced.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmpatch.artifact.archive import MAX_ARCHIVE_BYTES
from llmpatch.artifact.layout import ARCHIVE_SUFFIX
from llmpatch.artifact.manifest import LongText, Manifest, Name, Sha256, Text, Time, Version
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, UsageError

METADATA, TARGETS, DRAFTS = "metadata", "targets", "drafts"
PATCHES, ADVISORIES = "patches", "advisories"
ROOT, TOP, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
ONLINE = "online"
MAX_ROOT_BYTES = 64 << 10
MAX_TIMESTAMP_BYTES = 16 << 10
MAX_SNAPSHOT_BYTES = 1 << 20
MAX_ROLE_BYTES = 4 << 20
MAX_ADVISORY_BYTES = 1 << 20
MAX_ROTATIONS = 128
OFFLINE_LIFE = timedelta(days=365)
ONLINE_LIFE = timedelta(days=7)
MAX_ONLINE_DAYS = 90
_RESERVED = {ROOT, TOP, SNAPSHOT, TIMESTAMP, ONLINE}
_VENDOR = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TARGET = re.compile(
    r"(?P<kind>patches|advisories)/(?P<vendor>[a-z0-9]+(?:-[a-z0-9]+)*)/(?P<file>[A-Za-z0-9][A-Za-z0-9._-]{0,159})"
)


class Offer(BaseModel):
    """What a registry says of a patch, for finding it. The patch itself is read and verified after it was fetched.

    ``digest`` is the identity of the patch, ``fixes`` its advisories, or its risks where a fix has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_: Annotated[Literal["llmpatch/offer/v1"], Field(alias="schema")] = "llmpatch/offer/v1"
    name: Name
    version: Version
    digest: Sha256
    summary: LongText
    base: Text
    fixes: Annotated[tuple[Text, ...], Field(max_length=64)]
    released: Time

    @property
    def path(self) -> str:
        """Its target."""
        return target_path(self.name, self.version)


def make_offer(manifest: Manifest, digest: str) -> Offer:
    """What a registry is to say of a patch."""
    fixes = sorted({fix.advisory or fix.risk for fix in manifest.fixes})
    return Offer(
        name=manifest.name, version=manifest.version, digest=digest, summary=manifest.summary, base=manifest.base.name,
        fixes=tuple(fixes), released=manifest.released,
    )  # fmt: skip


def read_offer(path: str, custom: Any) -> Offer:
    """Read what a vendor says of a target.

    Raises:
        IntegrityError: it is not of this schema, or of another patch than its path names.
    """
    import json

    try:
        offer = Offer.model_validate_json(json.dumps(custom))
    except (ValidationError, ValueError, TypeError, RecursionError):
        raise IntegrityError(
            f"{shown(path, 200)}: what the registry says of it is not an offer of a patch", hint="tell its vendor"
        ) from None
    if offer.path != path:
        raise IntegrityError(f"{shown(path, 200)} is offered as {offer.name} {offer.version}", hint="tell its vendor")
    return offer


def target_path(name: str, version: str) -> str:
    """Where a patch lies below ``targets``."""
    return f"{PATCHES}/{name}-{version}{ARCHIVE_SUFFIX}"


def stored_path(path: str, sha256: str) -> str:
    """Where the bytes of a target lie below the registry: the name of its file is led by their sha256."""
    folder, _, name = path.rpartition("/")
    return f"{TARGETS}/{folder}/{sha256}.{name}"


def target_limit(path: str) -> int:
    """The largest size of a target."""
    return MAX_ARCHIVE_BYTES if path.startswith(f"{PATCHES}/") else MAX_ADVISORY_BYTES


def vendor_of(path: str) -> str:
    """Whose target a path is.

    Raises:
        UsageError: it is not the path of a target.
    """
    found = _TARGET.fullmatch(path)
    if found is None:
        raise UsageError(
            f"{shown(path, 200)} is not a target",
            hint="patches/VENDOR/SLUG-VERSION.lpatch or advisories/VENDOR/ID.json",
        )
    return found["vendor"]


def vendor_paths(vendor: str) -> list[str]:
    """What a vendor may publish, as patterns of paths."""
    return [f"{PATCHES}/{vendor}/*", f"{ADVISORIES}/{vendor}/*"]


def check_vendor(vendor: str) -> None:
    """Whether a vendor can be called that.

    Raises:
        UsageError: another character, or the name of a role.
    """
    if len(vendor) > 64 or not _VENDOR.fullmatch(vendor) or vendor in _RESERVED:
        raise UsageError(
            f"{shown(vendor)!r} cannot be a vendor's name",
            hint=f"lower-case letters, digits and '-'; not {', '.join(sorted(_RESERVED))}",
        )
