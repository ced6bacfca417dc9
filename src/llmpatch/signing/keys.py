"""Keys: ECDSA on P-256, P-384 or P-521, in PEM, as OpenSSL writes them too.

    key = generate_key("P-256")
    write_key(Path("acme.pem"), key, password)      # acme.pem with mode 0600, acme.pub.pem; never overwrites
    load_public_key(Path("acme.pub.pem")).id        # sha256 of its PEM: the name that a signature carries

Knows nothing about what is signed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.artifact.strict_json import shown
from llmpatch.errors import LlmpatchError, TrustError, UsageError
from llmpatch.files import read_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

CURVES = {"P-256": "secp256r1", "P-384": "secp384r1", "P-521": "secp521r1"}
MAX_KEY_BYTES = 8 << 10
_BEGIN, _END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"
_HINT = "make one with `llmpatch keys generate`: ECDSA on P-256, P-384 or P-521, in PEM"


@dataclass(frozen=True)
class PublicKey:
    """A key to check signatures with.

    Attributes:
        id: sha256 of ``pem``: the ``hint`` in a signature.
        curve: ``P-256``, ``P-384`` or ``P-521``.
        pem: The one PEM form of it (SubjectPublicKeyInfo, lines of 64, a new line at the end).
        key: For ``cryptography``.
    """

    id: str
    curve: str
    pem: str
    key: ec.EllipticCurvePublicKey = field(repr=False, compare=False)

    @classmethod
    def of(cls, key: ec.EllipticCurvePublicKey) -> PublicKey:
        """Describe a key of ``cryptography`` that lies on one of our curves."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        curve = next(name for name, known in CURVES.items() if known == key.curve.name)
        return cls(hashlib.sha256(pem).hexdigest(), curve, pem.decode("ascii"), key)

    def check(self, signature: bytes, message: bytes) -> None:
        """Check a DER signature over a message.

        Raises:
            TrustError: this key did not make it.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            self.key.verify(signature, message, ec.ECDSA(_hash(self.key.curve.key_size)))
        except InvalidSignature:
            raise TrustError(
                f"the signature was not made by key {self.id[:16]} over this statement",
                hint="the signature or what it names was changed; fetch the patch again from whom you trust",
            ) from None


def generate_key(curve: str = "P-256") -> ec.EllipticCurvePrivateKey:
    """A new private key.

    Raises:
        UsageError: no such curve.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    kinds: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    if curve not in kinds:
        raise UsageError(f"no curve {shown(curve)}", hint=f"use one of {', '.join(kinds)}")
    return ec.generate_private_key(kinds[curve])


def sign_bytes(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """A DER signature, by RFC 6979 where the library can: the same key and message give the same bytes."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec

    digest = _hash(key.curve.key_size)
    try:
        scheme = ec.ECDSA(digest, deterministic_signing=True)
    except UnsupportedAlgorithm:  # an OpenSSL before 3.2 draws a nonce; the signature is as good
        scheme = ec.ECDSA(digest)
    return key.sign(message, scheme)


def write_key(path: Path, key: ec.EllipticCurvePrivateKey, password: bytes | None) -> tuple[Path, PublicKey]:
    """Write a private key, and its public half beside it as ``NAME.pub.pem``.

    Args:
        path: Where the private key goes. It gets mode 0600.
        key: The key.
        password: Encrypts it; ``None`` leaves it in plain.

    Returns:
        The path of the public half, and that half.

    Raises:
        UsageError: one of the two files is there already.
        LlmpatchError: the folder cannot be written; nothing is left behind.
    """
    from cryptography.hazmat.primitives import serialization

    public = PublicKey.of(key.public_key())
    secrecy: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        secrecy = serialization.BestAvailableEncryption(password)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secrecy)
    beside = path.with_name(f"{path.name.removesuffix('.pem')}.pub.pem")
    for taken in (path, beside):
        if os.path.lexists(taken):
            raise UsageError(f"{taken} is there already, and keys are never overwritten", hint="choose another name")
    _create(path, pem, 0o600)
    try:
        _create(beside, public.pem.encode("ascii"), 0o644)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return beside, public


def load_private_key(path: Path, password: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """Read a private key.

    Args:
        path: A PEM file.
        password: Of an encrypted one.

    Raises:
        UsageError: no such file, no private key of ours, a password that is missing or not needed, or a key in plain that
            others can read.
        TrustError: the password is wrong.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = read_bytes(path, limit=MAX_KEY_BYTES)
    encrypted = is_encrypted(data)
    if not encrypted and path.stat().st_mode & 0o077:
        raise UsageError(f"others may read the private key {path}", hint=f"chmod 600 {path}")
    if encrypted and not password:
        raise UsageError(f"{path} is encrypted and there is no password", hint="set LLMPATCH_KEY_PASSWORD")
    try:
        key = load_pem_private_key(data, password if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if encrypted:
            raise TrustError(f"the password does not open {path}, or it is damaged", hint="try again") from None
        raise UsageError(f"{path} is not a private key in PEM", hint=_HINT) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES.values():
        raise UsageError(f"{path} is not an ECDSA key on one of {', '.join(CURVES)}", hint=_HINT)
    return key


def is_encrypted(data: bytes) -> bool:
    """Whether a private key in PEM needs a password."""
    return b"ENCRYPTED" in data


def load_public_key(path: Path) -> PublicKey:
    """Read a public key in PEM.

    Raises:
        UsageError: no such file, or no public key of ours.
    """
    return parse_public_key(read_bytes(path, limit=MAX_KEY_BYTES), where=str(path))


def parse_public_key(data: bytes, *, where: str) -> PublicKey:
    """Read a public key out of PEM bytes.

    Raises:
        UsageError: anything but one public key on one of our curves.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in data:
        raise UsageError(f"{where} is a private key, a public one was expected", hint="give its .pub.pem")
    text = data.strip()
    whole = text.startswith(_BEGIN) and text.endswith(_END) and data.count(b"-----BEGIN") == 1
    if not whole:  # what reads PEM looks for a key anywhere in a text, and takes the first
        raise UsageError(f"{where} is not one public key in PEM, and nothing else", hint=_HINT)
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{where} is not a public key in PEM", hint=_HINT) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES.values():
        raise UsageError(f"{where} is not an ECDSA key on one of {', '.join(CURVES)}", hint=_HINT)
    return PublicKey.of(key)


def _hash(bits: int) -> hashes.HashAlgorithm:
    """The hash that goes with a curve, as Model Signing v1.0 has it."""
    from cryptography.hazmat.primitives import hashes

    kinds: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    return kinds[bits]


def _create(path: Path, data: bytes, mode: int) -> None:
    """A new file of this mode from its first byte on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except OSError as error:
        raise LlmpatchError(
            f"cannot write {path}: {error.strerror}", hint="choose another folder; nothing was changed"
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise LlmpatchError(
            f"cannot write {path}: {error.strerror}", hint="free some space; nothing was changed"
        ) from error
