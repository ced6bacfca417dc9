"""Sign a patch, and verify one: the signature first, then the files it names, then the patch in them.

    sign_patch(Path("refusal"), key)
    verify_patch(Path("refusal"), trust).signer

Nothing but the signature is parsed before it is checked, and the patch is made of the bytes that were hashed. A second
signature lies beside the patch, in ``NAME.sig.d/KEYID``, so that it can be added without touching what was published.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.artifact.archive import pack_members
from llmpatch.artifact.bundle import Patch, parse_patch
from llmpatch.artifact.layout import (
    ARCHIVE_SUFFIX,
    DAMAGED,
    LIMITS,
    MAX_SIGNATURE_BYTES,
    SIGNATURE_FILE,
    Contents,
)
from llmpatch.artifact.reading import read_contents
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, TrustError, UsageError
from llmpatch.files import read_bytes, write_bytes
from llmpatch.signing.bundle import Bundle, make_bundle, parse_bundle
from llmpatch.signing.keys import PublicKey
from llmpatch.signing.statement import make_statement, parse_statement
from llmpatch.signing.trust import Trust

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Verified:
    """A patch whose every byte was signed by somebody who is trusted for its name.

    Attributes:
        patch: Made of the very bytes that were checked.
        contents: File name -> those bytes, ``patch.sig`` included.
        signer: Id of the vendor's key.
        vendor: Its name in the trust policy.
        countersigners: Group -> id of the key that signed for it; every required group is there.
    """

    patch: Patch
    contents: Mapping[str, bytes] = field(repr=False)
    signer: str
    vendor: str
    countersigners: Mapping[str, str]


def verify_patch(path: Path, trust: Trust) -> Verified:
    """Verify the patch in a folder or a ``.lpatch``.

    Args:
        path: Where it lies; required countersignatures lie beside it (:func:`countersignatures`).
        trust: Whose signatures count.

    Raises:
        TrustError: it is not signed, or not by whom the policy wants for its name.
        IntegrityError: a file is not the one that was signed, or anything is damaged or foreign; ``.gitattributes``
            too, which a signature does not cover.
        UsageError: there is no patch.
        LlmpatchError: it cannot be read.
    """
    path = Path(path)
    return verify_contents(read_contents(path), path, trust, beside=countersignatures(path))


def verify_contents(contents: Contents, path: Path, trust: Trust, *, beside: Path | None = None) -> Verified:
    """Verify bytes that were read elsewhere (errors as in :func:`verify_patch`).

    Args:
        contents: The files and their signature.
        path: Where they come from, for messages.
        trust: Whose signatures count.
        beside: The folder of countersignatures, if there can be any.
    """
    if contents.strangers:
        raise IntegrityError(
            f"{path} holds {contents.strangers[0]}, which no signature covers", hint="move it out of the folder"
        )
    if set(contents.files) != set(LIMITS):
        names = ", ".join(shown(name) for name in sorted(set(contents.files) ^ set(LIMITS))[:3])
        raise IntegrityError(f"{path}: missing or foreign files: {names}", hint=DAMAGED)
    if contents.signature is None:
        raise TrustError(
            f"{path} is not signed", hint="ask its vendor for a signed one; `llmpatch sign` signs your own"
        )
    where = str(path / SIGNATURE_FILE)
    bundle = parse_bundle(contents.signature, where=where)
    key = trust.find_key(bundle.key_id)
    _check(bundle, key, contents.files, path, where)
    patch = parse_patch(contents.files, path, signature=contents.signature)
    vendor = trust.vendor_of(patch.manifest.name)
    if key.id not in vendor.by_id:
        raise TrustError(
            f"{patch.manifest.name} is signed by key {key.id[:16]}, which is not one of {shown(vendor.name)}",
            hint="somebody else signed it: do not use it, and tell the vendor",
        )
    groups = {group: _countersigner(group, trust, contents, path, beside) for group in vendor.countersigned_by}
    return Verified(patch, contents.members, key.id, vendor.name, groups)


def countersignatures(path: Path) -> Path:
    """Where countersignatures of the patch at ``path`` lie: ``NAME.sig.d`` beside ``NAME`` or ``NAME.lpatch``."""
    real = Path(os.path.realpath(path))
    return real.with_name(f"{real.name.removesuffix(ARCHIVE_SUFFIX)}.sig.d")


def sign_patch(
    path: Path, key: ec.EllipticCurvePrivateKey, *, countersign: bool = False, overwrite: bool = False
) -> tuple[Path, PublicKey]:
    """Sign a patch that has been found whole.

    Args:
        path: A folder, which gets a ``patch.sig``, or a ``.lpatch``, which is packed again with one.
        key: The vendor's private key; the customer's to countersign.
        countersign: Write the signature beside the patch, which is not touched.
        overwrite: Replace a signature by another key.

    Returns:
        The file that was written, and the public half of the key.

    Raises:
        UsageError: there is no patch; another key has signed it.
        IntegrityError: it is damaged, or holds ``.gitattributes``.
        LlmpatchError: it cannot be written; nothing has changed.
    """
    path = Path(path)
    contents = read_contents(path)
    patch = parse_patch(contents.files, path)
    if contents.strangers:
        raise IntegrityError(
            f"{path} holds {contents.strangers[0]}, which no signature covers", hint="move it out of the folder"
        )
    public = PublicKey.of(key.public_key())
    signature = make_bundle(make_statement(patch.manifest.name, contents.files), key)
    if countersign:
        target = countersignatures(path) / public.id
        write_bytes(target, signature)
        return target, public
    if contents.signature is not None and not overwrite and _signer(contents.signature) != public.id:
        raise UsageError(f"{path} is signed by another key", hint="--overwrite replaces that signature")
    if path.is_dir():
        target = path / SIGNATURE_FILE
        write_bytes(target, signature, staging=_outside(path))
        return target, public
    write_bytes(path, pack_members({**contents.files, SIGNATURE_FILE: signature}))
    return path, public


def _outside(folder: Path) -> Path | None:
    """Where an unfinished signature is in nobody's way: in the folder itself it would make the patch one of somebody else's."""
    around = folder.resolve().parent
    same = around.stat().st_dev == folder.stat().st_dev
    return around if same and os.access(around, os.W_OK) else None


def _signer(signature: bytes) -> str:
    try:
        return parse_bundle(signature, where=SIGNATURE_FILE).key_id
    except IntegrityError:
        return ""


def _check(bundle: Bundle, key: PublicKey, files: Mapping[str, bytes], path: Path, where: str) -> None:
    """The key signed the statement, and the files are those it names."""
    key.check(bundle.signature, bundle.message)
    for name, digest in parse_statement(bundle.payload, where=where).items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise IntegrityError(f"{path / name} is not the file that was signed", hint=DAMAGED)


def _countersigner(group: str, trust: Trust, contents: Contents, path: Path, beside: Path | None) -> str:
    """The key of a group that has signed too. Only files under the ids of its keys are looked at; one that holds is enough."""
    wrong: TrustError | IntegrityError | None = None
    for key in trust.countersigners[group].by_id.values():
        found = beside / key.id if beside is not None else None
        if found is None or key.id in trust.revoked or not found.exists():
            continue
        try:
            bundle = parse_bundle(read_bytes(found, limit=MAX_SIGNATURE_BYTES), where=str(found))
            if bundle.key_id != key.id:
                raise TrustError(f"{found} is a signature by another key", hint="countersign again")
            _check(bundle, key, contents.files, path, str(found))
        except (TrustError, IntegrityError) as error:  # say of an earlier version
            wrong = wrong or error
            continue
        return key.id
    if wrong is not None:
        raise wrong
    raise TrustError(
        f"{path} is not countersigned by {group}, as the trust policy wants",
        hint=f"`llmpatch sign {shown(str(path))} --key KEY --countersign`, with a key of {group}",
    )
