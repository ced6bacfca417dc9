"""Our keys as TUF's: the same key signs patches and speaks for its vendor in a registry, under the same id.

signers([private_key])["2c26b4..."].sign(data)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from securesystemslib.signer import CryptoSigner, SSlibKey

from llmpatch.errors import IntegrityError, UsageError
from llmpatch.signing import PublicKey, parse_public_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from securesystemslib.signer import Key

_HINT = "a vendor's key is ECDSA, as `llmpatch keys generate` makes"


def tuf_key(key: PublicKey) -> SSlibKey:
    """A public key, under the id by which ``llmpatch keys show`` calls it."""
    return SSlibKey.from_crypto(key.key, keyid=key.id)


def our_key(key: Key) -> PublicKey:
    """The public key of a role, to check patches with.

    Raises:
        IntegrityError: it is of a kind that signs no patches.
    """
    public = key.keyval.get("public")
    # The key that TUF verified with must be the one that is named: other kinds of keys hold it elsewhere than in this text.
    if type(key) is not SSlibKey or not key.keytype.startswith("ecdsa") or not isinstance(public, str):
        raise IntegrityError(f"key {key.keyid[:16]} is no ECDSA key in PEM", hint=_HINT)
    try:
        return parse_public_key(public.encode(), where=f"key {key.keyid[:16]}")
    except UsageError as error:
        raise IntegrityError(error.message, hint=_HINT) from None


def signers(keys: Iterable[ec.EllipticCurvePrivateKey]) -> dict[str, CryptoSigner]:
    """Signers by key id."""
    found = {}
    for key in keys:
        public = PublicKey.of(key.public_key())
        found[public.id] = CryptoSigner(key, tuf_key(public))
    return found
