"""Publish in a registry: patches, advisories, and taking them back.

    publish(folder, [Path("refusal.lpatch")], keys=[acme_private])              # written; visible after `refresh`
    publish_target(folder, "advisories/acme/x_ACME-2026-0001.json", data, keys=[acme_private, online_private])

Files come first, then the vendor's role that names them; the rest is ``settle``'s. Who is a vendor is decided elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, TargetFile, Targets

from llmpatch.artifact import pack_members, parse_patch, read_contents
from llmpatch.errors import TrustError, UsageError
from llmpatch.files import write_bytes
from llmpatch.registry.keys import our_key
from llmpatch.registry.layout import (
    ADVISORIES,
    OFFLINE_LIFE,
    PATCHES,
    make_offer,
    stored_path,
    target_limit,
    target_path,
    vendor_of,
)
from llmpatch.registry.repository import Repository, changing, earlier, open_repository
from llmpatch.registry.settling import Outcome, PrivateKeys, able, next_version, settle
from llmpatch.signing import trust_key, verify_contents


def publish(folder: Path, sources: Sequence[Path], *, keys: PrivateKeys, now: datetime | None = None) -> Outcome:
    """Publish patches and advisories of one vendor; each patch must be signed with one of the vendor's keys.

    Args:
        folder: The registry.
        sources: Patches as folders or ``.lpatch`` files, advisories as ``ID.json``. With none, the vendor of ``keys`` signs
            anew what it has published.
        keys: A key of the vendor; the online key too if it is at hand.
        now: By default the clock.

    Raises:
        UsageError: a version that was published with other content; files of several vendors.
        TrustError: a patch that the vendor's key did not sign; none of ``keys`` is the vendor's.
        IntegrityError: a damaged patch or advisory.
    """
    with changing(folder):
        state = open_repository(folder)
        made = [_advisory(path) if path.suffix == ".json" else _patch(state, path) for path in sources]
        return _publish(state, made, (), keys, now or datetime.now(UTC))


def publish_target(folder: Path, path: str, data: bytes, *, keys: PrivateKeys, now: datetime | None = None) -> Outcome:
    """Publish any one file that a vendor may publish, such as an advisory; a newer one takes the place of an older.

    Args:
        folder: The registry.
        path: ``advisories/VENDOR/ID.json``. Patches go through :func:`publish`.
        data: Its content; the caller has checked it.
        keys: A key of the vendor; the online key too if it is at hand.
        now: By default the clock.

    Raises:
        UsageError: no such path, or too large.
        TrustError: none of ``keys`` is the vendor's.
    """
    vendor_of(path)
    if path.startswith(f"{PATCHES}/") or len(data) > target_limit(path):
        raise UsageError(f"{path} is a patch, or larger than {target_limit(path):,} bytes", hint="see docs/registry.md")
    with changing(folder):
        return _publish(
            open_repository(folder), [(_target(path, data, None), data)], (), keys, now or datetime.now(UTC)
        )


def withdraw(folder: Path, target: str, *, keys: PrivateKeys, now: datetime | None = None) -> Outcome:
    """Offer a target no longer. What is installed stays; an advisory is what revokes it.

    Args:
        folder: The registry.
        target: ``VENDOR/SLUG@VERSION``, or a path.
        keys: A key of the vendor; the online key too if it is at hand.
        now: By default the clock.

    Raises:
        UsageError: there is no such target.
        TrustError: none of ``keys`` is the vendor's.
    """
    name, sign, version = target.partition("@")
    path = target_path(name, version) if sign else target
    with changing(folder):
        state = open_repository(folder)
        role = state.vendors.get(vendor_of(path))
        if role is None or path not in role.signed.targets:
            raise UsageError(f"{path} is not published here", hint="patches/VENDOR/SLUG-VERSION.lpatch")
        return _publish(state, [], (path,), keys, now or datetime.now(UTC))


def _publish(
    state: Repository,
    made: Sequence[tuple[TargetFile, bytes]],
    gone: Iterable[str],
    keys: PrivateKeys,
    now: datetime,
) -> Outcome:
    """Add targets to the role of their vendor, and take some away."""
    vendors = {vendor_of(info.path) for info, _ in made} | {vendor_of(path) for path in gone}
    vendors = vendors or {name for name in state.delegated if able(state, name, keys)}
    if len(vendors) != 1:
        named = ", ".join(sorted(vendors)) or "none"
        raise UsageError(f"one vendor at a time, and this is of: {named}", hint="give files of one vendor, and its key")
    (vendor,) = vendors
    if vendor not in state.delegated:
        raise UsageError(f"{vendor} is no vendor of {state.folder}", hint="llmpatch registry add-vendor")
    if not able(state, vendor, keys):
        raise TrustError(f"none of the keys is one of {vendor}'s in {state.folder}", hint=f"--key KEY of {vendor}")
    before = state.vendors.get(vendor)
    role = next_version(before, now) if before else Metadata(Targets(version=1, expires=now + OFFLINE_LIFE))
    for info, data in made:
        if info.path.startswith(f"{PATCHES}/"):
            _check_published_once(state.folder, vendor, role, info)
        role.signed.targets[info.path] = info
        write_bytes(state.folder / stored_path(info.path, info.hashes["sha256"]), data)
    for path in gone:
        del role.signed.targets[path]
    same = before is not None and before.signed.targets == role.signed.targets and bool(made) and state.vouched(vendor)
    return settle(state.folder, state, {} if same else {vendor: role}, keys, now=now)


def _check_published_once(folder: Path, vendor: str, role: Metadata[Targets], info: TargetFile) -> None:
    """Whoever has a version has its content, also one that was withdrawn since: it does not come back as another.

    Args:
        folder: The registry.
        vendor: Whose role.
        role: As it is to be; the ones before it are read only if other content of this name lies in the registry.
        info: The patch.

    Raises:
        UsageError: the vendor has published other content under this version.
    """
    this = folder / stored_path(info.path, info.hashes["sha256"])
    others = [path for path in this.parent.glob(f"*.{this.name.partition('.')[2]}") if path.name != this.name]
    for known in (role, *(earlier(folder, vendor, Targets, role.signed.version) if others else ())):
        old = known.signed.targets.get(info.path)
        if old is not None and old.hashes != info.hashes:
            withdrawn = "" if info.path in role.signed.targets else ", and withdrawn"
            raise UsageError(
                f"{info.path} was published with other content{withdrawn}", hint="a version is published once: raise it"
            )


def _patch(state: Repository, path: Path) -> tuple[TargetFile, bytes]:
    """A patch that is whole and signed by a key of its vendor, as a target."""
    contents = read_contents(path)
    manifest = parse_patch(contents.files, path).manifest
    vendor = manifest.name.partition("/")[0]
    role = state.delegated.get(vendor)
    if role is None:
        raise UsageError(f"{vendor} is no vendor of {state.folder}", hint="llmpatch registry add-vendor")
    delegations = state.top.signed.delegations
    known = [our_key(delegations.keys[key]) for key in role.keyids] if delegations is not None else []
    verified = verify_contents(contents, path, trust_key(*known))
    data = pack_members(contents.members)
    offer = make_offer(manifest, verified.patch.digest).model_dump(mode="json", by_alias=True)
    return _target(target_path(manifest.name, manifest.version), data, offer), data


def _advisory(path: Path) -> tuple[TargetFile, bytes]:
    """An advisory, checked, as a target."""
    from llmpatch.advisories import MAX_ADVISORY_BYTES, load_advisory, render_advisory

    advisory = load_advisory(path)
    data = render_advisory(advisory)
    if len(data) > MAX_ADVISORY_BYTES:  # the form that is published is longer than one without line breaks
        raise UsageError(
            f"{path} has {len(data):,} bytes as it is published, more than the {MAX_ADVISORY_BYTES:,} that clients read",
            hint="split it: name ranges of versions instead of digests, or publish two",
        )
    return _target(f"{ADVISORIES}/{advisory.vendor}/{advisory.id}.json", data, None), data


def _target(path: str, data: bytes, custom: dict[str, Any] | None) -> TargetFile:
    more = {"custom": custom} if custom is not None else {}
    return TargetFile(len(data), {"sha256": hashlib.sha256(data).hexdigest()}, path, more)
