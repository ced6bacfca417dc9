"""Write the conformance cases: fixed patches, good and bad, each with the exit code that must come.

python tests/conformance/make_cases.py          # writes the cases that are not there yet
"""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from advisorykit import defect, gap_in, record
from gatekit import as_bytes, evidence_document, policy_bytes, rule
from llmpatch.artifact import SIGNATURE_FILE, pack_members, parse_patch
from llmpatch.gate import apply_policy, attest, parse_evidence, parse_policy
from llmpatch.signing import make_bundle, make_statement
from patchkit import contents, embeddings, forge, safetensors, seal
from signkit import countersigned_policy, key, policy, public, signature, signed

CASES = Path(__file__).parent / "cases"
CARD = b"# tiny/refusal\n\nA patch for conformance cases.\n"
FILES = forge(contents(), card=CARD)
OLD_FILES = forge(contents(version="1.1.0"), card=CARD)
GOOD = signed(FILES)
DATA = pack_members(GOOD)
BROKEN, UNTRUSTED, USAGE = 6, 4, 1
VERIFY = ("verify", "refusal.lpatch", "--trust", "trust.json")


@dataclass(frozen=True)
class Case:
    """``files`` are written by path; a value of text is where a link leads."""

    name: str
    about: str
    exit: int
    error: str = ""
    run: tuple[str, ...] = VERIFY
    files: dict[str, bytes | str] = field(default_factory=dict)


def write(case: Case) -> None:
    folder = CASES / case.name
    if folder.exists():
        return
    files = {"trust.json": render(policy())} | case.files if "trust.json" in case.run else case.files
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data) if isinstance(data, bytes) else path.symlink_to(data)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"about": case.about, "run": list(case.run), "exit": case.exit}
    (folder / "case.json").write_bytes(render(about | ({"error": case.error} if case.error else {})))


def render(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def one(data: bytes, **others: object) -> dict[str, bytes | str]:
    return {"refusal.lpatch": data} | {f"{name}.json": render(value) for name, value in others.items()}


def loose(members: dict[str, bytes]) -> dict[str, bytes | str]:
    return {f"refusal/{name}": data for name, data in members.items()}


def with_signature(data: bytes) -> dict[str, bytes | str]:
    return one(pack_members(FILES | {SIGNATURE_FILE: data}))


def bundle(change: Callable[[dict, dict, dict], object], who: str = "vendor") -> dict[str, bytes | str]:
    found = json.loads(signature(FILES, who))
    change(found, found["verificationMaterial"], found["dsseEnvelope"])
    return with_signature(render(found))


def statement(change: Callable[[dict], object]) -> dict[str, bytes | str]:
    """A changed statement, signed by the vendor all the same."""
    found = json.loads(make_statement("tiny/refusal", FILES))
    change(found)
    return with_signature(make_bundle(json.dumps(found).encode(), key("vendor")))


def resigned(files: dict[str, bytes]) -> dict[str, bytes | str]:
    """Bad content with right digests and the vendor's own signature: a mistake, or a stolen key."""
    return one(pack_members(signed(files)))


def manifest(**changes: object) -> dict[str, bytes | str]:
    return resigned(forge(FILES, lambda found: found.update(changes)))


def rows(change: Callable[[np.ndarray], object], *, norms: bool = True) -> dict[str, bytes | str]:
    table = embeddings()
    change(table)
    lengths = np.linalg.norm(np.nan_to_num(table.astype(np.float64), posinf=9, neginf=9), axis=1)
    found = {"min": float(lengths.min()), "mean": float(lengths.mean()), "max": float(lengths.max())}
    header = {"prompt_embeddings": {"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 512]}}
    edit = (lambda m: m["prefix"]["norm"].update(found)) if norms else None
    return resigned(forge(FILES, edit, tensor=safetensors(header, table.tobytes())))


def tensor(header: object, raw: bytes | None = None, size: int | None = None) -> dict[str, bytes | str]:
    return resigned(forge(FILES, tensor=safetensors(header, embeddings().tobytes() if raw is None else raw, size=size)))


def other_zip(names: list[str], *, method: int = zipfile.ZIP_STORED, link: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            if link and name == "README.md":
                info.create_system, info.external_attr = 3, 0o120777 << 16
            made.writestr(info, GOOD[name])
    return buffer.getvalue()


def twice() -> bytes:
    data = b"# another card\n"
    name = b"README.md"
    header = struct.pack(
        "<4s5H3I2H", b"PK\3\4", 10, 0, 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(name), 0
    )
    return header + name + data + DATA


def trusted() -> Iterator[Case]:
    old = pack_members(signed(OLD_FILES))
    yield Case("good", "signed by a key that is pinned for its name", 0, files=one(DATA))
    yield Case("good_p384", "the same, by a key on P-384", 0, files=one(pack_members(signed(FILES, curve="P-384"))))
    yield Case("good_p521", "the same, by a key on P-521", 0, files=one(pack_members(signed(FILES, curve="P-521"))))
    yield Case("good_folder", "as a folder", 0, run=("verify", "refusal", "--trust", "trust.json"), files=loose(GOOD))
    yield Case("good_older", "an older signed version: only a registry knows of a newer one", 0, files=one(old))
    mark = {f"refusal.sig.d/{public('qa').id}": signature(FILES, "qa")}
    wanted = countersigned_policy()
    yield Case("good_countersigned", "the second signature is there", 0, files=one(DATA, trust=wanted) | mark)
    yield Case("good_unsigned_shown", "an unsigned patch can be read", 0, run=("show", "refusal.lpatch", "--json"),
               files=one(pack_members(FILES)))  # fmt: skip


def untrusted() -> Iterator[Case]:
    def case(name: str, about: str, error: str, files: dict[str, bytes | str]) -> Case:
        return Case(f"{name}_fail", about, UNTRUSTED, error, files=files)

    other = {"name": "Other", "patches": ["other/*"], "keys": [public("other").pem]}
    both = policy()
    both["vendors"].append(other)
    yield case("unsigned", "no signature", "not signed", one(pack_members(FILES)))
    yield case(
        "stranger", "signed by a key nobody pinned", "does not hold", one(pack_members(signed(FILES, "stranger")))
    )
    yield case("stranger_with_our_hint", "a stranger's signature that names the vendor's key", "was not made by key",
               bundle(lambda b, m, e: m["publicKey"].update(hint=public("vendor").id), "stranger"))  # fmt: skip
    yield case("other_vendor", "signed by a vendor who may publish other names", "which is not one of Tiny",
               one(pack_members(signed(FILES, "other")), trust=both))  # fmt: skip
    nobody = policy(vendor={"patches": ["tiny/bias"]})
    yield case("name_of_nobody", "nobody may publish this name", "nobody is trusted", one(DATA, trust=nobody))
    revoked = policy(revoked=[public("vendor").id])
    yield case("revoked_key", "the key is revoked", "is revoked", one(DATA, trust=revoked))
    yield case(
        "no_vendors", "a policy that trusts nobody", "does not hold", one(DATA, trust=policy() | {"vendors": []})
    )
    payload = base64.b64encode(make_statement("tiny/refusal", OLD_FILES)).decode()
    yield case("payload_of_another", "the statement was replaced", "was not made by key",
               bundle(lambda b, m, e: e.update(payload=payload)))  # fmt: skip
    zero = base64.b64encode(bytes.fromhex("3006020100020100")).decode()
    yield case("signature_of_zeros", "r and s are zero", "was not made by key",
               bundle(lambda b, m, e: e["signatures"][0].update(sig=zero)))  # fmt: skip
    yield case("signature_no_der", "the signature is no DER", "was not made by key",
               bundle(lambda b, m, e: e["signatures"][0].update(sig="AAAA")))  # fmt: skip
    some = {name: data for name, data in FILES.items() if name != "evidence.json"}
    yield case("covers_four_files", "the evidence is not covered", "does not cover",
               with_signature(make_bundle(make_statement("tiny/refusal", some), key("vendor"))))  # fmt: skip
    more = FILES | {"setup.py": b""}
    yield case("covers_six_files", "a sixth file is covered", "does not cover",
               with_signature(make_bundle(make_statement("tiny/refusal", more), key("vendor"))))  # fmt: skip
    wanted = countersigned_policy()
    beside = f"refusal.sig.d/{public('qa').id}"
    yield case("not_countersigned", "the second signature is missing", "not countersigned", one(DATA, trust=wanted))
    yield case("countersigned_by_vendor", "the vendor's signature in the customer's place", "by another key",
               one(DATA, trust=wanted) | {beside: GOOD[SIGNATURE_FILE]})  # fmt: skip


def bad_signatures() -> Iterator[Case]:
    def case(name: str, about: str, error: str, files: dict[str, bytes | str]) -> Case:
        return Case(f"{name}_fail", about, BROKEN, error, files=files)

    mark = GOOD[SIGNATURE_FILE]
    kind = "is not a signature of the key method"
    yield case("signature_empty", "an empty patch.sig", "patch.sig", with_signature(b""))
    yield case("signature_cut", "a patch.sig that ends early", "patch.sig", with_signature(mark[:-40]))
    yield case("signature_deep", "50,000 brackets", "patch.sig", with_signature(b"[" * 50_000))
    yield case("signature_key_twice", "a key that is there twice", "duplicate key",
               with_signature(mark.replace(b'"mediaType"', b'"mediaType": "x", "mediaType"')))  # fmt: skip
    yield case("no_signatures", "an empty list of signatures", kind, bundle(lambda b, m, e: e.update(signatures=[])))
    yield case("two_signatures", "a second, bogus signature", kind,
               bundle(lambda b, m, e: e["signatures"].append({"sig": "AAAA", "keyid": ""})))  # fmt: skip
    yield case("certificate", "a certificate, which nobody checks", kind,
               bundle(lambda b, m, e: m.update(certificate={"rawBytes": "AAAA"})))  # fmt: skip
    yield case("log_entries", "log entries, which nobody checks", kind,
               bundle(lambda b, m, e: m.update(tlogEntries=[{"logIndex": "1"}])))  # fmt: skip
    yield case("another_media_type", "a bundle of version 0.1", kind,
               bundle(lambda b, m, e: b.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1")))  # fmt: skip
    yield case("another_payload_type", "the payload is said to be text", kind,
               bundle(lambda b, m, e: e.update(payloadType="text/plain")))  # fmt: skip
    yield case(
        "base64_for_urls", "another alphabet", kind, bundle(lambda b, m, e: e["signatures"][0].update(sig="-_-_"))
    )
    yield case("another_predicate", "a signed statement about something else", "which no signature of a patch does",
               statement(lambda s: s.update(predicateType="https://slsa.dev/provenance/v1")))  # fmt: skip
    yield case("follows_links", "a signed statement that allows links", "which no signature of a patch does",
               statement(lambda s: s["predicate"]["serialization"].update(allow_symlinks=True)))  # fmt: skip
    yield case("wrong_root", "a root digest that does not fit", "which no signature of a patch does",
               statement(lambda s: s["subject"][0]["digest"].update(sha256="0" * 64)))  # fmt: skip
    yield case("signature_of_older", "the signature of another version", "is not the file that was signed",
               with_signature(signature(OLD_FILES)))  # fmt: skip
    for name in ("README.md", "adapter_config.json", "adapter_model.safetensors", "evidence.json", "patch.json"):
        old = {name: OLD_FILES[name]} if OLD_FILES[name] != FILES[name] else {name: FILES[name] + b" "}
        slug = name.partition(".")[0].lower()
        yield case(
            f"changed_{slug}", f"another {name}", "is not the file that was signed", one(pack_members(GOOD | old))
        )
    beside = f"refusal.sig.d/{public('qa').id}"
    yield case("countersigned_older", "the second signature is for another version", "is not the file that was signed",
               one(DATA, trust=countersigned_policy()) | {beside: signature(OLD_FILES, "qa")})  # fmt: skip


def bad_archives() -> Iterator[Case]:
    def case(name: str, about: str, error: str, data: bytes) -> Case:
        return Case(f"zip_{name}_fail", about, BROKEN, error, files=one(data))

    names, form = sorted(GOOD), "not in the one form"
    second = DATA.index(b"PK\3\4", 4)
    end64 = b"PK\6\6" + struct.pack("<Q", 44) + bytes(44) + b"PK\6\7" + bytes(16)
    yield case("empty", "no bytes", "not a .lpatch", b"")
    yield case("script_before", "a script before the zip", "not a .lpatch", b"#!/bin/sh\n" + DATA)
    yield case("bytes_after", "bytes after the end", form, DATA + bytes(22))
    yield case("comment", "a comment", form, DATA[:-2] + b"\4\0evil")
    yield case("zip64", "zip64 records", form, DATA[:-22] + end64 + DATA[-22:])
    yield case("gap", "bytes between two entries", "missing", DATA[:second] + b"\0\0\0" + DATA[second:])
    yield case("deflate", "compressed entries", "compressed", other_zip(names, method=zipfile.ZIP_DEFLATED))
    yield case("of_another_tool", "the same files by another tool", form, other_zip(names))
    yield case("link", "an entry that unpacks to a link", form, other_zip(names, link=True))
    yield case("order", "another order", "out of order", other_zip(names[::-1]))
    yield case("twice", "two cards", "twice", twice())
    yield case("traversal", "a name that leads out", "no part of a patch", pack_members(GOOD | {"../../x": b""}))
    yield case("absolute", "an absolute name", "no part of a patch", pack_members(GOOD | {"/tmp/x": b""}))
    yield case("escape", "a name with a terminal escape", "no part of a patch", pack_members(GOOD | {"\x1b[2J": b""}))
    yield case("git_attributes", "a file that no signature covers", "no part of a patch",
               pack_members(GOOD | {".gitattributes": b""}))  # fmt: skip
    yield case("file_missing", "no evidence", "missing",
               pack_members({name: data for name, data in GOOD.items() if name != "evidence.json"}))  # fmt: skip
    yield case("cut", "a download that broke off", "truncated", DATA[:2000])
    yield case("crc", "a CRC-32 of another file", "CRC-32", DATA[:14] + bytes(4) + DATA[18:])
    yield case("encrypted", "the flag of encryption", "encrypted", DATA[:6] + b"\1" + DATA[7:])
    yield case("size_lies", "2 GiB that are not there", "larger", DATA[:18] + b"\xff\xff\xff\x7f" * 2 + DATA[26:])
    yield case("another_date", "another time stamp", form, DATA[:10] + b"\1" + DATA[11:])


def bad_content() -> Iterator[Case]:
    """Bad patches that their vendor has signed: the format is checked all the same."""

    def case(name: str, about: str, error: str, files: dict[str, bytes | str], code: int = BROKEN) -> Case:
        return Case(f"{name}_fail", about, code, error, files=files)

    entry = {"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 512]}
    config = json.loads(FILES["adapter_config.json"])
    yield case("nan", "a vector with NaN", "NaN", rows(lambda t: t.__setitem__((0, 0), np.nan)))
    yield case("infinite", "a vector with infinity", "NaN or infinite", rows(lambda t: t.__setitem__((3, 31), np.inf)))
    yield case(
        "loud", "a vector 5,000 times as long as any embedding", "norm", rows(lambda t: t.__setitem__((2, 0), 1e4))
    )
    yield case("norms_lie", "other norms than declared", "norm", rows(lambda t: t.__imul__(1.01), norms=False))
    yield case("two_tensors", "a second tensor", "expected the one tensor",
               tensor({"prompt_embeddings": entry, "x": entry | {"data_offsets": [512, 1024]}}, bytes(1024)))  # fmt: skip
    yield case(
        "tensor_header_endless",
        "a header of 2^63 bytes",
        "truncated",
        tensor({"prompt_embeddings": entry}, size=1 << 63),
    )
    yield case("tensor_pickle", "a pickle in place of the header", "header", tensor(b"\x80\x04cos\nsystem\n."))
    yield case(
        "tensor_shape", "a shape that does not fit", "says", tensor({"prompt_embeddings": entry | {"shape": [32, 4]}})
    )
    yield case("remote_code", "adapter_config.json asks for remote code", "adapter_config.json",
               resigned(forge(FILES, config=json.dumps(config | {"trust_remote_code": True}).encode())))  # fmt: skip
    yield case("unknown_key", "an unknown key in patch.json", "post_install", manifest(post_install="true"))
    yield case("later_schema", "a later format", "llmpatch/patch/v2", manifest(schema="llmpatch/patch/v2"))
    yield case("crooked_name", "a name that leads out", "name", manifest(name="../evil"))
    yield case("terminal_escape", "a summary that clears the screen", "summary", manifest(summary="fine \x1b[2J"))
    yield case("composition_without_self", "a composition without this patch", "self",
               manifest(composition=[{"patches": ["1" * 64, "2" * 64], "evidence": "3" * 64}]))  # fmt: skip
    gate = {"policy": "p", "policy_digest": "1" * 64, "suite_digests": {}, "thresholds": [{"risk": "r", "metric": "m"}]}
    yield case("threshold_without_bound", "a threshold that bounds nothing", "neither min nor max",
               manifest(gate=gate))  # fmt: skip
    swapped = FILES | {"patch.json": FILES["patch.json"].replace(b"tiny/refusal", b"tiny/refused")}
    yield case("checksum", "a manifest that was changed after its checksum", "checksum", resigned(swapped))
    double = FILES | {"patch.json": seal(FILES["patch.json"].replace(b'"name":', b'"name": "evil/x", "name":', 1))}
    yield case("key_twice", "a name that is there twice", "duplicate key", resigned(double))
    yield case("newer_client", "a patch for a later llmpatch", "needs llmpatch", manifest(min_client="99.0.0"), USAGE)


def folders() -> Iterator[Case]:
    run = ("verify", "refusal", "--trust", "trust.json")

    def case(name: str, about: str, error: str, files: dict[str, bytes | str]) -> Case:
        return Case(f"folder_{name}_fail", about, BROKEN, error, run=run, files=files)

    yield case("git_attributes", "a file that no signature covers", ".gitattributes",
               loose(GOOD | {".gitattributes": b"# nothing\n"}))  # fmt: skip
    yield case("extra_file", "a script", "no part of a patch", loose(GOOD | {"setup.py": b"raise SystemExit\n"}))
    linked: dict[str, bytes | str] = loose(GOOD) | {"refusal/README.md": "../card", "card": GOOD["README.md"]}
    yield case("link", "a link to the very same bytes", "not a regular file", linked)
    yield case("link_as_signature", "a link in place of patch.sig", "not a regular file",
               loose(FILES) | {"refusal/patch.sig": "../mark", "mark": GOOD[SIGNATURE_FILE]})  # fmt: skip
    yield case("no_manifest", "no patch.json", "patch.json is missing",
               loose({name: data for name, data in GOOD.items() if name != "patch.json"}))  # fmt: skip


def usage() -> Iterator[Case]:
    yield Case("trust_unknown_key_fail", "a policy with a key we do not know", USAGE, "tofu",
               files=one(DATA, trust=policy(tofu=True)))  # fmt: skip
    selfish = policy(vendor={"countersigned_by": ["qa"]}, countersigners={"qa": {"keys": [public("vendor").pem]}})
    yield Case("trust_countersigns_itself_fail", "the vendor is its own second signer", USAGE, "countersign for itself",
               files=one(DATA, trust=selfish))  # fmt: skip
    yield Case(
        "trust_not_json_fail", "a policy that is no JSON", USAGE, "trust.json", files=one(DATA) | {"trust.json": b"{"}
    )
    yield Case("no_such_patch_fail", "nothing there", USAGE, "no patch at")
    yield Case("a_file_fail", "a file of the patch in place of the patch", USAGE, "is a file",
               run=("verify", "patch.json", "--trust", "trust.json"), files={"patch.json": FILES["patch.json"]})  # fmt: skip
    yield Case("no_key_given_fail", "nobody is said to be trusted", USAGE, "whom do you trust",
               run=("verify", "refusal.lpatch"), files=one(DATA))  # fmt: skip


def advisory(value: object, place: str = "x_TINY-2026-0001.json") -> dict[str, bytes | str]:
    return {place: value if isinstance(value, bytes) else render(value)}


def advisories() -> Iterator[Case]:
    """Records about tiny/refusal, read by `advisory check`."""
    run, whole = ("advisory", "check", "x_TINY-2026-0001.json"), ("advisory", "check", "advisories")
    span = [{"type": "SEMVER", "events": [{"introduced": "1.0.0"}, {"fixed": "1.2.0"}]}]
    named = {"ranges": span, "database_specific": {"patch": "tiny/refusal", "revoke": True}}
    told = defect(ident="x_TINY-2026-0001", affected=[named])
    gap = record("x_TINY-2026-0001", summary="closed by tiny/refusal", affected=[gap_in((("tiny/refusal", ">=1,<2"),))])

    def case(name: str, about: str, error: str, value: object, code: int = BROKEN) -> Case:
        return Case(f"advisory_{name}_fail", about, code, error, run=run, files=advisory(value))

    def events(*ends: tuple[str, str]) -> dict:
        ranges = [{"type": "SEMVER", "events": [dict([end]) for end in ends]}]
        return told | {"affected": [named | {"ranges": ranges}]}

    yield Case("good_advisory_defect", "a patch that its vendor revokes", 0, run=run, files=advisory(told))
    yield Case("good_advisory_gap", "a gap in a base", 0, run=run, files=advisory(gap))
    inside = "advisories/tiny/x_TINY-2026-0001.json"
    yield Case("good_advisories", "a folder as a registry holds it", 0, run=whole, files=advisory(told, inside))
    yield case("unknown_key", "a key that OSV has and we do not read", "severity", told | {"severity": []})
    yield case("later_schema", "OSV 2", "schema_version", told | {"schema_version": "2.0.0"})
    yield case("id_of_osv", "an id of a public database", "id", told | {"id": "GHSA-2026-0001"})
    yield case(
        "other_id", "another id than its file's name", "holds x_TINY-2026-0002", told | {"id": "x_TINY-2026-0002"}
    )
    yield case("local_time", "a time that is not UTC", "UTC", told | {"modified": "2026-11-24T00:00:00+01:00"})
    yield case("escape", "details that clear the screen", "control", told | {"details": "fine \x1b[2J"})
    other = named | {"database_specific": {"patch": "other/refusal", "revoke": True}}
    yield case("revokes_another", "revokes another vendor's patch", "own", told | {"affected": [other]})
    yield case("base_and_patch", "is about both", "two advisories", told | {"affected": [named, *gap["affected"]]})
    yield case("no_versions", "names no version", "no version", told | {"affected": [named | {"ranges": []}]})
    yield case("no_start", "a range without a start", "introduced", events(("fixed", "1.2.0")))
    yield case("two_ends", "both kinds of end", "both", events(
        ("introduced", "0"), ("fixed", "1.0.0"), ("last_affected", "1.1.0")
    ))  # fmt: skip
    yield case("half_version", "a version of two numbers", "not a version", events(("introduced", "1.0")))
    bad = {"name": "declined", "n": 9, "base": {"value": 2.0, "low": 0.0, "high": 1.0}}
    yield case(
        "interval", "an estimate outside of its interval", "interval", gap | {"database_specific": {"measured": [bad]}}
    )
    yield case(
        "script_link", "a link that runs code", "url", gap | {"references": [{"type": "WEB", "url": "javascript:x"}]}
    )
    yield case("key_twice", "an id that is there twice", "duplicate key",
               render(told).replace(b'"id":', b'"id": "x_EVIL-2026-0001", "id":', 1))  # fmt: skip
    foreign = advisory(told, "advisories/other/x_TINY-2026-0001.json")
    yield Case(
        "advisories_other_folder_fail",
        "in another vendor's folder",
        BROKEN,
        "in other's folder",
        run=whole,
        files=foreign,
    )
    linked: dict[str, bytes | str] = {inside: "../../told.json", "told.json": render(told)}
    yield Case("advisories_link_fail", "a link to a whole one", BROKEN, "not a regular file", run=whole, files=linked)
    yield Case("audit_no_folder_fail", "nowhere to read advisories from", USAGE, "no folder",
               run=("audit", "--advisories", "advisories"))  # fmt: skip


def attestations() -> Iterator[Case]:
    """What a gate left behind, held against the customer's key."""
    os.environ["SOURCE_DATE_EPOCH"] = "1795000000"
    verdict = apply_policy(
        parse_policy(policy_bytes(rule()), where="policy"), parse_evidence(as_bytes(evidence_document()))
    )
    patch = parse_patch(FILES, Path("refusal"))
    run = ("attestation", "attestation.json", "--key", "qa.pub.pem")

    def case(name: str, about: str, code: int, error: str, data: bytes) -> Case:
        pem = public("qa").pem.encode()
        fail = "" if code == 0 else "_fail"
        name = f"good_attestation{name}" if code == 0 else f"attestation_{name}{fail}"
        return Case(name, about, code, error, run=run, files={"attestation.json": data, "qa.pub.pem": pem})

    plain, whole = attest(verdict, [patch]), attest(verdict, [patch], key("qa"))
    found = json.loads(whole)
    forged = plain.replace(b'"everyday"', b'"anything"')
    found["dsseEnvelope"]["payload"] = base64.b64encode(forged).decode()
    yield case("", "signed by the customer", 0, "", whole)
    yield case("unsigned", "the statement alone", UNTRUSTED, "not signed", plain)
    yield case(
        "stranger", "signed by somebody else", UNTRUSTED, "none of those", attest(verdict, [patch], key("stranger"))
    )
    yield case("forged", "another rule is said to have passed", UNTRUSTED, "was not made by key", render(found))
    failed = plain.replace(b'"result": "PASSED",\n  "configuration"', b'"result": "FAILED",\n  "configuration"')
    yield case("contradicts", "says failed where its verdict says passed", BROKEN, "something else",
               make_bundle(failed, key("qa")))  # fmt: skip
    yield case("of_files", "the signature of a patch in its place", BROKEN, "no attestation",
               signature(FILES, "qa"))  # fmt: skip


def main() -> None:
    for made in (
        trusted,
        untrusted,
        bad_signatures,
        bad_archives,
        bad_content,
        folders,
        usage,
        advisories,
        attestations,
    ):
        for case in made():
            write(case)
    print(f"{len(list(CASES.iterdir()))} cases")  # noqa: T201


if __name__ == "__main__":
    main()
