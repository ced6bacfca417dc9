"""Durable files: a reader sees the old bytes or the new ones, never half of either.

write_text(path, "...")          # temporary file beside it, fsync, one rename
for row in read_jsonl(path): ... # bounded, one clear error with the line number
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llmpatch.errors import IntegrityError, LlmpatchError, UsageError

MAX_LINE_BYTES = 1 << 20
_SAMPLES, _SAMPLE_BYTES = 64, 4096


def write_bytes(path: Path, data: bytes, *, staging: Path | None = None) -> None:
    """Write ``data`` to ``path`` atomically; what is unfinished lies in ``staging`` on the same disk, by default beside it.

    Raises:
        LlmpatchError: the disk is full, or the folder cannot be written; ``path`` is untouched.
    """
    handle = -1
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=staging or path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LlmpatchError(
            f"cannot write {path}: {reason}", hint="free some space or choose another folder; nothing was changed"
        ) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def encodable(text: str) -> bool:
    """Whether a file can hold a text: no lone surrogate in it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Work in a folder that no other process works in meanwhile; the system lets go of it however the process ends.

    Raises:
        UsageError: another one does.
        LlmpatchError: the folder cannot be written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, made = _locked(path)
    except BlockingIOError:
        raise UsageError(f"another process works in {folder}", hint="wait for it, or name another folder") from None
    except OSError as error:
        raise LlmpatchError(f"cannot write {folder}: {error.strerror}", hint="choose another folder") from error
    try:
        yield
    finally:
        # A folder that is refused stays as it was. Only who holds the lock takes the file away, so that nobody locks beside him.
        if made and _is_at(path, handle):
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(handle)


def _locked(path: Path) -> tuple[int, bool]:
    """A locked file, and whether it was not there before.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be written.
    """
    import fcntl

    for _ in range(100):
        handle, made = _opened(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise
        except OSError:  # a file system without locks
            return handle, made
        if _is_at(path, handle):
            return handle, made
        os.close(handle)  # its last holder has taken it away between opening and locking
    raise BlockingIOError


def _opened(path: Path) -> tuple[int, bool]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_EXCL, 0o644), True
    except FileExistsError:
        return os.open(path, flags, 0o644), False


def _is_at(path: Path, handle: int) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` atomically (errors as in :func:`write_bytes`)."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` atomically (errors as in :func:`write_bytes`)."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line to ``path`` atomically (errors as in :func:`write_bytes`)."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_bytes(path: Path, *, limit: int) -> bytes:
    """Read at most ``limit`` bytes of a regular file.

    Raises:
        UsageError: there is no such file, or it is a folder.
        IntegrityError: the file is larger than ``limit``.
    """
    try:
        with path.open("rb") as file:
            size = min(limit, os.fstat(file.fileno()).st_size)
            data = file.read(size + 1)  # read() makes room for all that it is asked for
            if len(data) > size:  # it grew, or does not know its size
                data += file.read(limit + 1 - len(data))
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > limit:
        raise IntegrityError(f"{path} is larger than {limit:,} bytes", hint="this is not a file of ours")
    return data


def read_jsonl(path: Path, *, limit: int = 1 << 28) -> list[dict[str, Any]]:
    """Read a JSON Lines file of objects.

    Raises:
        UsageError: missing file; a line that is not a UTF-8 JSON object (named by its number).
        IntegrityError: larger than ``limit`` bytes.
    """
    lines = enumerate(read_bytes(path, limit=limit).split(b"\n"), start=1)
    return [parse_row(line, path, number) for number, line in lines if line.strip()]


class Line(NamedTuple):
    """One line of a file: the byte it begins at, its number from 1, and its bytes without the line's end."""

    offset: int
    number: int
    text: bytes


def iterate_lines(path: Path, *, offset: int = 0, number: int = 1) -> Iterator[Line]:
    """Lines of a file that are not blank, one at a time, so that a file may be larger than memory.

    Args:
        path: The file.
        offset: The byte at which to begin, where a line begins.
        number: The number of that line.

    Raises:
        UsageError: there is no such file, it is a folder, or a line is too long to be a row.
        LlmpatchError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while line := file.readline(MAX_LINE_BYTES + 2):
                if len(line) > MAX_LINE_BYTES + 1:
                    raise _too_long(path, number)
                if line.strip():
                    yield Line(offset, number, line.removesuffix(b"\n"))
                offset, number = offset + len(line), number + 1
    except OSError as error:
        raise _unreadable(path, error) from None


def parse_row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """The JSON object of one line; ``path`` and ``number`` are for the error.

    Raises:
        UsageError: the line is too long, or not a UTF-8 JSON object.
    """
    if len(line) > MAX_LINE_BYTES:
        raise _too_long(path, number)
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}:{number}: not a JSON object: {error}", hint="write one JSON object a line, in UTF-8"
        ) from None
    if not isinstance(row, dict):
        raise UsageError(
            f"{path}:{number}: not a JSON object", hint='write one JSON object a line, as {"prompt": "..."}'
        )
    return row


def _too_long(path: Path, number: int) -> UsageError:
    return UsageError(f"{path}:{number}: line longer than {MAX_LINE_BYTES:,} bytes", hint="shorten the row")


def _unreadable(path: Path, error: OSError) -> LlmpatchError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"no such file: {path}", hint="check the path")
    if isinstance(error, IsADirectoryError):
        return UsageError(f"{path} is a folder, a file was expected", hint="check the path")
    return LlmpatchError(f"cannot read {path}: {error.strerror}", hint="check its permissions")


def expanded(path: str | Path) -> Path:
    """A path with ``~`` as the user's folder; of a user who is not there it stays as it is, and so is not found."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def sampled(path: Path) -> str:
    """The sha256 of the size and of evenly spaced blocks of a file, or of all files of a folder: of gigabytes, quickly."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path)} {size}\n".encode())
        with file.open("rb") as stream:
            for number in range(_SAMPLES):
                stream.seek(number * max(0, size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """The sha256 of a file, read in blocks, as lower-case hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_json(value: Any) -> str:
    """The sha256 of a JSON value with sorted keys: the identity of a configuration."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
