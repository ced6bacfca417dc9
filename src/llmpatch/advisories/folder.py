"""A set of advisories, as a registry delivers it: ``VENDOR/ID.json`` in a folder, or loose ``ID.json``; or one from memory.

    advisories = load_advisories(Path("advisories"))               # the first file that is wrong is an error
    advisories, left_out = usable_advisories(Path("advisories"))   # what is wrong is left out, and said
    advisory = read_advisory("acme/x_ACME-2026-0001.json", data)

Who may write in a vendor's folder is the registry's affair (its targets ``advisories/VENDOR/*`` are signed by that vendor);
here the folder's name and the id must agree, so that nobody speaks for another vendor. An audit leaves out what is wrong, or
one vendor could keep everybody's revocations away; and it fails for it, for what is not read may be the one that matters.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from llmpatch.advisories.record import MAX_ADVISORY_BYTES, Advisory, parse_advisory
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from llmpatch.files import read_bytes

MAX_ADVISORIES = 10_000  # of each vendor: more than all registries together bring of one
MAX_NAMED = 20  # of what is left out of one vendor's, so that its flood hides nobody else's line
_HINT = "a folder of advisories holds VENDOR/ID.json, and nothing else with that suffix"
_NUMBER = re.compile(r"-([0-9]{4})-([0-9]{4,8})\.json")


def load_advisories(folder: Path) -> tuple[Advisory, ...]:
    """Read every advisory in a folder, sorted by id. Files of other suffixes are left aside.

    Raises:
        UsageError: there is no such folder.
        IntegrityError: a file is no advisory, no regular file, under a name that is not its id, in another vendor's folder,
            or there twice; too many files.
        LlmpatchError: it cannot be read.
    """
    found, wrong = _read(Path(folder))
    for errors in wrong.values():
        raise errors[0]
    return found


def usable_advisories(folder: Path) -> tuple[tuple[Advisory, ...], list[str]]:
    """The same, without what is wrong: the advisories that can be read, and what was left out and why.

    Raises:
        UsageError: there is no such folder.
        LlmpatchError: the folder itself cannot be read.
    """
    found, wrong = _read(Path(folder))
    left = [f"left out: {text}" for vendor, errors in wrong.items() for text in named_few(errors, vendor)]
    return found, left


def read_advisory(name: str, data: bytes, *, where: str = "") -> Advisory:
    """Read one from memory.

    Args:
        name: ``VENDOR/ID.json``.
        data: Its bytes.
        where: What to call it in an error; by default its name.

    Raises:
        IntegrityError: no advisory, under a name that is not its id, or in another vendor's folder.
    """
    where = where or shown(name, 200)
    return _placed(parse_advisory(data, where=where), name, where)


def load_advisory(path: Path) -> Advisory:
    """Read one advisory, whose file is named by its id.

    Raises:
        UsageError: there is no such file.
        IntegrityError: no regular file, no advisory, or under another name.
    """
    _check_regular(path)
    return _named(parse_advisory(read_bytes(path, limit=MAX_ADVISORY_BYTES), where=str(path)), path.name, str(path))


def newest_first(names: Iterable[str]) -> list[str]:
    """Names of advisories by year and number, the latest first: where one vendor has too many, old ones are left out."""
    return sorted(names, key=_age, reverse=True)


def named_few(errors: Sequence[LlmpatchError], vendor: str) -> list[str]:
    """What is wrong with one vendor's files, in words: the first ones, and how many more."""
    more = len(errors) - MAX_NAMED
    texts = [error.message for error in errors[:MAX_NAMED]]
    return [*texts, f"{more:,} more files of {shown(vendor) or 'no vendor'}"] if more > 0 else texts


def _age(name: str) -> tuple[int, int, str]:
    found = _NUMBER.search(name)
    return (int(found[1]), int(found[2]), name) if found else (0, 0, name)


def _read(folder: Path) -> tuple[tuple[Advisory, ...], dict[str, list[LlmpatchError]]]:
    """The advisories, sorted by id, and by vendor what is wrong with the other files."""
    found: dict[str, Advisory] = {}
    wrong: dict[str, list[LlmpatchError]] = {}
    for vendor, names in _files(folder).items():
        if len(names) > MAX_ADVISORIES:
            more = f"{folder / vendor} holds more than {MAX_ADVISORIES:,} advisories: older ones are not read"
            wrong.setdefault(vendor, []).append(IntegrityError(more, hint="take old ones out of it"))
        for name in sorted(newest_first(names)[:MAX_ADVISORIES]):
            path = folder / vendor / name
            try:
                advisory = _placed(load_advisory(path), f"{vendor}/{name}", str(path))
                if advisory.id in found:
                    raise IntegrityError(f"{path}: {advisory.id} is there twice", hint=_HINT)
                found[advisory.id] = advisory
            except LlmpatchError as error:
                wrong.setdefault(vendor, []).append(error)
    return tuple(found[name] for name in sorted(found)), wrong


def _placed(advisory: Advisory, name: str, where: str) -> Advisory:
    """It lies under its own id, and in its own vendor's folder if in any."""
    vendor, _, file = name.rpartition("/")
    if vendor and vendor != advisory.vendor:
        raise IntegrityError(f"{where} is an advisory of {advisory.vendor} in {shown(vendor)}'s folder", hint=_HINT)
    return _named(advisory, file, where)


def _named(advisory: Advisory, file: str, where: str) -> Advisory:
    if file != f"{advisory.id}.json":
        raise IntegrityError(f"{where} holds {advisory.id}", hint=f"name it {advisory.id}.json")
    return advisory


def _files(folder: Path) -> dict[str, list[str]]:
    """Names of files by vendor; loose ones, of no vendor, come last."""
    try:
        top = sorted(os.scandir(folder), key=lambda entry: entry.name)
        found = {
            entry.name: [inner.name for inner in os.scandir(entry.path) if inner.name.endswith(".json")]
            for entry in top
            if entry.is_dir(follow_symlinks=False)
        }
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"no folder of advisories at {shown(str(folder), 200)}", hint="check the path") from None
    except OSError as error:
        raise LlmpatchError(f"cannot read {folder}: {error.strerror}", hint="check its permissions") from None
    return found | {"": [entry.name for entry in top if entry.name.endswith(".json")]}


def _check_regular(path: Path) -> None:
    """No link, which could lead out of the folder, and no pipe, which would never end."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        raise UsageError(f"no such file: {shown(str(path), 200)}", hint="check the path") from None
    except OSError as error:
        raise LlmpatchError(f"cannot read {path}: {error.strerror}", hint="check its permissions") from None
    if not stat.S_ISREG(mode):
        raise IntegrityError(f"{path} is not a regular file", hint="copy the file itself into the folder")
