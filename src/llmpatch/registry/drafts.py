"""What a change that waits for signatures would change: whoever signs it blindly signs whatever somebody put there.

drafted(folder)      # ["root 2: threshold of root 2 -> 1", "root 2: root loses key 3f2a9c01d2e4ab77"]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Role, Root, Targets

from llmpatch.errors import IntegrityError, UsageError
from llmpatch.registry.keys import our_key
from llmpatch.registry.layout import DRAFTS, ROOT, TOP
from llmpatch.registry.repository import Repository, load, open_repository


def open_drafts(folder: Path) -> tuple[Repository | None, dict[str, Metadata[Any]]]:
    """The registry as it is, ``None`` before its first root, and the roles that wait.

    Raises:
        UsageError: nothing waits, or it would begin a registry that has begun.
        IntegrityError: a draft is damaged.
    """
    made: dict[str, Metadata[Any]] = {}
    for role, kind in ((ROOT, Root), (TOP, Targets)):
        path = folder / DRAFTS / f"{role}.json"
        if path.exists():
            made[role] = load(path, kind)
            _check_keys(made[role], path)
    if not made:
        raise UsageError(f"nothing waits for signatures in {folder}", hint="llmpatch registry refresh")
    fresh = ROOT in made and made[ROOT].signed.version == 1
    if fresh and list(folder.glob(f"metadata/*.{ROOT}.json")):
        raise UsageError(
            f"the draft in {folder / DRAFTS} would begin this registry anew", hint="delete that folder: nobody needs it"
        )
    return (None if fresh else open_repository(folder)), made


def _check_keys(metadata: Metadata[Any], path: Path) -> None:
    """An id is a mere label to TUF: with another key under it, what is shown of a change would be what everybody expects.

    Raises:
        IntegrityError: names the key.
    """
    signed = metadata.signed
    keys = signed.keys if isinstance(signed, Root) else signed.delegations.keys if signed.delegations else {}
    for name, key in keys.items():
        if our_key(key).id != name:
            raise IntegrityError(
                f"{path}: key {name[:16]} is another one than its name says", hint="sign nothing of it"
            )


def drafted(folder: Path) -> list[str]:
    """What the roles that wait would change, a line each; of a new registry all that it begins with (errors as above)."""
    old, made = open_drafts(folder)
    lines: list[str] = []
    for name, metadata in made.items():
        before = None if old is None else old.root if name == ROOT else old.top
        title = f"{name} {metadata.signed.version}"
        changes = _differences(_roles(before), _roles(metadata))
        lines += [f"{title}: {change}" for change in changes or ["signs the same again"]]
        lines.append(f"{title}: expires {metadata.signed.expires:%Y-%m-%d}")
    return lines


def _roles(metadata: Metadata[Any] | None) -> Mapping[str, Role]:
    """The roles that it gives keys to."""
    if metadata is None:
        return {}
    signed = metadata.signed
    if isinstance(signed, Root):
        return signed.roles
    return (signed.delegations.roles if signed.delegations is not None else None) or {}


def _differences(before: Mapping[str, Role], after: Mapping[str, Role]) -> list[str]:
    found = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if new is None:
            found.append(f"{name} is gone")
            continue
        if old is None or old.threshold != new.threshold:
            found.append(f"threshold of {name} {f'{old.threshold} -> ' if old else ''}{new.threshold}")
        had, has = set(old.keyids if old else ()), set(new.keyids)
        found += [f"{name} gets key {key[:16]}" for key in sorted(has - had)]
        found += [f"{name} loses key {key[:16]}" for key in sorted(had - has)]
    return found
