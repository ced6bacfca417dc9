"""Advisories as records: what is accepted is OSV; what is not ends in one typed error."""

from __future__ import annotations

import json
import os
import random

import jsonschema
import pytest

from advisorykit import DEFECT, GAP, OSV, TIME, defect, defect_in, gap_in, record, write
from llmpatch.advisories import (
    MAX_ADVISORY_BYTES,
    folder,
    load_advisories,
    make_advisory,
    parse_advisory,
    read_advisory,
    render_advisory,
    usable_advisories,
)
from llmpatch.advisories.matching import BaseFacts, concerns, fixes, same_base
from llmpatch.artifact.manifest import FingerprintSection
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from storekit import base

FULL = record(
    withdrawn=TIME, aliases=["CVE-2026-1"], related=["x_ACME-2026-0002"], details="# What\n\n\tmeasured, and how",
    affected=[
        gap_in(purl="pkg:huggingface/example/Tiny-Llama")
        | {
            "ranges": [{"type": "GIT", "repo": "https://huggingface.co/example/Tiny-Llama", "events": [{"introduced": "0"}]}],
            "versions": ["7e27bd9f95328f0f3b08261d1252705110c806f8"],
        }
    ],
    references=[{"type": "FIX", "url": "https://patches.acme.example/1.lpatch"}],
    credits=[{"name": "A. Finder", "type": "FINDER", "contact": ["mailto:a@example.org"]}],
    database_specific={
        "risk": "refusal", "avid": ["S0403"], "owasp_llm": ["LLM01:2026"], "evidence": "c" * 64,
        "measured": [{"name": "declined", "n": 146, "base": {"value": 0.01, "low": 0.0, "high": 0.03}}],
    },
)  # fmt: skip


def as_bytes(value) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("made", [record(), FULL, defect(), defect(revoke=True, withdrawn=TIME)])
def test_what_is_accepted_is_osv_and_comes_back_the_same(made):
    advisory = parse_advisory(as_bytes(made), where="x")
    data = render_advisory(advisory)
    assert parse_advisory(data, where="x") == advisory
    assert render_advisory(parse_advisory(data, where="x")) == data
    jsonschema.Draft202012Validator(OSV).validate(json.loads(data))
    jsonschema.Draft202012Validator(OSV).validate(made)


def test_the_osv_rules_can_fail():
    check = jsonschema.Draft202012Validator(OSV).is_valid
    both = defect(("introduced", "0"), ("fixed", "1.0.0"), ("last_affected", "2.0.0"))
    no_repo = record(affected=[{"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}])
    bad = [
        FULL | {"base": 1}, both, no_repo, FULL | {"modified": "2026-11-24"}, FULL | {"id": "ACME-1"},
        defect(("fixed", "1.0.0")), FULL | {"references": [{"type": "NEWS", "url": "https://a"}]},
    ]  # fmt: skip
    assert [check(found) for found in bad] == [False] * len(bad)
    assert check(FULL)


BAD = {
    "an unknown key": record(severity=[]),
    "an unknown key deep down": record(affected=[gap_in(colour="red")]),
    "another schema": record(schema_version="2.0.0"),
    "an id of a list that is not ours": record("GHSA-2026-0001"),
    "an id in small letters": record("x_acme-2026-0001"),
    "a time without a zone": record(modified="2026-11-24T00:00:00"),
    "a time that is not UTC": record(modified="2026-11-24T00:00:00+01:00"),
    "a day that does not exist": record(published="2026-02-30T00:00:00Z"),
    "a summary that clears the screen": record(summary="fine \x1b[2J"),
    "a summary of two lines": record(summary="one\ntwo"),
    "details with an escape": record(details="fine \x1b[2J"),
    "details that turn text around": record(details="fine \u202e"),
    "nothing affected": record(affected=[]) | {"affected": []},
    "a base and a patch": record(affected=[gap_in(), defect_in(("introduced", "0"))]),
    "another vendor's patch revoked": defect(patch="other/refusal", revoke=True),
    "no versions": defect(affected=[defect_in()]),
    "a range without a start": defect(("fixed", "1.0.0")),
    "a range with two kinds of end": defect(("introduced", "0"), ("fixed", "1.0.0"), ("last_affected", "2.0.0")),
    "a version that is none": defect(("introduced", "1.0")),
    "a version too large": defect(("introduced", "9999999999.0.0")),
    "an event with two ends": defect(affected=[defect_in()] and [
        {"ranges": [{"type": "SEMVER", "events": [{"introduced": "0", "fixed": "1.0.0"}]}],
         "database_specific": {"patch": "acme/refusal"}}
    ]),
    "an ecosystem range": defect(affected=[
        {"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}], "database_specific": {"patch": "acme/refusal"}}
    ]),
    "a fix in a range that is none": record(affected=[gap_in(fixed_by=(("acme/refusal", "newest"),))]),
    "a fix without a vendor": record(affected=[gap_in(fixed_by=(("refusal", "*"),))]),
    "half a fingerprint": record(affected=[gap_in(fingerprint={"config": "1" * 64})]),
    "a link that is none": record(references=[{"type": "WEB", "url": "javascript:alert(1)"}]),
    "an estimate outside of its interval": FULL | {"database_specific": {"measured": [
        {"name": "x", "n": 1, "base": {"value": 2.0, "low": 0.0, "high": 1.0}}
    ]}},
    "text where a switch belongs": defect(affected=[defect_in(("introduced", "0"), revoke="yes")]),
}  # fmt: skip


@pytest.mark.parametrize("about", BAD)
def test_what_is_wrong_is_refused_with_one_printable_line(about):
    with pytest.raises(IntegrityError) as caught:
        parse_advisory(as_bytes(BAD[about]), where="x.json")
    assert "x.json" in caught.value.message
    assert caught.value.message.isprintable()
    assert caught.value.hint
    with pytest.raises(UsageError):
        make_advisory(BAD[about])


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"\xff", b"[" * 9999, b'{"id": 1, "id": 2}', b'{"a": NaN}', b"{}" + b" " * (1 << 18)],
    ids=["empty", "list", "no utf-8", "deep", "twice", "nan", "large"],
)
def test_rubbish_is_refused(data):
    with pytest.raises(IntegrityError):
        parse_advisory(data, where="x.json")


def test_mutants_end_in_an_advisory_or_a_typed_error():
    draw, whole = random.Random(0), as_bytes(FULL)
    accepted = 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(data))
            data[at : at + draw.randint(0, 4)] = bytes(draw.randrange(256) for _ in range(draw.randint(0, 4)))
        try:
            made = parse_advisory(bytes(data), where="x")
        except LlmpatchError:
            continue
        accepted += 1
        jsonschema.Draft202012Validator(OSV).validate(json.loads(render_advisory(made)))
    assert 0 < accepted < 1500


def test_a_folder_is_read_whole_and_sorted(tmp_path):
    write(tmp_path, defect(), record())
    write(tmp_path, record("x_OTHER-2026-0001"), vendor="other")
    (tmp_path / "README.md").write_text("left aside")
    found = load_advisories(tmp_path)
    assert [advisory.id for advisory in found] == [GAP, DEFECT, "x_OTHER-2026-0001"]
    assert load_advisories(tmp_path / "acme") == found[:2]


def test_a_folder_with_something_wrong_fails_as_a_whole(tmp_path):
    write(tmp_path, record())
    one = tmp_path / "acme" / f"{GAP}.json"
    with pytest.raises(UsageError):
        load_advisories(tmp_path / "none")
    with pytest.raises(UsageError):
        load_advisories(one)
    for vendor, name, error in (("other", f"{GAP}.json", "folder"), ("acme", "x_ACME-2026-7777.json", "holds")):
        path = tmp_path / vendor / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(one.read_bytes())
        with pytest.raises(IntegrityError, match=error):
            load_advisories(tmp_path)
        path.unlink()
    (tmp_path / f"{GAP}.json").write_bytes(one.read_bytes())
    with pytest.raises(IntegrityError, match="twice"):
        load_advisories(tmp_path)
    (tmp_path / f"{GAP}.json").unlink()
    (tmp_path / "acme/x_ACME-2026-0005.json").symlink_to(one)
    with pytest.raises(IntegrityError, match="regular"):
        load_advisories(tmp_path)
    (tmp_path / "acme/x_ACME-2026-0005.json").unlink()
    os.mkfifo(tmp_path / "acme/x_ACME-2026-0006.json")
    with pytest.raises(IntegrityError, match="regular"):
        load_advisories(tmp_path)


def test_what_is_wrong_in_a_folder_is_left_out_and_said_and_the_rest_counts(tmp_path):
    write(tmp_path, record())
    write(tmp_path, record("x_OTHER-2026-0001"), vendor="other")
    good = tmp_path / "acme" / f"{GAP}.json"
    wrong = {
        "other/x_OTHER-2026-0002.json": b"{",
        "other/x_OTHER-2026-0003.json": b" " * (MAX_ADVISORY_BYTES + 1),
        f"other/{GAP}.json": good.read_bytes(),
        f"{GAP}.json": good.read_bytes(),
    }
    for name, data in wrong.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "other/x_OTHER-2026-0004.json").symlink_to(good)
    found, left = usable_advisories(tmp_path)
    assert [advisory.id for advisory in found] == [GAP, "x_OTHER-2026-0001"]
    assert len(left) == 5
    for name, why in zip(
        [*wrong, "other/x_OTHER-2026-0004.json"], ("Expecting", "larger", "folder", "twice", "regular"), strict=True
    ):
        assert any(text.startswith(f"left out: {tmp_path / name}") and why in text for text in left), name
    with pytest.raises(UsageError):
        usable_advisories(tmp_path / "none")


def test_a_vendor_with_too_many_files_hides_only_its_own_oldest(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "MAX_ADVISORIES", 3)
    monkeypatch.setattr(folder, "MAX_NAMED", 2)
    write(tmp_path, *(record(f"x_ACME-{name}") for name in ("2026-9999", "2026-10000", "2025-0001", "2027-0001")))
    write(tmp_path, record("x_OTHER-2026-0001"), vendor="other")
    found, (left,) = usable_advisories(tmp_path)
    assert [advisory.id[2:] for advisory in found] == [
        "ACME-2026-10000", "ACME-2026-9999", "ACME-2027-0001", "OTHER-2026-0001",
    ]  # fmt: skip
    assert left == f"left out: {tmp_path / 'acme'} holds more than 3 advisories: older ones are not read"
    with pytest.raises(IntegrityError, match="more than 3"):
        load_advisories(tmp_path)
    for path in (tmp_path / "acme").iterdir():
        path.write_text("{")
    found, left = usable_advisories(tmp_path)
    assert ([advisory.id for advisory in found], len(left)) == (["x_OTHER-2026-0001"], 3)
    assert left[-1] == "left out: 2 more files of acme"


def test_an_advisory_from_memory_lies_under_its_id_and_in_its_vendors_folder():
    data = render_advisory(make_advisory(record()))
    assert read_advisory(f"acme/{GAP}.json", data).id == GAP
    for name, error in ((f"other/{GAP}.json", "acme in other's folder"), ("acme/x_ACME-2026-7777.json", "holds")):
        with pytest.raises(IntegrityError, match=error):
            read_advisory(name, data)


@pytest.mark.parametrize(
    ("events", "inside", "outside"),
    [
        ([("introduced", "0")], ["0.0.1", "9.0.0"], []),
        ([("introduced", "0"), ("fixed", "1.2.0")], ["1.0.0", "1.2.0-rc.1"], ["1.2.0", "2.0.0"]),
        ([("introduced", "1.0.0"), ("last_affected", "1.2.0")], ["1.0.0", "1.2.0"], ["0.9.9", "1.0.0-rc.1", "1.2.1"]),
        (
            [("fixed", "1.1.0"), ("introduced", "1.0.0"), ("introduced", "2.0.0"), ("fixed", "2.0.1")],
            ["1.0.5", "2.0.0"],
            ["1.1.0", "1.9.0", "2.0.1"],
        ),
    ],
)
def test_versions_are_inside_a_range_as_osv_evaluates_it(events, inside, outside):
    (entry,) = make_advisory(defect(*events)).defects
    for version in (*inside, *outside):
        assert concerns(entry, "acme/refusal", version, "d" * 64) == (version in inside), version
        assert not concerns(entry, "acme/other", version, "d" * 64)


def test_versions_and_digests_name_patches_too():
    (entry,) = make_advisory(defect(affected=[defect_in(digests=["d" * 64]) | {"versions": ["1.0.0"]}])).defects
    assert concerns(entry, "acme/refusal", "1.0.0", "e" * 64)
    assert concerns(entry, "acme/refusal", "3.0.0", "d" * 64)
    assert not concerns(entry, "acme/refusal", "3.0.0", "e" * 64)
    assert not concerns(entry, "other/refusal", "1.0.0", "d" * 64)


def test_the_fingerprint_decides_which_base_it_is_and_only_then_names():
    same, other = (FingerprintSection(**base(embeddings=e)["fingerprint"]) for e in "45")
    quantised = FingerprintSection(**base("gguf:Q4_0", "9")["fingerprint"])
    wanted = make_advisory(record()).gaps[0].database_specific.base
    assert same_base(wanted, BaseFacts("called otherwise", None, same))
    assert same_base(wanted, BaseFacts("quantised", None, quantised))
    assert not same_base(wanted, BaseFacts("tiny-llama", None, other))
    named = make_advisory(record(affected=[gap_in(fingerprint=None, purl="pkg:huggingface/a/b@1")])).gaps[0]
    named = named.database_specific.base
    assert same_base(named, BaseFacts("tiny-llama", None, other))
    assert not same_base(named, BaseFacts("another", None, other))
    assert same_base(named, BaseFacts("another", "pkg:huggingface/a/b@2", other))
    assert not same_base(named, BaseFacts("tiny-llama", "pkg:huggingface/a/c", other))
    gap = make_advisory(record()).gaps[0].database_specific
    assert fixes(gap, "acme/refusal", "1.5.0-rc.1")
    assert not fixes(gap, "acme/refusal", "2.0.0")
    assert not fixes(gap, "acme/other", "1.0.0")
