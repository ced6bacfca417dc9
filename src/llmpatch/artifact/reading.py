"""The bytes of a patch, out of a folder or a ``.lpatch``: each read once, bounded, no links, nothing else beside.

    contents = read_contents(Path("refusal.lpatch"))
    contents.files["patch.json"], contents.signature

A signature is checked over these bytes and the patch is made of them: the disk is not asked twice. Knows nothing about
what the files say.
"""

from __future__ import annotations

import glob
import os
import stat
from pathlib import Path

from llmpatch.artifact.archive import MAX_ARCHIVE_BYTES, unpack_members
from llmpatch.artifact.layout import (
    ALL_LIMITS,
    ARCHIVE_SUFFIX,
    DAMAGED,
    LIMITS,
    MANIFEST_FILE,
    SIGNATURE_FILE,
    TOLERATED,
    Contents,
)
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # non-blocking: never wait for the writer of a pipe


def read_contents(path: Path) -> Contents:
    """Read the files of a patch.

    Args:
        path: A folder, or a file whose name ends in ``.lpatch``.

    Raises:
        UsageError: there is nothing, or a file of another name.
        IntegrityError: a file is missing, foreign, oversized or no regular file; the archive is damaged.
        LlmpatchError: it cannot be read.
    """
    path = Path(path)
    handle = _open(path)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            return _read_folder(handle, path)
        if path.suffix != ARCHIVE_SUFFIX:
            raise _no_folder(path)
        if not stat.S_ISREG(mode):
            raise IntegrityError(f"{path} is not a regular file", hint=DAMAGED)
        members = unpack_members(_read_all(handle, MAX_ARCHIVE_BYTES + 1), where=str(path))
        signature = members.pop(SIGNATURE_FILE, None)
        return Contents(members, signature)
    except OSError as error:
        raise LlmpatchError(f"cannot read {path}: {error.strerror}", hint="check the disk and try again") from None
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    try:
        return os.open(path, _READ)
    except FileNotFoundError:
        raise UsageError(f"no patch at {shown(str(path), 200)}", hint=_missing_hint(path)) from None
    except NotADirectoryError:
        raise _no_folder(path) from None
    except ValueError:  # a NUL in the path
        raise UsageError(f"{shown(str(path))!r} is not a path", hint="give a folder or a name") from None
    except OSError as error:
        raise LlmpatchError(
            f"cannot read {shown(str(path), 200)}: {error.strerror}", hint="check its permissions"
        ) from None


def _no_folder(path: Path) -> UsageError:
    return UsageError(
        f"{path} is a file; a patch is a folder with a {MANIFEST_FILE}, or a {ARCHIVE_SUFFIX}",
        hint="give the folder or the archive",
    )


def _read_folder(folder: int, path: Path) -> Contents:
    """The files of an open folder, so that renaming it meanwhile cannot mix two patches."""
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries}
    strangers = names - ALL_LIMITS.keys()
    if foreign := sorted(strangers - TOLERATED):
        raise IntegrityError(
            f"{path} holds {shown(foreign[0])!r}, which is no part of a patch",
            hint="a patch is five files and its signature; move anything else out",
        )
    files = {name: _read_member(folder, name, path / name) for name in LIMITS}
    signed = SIGNATURE_FILE in names
    signature = _read_member(folder, SIGNATURE_FILE, path / SIGNATURE_FILE) if signed else None
    return Contents(files, signature, tuple(sorted(strangers)))


def _read_member(folder: int, name: str, where: Path) -> bytes:
    """One regular file of an open folder, at most its limit. Never follows a link, never waits for a pipe."""
    limit = ALL_LIMITS[name]
    try:
        handle = os.open(name, _READ | os.O_NOFOLLOW, dir_fd=folder)
        with os.fdopen(handle, "rb", buffering=0, closefd=True) as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise IntegrityError(f"{where} is not a regular file", hint=DAMAGED)
            data = _read_all(file.fileno(), limit + 1)
    except FileNotFoundError:
        raise IntegrityError(f"{where} is missing", hint="give the folder of a patch, or fetch it again") from None
    except PermissionError as error:
        raise LlmpatchError(f"cannot read {where}: {error.strerror}", hint="check its permissions") from None
    except OSError as error:  # ELOOP for a link; EISDIR, ENXIO for folders and sockets
        raise IntegrityError(
            f"{where} is not a regular file ({error.strerror})", hint="copy the files themselves, as `cp -rL` does"
        ) from None
    if len(data) > limit:
        raise IntegrityError(f"{where} is larger than {limit:,} bytes", hint=DAMAGED)
    return data


def _read_all(handle: int, limit: int) -> bytes:
    blocks = []
    while limit > 0 and (block := os.read(handle, limit)):
        blocks.append(block)
        limit -= len(block)
    return b"".join(blocks)


def _missing_hint(path: Path) -> str:
    leftovers = sorted(path.parent.glob(f".{glob.escape(path.name)}.old-*"))
    if leftovers:
        return f"an interrupted write left the last version in {leftovers[-1]}: rename it back to {path.name}"
    return "give the folder of a patch, a .lpatch, or a name as FOLDER/SLUG that lies in ./patches"
