"""Install and pin: what a store holds, not what is active.

    entry = install(store, Path("refusal.lpatch"), verify)
    pin(store, "acme/refusal", ">=1,<2")

Knows nothing about how a patch is verified or judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpatch.artifact import release_time
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import TrustError, UsageError
from llmpatch.store.contents import put, title
from llmpatch.store.generations import Draft, Head, Store, commit
from llmpatch.store.interfaces import Verified, Verify
from llmpatch.store.state import Action, Generation, Installed, State, changed
from llmpatch.versions import parse_range, parse_version


@dataclass(frozen=True)
class Done:
    """What an operation did.

    Attributes:
        changed: Whether anything did change.
        why: In words.
        generation: What holds now.
    """

    changed: bool
    why: str
    generation: Generation


def install(store: Store, source: Path, verify: Verify, *, reason: str = "", origin: str = "") -> Installed:
    """Verify a patch and put it into the store. It is not active by that.

    Args:
        store: Which.
        source: A folder or a ``.lpatch``.
        verify: Who vouches for its bytes.
        reason: Recorded.
        origin: Recorded as where it comes from; by default ``source``.

    Returns:
        Its entry; of one that was there already, the old one.

    Raises:
        TrustError: it is revoked; ``verify`` does not trust it.
        UsageError: another patch is installed under this name and version.
        LlmpatchError: whatever ``verify`` and the disk raise.
    """
    verified = verify(source)
    made = _entry(verified, origin or str(source))

    def change(head: Head) -> Draft | None:
        _check_new(head.state, made)
        old = head.state.entry(made.digest)
        put(store, verified)
        if old is not None and made.signer in (None, old.signer):
            return None
        entry = old.model_copy(update={"signer": made.signer}) if old else made
        others = tuple(e for e in head.state.installed if e.digest != made.digest)
        return Draft("install", reason or f"install {title(made)}", changed(head.state, installed=(*others, entry)))

    generation, _ = commit(store, change)
    return generation.state.entry(made.digest) or made


def pin(store: Store, name: str, versions: str | None, *, reason: str = "") -> Done:
    """Keep upgrades of a name within a range, and its patches from being collected; ``None`` takes the pin away.

    Raises:
        UsageError: no such range; the active version lies outside of it.
    """
    wanted = parse_range(versions) if versions is not None else None

    def change(head: Head) -> Draft | None:
        pins = {key: value for key, value in head.state.pins.items() if key != name}
        for entry in head.state.installed:
            outside = wanted is not None and not wanted.holds(parse_version(entry.version), prereleases=True)
            if entry.name == name and entry.digest in head.state.active_digests and outside:
                raise UsageError(
                    f"{title(entry)} is active, outside of {versions}", hint="activate a version in that range first"
                )
        if versions is not None:
            pins[name] = versions
        if pins == head.state.pins:
            return None
        why = f"pin {name} to {versions}" if versions is not None else f"unpin {name}"
        action: Action = "pin" if versions is not None else "unpin"
        return Draft(action, because(why, reason), changed(head.state, pins=pins))

    generation, new = commit(store, change)
    return Done(new, generation.reason if new else "nothing to change", generation)


def because(why: str, reason: str) -> str:
    """What happened, and the reason somebody gave."""
    return f"{why}: {reason}" if reason else why


def _check_new(state: State, made: Installed) -> None:
    if made.digest in state.revoked:
        raise TrustError(f"{title(made)} is revoked: {state.revoked[made.digest]}", hint="install another version")
    for entry in state.installed:
        if (entry.name, entry.version) == (made.name, made.version) and entry.digest != made.digest:
            raise UsageError(
                f"another patch is installed as {title(made)}: {entry.digest[:16]}, not {made.digest[:16]}",
                hint="a version is published once: ask its vendor which one is real",
            )


def _entry(verified: Verified, source: str) -> Installed:
    manifest = verified.patch.manifest
    fields: Mapping[str, Any] = {
        "digest": verified.patch.digest, "name": manifest.name, "version": manifest.version, "base": manifest.base.name,
        "signer": verified.signer, "source": shown(source, 500) or "-", "installed": release_time(),
    }  # fmt: skip
    return Installed.model_validate(fields)
