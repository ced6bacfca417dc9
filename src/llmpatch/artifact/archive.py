"""A ``.lpatch``: the files of a patch in one zip, for which there is exactly one right sequence of bytes.

    data = pack_members({"patch.json": b"...", ...})
    unpack_members(data, where="x.lpatch")    # the same mapping, or IntegrityError

Stored, sorted by name, dated 1980-01-01, without extra fields, comments or attributes, so any zip tool opens it. The
reader walks the entries itself, then packs what it found and compares: whatever two zip readers could disagree about
(a comment, a gap, a second directory, bytes before or after, zip64) is a difference. Knows nothing about what the
files say.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from llmpatch.artifact.layout import ALL_LIMITS, DAMAGED, LIMITS, SIGNATURE_FILE
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_SIGN, _CENTRAL_SIGN, _END_SIGN = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_VERSION, _DATE = 10, 0x21  # the oldest zip there is; 1980-01-01
_ENCRYPTED = 1
_OVERHEAD = sum(_LOCAL.size + _CENTRAL.size + 2 * len(name) for name in ALL_LIMITS) + _END.size
MAX_ARCHIVE_BYTES = sum(ALL_LIMITS.values()) + _OVERHEAD
_HINT = "make one with `llmpatch pack`, or fetch it again"


class _Entry(NamedTuple):
    sign: bytes
    version: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed: int
    size: int
    name_length: int
    extra_length: int


def pack_members(members: Mapping[str, bytes]) -> bytes:
    """The archive of some files; the same files give the same bytes.

    Args:
        members: File name -> content, ASCII names, together less than 4 GiB.
    """
    body, directory = bytearray(), bytearray()
    for name in sorted(members):
        data, encoded = members[name], name.encode("ascii")
        facts = (0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(encoded), 0)
        directory += _CENTRAL.pack(_CENTRAL_SIGN, _VERSION, _VERSION, *facts, 0, 0, 0, 0, len(body)) + encoded
        body += _LOCAL.pack(_LOCAL_SIGN, _VERSION, *facts) + encoded + data
    end = _END.pack(_END_SIGN, 0, 0, len(members), len(members), len(directory), len(body), 0)
    return bytes(body + directory + end)


def unpack_members(data: bytes, *, where: str) -> dict[str, bytes]:
    """The files in an archive: the five of a patch, and its signature if there is one.

    Args:
        data: The whole archive.
        where: What to call it in an error.

    Raises:
        IntegrityError: it is not byte for byte what :func:`pack_members` makes of such files.
    """
    if len(data) > MAX_ARCHIVE_BYTES:
        raise IntegrityError(f"{where} is larger than {MAX_ARCHIVE_BYTES:,} bytes", hint="this is not a patch")
    members: dict[str, bytes] = {}
    at = 0
    while data[at : at + 4] == _LOCAL_SIGN:
        name, content, at = _entry(data, at, where)
        if members and name <= max(members):
            raise IntegrityError(f"{where}: {name} is there twice or out of order", hint=_HINT)
        members[name] = content
    if not members:
        raise IntegrityError(f"{where} is not a .lpatch: it does not begin with a zip entry", hint=_HINT)
    if missing := sorted(LIMITS.keys() - members.keys()):
        raise IntegrityError(f"{where} is truncated or foreign: {', '.join(missing)} missing", hint=_HINT)
    if pack_members(members) != data:
        raise IntegrityError(
            f"{where} is not in the one form of a .lpatch: its directory is damaged, or there are bytes, comments or "
            "attributes that no patch has",
            hint=_HINT,
        )
    return members


def _entry(data: bytes, at: int, where: str) -> tuple[str, bytes, int]:
    """Name and content of the entry at ``at``, and where the next one begins."""
    if len(data) < at + _LOCAL.size:
        raise IntegrityError(f"{where} is truncated", hint=DAMAGED)
    entry = _Entry(*_LOCAL.unpack_from(data, at))
    start = at + _LOCAL.size + entry.name_length
    name = data[at + _LOCAL.size : start].decode("ascii", "replace")
    if name not in ALL_LIMITS:
        raise IntegrityError(
            f"{where} holds {shown(name)!r}, which is no part of a patch",
            hint=f"a .lpatch holds {', '.join(sorted(LIMITS))} and perhaps {SIGNATURE_FILE}",
        )
    if entry.flags & _ENCRYPTED or entry.method:
        raise IntegrityError(f"{where}: {name} is compressed or encrypted; a .lpatch only stores", hint=_HINT)
    if entry.packed != entry.size or entry.size > ALL_LIMITS[name]:
        raise IntegrityError(f"{where}: {name} is larger than {ALL_LIMITS[name]:,} bytes, or lies about it", hint=_HINT)
    if entry.extra_length or entry.flags:
        raise IntegrityError(f"{where}: {name} has flags or extra fields, a .lpatch has none", hint=_HINT)
    end = start + entry.size
    if len(data) < end:
        raise IntegrityError(f"{where} is truncated: {name} is not complete", hint=DAMAGED)
    content = data[start:end]
    if zlib.crc32(content) != entry.crc:
        raise IntegrityError(f"{where}: {name} does not match its CRC-32", hint=DAMAGED)
    return name, content, end
