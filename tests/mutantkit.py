"""Mutants of signed patches, as random as they come and as cunning as we could think of, each from a seed.

    chance = random.Random(7)
    mutant = make_mutant(chance)          # what was done, and a folder's or an archive's bytes
    judge(mutant)                         # "IntegrityError", "TrustError", ... or "same"; AssertionError if it got through

A mutant may be accepted only if its five files are, byte for byte, those that were signed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import struct
import time
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

from llmpatch.artifact import SIGNATURE_FILE, Contents, pack_members, unpack_members
from llmpatch.errors import LlmpatchError
from llmpatch.signing import Verified, verify_contents
from patchkit import contents, embeddings, forge, safetensors
from signkit import public, signature, signed, trust

GOOD = signed()
ARCHIVE = pack_members(GOOD)
FILES = {name: data for name, data in GOOD.items() if name != SIGNATURE_FILE}
OLDER = signed(contents(version="1.1.0"))
STRANGER = signature(FILES, "stranger")
TRUST = trust()
CPU_LIMIT = 0.05
SPLICES = [b"0", b"9", b"-", b"{", b"]", b'"', b",", b"\\", b"\x00", b"\xff", b" ", b"e99"]
PARTS = {
    "adapter_model.safetensors": "tensor",
    "adapter_config.json": "config",
    "README.md": "card",
    "evidence.json": "evidence",
}
ODD = [0, 1, 2, 8, 9, 10, 20, 45, 99, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]
JUNK = [None, True, 0, -1, 1e308, "", "x", "\u202e", "A" * 5000, [], {}, [[]], {"a": {}}, 1 << 62]
P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class Mutant:
    """What was done, and the result: ``archive`` bytes, or the ``members`` of a folder."""

    how: str
    members: dict[str, bytes] | None = None
    archive: bytes | None = None


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One or a few random changes: bits, bytes, digits, brackets, cuts, copies, zeros."""
    made = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at = chance.randrange(len(made) + 1) if made else 0
        if chance.random() < 0.3:
            at = min(at, chance.randrange(200))  # headers are at the front
        span = chance.choice([1, 2, 8, 64])
        kind = chance.randrange(8)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del made[at : at + span]
        elif kind == 2:
            made[at:at] = chance.randbytes(span)
        elif kind == 3:
            del made[at:]
        elif kind == 4:
            made[at:at] = made[at : at + span]
        elif kind == 5:
            made[at : at + span] = bytes(len(made[at : at + span]))
        elif kind == 6:
            made[at : at + 1] = chance.choice(SPLICES)
        elif at < len(made) and chr(made[at]).isdigit():
            made[at] = chance.choice(b"0123456789")
    return bytes(made)


def damaged_file(chance: random.Random) -> Mutant:
    name = chance.choice(sorted(GOOD))
    return Mutant(f"damage {name}", GOOD | {name: mutate(GOOD[name], chance)})


def damaged_archive(chance: random.Random) -> Mutant:
    return Mutant("damage the archive", archive=mutate(ARCHIVE, chance))


def repacked(chance: random.Random) -> Mutant:
    """Other content in a perfect archive: only the patch and the signature can tell."""
    name = chance.choice(sorted(GOOD))
    return Mutant(f"pack another {name}", archive=pack_members(GOOD | {name: mutate(GOOD[name], chance)}))


def forged(chance: random.Random) -> Mutant:
    """Other content with every digest in patch.json right: only the signature can tell."""
    name = chance.choice(sorted(PARTS))
    if name == "adapter_model.safetensors":
        rows = embeddings(seed=chance.randrange(1 << 30))
        header = {"prompt_embeddings": {"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 512]}}
        files = forge(FILES, tensor=safetensors(header, rows.tobytes()))
    elif name == "README.md":
        files = forge(FILES, card=FILES[name] + chance.choice([b"\n", b"trust me", b" "]))
    else:
        files = forge(FILES, **{PARTS[name]: mutate(FILES[name], chance)})
    return Mutant(f"forge {name}", files | {SIGNATURE_FILE: GOOD[SIGNATURE_FILE]})


def renamed(chance: random.Random) -> Mutant:
    """A file removed, added, or two that changed their names."""
    members = dict(GOOD)
    one, two = chance.sample(sorted(members), 2)
    kind = chance.choice(["drop", "swap", "double", "add"])
    if kind == "drop":
        del members[one]
    elif kind == "swap":
        members[one], members[two] = members[two], members[one]
    elif kind == "double":
        members[one] = members[two]
    else:
        members[chance.choice(["setup.py", "../x", "patch.json ", "PATCH.JSON", "", "a/b", "patch.sig2"])] = b"x"
    archive = pack_members(members) if chance.random() < 0.5 else None
    return Mutant(f"{kind} {one}", None if archive else members, archive)


def mixed(chance: random.Random) -> Mutant:
    """Files of two signed versions together, or the signature of one with the files of the other."""
    members = {name: chance.choice([GOOD, OLDER])[name] for name in GOOD}
    if members == OLDER:  # all of the older version is no forgery: only a registry can tell
        members[SIGNATURE_FILE] = GOOD[SIGNATURE_FILE]
    return (
        Mutant("mix two versions", members) if chance.random() < 0.5 else Mutant("mix", archive=pack_members(members))
    )


def header_field(chance: random.Random) -> Mutant:
    """One field of a zip header set to an odd value."""
    made = bytearray(ARCHIVE)
    sign, size = chance.choice([(b"PK\x03\x04", 30), (b"PK\x01\x02", 46), (b"PK\x05\x06", 22)])
    places = [i for i in range(len(made)) if made.startswith(sign, i)]
    at = chance.choice(places) + chance.randrange(4, size - 1)
    width = chance.choice([1, 2, 4])
    made[at : at + width] = (chance.choice(ODD) & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return Mutant("a zip header field", archive=bytes(made))


def zip_trick(chance: random.Random) -> Mutant:
    """The same files in a zip that other readers accept."""
    kind = chance.choice(
        ["prefix", "suffix", "comment", "zipfile", "deflate", "order", "twice", "zip64", "gap", "link"]
    )
    data = ARCHIVE
    if kind == "prefix":
        data = chance.choice([b"#!/bin/sh\n", b"\x00", b"MZ", b"GIF89a"]) + data
    elif kind == "suffix":
        data += chance.randbytes(chance.choice([1, 22, 64]))
    elif kind == "comment":
        data = data[:-2] + struct.pack("<H", 4) + b"evil"
    elif kind == "zip64":
        data = data[:-22] + b"PK\x06\x06" + struct.pack("<Q", 44) + bytes(44) + b"PK\x06\x07" + bytes(16) + data[-22:]
    elif kind == "gap":
        at = data.index(b"PK\x03\x04", 4)
        data = data[:at] + bytes(chance.randrange(1, 9)) + data[at:]
    else:
        data = _other_zip(kind, chance)
    return Mutant(f"zip {kind}", archive=data)


def _other_zip(kind: str, chance: random.Random) -> bytes:
    buffer = io.BytesIO()
    names = sorted(GOOD)
    if kind == "order":
        chance.shuffle(names)
    if kind == "twice":
        names.append(chance.choice(names))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if kind == "deflate" else zipfile.ZIP_STORED) as made:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.compress_type = made.compression
            if kind == "link":
                info.create_system, info.external_attr = 3, 0o120777 << 16
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a name is there twice is the point
                made.writestr(
                    info, chance.choice([GOOD[name], mutate(GOOD[name], chance)]) if kind == "twice" else GOOD[name]
                )
    return buffer.getvalue()


def bundle_edit(chance: random.Random) -> Mutant:
    """One place in the JSON of patch.sig changed, removed or added."""
    bundle = json.loads(GOOD[SIGNATURE_FILE])
    _edit(bundle, chance)
    return _with_signature("edit the bundle", json.dumps(bundle).encode(), chance)


def statement_edit(chance: random.Random) -> Mutant:
    """One place in the signed statement changed; sometimes to fit other files, with a right root digest."""
    bundle = json.loads(GOOD[SIGNATURE_FILE])
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    members = dict(GOOD)
    if chance.random() < 0.5:
        members = dict(forged(chance).members or {})
        resources = statement["predicate"]["resources"]
        for resource in resources:
            resource["digest"] = hashlib.sha256(members[resource["name"]]).hexdigest()
        root = hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
        statement["subject"][0]["digest"]["sha256"] = root
    else:
        _edit(statement, chance)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    return Mutant("edit the statement", members | {SIGNATURE_FILE: json.dumps(bundle).encode()})


def signature_edit(chance: random.Random) -> Mutant:
    """The ECDSA signature: bits, cuts, another integer encoding, the mirrored s, zeros, somebody else's."""
    bundle = json.loads(GOOD[SIGNATURE_FILE])
    place = bundle["dsseEnvelope"]["signatures"][0]
    der = base64.b64decode(place["sig"])
    kind = chance.choice(["mutate", "mirror", "zero", "other", "hint", "order"])
    if kind == "other":
        return _with_signature("a stranger's signature", STRANGER, chance)
    if kind == "hint":
        stranger = json.loads(STRANGER)
        stranger["verificationMaterial"] = bundle["verificationMaterial"]
        return _with_signature("a stranger's signature, our hint", json.dumps(stranger).encode(), chance)
    place["sig"] = base64.b64encode(_other_der(kind, der, chance)).decode()
    return _with_signature(f"signature: {kind}", json.dumps(bundle).encode(), chance)


def _other_der(kind: str, der: bytes, chance: random.Random) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    r, s = decode_dss_signature(der)
    if kind == "mirror":
        return encode_dss_signature(r, P256 - s)  # holds too: the same statement, so the same content
    if kind == "zero":
        return encode_dss_signature(chance.choice([0, 1, r]), chance.choice([0, 1, P256]))
    return encode_dss_signature(s, r) if kind == "order" else mutate(der, chance)


def hostile_size(chance: random.Random) -> Mutant:
    """As large or as deep as the bounds allow, and beyond."""
    name = chance.choice(sorted(GOOD))
    size = chance.choice([0, 1 << 10, (64 << 10) + 1, 1 << 20])
    keys = (
        b"{" + b",".join(b'"%06x":0' % i for i in range(size // 11)) + b',"000000":0}'
    )  # the one that is there twice last
    data = chance.choice([b"[" * size, b'{"a":' * (size // 5), b"0" * size, b'{"' + b"a" * size, b"\x80" * size, keys])
    members = GOOD | {name: data}
    return (
        Mutant(f"{len(data)} bytes of {name}", archive=pack_members(members))
        if size < 1 << 20
        else Mutant(name, members)
    )


def _with_signature(how: str, data: bytes, chance: random.Random) -> Mutant:
    members = GOOD | {SIGNATURE_FILE: data}
    return Mutant(how, members) if chance.random() < 0.7 else Mutant(how, archive=pack_members(members))


def _edit(value, chance: random.Random) -> None:
    """Walk down to a random place and change it."""
    while True:
        keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        at = chance.choice(keys)
        if isinstance(value[at], (dict, list)) and value[at] and chance.random() < 0.75:
            value = value[at]
            continue
        kind = chance.randrange(4)
        if kind == 0:
            del value[at]
        elif kind == 1 and isinstance(value, dict):
            value[chance.choice(["x", "keyid", "certificate", "tlogEntries", "ignore_paths"])] = chance.choice(JUNK)
        elif kind == 2 and isinstance(value[at], str) and value[at]:
            value[at] = mutate(value[at].encode(), chance).decode("utf-8", "replace")
        else:
            value[at] = chance.choice(JUNK)
        return


MAKERS = [damaged_file, damaged_archive, repacked, forged, renamed, mixed, header_field, zip_trick, bundle_edit,
          statement_edit, signature_edit, hostile_size]  # fmt: skip


def make_mutant(chance: random.Random) -> Mutant:
    return chance.choice(MAKERS)(chance)


def verify(mutant: Mutant) -> Verified:
    """As ``verify_patch`` does, without a disk."""
    packed = mutant.archive
    members = dict(mutant.members or {}) if packed is None else unpack_members(packed, where="mutant.lpatch")
    mark = members.pop(SIGNATURE_FILE, None)
    return verify_contents(Contents(members, mark), Path("mutant"), TRUST)


def judge(mutant: Mutant) -> str:
    """The name of the error a mutant met, or ``same`` if it says what was signed. Fails if anything else happens."""
    found: Verified | LlmpatchError
    start = time.process_time()
    try:
        found = verify(mutant)
    except LlmpatchError as error:
        found = error
    spent = time.process_time() - start
    assert spent < CPU_LIMIT, (mutant.how, spent)
    if isinstance(found, LlmpatchError):
        assert found.exit_code in {1, 4, 6}, (mutant.how, found)
        assert found.message.isprintable(), mutant.how
        assert found.hint, mutant.how
        return type(found).__name__
    assert {name: found.contents[name] for name in FILES} == FILES, f"accepted: {mutant.how}"
    assert found.signer == public("vendor").id
    return "same"
