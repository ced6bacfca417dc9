"""The advisories that the registries carry: for ``llmpatch audit`` itself, or as a folder that it reads.

asked = ask_advisories()                          # asked.told[0].advisory, asked.told[0].keys
fetched = fetch_advisories(Path("advisories"))    # advisories/VENDOR/ID.json

Several vendors write here, and one of them may be hostile: what is wrong with its files, how many they are and how long they
take costs the others nothing. It is left out and said, and whoever audits by the rest must not call that all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from llmpatch.advisories import MAX_ADVISORY_BYTES, Advisory, read_advisory
from llmpatch.advisories.folder import named_few, newest_first
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, LlmpatchError
from llmpatch.files import write_bytes
from llmpatch.registry.client import Found, look, read_target
from llmpatch.registry.configured import chosen_names, load_registry
from llmpatch.registry.layout import ADVISORIES, vendor_of

# Of one vendor in one registry, so that whoever gives another's name to a key of its own crowds out nothing elsewhere.
MAX_PER_VENDOR = 1_000
MAX_VENDOR_BYTES = 16 << 20
MAX_FAILURES = 3  # fetches that fail: each may take as long as a slow server is waited for


@dataclass(frozen=True)
class Told:
    """An advisory, and by whose keys it came.

    Attributes:
        name: ``VENDOR/ID.json``.
        data: Its bytes.
        advisory: What they say.
        keys: Ids of the keys that signed for the vendor in the registries that carry it.
        registries: Their names.
    """

    name: str
    data: bytes
    advisory: Advisory
    keys: frozenset[str]
    registries: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """What the registries carry.

    Attributes:
        told: Every advisory that counts, by name. Two of one name are of different keys: both count.
        left_out: What was left out, or is contested, and why.
    """

    told: tuple[Told, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Fetched:
    """A folder of advisories that was brought up to date.

    Attributes:
        files: What was written.
        left_out: As in :class:`Asked`: the folder lacks it.
        strange: What lies there and is in no registry, in words.
    """

    files: tuple[Path, ...]
    left_out: tuple[str, ...]
    strange: tuple[str, ...]


def ask_advisories(*, registry: str | None = None, offline: bool = False) -> Asked:
    """Ask the configured registries for all their advisories.

    Args:
        registry: Only this one.
        offline: Use what the last visit left.

    Raises:
        UsageError: no registry is configured, or none of that name.
        LlmpatchError: it cannot be loaded, or as in :func:`~llmpatch.registry.client.look`, if that is so of all of them.
    """
    chosen, failed = chosen_names(registry), []
    told: list[Told] = []
    notes: list[str] = []
    for name in chosen:
        try:
            found = look(load_registry(name), offline=offline)
        except LlmpatchError as error:
            failed.append(error)
            notes.append(f"left out: {error.message}")
            continue
        notes += [f"registry {name}: {shown(note, 300)}" for note in found.notes]
        for vendor, paths in _by_vendor(found).items():
            got, wrong = _told(found, vendor, paths)
            told += got
            notes += [f"left out: {text}" for text in named_few(wrong, vendor)]
    if len(failed) == len(chosen):
        raise failed[0]
    settled, contested = _settled(told)
    return Asked(tuple(settled), (*notes, *contested))


def fetch_advisories(folder: Path, *, registry: str | None = None, offline: bool = False) -> Fetched:
    """Bring a folder of advisories up to date.

    Args:
        folder: Where they go, as ``VENDOR/ID.json``.
        registry: Only this one.
        offline: Use what the last visit left.

    Raises:
        LlmpatchError: as in :func:`ask_advisories`, or the disk refuses.
    """
    asked = ask_advisories(registry=registry, offline=offline)
    names = Counter(each.name for each in asked.told)
    left, strange = list(asked.left_out), []
    left += [f"left out: {name} has room for one of them" for name in sorted(names) if names[name] > 1]
    held = {each.name: each.data for each in asked.told if names[each.name] == 1}
    for path, data in held.items():
        write_bytes(folder / path, data)
    for lying in sorted(folder.glob("*/*.json")) if registry is None and not left else ():
        if lying.relative_to(folder).as_posix() not in held:
            strange.append(
                f"{lying} is in no registry, or no longer: an audit of {folder} still goes by it; delete it if that is wrong"
            )
    return Fetched(tuple(folder / path for path in held), tuple(left), tuple(strange))


def _by_vendor(found: Found) -> dict[str, list[str]]:
    """The paths of advisories by vendor, the latest first."""
    made: dict[str, list[str]] = {}
    for path in newest_first(path for path in found.targets if path.startswith(f"{ADVISORIES}/")):
        made.setdefault(vendor_of(path), []).append(path)
    return made


def _told(found: Found, vendor: str, paths: Sequence[str]) -> tuple[list[Told], list[LlmpatchError]]:
    """What one vendor says in one registry, within its bounds, and what is wrong with the rest."""
    got: list[Told] = []
    wrong: list[LlmpatchError] = []
    registry, keys = found.registry.name, found.keys.get(vendor, frozenset())
    read, rest = _bounded(found, paths)
    if rest:
        text = f"registry {registry}: {rest:,} advisories of {vendor}, the oldest: too many, or too large together"
        wrong.append(IntegrityError(text, hint="tell its vendor"))
    failures = 0
    for path in read:
        where = f"registry {registry}: {shown(path, 200)}"
        # Whoever keeps us waiting does so a few times; what was fetched before still counts.
        source = found if failures < MAX_FAILURES else replace(found, offline=True)
        try:
            if found.targets[path].length > MAX_ADVISORY_BYTES:
                raise IntegrityError(f"{where} is larger than {MAX_ADVISORY_BYTES:,} bytes", hint="tell its vendor")
            name, data = path.removeprefix(f"{ADVISORIES}/"), read_target(source, path)
            got.append(Told(name, data, read_advisory(name, data, where=where), keys, (registry,)))
        except LlmpatchError as error:
            failures += not isinstance(error, IntegrityError)
            wrong.append(error)
    return got, wrong


def _bounded(found: Found, paths: Sequence[str]) -> tuple[list[str], int]:
    """The first paths that are within the bounds of one vendor, and how many are not."""
    read, size = [], 0
    for path in paths[:MAX_PER_VENDOR]:
        size += min(found.targets[path].length, MAX_ADVISORY_BYTES)  # one that claims more is not fetched
        if size > MAX_VENDOR_BYTES:
            break
        read.append(path)
    return read, len(paths) - len(read)


def _settled(told: Sequence[Told]) -> tuple[list[Told], list[str]]:
    """One of each, where registries agree, and what they contest.

    Of two by one key the later counts: another registry can still show what that key signed before. By different keys both do:
    whoever gives another vendor's name to a key of its own could otherwise take that vendor's word away.
    """
    by_name: dict[str, list[Told]] = {}
    for each in told:
        by_name.setdefault(each.name, []).append(each)
    settled: list[Told] = []
    notes: list[str] = []
    for name, versions in sorted(by_name.items()):
        # Before equal ones are joined: who copies an advisory gets no say in what replaces the vendor's own.
        old = [one for one in versions if any(_replaces(other, one) for other in versions)]
        counts = _joined([one for one in versions if one not in old])
        settled += counts
        for one in old:
            notes.append(f"left out: registry {one.registries[0]}: {name}: its key signed a later one elsewhere")
        if len(counts) > 1:
            who = ", ".join(registry for one in counts for registry in one.registries)
            notes.append(f"registries {who} carry different {name}: each counts; ask its vendor which is right")
    return settled, notes


def _joined(versions: Sequence[Told]) -> list[Told]:
    """Those that say the same as one, with the keys of all."""
    found: dict[Advisory, Told] = {}
    for each in versions:
        had = found.get(each.advisory)
        if had is None:
            found[each.advisory] = each
        else:
            all_of_them = (*had.registries, *each.registries)
            found[each.advisory] = replace(had, keys=had.keys | each.keys, registries=all_of_them)
    return list(found.values())


def _replaces(new: Told, old: Told) -> bool:
    """Later, and signed by all that signed the old one: with a part of a vendor's keys nobody takes back what needed all."""
    return bool(old.keys) and old.keys <= new.keys and _time(new) > _time(old)


def _time(each: Told) -> datetime:
    return datetime.fromisoformat(each.advisory.modified)
