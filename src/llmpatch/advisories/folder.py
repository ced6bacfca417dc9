"""A set of advisories, as a registry delivers it: ``VENDOR/ID.json``, in a folder or in memory, or loose ``ID.json``.

    advisories = load_advisories(Path("advisories"))
    advisories = read_advisories({"acme/x_ACME-2026-0001.json": data})

Who may write in a vendor's folder is the registry's affair (its targets ``advisories/VENDOR/*`` are signed by that vendor);
here the folder's name and the id must agree, so that nobody speaks for another vendor. One bad file fails the whole: an
advisory that is not read may be the one that matters.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from llmpatch.advisories.record import MAX_ADVISORY_BYTES, Advisory, parse_advisory
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from llmpatch.files import read_bytes

MAX_ADVISORIES = 10_000
_HINT = "a folder of advisories holds VENDOR/ID.json, and nothing else with that suffix"


def load_advisories(folder: Path) -> tuple[Advisory, ...]:
    """Read every advisory in a folder, sorted by id. Files of other suffixes are left aside.

    Raises:
        UsageError: there is no such folder.
        IntegrityError: a file is no advisory, no regular file, under a name that is not its id, in another vendor's folder,
            or there twice; too many files.
        LlmpatchError: it cannot be read.
    """
    folder = Path(folder)
    loaded = [
        (str(path), path.parent.name if path.parent != folder else "", load_advisory(path)) for path in _files(folder)
    ]
    return _gathered(loaded)


def read_advisories(files: Mapping[str, bytes]) -> tuple[Advisory, ...]:
    """The same from memory, sorted by id.

    Args:
        files: ``VENDOR/ID.json`` -> its bytes.

    Raises:
        IntegrityError: a file is no advisory, under a name that is not its id, in another vendor's folder, or there twice;
            too many files.
    """
    _check_count(len(files), "what was given")
    return _gathered(
        (name, name.rpartition("/")[0], _named(parse_advisory(data, where=name), name)) for name, data in files.items()
    )


def load_advisory(path: Path) -> Advisory:
    """Read one advisory, whose file is named by its id.

    Raises:
        UsageError: there is no such file.
        IntegrityError: no regular file, no advisory, or under another name.
    """
    _check_regular(path)
    return _named(parse_advisory(read_bytes(path, limit=MAX_ADVISORY_BYTES), where=str(path)), str(path))


def _gathered(loaded: Iterable[tuple[str, str, Advisory]]) -> tuple[Advisory, ...]:
    """Where each lies, in whose folder, and what it is: each by its own vendor and once, sorted by id."""
    found: dict[str, Advisory] = {}
    for where, vendor, advisory in loaded:
        if vendor and vendor != advisory.vendor:
            raise IntegrityError(f"{where} is an advisory of {advisory.vendor} in {shown(vendor)}'s folder", hint=_HINT)
        if advisory.id in found:
            raise IntegrityError(f"{where}: {advisory.id} is there twice", hint=_HINT)
        found[advisory.id] = advisory
    return tuple(found[name] for name in sorted(found))


def _named(advisory: Advisory, where: str) -> Advisory:
    if where.rpartition("/")[2] != f"{advisory.id}.json":
        raise IntegrityError(f"{where} holds {advisory.id}", hint=f"name it {advisory.id}.json")
    return advisory


def _files(folder: Path) -> list[Path]:
    try:
        top = sorted(os.scandir(folder), key=lambda entry: entry.name)
        below = [inner for entry in top if entry.is_dir(follow_symlinks=False) for inner in os.scandir(entry.path)]
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"no folder of advisories at {shown(str(folder), 200)}", hint="check the path") from None
    except OSError as error:
        raise LlmpatchError(f"cannot read {folder}: {error.strerror}", hint="check its permissions") from None
    found = sorted(Path(entry.path) for entry in (*top, *below) if entry.name.endswith(".json"))
    _check_count(len(found), str(folder))
    return found


def _check_count(found: int, where: str) -> None:
    if found > MAX_ADVISORIES:
        raise IntegrityError(f"{where} holds more than {MAX_ADVISORIES:,} advisories", hint=_HINT)


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
