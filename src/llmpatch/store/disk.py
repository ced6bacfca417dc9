"""Changes to a disk that survive a kill and a power cut: write, flush to the disk, then one rename; a lock around it.

    with locked(root / "lock"):
        add_folder(root / "patches", "sha256-...", {"patch.json": data})   # whole or not there
        replace_file(root / "current", data)                               # old or new

All names that begin with ``.new-`` or ``.old-`` are leftovers of something that was interrupted. Knows nothing of patches.
"""

# Every change goes through a function of os, not of pathlib, so that the tests can stop the process at each one.
# ruff: noqa: PTH101, PTH102, PTH104, PTH105, PTH106, PTH108

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from llmpatch.errors import LlmpatchError

NEW, OLD = ".new-", ".old-"
_WRITABLE, _READ_ONLY = 0o755, 0o555
_POLL_SECONDS = 0.01


@contextlib.contextmanager
def disk_errors(root: Path, *, what: str = "store") -> Iterator[None]:
    """Turn what the disk refuses into one clear error.

    Raises:
        LlmpatchError: for any OSError inside.
    """
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else str(root)
        raise LlmpatchError(
            f"cannot change the {what}: {where}: {error.strerror or error}",
            hint="free some space or check permissions, then run it again; all is as it was before",
        ) from error


@contextlib.contextmanager
def locked(
    path: Path, *, seconds: float = 60.0, hint: str = "put the store on a local disk: LLMPATCH_STORE=/some/folder"
) -> Iterator[None]:
    """Hold the lock of a file. The system lets go of it when the process ends, however it ends.

    Raises:
        LlmpatchError: another process held it all the time; the file system has no locks.
        OSError: the file cannot be made.
    """
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                    raise LlmpatchError(
                        f"the file system of {path.parent} has no locks: {error.strerror}",
                        hint=hint,
                    ) from None
            if time.monotonic() > end:
                raise LlmpatchError(
                    f"another process has held {path} for {seconds:.0f} s", hint="wait for it, or end it, and try again"
                )
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(handle)


def write_new(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Create a file and flush it to the disk; its name is safe after :func:`sync_folder`.

    Raises:
        FileExistsError: the name is taken.
        OSError: the disk refuses; part of the file may be there.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes, mode: int = 0o644, *, staging: Path | None = None) -> None:
    """Give ``path`` new content in one rename, written in ``staging`` (by default beside it), all flushed to the disk."""
    temporary = (staging or path.parent) / _fresh(NEW)
    try:
        write_new(temporary, data, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def add_folder(parent: Path, name: str, contents: Mapping[str, bytes]) -> None:
    """Make a folder of read-only files appear whole under its name, which must be free."""
    temporary = parent / _fresh(NEW)
    try:
        os.mkdir(temporary, 0o755)
        for file, data in contents.items():
            write_new(temporary / file, data, 0o444)
        os.chmod(temporary, _READ_ONLY)
        sync_folder(temporary)
        os.rename(temporary, parent / name)
    except BaseException:
        with contextlib.suppress(OSError):
            _delete(temporary)
        raise
    sync_folder(parent)


def add_file(folder: Path, name: str, data: bytes) -> None:
    """Add a read-only file to a read-only folder, or replace it, in one rename from outside of it."""
    os.chmod(folder, _WRITABLE)
    try:
        replace_file(folder / name, data, 0o444, staging=folder.parent)
    finally:
        os.chmod(folder, _READ_ONLY)


def remove_folder(path: Path) -> None:
    """Take a folder's name away first, then delete what was in it; nothing happens if it is not there."""
    doomed = path
    if not path.name.startswith((NEW, OLD)):
        doomed = path.parent / _fresh(OLD)
        try:
            os.rename(path, doomed)
        except FileNotFoundError:
            return
        sync_folder(path.parent)
    _delete(doomed)
    sync_folder(path.parent)


def remove_file(path: Path) -> None:
    """Delete a file; nothing happens if it is not there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, safely there."""
    if path.is_dir():
        return
    if path != path.parent:
        make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(handle)


def leftovers(folder: Path) -> list[Path]:
    """What interrupted work left in a folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.startswith((NEW, OLD)))
    except FileNotFoundError:
        return []


def remove(path: Path) -> None:
    """Delete a file, a link or a whole folder."""
    if path.is_dir() and not path.is_symlink():
        remove_folder(path)
    else:
        remove_file(path)


def _delete(folder: Path) -> None:
    if folder.is_symlink():  # what it points to is not ours
        os.unlink(folder)
        return
    try:
        os.chmod(folder, _WRITABLE)
    except FileNotFoundError:
        return
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            _delete(Path(entry.path))
        else:
            os.unlink(entry.path)
    os.rmdir(folder)


def _fresh(kind: str) -> str:
    return f"{kind}{os.getpid()}-{secrets.token_hex(6)}"
