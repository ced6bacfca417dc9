"""Whether an installed patch may be activated at all: not revoked, no downgrade, within its pin, by a key that still counts.

    check_allowed(state, digest, downgrade=False, revoked_keys=trust.revoked)
    distrusted(state, trust.revoked)       # active patches whose key was revoked since, in words

Knows no trust policy: it is given the ids of the keys that one revokes.
"""

from __future__ import annotations

from collections.abc import Collection

from llmpatch.errors import TrustError, UsageError
from llmpatch.store.contents import title
from llmpatch.store.state import Installed, State
from llmpatch.versions import parse_range, parse_version


def check_allowed(state: State, digest: str, *, downgrade: bool = False, revoked_keys: Collection[str] = ()) -> None:
    """Refuse to activate what must not be active, whatever it would stand beside.

    Args:
        state: What the store holds.
        digest: Of the patch.
        downgrade: Allow a version below the highest that was ever active.
        revoked_keys: Ids of keys that the trust policy revokes.

    Raises:
        TrustError: it is revoked, or the key that signed it is.
        UsageError: it is not installed, older than what was active, or outside of its pin.
    """
    entry = state.entry(digest)
    if digest in state.revoked:
        name = title(entry) if entry else digest[:16]
        raise TrustError(f"{name} is revoked: {state.revoked[digest]}", hint="activate another version")
    if entry is None:
        raise UsageError(f"{digest[:16]} is not installed", hint="llmpatch list")
    if lost := lost_key(entry, revoked_keys):
        raise TrustError(
            f"{title(entry)} {lost}; its signature was accepted when it was installed, at {entry.installed}",
            hint=f"ask its vendor for one that another key signed, and `llmpatch install` that; "
            f"`llmpatch deactivate {entry.name}` takes it out where it is active",
        )
    check_mark(state, digest, entry.name, entry.version, downgrade=downgrade)
    wanted = state.pins.get(entry.name)
    if wanted is not None and not parse_range(wanted).holds(parse_version(entry.version), prereleases=True):
        raise UsageError(f"{title(entry)} is outside of the pin {wanted}", hint=f"llmpatch pin {entry.name} --remove")


def check_mark(state: State, digest: str, name: str, version: str, *, downgrade: bool) -> None:
    """Refuse a version below the highest of its name that was ever active, installed or not; what is active may stay.

    Raises:
        UsageError: names both versions.
    """
    mark = state.high_water.get(name)
    if mark is None or downgrade or digest in state.active_digests:
        return
    if parse_version(version) < parse_version(mark):
        raise UsageError(
            f"{name} {version} is older than {mark}, which was active here", hint="llmpatch rollback, or --downgrade"
        )


def lost_key(entry: Installed, revoked_keys: Collection[str]) -> str:
    """That the key which signed a patch is revoked, in words; empty if it is not, or if nobody's signature was checked."""
    if entry.signer is None or entry.signer not in revoked_keys:
        return ""
    return f"was signed by key {entry.signer[:16]}, which is revoked"


def distrusted(state: State, revoked_keys: Collection[str]) -> list[str]:
    """Active patches whose signature would not count any more, in words."""
    entries = {entry.digest: entry for entry in state.installed}
    return [
        f"{title(entries[digest])}, active on {group.base}, {lost}"
        for group in state.active
        for digest in group.patches
        if (lost := lost_key(entries[digest], revoked_keys))
    ]
