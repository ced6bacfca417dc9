"""The file ``patch.sig``: a Sigstore bundle v0.3 that holds one DSSE envelope with one signature.

    data = make_bundle(payload, key)
    bundle = parse_bundle(data, where="patch.sig")      # strict: what is not checked may not be there
    public_key.check(bundle.signature, bundle.message)

Knows nothing about what the payload says or whose key is trusted.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmpatch.artifact.layout import MAX_SIGNATURE_BYTES
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.errors import IntegrityError
from llmpatch.signing.keys import PublicKey, sign_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
_HINT = "the signature is damaged or of another kind; fetch the patch again, or sign it with `llmpatch sign`"
_EMPTY: tuple[Any, ...] = (None, [], {})


@dataclass(frozen=True)
class Bundle:
    """A signature that has been read, and not checked.

    Attributes:
        key_id: Which key made it, as it says.
        payload: The statement.
        signature: DER.
    """

    key_id: str
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def message(self) -> bytes:
        """What the signature is over."""
        return pae(self.payload)


def pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: type and payload, each with its length."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode("ascii"), len(payload), payload)


def make_bundle(payload: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Sign a statement and put it into a bundle."""
    signature = sign_bytes(key, pae(payload))
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": PublicKey.of(key.public_key()).id}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode("ascii"),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode("ascii"), "keyid": ""}],
        },
    }
    return (json.dumps(bundle, indent=1) + "\n").encode("ascii")


def parse_bundle(data: bytes, *, where: str, limit: int = MAX_SIGNATURE_BYTES) -> Bundle:
    """Read a bundle of the key method.

    Raises:
        IntegrityError: not strict JSON, another kind of bundle, not exactly one signature, or parts that would go unchecked
            (a certificate, log entries, time stamps).
    """
    if len(data) > limit:
        raise IntegrityError(f"{where} is larger than {limit:,} bytes", hint=_HINT)
    bundle = parse_object(data, where=where)
    _check_keys(bundle, {"mediaType", "verificationMaterial", "dsseEnvelope"}, where)
    if bundle["mediaType"] != MEDIA_TYPE:
        raise _foreign(where, f"media type {bundle['mediaType']}, not {MEDIA_TYPE}")
    material, envelope = bundle["verificationMaterial"], bundle["dsseEnvelope"]
    _check_keys(material, {"publicKey"}, where, unused={"tlogEntries", "timestampVerificationData"})
    _check_keys(material["publicKey"], {"hint"}, where)
    _check_keys(envelope, {"payload", "payloadType", "signatures"}, where)
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise _foreign(where, f"payload type {envelope['payloadType']}, not {PAYLOAD_TYPE}")
    signatures, hint = envelope["signatures"], material["publicKey"]["hint"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise _foreign(where, "not exactly one signature")
    if not isinstance(hint, str) or len(hint) != 64 or not set(hint) <= set("0123456789abcdef"):
        raise _foreign(where, "no sha256 of a public key as its hint")
    given = dict(signatures[0]) if isinstance(signatures[0], dict) else {}
    if given.pop("keyid", "") not in ("", hint):  # a tuple: what is there may not be hashable
        raise _foreign(where, "two names for its key")
    _check_keys(given, {"sig"}, where)
    return Bundle(hint, _decode(envelope["payload"], where), _decode(given["sig"], where))


def _check_keys(value: Any, needed: set[str], where: str, *, unused: frozenset[str] | set[str] = frozenset()) -> None:
    """A mapping with these keys; ``unused`` ones may be there as long as they hold nothing."""
    if not isinstance(value, dict) or not needed <= set(value) <= needed | unused:
        found = ", ".join(sorted(value)) if isinstance(value, dict) else type(value).__name__
        raise _foreign(where, f"{found or 'nothing'} where {', '.join(sorted(needed))} belongs")
    if loaded := [key for key in sorted(unused) if key in value and value[key] not in _EMPTY]:
        raise _foreign(where, f"{loaded[0]}, which the key method does not check")


def _decode(text: Any, where: str) -> bytes:
    """Base64 in its one standard spelling, so that no two texts are the same signature."""
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if not data or base64.b64encode(data).decode("ascii") != text:
        raise _foreign(where, "a part that is not base64")
    return data


def _foreign(where: str, what: str) -> IntegrityError:
    return IntegrityError(f"{where} is not a signature of the key method: {shown(what, 200)}", hint=_HINT)
