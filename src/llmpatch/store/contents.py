"""The patches in a store: folders named by digest, read-only, hashed again each time they are read.

put(store, verified)                 # under the store's lock
patch = read_stored(store, digest)   # every byte checked, or IntegrityError
entry = pick(state, "acme/refusal@>=1,<2")
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from llmpatch.artifact import Manifest, Patch, read_patch
from llmpatch.errors import IntegrityError, TrustError, UsageError
from llmpatch.files import read_bytes
from llmpatch.store.disk import add_file, add_folder, remove_folder, replace_file
from llmpatch.store.generations import Store, load
from llmpatch.store.interfaces import Verified
from llmpatch.store.state import Installed, State
from llmpatch.versions import is_request, parse_request, parse_version

_SIGNATURE = "patch.sig"
MAX_KEPT_BYTES = 4 << 20
_DIGEST = re.compile(r"[0-9a-f]{8,64}")


def put(store: Store, verified: Verified) -> None:
    """Put a patch where its digest says. One that is there and whole stays; a damaged one is replaced.

    Raises:
        OSError: the disk refuses; nothing half is left under the digest.
    """
    digest = verified.patch.digest
    folder = store.folder(digest)
    try:
        read_stored(store, digest)
    except IntegrityError:
        remove_folder(folder)
        add_folder(store.patches, folder.name, verified.contents)
        return
    signature, path = verified.contents.get(_SIGNATURE), folder / _SIGNATURE
    # One that was checked takes the place of one that nobody checked, or of one by a key that was changed since.
    if signature is not None and (not path.exists() or (verified.signer and path.read_bytes() != signature)):
        add_file(folder, _SIGNATURE, signature)


def read_stored(store: Store, digest: str) -> Patch:
    """The patch of a digest.

    Raises:
        IntegrityError: it is missing, damaged, or another patch lies there.
        LlmpatchError: it cannot be read.
    """
    folder = store.folder(digest)
    hint = "install it again, or `llmpatch rollback`; `llmpatch doctor` explains"
    try:
        patch = read_patch(folder)
    except (UsageError, IntegrityError) as error:
        raise IntegrityError(error.message, hint=hint) from None
    if patch.digest != digest:
        raise IntegrityError(f"{folder} holds another patch, {patch.digest[:16]}", hint=hint)
    return patch


def check_members(state: State, manifest: Manifest) -> None:
    """Refuse a composed patch that holds the rows of a revoked one.

    Raises:
        TrustError: names both.
    """
    for member in manifest.members or ():
        if member.digest in state.revoked:
            raise TrustError(
                f"{manifest.name} {manifest.version} holds {member.name} {member.version}, which is revoked: "
                f"{state.revoked[member.digest]}",
                hint="compose anew without it",
            )


def check_revoked(state: State, patch: Patch) -> None:
    """Refuse a patch that is revoked, or holds the rows of a revoked one.

    Raises:
        TrustError: names it, and why.
    """
    if patch.digest in state.revoked:
        manifest = patch.manifest
        raise TrustError(
            f"{manifest.name} {manifest.version} is revoked: {state.revoked[patch.digest]}", hint="use another version"
        )
    check_members(state, patch.manifest)


def keep_verdict(store: Store, verdict: Mapping[str, Any]) -> str:
    """Keep a gate's verdict under its sha256, and return that."""
    return keep_bytes(store, (json.dumps(verdict, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8"))


def keep_bytes(store: Store, data: bytes) -> str:
    """Keep what a gate said under its sha256, as it is, and return that."""
    digest = hashlib.sha256(data).hexdigest()
    path = store.verdicts / f"{digest}.json"
    if not path.exists():
        replace_file(path, data, 0o444)
    return digest


def read_kept(store: Store, text: str, part: Literal["verdict", "attestation"]) -> tuple[bytes, str]:
    """What the gate of an active patch said, and where it lies.

    Args:
        store: Which.
        text: The patch, as for :func:`pick`.
        part: As a verdict, or as an attestation.

    Raises:
        UsageError: the patch is not active, or was activated without a gate.
        IntegrityError: it is missing or was changed.
    """
    state = load(store).state
    digest = pick(state, text, active_only=True).digest
    for group in state.active:
        wanted = getattr(group.gate, part) if digest in group.patches else None
        if wanted is not None:
            return kept_bytes(store, wanted)
    raise UsageError(f"there is no {part} of a gate for {text}", hint="llmpatch activate NAME --base BASE runs one")


def kept_bytes(store: Store, digest: str) -> tuple[bytes, str]:
    """What :func:`keep_bytes` kept, and where it lies.

    Raises:
        IntegrityError: it is missing or was changed.
    """
    path = store.verdicts / f"{digest}.json"
    try:
        data = read_bytes(path, limit=MAX_KEPT_BYTES)
    except UsageError:
        data = b""
    if hashlib.sha256(data).hexdigest() != digest:
        raise IntegrityError(
            f"{path} is missing or was changed", hint="run the gate again: llmpatch activate NAME --base BASE"
        )
    return data, str(path)


def pick(state: State, text: str, *, active_only: bool = False) -> Installed:
    """The installed patch that ``NAME``, ``NAME@RANGE`` or the start of a digest means.

    A name alone is its active version; without one, the highest that is neither revoked nor rolled back, released ones
    before pre-releases.

    Raises:
        UsageError: none is installed, none fits, or several versions are active on different bases.
        TrustError: only revoked ones fit.
    """
    if not is_request(text):
        return _pick_digest(state, text, active_only)
    request = parse_request(text)
    named = [entry for entry in state.installed if entry.name == request.name]
    if not named:
        raise UsageError(f"{request.name} is not installed", hint="llmpatch list; llmpatch install PATH")
    fitting = [e for e in named if request.range is None or request.range.holds(parse_version(e.version))]
    if request.range is None or active_only:
        active = [entry for entry in fitting if entry.digest in state.active_digests]
        if len(active) > 1:
            raise UsageError(
                f"several versions of {request.name} are active, on different bases: {_versions(active)}",
                hint=f"name one, as {request.name}@{active[0].version}",
            )
        if active:
            return active[0]
    if active_only:
        raise UsageError(f"{text} is not active", hint="llmpatch list")
    if not fitting:
        raise UsageError(f"no installed version of {text}; there is {_versions(named)}", hint="llmpatch list")
    return _highest(text, fitting, state)


def _highest(text: str, fitting: list[Installed], state: State) -> Installed:
    usable = [entry for entry in fitting if entry.digest not in state.revoked]
    if not usable:
        raise TrustError(
            f"{text} is revoked: {state.revoked[fitting[0].digest]}", hint="install a version that is not revoked"
        )
    standing = [entry for entry in usable if entry.status != "rolled back"] or usable
    released = [entry for entry in standing if not parse_version(entry.version).prerelease] or standing
    return max(released, key=lambda entry: parse_version(entry.version))


def _pick_digest(state: State, text: str, active_only: bool) -> Installed:
    if not _DIGEST.fullmatch(text):
        raise UsageError(
            f"{text[:128]!r} is neither a name nor a digest",
            hint="write VENDOR/SLUG, VENDOR/SLUG@RANGE, or 8 hex digits",
        )
    found = [entry for entry in state.installed if entry.digest.startswith(text)]
    if active_only:
        found = [entry for entry in found if entry.digest in state.active_digests]
    if len(found) != 1:
        what = "several patches" if found else f"no {'active' if active_only else 'installed'} patch"
        raise UsageError(f"{what} with a digest that begins {text}", hint="llmpatch list --json shows digests")
    return found[0]


def _versions(entries: Iterable[Installed]) -> str:
    return ", ".join(sorted({entry.version for entry in entries}, key=parse_version))


def title(entry: Installed) -> str:
    """Name and version."""
    return f"{entry.name} {entry.version}"
