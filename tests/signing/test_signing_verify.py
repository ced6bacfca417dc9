"""Sign and verify: what holds, what does not, and in which order that is found."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.artifact import SIGNATURE_FILE, Contents, pack_members, read_contents, read_patch
from llmpatch.errors import IntegrityError, LlmpatchError, TrustError, UsageError
from llmpatch.signing import (
    countersignatures,
    make_bundle,
    make_statement,
    make_trust,
    parse_bundle,
    parse_statement,
    sign_patch,
    trust_key,
    verify_contents,
    verify_patch,
)
from mutantkit import GOOD, MAKERS, judge
from patchkit import EVIDENCE, contents, embeddings, fields, save
from signkit import CURVES, countersigned_policy, key, packed, public, signed, trust


def refused(kind: type[LlmpatchError], path: Path, policy=None) -> LlmpatchError:
    with pytest.raises(LlmpatchError) as caught:
        verify_patch(path, policy or trust())
    assert type(caught.value) is kind
    assert caught.value.message.isprintable()
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_what_is_signed_is_verified(tmp_path, curve, form):
    path = save(tmp_path / "p", contents())
    if form == "archive":
        path = tmp_path / "p.lpatch"
        path.write_bytes(pack_members(contents()))
    written, signer = sign_patch(path, key("vendor", curve))
    assert written == (path / SIGNATURE_FILE if form == "folder" else path)
    found = verify_patch(path, trust())
    assert (found.signer, found.vendor) == (signer.id, "Tiny")
    assert found.signer == public("vendor", curve).id
    assert found.patch.digest == read_patch(save(tmp_path / "plain", contents())).digest
    assert found.contents == read_contents(path).members
    assert found.countersigners == {}


def test_signing_twice_gives_the_same_bytes(tmp_path):
    path = save(tmp_path / "p", contents())
    sign_patch(path, key("vendor"))
    first = (path / SIGNATURE_FILE).read_bytes()
    sign_patch(path, key("vendor"))
    assert (path / SIGNATURE_FILE).read_bytes() == first == signed()[SIGNATURE_FILE]


def test_a_signature_of_another_is_replaced_on_request_only(tmp_path):
    path = save(tmp_path / "p", signed())
    with pytest.raises(UsageError, match="signed by another key"):
        sign_patch(path, key("other"))
    assert verify_patch(path, trust()).signer == public("vendor").id
    sign_patch(path, key("other"), overwrite=True)
    assert verify_patch(path, trust_key(public("other"))).signer == public("other").id


def test_a_damaged_or_decorated_patch_is_not_signed(tmp_path):
    path = save(tmp_path / "p", contents())
    (path / ".gitattributes").write_text("x")
    with pytest.raises(IntegrityError, match="no signature covers"):
        sign_patch(path, key("vendor"))
    (path / ".gitattributes").unlink()
    (path / "README.md").write_text("other")
    with pytest.raises(IntegrityError):
        sign_patch(path, key("vendor"))
    assert not (path / SIGNATURE_FILE).exists()


def test_unsigned_is_not_trusted(tmp_path):
    assert "not signed" in refused(TrustError, save(tmp_path / "p", contents())).message


def test_a_key_nobody_pinned_is_not_trusted(tmp_path):
    refused(TrustError, save(tmp_path / "p", signed(who="stranger")))


def test_a_vendor_is_not_trusted_for_names_of_another(tmp_path):
    rows = [
        {"name": "Tiny", "patches": ["tiny/*"], "keys": [public("vendor").pem]},
        {"name": "Evil", "patches": ["evil/*"], "keys": [public("evil").pem]},
    ]
    policy = make_trust({"schema": "llmpatch/trust/v1", "vendors": rows})
    error = refused(TrustError, save(tmp_path / "p", signed(who="evil")), policy)
    assert "not one of Tiny" in error.message
    assert verify_patch(save(tmp_path / "q", signed()), policy).vendor == "Tiny"


def test_a_name_nobody_may_publish_is_not_trusted(tmp_path):
    path = save(tmp_path / "p", signed())
    refused(TrustError, path, trust(vendor={"patches": ["other/*"]}))


def test_a_revoked_key_is_not_trusted(tmp_path):
    refused(TrustError, save(tmp_path / "p", signed()), trust(revoked=[public("vendor").id]))


@pytest.mark.parametrize("name", sorted(contents()))
def test_any_other_file_is_refused(tmp_path, name):
    path = save(tmp_path / "p", signed() | {name: contents()[name] + b" "})
    assert name in refused(IntegrityError, path).message


def test_what_no_signature_covers_is_refused(tmp_path):
    path = save(tmp_path / "p", signed())
    (path / ".gitattributes").write_bytes(b"x")
    assert read_patch(path).manifest.name == "tiny/refusal"  # read, since its content is never used
    assert ".gitattributes" in refused(IntegrityError, path).message


def test_signature_of_another_version_is_refused(tmp_path):
    older = signed(contents(version="1.0.0"))
    refused(IntegrityError, save(tmp_path / "p", signed() | {SIGNATURE_FILE: older[SIGNATURE_FILE]}))
    assert verify_patch(save(tmp_path / "q", older), trust()).patch.manifest.version == "1.0.0"


@pytest.mark.parametrize("names", [{"README.md"}, set(contents()) - {"evidence.json"}, {*contents(), "more.txt"}])
def test_a_statement_that_does_not_cover_all_files_is_not_trusted(tmp_path, names):
    files = contents() | {"more.txt": b"x"}
    statement = make_statement("tiny/refusal", {name: files[name] for name in names})
    path = save(tmp_path / "p", contents() | {SIGNATURE_FILE: make_bundle(statement, key("vendor"))})
    assert "does not cover" in refused(TrustError, path).message


def test_contents_that_lack_a_file_are_refused():
    files = {name: data for name, data in signed().items() if name not in {SIGNATURE_FILE, "README.md"}}
    with pytest.raises(IntegrityError, match=r"README\.md"):
        verify_contents(Contents(files, signed()[SIGNATURE_FILE]), Path("p"), trust())


def countersigned(tmp_path) -> Path:
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / "p.lpatch"
    path.write_bytes(packed())
    return path


def test_a_second_signature_can_be_required(tmp_path):
    path, policy = countersigned(tmp_path), make_trust(countersigned_policy())
    assert "not countersigned by qa" in refused(TrustError, path, policy).message
    written, _ = sign_patch(path, key("qa"), countersign=True)
    assert written == tmp_path / "p.sig.d" / public("qa").id == countersignatures(path) / public("qa").id
    assert path.read_bytes() == packed()
    assert verify_patch(path, policy).countersigners == {"qa": public("qa").id}
    assert verify_patch(path, trust()).countersigners == {}


def test_the_second_signature_holds_for_both_forms(tmp_path):
    path, policy = countersigned(tmp_path), make_trust(countersigned_policy())
    sign_patch(path, key("qa"), countersign=True)
    assert verify_patch(save(tmp_path / "p", signed()), policy).countersigners


def test_one_signature_of_a_group_that_holds_is_enough_beside_a_stale_one(tmp_path):
    groups = {"qa": {"keys": [public("qa").pem, public("qa-2").pem]}}
    policy = make_trust(countersigned_policy() | {"countersigners": groups})
    for stale, fresh in (("qa", "qa-2"), ("qa-2", "qa")):
        path = countersigned(tmp_path / stale)
        place = countersignatures(path) / public(stale).id
        place.parent.mkdir()
        place.write_bytes(signed(contents(version="1.0.0"), who=stale)[SIGNATURE_FILE])
        assert "not the file that was signed" in refused(IntegrityError, path, policy).message
        sign_patch(path, key(fresh), countersign=True)
        assert verify_patch(path, policy).countersigners == {"qa": public(fresh).id}


def test_a_wrong_second_signature_is_not_trusted(tmp_path):
    path, policy = countersigned(tmp_path), make_trust(countersigned_policy())
    place = countersignatures(path) / public("qa").id
    place.parent.mkdir()
    for data, kind in (
        (signed()[SIGNATURE_FILE], TrustError),  # the vendor's own, under the customer's name
        (signed(contents(version="1.0.0"), who="qa")[SIGNATURE_FILE], IntegrityError),  # of another version
        (b"rubbish", IntegrityError),
        (b"", IntegrityError),
    ):
        place.write_bytes(data)
        refused(kind, path, policy)
    place.write_bytes(signed(who="qa")[SIGNATURE_FILE])
    assert verify_patch(path, policy).countersigners
    refused(TrustError, path, make_trust(countersigned_policy(revoked=[public("qa").id])))


def test_a_statement_is_read_back():
    files = contents()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert parse_statement(make_statement("x", files), where="s") == digests


def edited(change) -> bytes:
    statement = json.loads(make_statement("x", contents()))
    change(statement)
    return json.dumps(statement).encode()


STATEMENTS = {
    "not JSON": b"pickle",
    "a key twice": make_statement("x", contents()).replace(b'"_type"', b'"_type": "x", "_type"', 1),
    "another type": edited(lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")),
    "another predicate": edited(lambda s: s.update(predicateType="https://slsa.dev/provenance/v1")),
    "an unknown key": edited(lambda s: s.update(more=1)),
    "two subjects": edited(lambda s: s["subject"].append(s["subject"][0])),
    "no subject": edited(lambda s: s.update(subject=[])),
    "a subject of text": edited(lambda s: s.update(subject=["x"])),
    "root digest of another": edited(lambda s: s["subject"][0]["digest"].update(sha256="0" * 64)),
    "a second root digest": edited(lambda s: s["subject"][0]["digest"].update(sha1="0" * 40)),
    "links followed": edited(lambda s: s["predicate"]["serialization"].update(allow_symlinks=True)),
    "shards": edited(lambda s: s["predicate"]["serialization"].update(method="shards")),
    "blake2b": edited(lambda s: s["predicate"]["serialization"].update(hash_type="blake2b")),
    "ignored paths of numbers": edited(lambda s: s["predicate"]["serialization"].update(ignore_paths=[1])),
    "resources twice": edited(lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0])),
    "resources of text": edited(lambda s: s["predicate"].update(resources="x")),
    "a resource of text": edited(lambda s: s["predicate"]["resources"].append("x")),
    "a resource by blake2b": edited(lambda s: s["predicate"]["resources"][0].update(algorithm="blake2b")),
    "a digest in capitals": edited(lambda s: s["predicate"]["resources"][0].update(digest="A" * 64)),
    "a digest of numbers": edited(lambda s: s["predicate"]["resources"][0].update(digest=7)),
    "10,000 resources": edited(lambda s: s["predicate"].update(resources=s["predicate"]["resources"] * 2000)),
}  # fmt: skip


@pytest.mark.parametrize("name", STATEMENTS)
def test_other_statements_are_refused(name):
    with pytest.raises(IntegrityError) as caught:
        parse_statement(STATEMENTS[name], where="patch.sig")
    assert caught.value.message.isprintable()


def bundle(change) -> bytes:
    found = json.loads(signed()[SIGNATURE_FILE])
    change(found, found["verificationMaterial"], found["dsseEnvelope"])
    return json.dumps(found).encode()


def spaced(text: str) -> str:
    return text[:10] + "\n" + text[10:]


BUNDLES = {
    "empty": b"",
    "not JSON": b"-----BEGIN PGP SIGNATURE-----",
    "200,000 brackets": b"[" * 60_000,
    "over its limit": signed()[SIGNATURE_FILE] + b" " * (64 << 10),
    "a key twice": signed()[SIGNATURE_FILE].replace(b'"mediaType"', b'"mediaType": "x", "mediaType"'),
    "bundle v0.1": bundle(lambda b, m, e: b.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1")),
    "another payload type": bundle(lambda b, m, e: e.update(payloadType="text/plain")),
    "no envelope": bundle(lambda b, m, e: b.pop("dsseEnvelope")),
    "a message signature too": bundle(lambda b, m, e: b.update(messageSignature={})),
    "no signature": bundle(lambda b, m, e: e.update(signatures=[])),
    "two signatures": bundle(lambda b, m, e: e["signatures"].append(e["signatures"][0])),
    "a signature of text": bundle(lambda b, m, e: e.update(signatures=["x"])),
    "another key id": bundle(lambda b, m, e: e["signatures"][0].update(keyid="0" * 64)),
    "a key id of a list": bundle(lambda b, m, e: e["signatures"][0].update(keyid=[])),
    "a certificate": bundle(lambda b, m, e: m.update(certificate={"rawBytes": "AAAA"})),
    "log entries": bundle(lambda b, m, e: m.update(tlogEntries=[{"logIndex": "1"}])),
    "time stamps": bundle(lambda b, m, e: m.update(timestampVerificationData={"rfc3161Timestamps": [{}]})),
    "no hint": bundle(lambda b, m, e: m.update(publicKey={})),
    "half a hint": bundle(lambda b, m, e: m["publicKey"].update(hint="abc")),
    "a key in the bundle": bundle(lambda b, m, e: m["publicKey"].update(rawBytes="AAAA")),
    "spaces in base64": bundle(lambda b, m, e: e.update(payload=spaced(e["payload"]))),
    "base64 without padding": bundle(lambda b, m, e: e["signatures"][0].update(sig="MTIzNA")),
    "base64 for URLs": bundle(lambda b, m, e: e["signatures"][0].update(sig="-_-_")),
    "empty payload": bundle(lambda b, m, e: e.update(payload="")),
    "payload of a number": bundle(lambda b, m, e: e.update(payload=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", BUNDLES)
def test_other_bundles_are_refused(tmp_path, name):
    with pytest.raises(IntegrityError) as caught:
        parse_bundle(BUNDLES[name], where="patch.sig")
    assert caught.value.message.isprintable()
    refused(IntegrityError, save(tmp_path / "p", contents() | {SIGNATURE_FILE: BUNDLES[name]}))


def test_empty_parts_that_others_write_are_fine():
    plain = parse_bundle(signed()[SIGNATURE_FILE], where="s")
    for change in (
        lambda b, m, e: m.pop("tlogEntries"),
        lambda b, m, e: m.update(timestampVerificationData=None),
        lambda b, m, e: e["signatures"][0].pop("keyid"),
        lambda b, m, e: e["signatures"][0].update(keyid=plain.key_id),
    ):
        assert parse_bundle(bundle(change), where="s") == plain


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_rubbish_is_no_signature(data):
    for text in (data, b"{" + data):
        with pytest.raises(IntegrityError):
            parse_bundle(text, where="s")


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_no_mutant_gets_through(maker):
    outcomes = {judge(maker(random.Random(f"suite {number}"))) for number in range(40)}
    assert outcomes - {"same"}


def test_the_mutants_start_from_a_good_patch(tmp_path):
    """Else all of them could be refused for another reason."""
    assert verify_patch(save(tmp_path / "p", GOOD), trust()).signer == public("vendor").id


def test_verifying_is_fast(tmp_path):
    from llmpatch.artifact import render_patch

    base = fields()["base"] | {"hidden_size": 576}
    evidence = EVIDENCE | {"more": ["x" * 900] * 200}
    files = render_patch(fields(base=base), embeddings(50, 576), evidence, base_p999=10.0)
    path, policy = save(tmp_path / "p", signed(files)), trust()
    times = []
    for _ in range(30):
        start = time.process_time()
        verify_patch(path, policy)
        times.append(time.process_time() - start)
    assert min(times) < 0.005


def test_a_folder_is_whole_while_it_is_signed(tmp_path, monkeypatch):
    """Whoever reads it meanwhile, or after a kill, finds no file that is not the patch's."""
    path = save(tmp_path / "p", contents())
    seen: list[list[str]] = []
    real = os.fsync

    def names():
        return sorted(file.name for file in path.iterdir())

    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append(names()), real(handle))[1])
    sign_patch(path, key("vendor"))
    assert seen
    assert all(found == sorted(contents()) for found in seen)
    assert "patch.sig" in names()
