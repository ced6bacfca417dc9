"""A .lpatch: one right sequence of bytes, readable by others, read strictly by us."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.artifact import load_patch, pack_members, read_contents, read_patch, unpack_members, write_members
from llmpatch.artifact.archive import MAX_ARCHIVE_BYTES
from llmpatch.artifact.layout import ALL_LIMITS
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from mutantkit import mutate
from patchkit import contents, save

GOOD = contents()
DATA = pack_members(GOOD)


def refused(data: bytes) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        unpack_members(data, where="x.lpatch")
    assert caught.value.message.isprintable()
    assert caught.value.hint
    return caught.value


def test_what_is_packed_is_unpacked():
    assert unpack_members(DATA, where="x") == GOOD
    signed = GOOD | {"patch.sig": b"anything"}
    assert unpack_members(pack_members(signed), where="x") == signed


def test_the_order_of_a_mapping_does_not_matter():
    assert pack_members(dict(reversed(GOOD.items()))) == DATA


def test_other_tools_read_it(tmp_path):
    with zipfile.ZipFile(io.BytesIO(DATA)) as found:
        assert found.testzip() is None
        assert found.namelist() == sorted(GOOD)
        assert {name: found.read(name) for name in found.namelist()} == GOOD
        assert {(i.compress_type, i.date_time, i.extra, i.comment) for i in found.infolist()} == {
            (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0), b"", b"")
        }


@pytest.mark.skipif(shutil.which("unzip") is None, reason="no unzip here")
def test_unzip_reads_it(tmp_path):
    (tmp_path / "x.lpatch").write_bytes(DATA)
    subprocess.run(["unzip", "-q", "x.lpatch", "-d", "out"], cwd=tmp_path, check=True)
    assert read_patch(tmp_path / "out").digest == read_patch(tmp_path / "x.lpatch").digest


def test_both_forms_are_the_same_patch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("patches/tiny/folder"), GOOD)
    Path("patches/tiny/packed.lpatch").write_bytes(DATA)
    folder, packed = load_patch("tiny/folder"), load_patch("tiny/packed")
    assert packed.path == Path("patches/tiny/packed.lpatch")
    assert packed.digest == folder.digest == load_patch("patches/tiny/packed.lpatch").digest
    assert (packed.embeddings == folder.embeddings).all()
    assert packed.signature is None


def test_unpacking_writes_the_folder_again(tmp_path):
    (tmp_path / "x.lpatch").write_bytes(pack_members(GOOD | {"patch.sig": b"anything"}))
    write_members(tmp_path / "out", read_contents(tmp_path / "x.lpatch").members)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == GOOD | {"patch.sig": b"anything"}
    assert read_patch(tmp_path / "out").signature == b"anything"


def repack(members: dict[str, bytes], **settings_) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **settings_) as made:
        for name, data in members.items():
            made.writestr(zipfile.ZipInfo(name), data, compress_type=settings_.get("compression"))
    return buffer.getvalue()


FOREIGN = {
    "empty": b"",
    "no zip": b"hello",
    "an empty zip": repack({}),
    "bytes before": b"\0" + DATA,
    "a script before": b"#!/bin/sh\n" + DATA,
    "bytes after": DATA + b"\0",
    "a comment": DATA[:-2] + b"\4\0evil",
    "compressed": repack(GOOD, compression=zipfile.ZIP_DEFLATED),
    "by zipfile, not by us": repack(dict(sorted(GOOD.items()))),
    "other order": DATA[: DATA.index(b"PK\3\4", 4)] + DATA,
    "traversal": pack_members(GOOD | {"../../etc/passwd": b"x"}),
    "absolute": pack_members(GOOD | {"/etc/passwd": b"x"}),
    "backslash": pack_members(GOOD | {"..\\x": b"x"}),
    "a folder": pack_members(GOOD | {"sub/": b""}),
    "a file in a folder": pack_members({f"patch/{name}": data for name, data in GOOD.items()}),
    "capitals": pack_members({name.upper(): data for name, data in GOOD.items()}),
    "terminal escape": pack_members(GOOD | {"\x1b[2J": b"x"}),
    "NUL in a name": pack_members(GOOD | {"patch.json\0.txt": b"x"}),
    "git attributes": pack_members(GOOD | {".gitattributes": b"x"}),
    "a file missing": pack_members({name: GOOD[name] for name in list(GOOD)[1:]}),
    "directory only": DATA[DATA.index(b"PK\1\2") :],
    "entries only": DATA[: DATA.index(b"PK\1\2")],
    "cut in the end record": DATA[:-5],
    "cut in the first header": DATA[:20],
    "one entry encrypted": DATA[:6] + b"\1" + DATA[7:],
    "a data descriptor": DATA[:6] + b"\x08" + DATA[7:],
    "size that lies": DATA[:22] + b"\xff\xff\xff\x7f" + DATA[26:],
    "both sizes lie": DATA[:18] + b"\xff\xff\xff\x7f" * 2 + DATA[26:],
    "extra field": DATA[:28] + b"\4\0" + DATA[30:],
    "CRC of another": DATA[:14] + b"\0\0\0\0" + DATA[18:],
    "another date": DATA[:10] + b"\1" + DATA[11:],
    "another version": DATA[:4] + b"\x2d" + DATA[5:],
    "attributes in the directory": DATA.replace(b"PK\1\2\x0a", b"PK\1\2\x3f", 1),
    "signature over its limit": pack_members(GOOD | {"patch.sig": b"x" * (ALL_LIMITS["patch.sig"] + 1)}),
    "a member over its limit": pack_members(GOOD | {"adapter_config.json": b"x" * ((16 << 10) + 1)}),
    "larger than any patch": DATA + bytes(MAX_ARCHIVE_BYTES),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_anything_else_is_refused(name):
    refused(FOREIGN[name])


def test_the_largest_patch_fits():
    largest = {name: b"\0" * limit for name, limit in ALL_LIMITS.items()}
    data = pack_members(largest)
    assert len(data) == MAX_ARCHIVE_BYTES
    assert unpack_members(data, where="x") == largest


def test_two_entries_of_one_name_are_refused():
    twice = zlib.crc32(b"evil")
    one = pack_members({"README.md": b"evil"})
    assert twice.to_bytes(4, "little") in one
    entry = one[: one.index(b"PK\1\2")]
    assert "twice" in refused(entry + DATA).message


def test_no_change_of_any_bit_of_structure_is_accepted():
    """Headers and directory bit by bit; content has its CRC-32, and the patch and its signature after it."""
    body = sum(30 + len(name) + len(data) for name, data in GOOD.items())
    starts = [i for i in range(body) if DATA.startswith(b"PK\3\4", i)]
    places = [at for start in starts for at in range(start, start + 30)] + list(range(body, len(DATA)))
    for place in places:
        changed = bytearray(DATA)
        changed[place] ^= 1 << (place % 8)
        refused(bytes(changed))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(ALL_LIMITS)), st.binary(max_size=50)))
def test_an_archive_is_what_its_members_give(members):
    data = pack_members(members)
    if members.keys() >= GOOD.keys():
        assert unpack_members(data, where="x") == members
    else:
        refused(data)


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_damage_is_refused_or_changes_nothing_of_structure(chance: random.Random):
    data = mutate(DATA, chance)
    try:
        members = unpack_members(data, where="x")
    except IntegrityError as error:
        assert error.message.isprintable()  # noqa: PT017 - either outcome is right, each in its own way
        return
    assert pack_members(members) == data


def test_only_a_regular_lpatch_file_is_an_archive(tmp_path):
    (tmp_path / "x.zip").write_bytes(DATA)
    with pytest.raises(UsageError, match="is a file"):
        read_patch(tmp_path / "x.zip")
    os.mkfifo(tmp_path / "pipe.lpatch")
    with pytest.raises(IntegrityError, match="not a regular file"):
        read_patch(tmp_path / "pipe.lpatch")
    (tmp_path / "x.lpatch").write_bytes(DATA)
    (tmp_path / "link.lpatch").symlink_to("x.lpatch")
    assert read_patch(tmp_path / "link.lpatch").manifest.name == "tiny/refusal"
    (tmp_path / "dangling.lpatch").symlink_to("nowhere")
    with pytest.raises(UsageError, match="no patch"):
        read_patch(tmp_path / "dangling.lpatch")


def test_a_sparse_archive_of_a_terabyte_is_not_read(tmp_path):
    with (tmp_path / "x.lpatch").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(LlmpatchError, match="larger"):
        read_patch(tmp_path / "x.lpatch")
