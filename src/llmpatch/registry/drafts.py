"""What a change that waits for signatures would change: whoever signs it blindly signs whatever somebody put there.

seen = drafted(folder)
seen.changes         # ("root 2: threshold of root 2 -> 1", "root 2: root loses key 3f2a9c01d2e4ab77")
seen.digest          # of what would be signed: `cosign(folder, keys=keys, seen=seen.digest)` signs that and nothing else
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Role, Root, Targets

from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, UsageError
from llmpatch.files import digest_json
from llmpatch.registry.keys import our_key, tuf_key
from llmpatch.registry.layout import DRAFTS, ROOT, TOP
from llmpatch.registry.repository import Repository, load, open_repository

# What has lines of its own; whatever else a draft says is shown as it stands there.
_SAID = {"_type", "version", "expires", "roles", "keys", "targets", "delegations"}
_SAID_OF_ROLES = {"name", "threshold", "keyids", "paths"}


@dataclass(frozen=True)
class Drafted:
    """A change that waits for signatures.

    Attributes:
        changes: What it would change, a line each; of a new registry all that it begins with.
        digest: Of what would be signed, without the signatures that are there.
    """

    changes: tuple[str, ...]
    digest: str


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
    for name, key in _keys(metadata).items():
        if our_key(key).id != name:
            raise IntegrityError(
                f"{path}: key {name[:16]} is another one than its name says", hint="sign nothing of it"
            )


def _keys(metadata: Metadata[Any]) -> Mapping[str, Any]:
    signed = metadata.signed
    return signed.keys if isinstance(signed, Root) else signed.delegations.keys if signed.delegations else {}


def drafted(folder: Path) -> Drafted:
    """What the roles that wait would change (errors as in :func:`open_drafts`)."""
    old, made = open_drafts(folder)
    lines: list[str] = []
    for name, metadata in made.items():
        before = None if old is None else old.root if name == ROOT else old.top
        title = f"{name} {metadata.signed.version}"
        changes = list(_changes(before, metadata))
        lines += [f"{title}: {change}" for change in changes or ["signs the same again"]]
        lines += [f"{title}: {whole}" for whole in _whole(metadata)]
        lines.append(f"{title}: expires {metadata.signed.expires:%Y-%m-%d}")
        if before is not None:
            lines.append(f"{title}: compared with version {before.signed.version}, sha256 {_sum(before)}")
    return Drafted(tuple(lines), drafts_digest(old, made))


def _whole(metadata: Metadata[Any]) -> Iterator[str]:
    """Who counts then, with whole ids: what changes says little to whom the folder shows another beginning."""
    for name, role in _roles(metadata).items():
        yield f"then {role.threshold} of {', '.join(sorted(role.keyids))} signs for {shown(name)}"


def _sum(metadata: Metadata[Any]) -> str:
    return hashlib.sha256(metadata.signed_bytes).hexdigest()


def drafts_digest(old: Repository | None, made: Mapping[str, Metadata[Any]]) -> str:
    """Of exactly the bytes that signatures are made over, role by role, and of those that they were compared with."""
    before = {} if old is None else {ROOT: _sum(old.root), "top": _sum(old.top)}
    return digest_json({"before": before, "made": {role: _sum(found) for role, found in made.items()}})


def check_seen(folder: Path, old: Repository | None, made: Mapping[str, Metadata[Any]], seen: str) -> None:
    """Whether what waits is what was looked at: between the two a folder can be changed.

    Raises:
        IntegrityError: it is another draft.
    """
    if drafts_digest(old, made) != seen:
        raise IntegrityError(
            f"what waits in {folder / DRAFTS} is not what was shown: nothing was signed",
            hint="look again: llmpatch registry sign FOLDER --dry-run; ask whoever can write there what became of it",
        )


def _roles(metadata: Metadata[Any] | None) -> Mapping[str, Role]:
    """The roles that it gives keys to."""
    if metadata is None:
        return {}
    signed = metadata.signed
    if isinstance(signed, Root):
        return signed.roles
    return (signed.delegations.roles if signed.delegations is not None else None) or {}


def _changes(before: Metadata[Any] | None, after: Metadata[Any]) -> Iterator[str]:
    """All differences, in words."""
    yield from _role_changes(_roles(before), _roles(after))
    yield from _target_changes(_targets(before), _targets(after))
    for key in _keys(after).values():
        if tuf_key(our_key(key)) != key:
            yield f"key {key.keyid[:16]} is described in an unusual way: {_json(key.to_dict())}"
    old, new = _rest(before), _rest(after)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield _became(name, old.get(name), new.get(name))


def _role_changes(before: Mapping[str, Role], after: Mapping[str, Role]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        role, (old, new) = shown(name), (before.get(name), after.get(name))
        if new is None:
            yield f"{role} is gone"
            continue
        if old is None or old.threshold != new.threshold:
            yield f"threshold of {role} {f'{old.threshold} -> ' if old else ''}{new.threshold}"
        had, has = set(old.keyids if old else ()), set(new.keyids)
        yield from (f"{role} gets key {key[:16]}" for key in sorted(has - had))
        yield from (f"{role} loses key {key[:16]}" for key in sorted(had - has))
        had, has = _paths(old), _paths(new)
        yield from (f"{role} may publish {shown(path, 300)}" for path in sorted(has - had))
        yield from (f"{role} may no longer publish {shown(path, 300)}" for path in sorted(had - has))
        was, now = _rest_of_role(old), _rest_of_role(new)
        yield from (
            _became(f"{role}: {key}", was.get(key), now.get(key))
            for key in sorted({*was, *now})
            if was.get(key) != now.get(key)
        )
    both = before.keys() & after.keys()
    if [name for name in before if name in both] != [name for name in after if name in both]:
        yield f"the order of the roles becomes {', '.join(map(shown, after))}"


def _target_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for path in sorted({*before, *after}):
        target, (old, new) = shown(path, 300), (before.get(path), after.get(path))
        if new is None:
            yield f"removes target {target}"
        elif old is None:
            yield f"adds target {target}: {_json(new.to_dict())}"
        elif old != new:
            yield f"changes target {target}: {_json(old.to_dict())} -> {_json(new.to_dict())}"


def _targets(metadata: Metadata[Any] | None) -> Mapping[str, Any]:
    return metadata.signed.targets if metadata is not None and isinstance(metadata.signed, Targets) else {}


def _paths(role: Role | None) -> set[str]:
    return set(getattr(role, "paths", None) or ())


def _rest_of_role(role: Role | None) -> dict[str, Any]:
    """What else is said of a role. A new one is held against what ours are: it ends the search for its paths."""
    if role is None:
        return {"terminating": True}
    found = {"terminating": True} | dict(role.to_dict())
    return {key: value for key, value in found.items() if key not in _SAID_OF_ROLES}


def _rest(metadata: Metadata[Any] | None) -> dict[str, Any]:
    """What else metadata says, and what else its delegations do."""
    said: dict[str, Any] = metadata.signed.to_dict() if metadata is not None else {}
    more = {f"delegations: {key}": value for key, value in (said.get("delegations") or {}).items()}
    found = {key: value for key, value in said.items() if key not in _SAID}
    return found | {key: value for key, value in more.items() if key.partition(": ")[2] not in _SAID}


def _became(what: str, old: Any, new: Any) -> str:
    return f"{shown(what, 200)} {f'{_json(old)} -> ' if old is not None else ''}{_json(new)}"


def _json(value: Any) -> str:
    return shown(json.dumps(value, sort_keys=True), 400)
