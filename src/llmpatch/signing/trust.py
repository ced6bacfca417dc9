"""Whose signatures count for what: ``trust.json``, a closed schema that pins keys to names of patches.

    trust = load_trust(Path("trust.json"))
    trust.vendor_of("acme/refusal").keys
    trust_key(load_public_key(Path("acme.pub.pem")))      # that key for every name, for a check by hand

Nothing is trusted by default, and no key on first sight. Knows nothing about signatures.
"""

from __future__ import annotations

import json
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmpatch.artifact.manifest import Sha256, Text
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.errors import IntegrityError, TrustError, UsageError
from llmpatch.files import read_bytes
from llmpatch.signing.keys import PublicKey, parse_public_key

SCHEMA = "llmpatch/trust/v1"
MAX_TRUST_BYTES = 1 << 18
_PART = r"[a-z0-9]+(-[a-z0-9]+)*"
_HINT = "docs/signing.md lists every key; `llmpatch keys show KEY --trust VENDOR/*` prints one to start from"
_EVERYTHING = "*"


def _one_key(pem: str) -> str:
    try:
        return parse_public_key(pem.encode("utf-8"), where="the key").pem
    except UsageError as error:
        raise ValueError(error.message) from None


Pem = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_one_key)]
Pattern = Annotated[str, Field(max_length=128, pattern=rf"^({_PART}/({_PART}|({_PART}-?)?\*)|\*)$")]
Group = Annotated[str, Field(max_length=64, pattern=rf"^{_PART}$")]


class _Section(BaseModel):
    """A frozen part of the policy that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Signers(_Section):
    """Some keys, each of which counts."""

    keys: Annotated[tuple[Pem, ...], Field(min_length=1, max_length=16)]
    note: Text | None = None

    @cached_property
    def by_id(self) -> dict[str, PublicKey]:
        """The keys under their ids."""
        found = [parse_public_key(pem.encode("ascii"), where="the key") for pem in self.keys]
        return {key.id: key for key in found}


class Vendor(_Signers):
    """Who may publish what.

    ``patches`` are names: ``acme/refusal``, or ``acme/*``, ``acme/refusal-*``. One of ``keys`` must have signed, and one
    key of every group in ``countersigned_by``.
    """

    name: Text
    patches: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=64)]
    countersigned_by: Annotated[tuple[Group, ...], Field(max_length=8)] = ()

    def covers(self, name: str) -> bool:
        """Whether ``name`` is one of ``patches``."""
        return any(re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name) for pattern in self.patches)


class Countersigner(_Signers):
    """Who must have signed besides the vendor, such as a customer's own quality assurance."""


class Trust(_Section):
    """A trust policy.

    The first of ``vendors`` that covers a name decides alone, so that a wider entry below cannot add keys to a narrower
    one above. A key in ``revoked`` counts nowhere.
    """

    schema_: Annotated[Literal["llmpatch/trust/v1"], Field(alias="schema")]
    vendors: Annotated[tuple[Vendor, ...], Field(max_length=64)]
    countersigners: Annotated[dict[Group, Countersigner], Field(max_length=16)] = Field(default_factory=dict)
    revoked: Annotated[tuple[Sha256, ...], Field(max_length=256)] = ()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for vendor in self.vendors:
            for group in vendor.countersigned_by:
                if group not in self.countersigners:
                    raise ValueError(f"{vendor.name} is to be countersigned by {group}, which is not there")
                if set(vendor.keys) & set(self.countersigners[group].keys):
                    raise ValueError(f"{group} holds a key of {vendor.name}, who would countersign for itself")
        return self

    def vendor_of(self, name: str) -> Vendor:
        """Who may publish a patch of this name.

        Raises:
            TrustError: nobody.
        """
        for vendor in self.vendors:
            if vendor.covers(name):
                return vendor
        raise TrustError(
            f"nobody is trusted to publish {shown(name)}",
            hint="add its vendor's key to the trust policy, if you trust it",
        )

    def find_key(self, key_id: str) -> PublicKey:
        """The key of this id, of whichever vendor.

        Raises:
            TrustError: there is none, or it is revoked.
        """
        if key_id in self.revoked:
            raise TrustError(
                f"key {key_id[:16]} is revoked", hint="do not use what it signed; ask the vendor for a new signature"
            )
        for vendor in self.vendors:
            if key := vendor.by_id.get(key_id):
                return key
        raise TrustError(
            f"signed by key {key_id[:16]}, which the trust policy does not hold",
            hint="compare it with what the vendor publishes (`llmpatch keys show`), then add it",
        )


def load_trust(path: Path) -> Trust:
    """Read a trust policy.

    Raises:
        UsageError: no such file, not strict JSON, an unknown key, a wrong value; names it.
        IntegrityError: larger than 256 KiB.
    """
    return parse_trust(read_bytes(path, limit=MAX_TRUST_BYTES), where=str(path))


def parse_trust(data: bytes, *, where: str) -> Trust:
    """Read a trust policy out of bytes (errors as in :func:`load_trust`)."""
    try:
        return make_trust(parse_object(data, where=where), where=where)
    except IntegrityError as error:  # the user's own file: a mistake, no damage
        raise UsageError(error.message, hint=_HINT) from None


def usual_trust() -> Trust | None:
    """The policy in ``$LLMPATCH_HOME/trust.json``, if it is there (errors as in :func:`load_trust`)."""
    home = os.environ.get("LLMPATCH_HOME")
    path = Path(home).expanduser() / "trust.json" if home else None
    return load_trust(path) if path is not None and path.is_file() else None


def make_trust(mapping: dict[str, Any], *, where: str = "trust policy") -> Trust:
    """Check a trust policy.

    Raises:
        UsageError: names the key that is wrong.
    """
    try:
        return Trust.model_validate_json(json.dumps(mapping))
    except ValidationError as error:
        from llmpatch.recipe import describe

        raise UsageError(f"{where}: {shown(describe(error), 300)}", hint=_HINT) from None


def trust_key(*keys: PublicKey) -> Trust:
    """A policy under which these keys may publish everything: for a check by hand, with ``--key``."""
    vendor = {"name": "the given key", "patches": [_EVERYTHING], "keys": [key.pem for key in keys]}
    return make_trust({"schema": SCHEMA, "vendors": [vendor]})
