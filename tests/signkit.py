"""Signed patches and keys that are the same on every run. The private keys are worth nothing: they are written here."""

from __future__ import annotations

import hashlib
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec

from llmpatch.artifact import SIGNATURE_FILE, pack_members
from llmpatch.signing import PublicKey, make_bundle, make_statement, make_trust
from patchkit import contents

CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


@cache
def key(who: str, curve: str = "P-256") -> ec.EllipticCurvePrivateKey:
    """The private key of a name."""
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(who.encode()).digest(), "big") >> 8, CURVES[curve])


def public(who: str, curve: str = "P-256") -> PublicKey:
    return PublicKey.of(key(who, curve).public_key())


def signature(files: dict[str, bytes], who: str = "vendor", curve: str = "P-256") -> bytes:
    return make_bundle(make_statement("tiny/refusal", files), key(who, curve))


def signed(files: dict[str, bytes] | None = None, who: str = "vendor", curve: str = "P-256") -> dict[str, bytes]:
    """The five files and their signature."""
    files = contents() if files is None else files
    return files | {SIGNATURE_FILE: signature(files, who, curve)}


def packed(members: dict[str, bytes] | None = None) -> bytes:
    return pack_members(signed() if members is None else members)


def policy(**changes) -> dict:
    """The vendor may publish tiny/*, on any curve."""
    pems = [public("vendor", curve).pem for curve in CURVES]
    vendor = {"name": "Tiny", "patches": ["tiny/*"], "keys": pems} | changes.pop("vendor", {})
    return {"schema": "llmpatch/trust/v1", "vendors": [vendor]} | changes


def trust(**changes):
    return make_trust(policy(**changes))


def countersigned_policy(**changes) -> dict:
    groups = {"qa": {"keys": [public("qa").pem]}}
    return policy(vendor={"countersigned_by": ["qa"]}, countersigners=groups, **changes)
