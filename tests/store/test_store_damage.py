"""Damage: what is used in its place, what is refused, what the doctor finds and mends."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.bases import Fingerprint
from llmpatch.errors import IntegrityError, LlmpatchError, TrustError, UsageError
from llmpatch.store import (
    Store,
    activate,
    ancestors,
    deactivate,
    examine,
    load,
    load_active,
    load_patch,
    pin,
    read_stored,
    repair,
    revoke,
    rollback,
)
from llmpatch.store.disk import remove_folder
from llmpatch.store.state import FIRST, parse_generation, render_generation
from patchkit import FIELDS, save
from storekit import Gate, active, add, files

BASE = Fingerprint(**FIELDS["base"]["fingerprint"])


@pytest.fixture
def store(tmp_path):
    """1.0.0, then 1.1.0 active; both gated."""
    store = Store(tmp_path / "store")
    for version in ("1.0.0", "1.1.0"):
        activate(store, add(store, tmp_path, version=version), gate=Gate())
    assert examine(store) == []
    return store


def overwrite(path, data: bytes):
    path.chmod(0o644)
    path.write_bytes(data)


def digest_of(store, version):
    return next(e.digest for e in load(store).state.installed if e.version == version)


def codes(store):
    return sorted(finding.code for finding in examine(store))


def damage_patch(store, version):
    overwrite(store.folder(digest_of(store, version)) / "README.md", b"changed")


def test_a_damaged_active_patch_is_replaced_by_the_last_whole_set_and_that_is_said(store):
    whole = load_active(store, BASE)
    assert ([p.manifest.version for p in whole.patches], whole.notes) == (["1.1.0"], ())
    damage_patch(store, "1.1.0")
    found = load_active(store, BASE)
    assert [p.manifest.version for p in found.patches] == ["1.0.0"]
    assert "README.md" in found.notes[0]
    assert f"generation {found.generation}" in found.notes[0]
    assert codes(store) == ["patch-damaged"]
    assert [f.code for f in repair(store)] == ["patch-damaged"]
    assert active(load(store).state) == [["acme/refusal 1.1.0"]]


def test_without_any_whole_set_it_refuses_or_serves_unpatched_as_told(store):
    for version in ("1.0.0", "1.1.0"):
        damage_patch(store, version)
    with pytest.raises(IntegrityError, match="no set of patches for this base is whole"):
        load_active(store, BASE)
    found = load_active(store, BASE, on_failure="serve_unpatched")
    assert found.patches == ()
    assert found.notes[0].startswith("unpatched: ")


def test_a_base_without_patches_has_none_and_says_nothing(store):
    other = Fingerprint("9" * 64, "2" * 64, "3" * 64, "4" * 64, "none")
    assert load_active(store, other).patches == ()
    assert load_active(store, other).notes == ()
    rollback(store)
    rollback(store)
    assert load_active(store, BASE).patches == ()
    assert load_active(Store(store.root / "none"), BASE).notes == ()


def test_another_quantisation_of_the_base_gets_the_same_patches(store):
    assert len(load_active(store, Fingerprint("1" * 64, "2" * 64, "3" * 64, "8" * 64, "gguf:Q8_0")).patches) == 1


@pytest.mark.parametrize("wrong", [b"", b"{}", b"[]", b"nonsense", b'{"generation": 99, "sha256": "0"}',
                                   b'{"generation": true, "sha256": "0"}', None])  # fmt: skip
def test_without_current_the_last_generation_holds_and_changes_wait_for_the_doctor(store, wrong):
    before = load(store)
    if wrong is None:
        store.current.unlink()
    else:
        overwrite(store.current, wrong)
    head = load(store)
    assert head.generation == before.generation
    assert head.damage
    assert load_active(store, BASE).notes == head.damage
    with pytest.raises(IntegrityError, match="damaged"):
        pin(store, "acme/refusal", "1")
    assert "current" in codes(store)
    assert repair(store) == []
    assert load(store).state == before.state
    assert load(store).generation.action == "repair"
    pin(store, "acme/refusal", "1")


def test_after_losing_the_last_generation_the_one_before_holds_but_nothing_revoked_comes_back(store):
    bad = digest_of(store, "1.0.0")
    revoke(store, bad, "over-refusal")
    pin(store, "acme/refusal", "1")
    number = load(store).generation.number
    overwrite(store.generation(number), b"torn")
    head = load(store)
    assert head.generation.number == number - 1
    assert head.state.revoked == {bad: "over-refusal"}
    overwrite(store.generation(number - 1), b"torn")
    shutil.copy(store.generation(number - 2), store.generation(number - 3))
    assert load(store).generation.number == number - 2
    repair(store)
    assert active(load(store).state) == [["acme/refusal 1.1.0"]]


def test_a_lost_activation_is_not_taken_for_none(tmp_path):
    store = Store(tmp_path / "store")
    activate(store, add(store, tmp_path), gate=Gate())
    overwrite(store.generation(2), b"torn")
    with pytest.raises(IntegrityError, match="nobody knows what is active"):
        load_active(store, BASE)
    assert load_active(store, BASE, on_failure="serve_unpatched").patches == ()


def test_a_revocation_outlives_the_generation_that_activated(store):
    """What is damaged is newer than the revocation; the fall-back must not undo it."""
    bad = digest_of(store, "1.1.0")
    deactivate(store, bad)
    revoke(store, bad, "bad")
    kept = store.generation(load(store).generation.number - 1).read_bytes()
    assert b'"revoked": {}' in kept
    store.current.unlink()
    assert bad in load(store).state.revoked
    repair(store)
    with pytest.raises(TrustError, match="bad"):
        activate(store, bad, gate=Gate())


def test_with_all_records_lost_the_doctor_takes_up_whole_patches_but_activates_none(store):
    damage_patch(store, "1.0.0")
    for path in store.generations.iterdir():
        overwrite(path, b"")
    with pytest.raises(IntegrityError, match="no generation is whole"):
        load(store)
    with pytest.raises(IntegrityError, match="no generation is whole"):
        pin(store, "acme/refusal", "1")
    assert "no-generation" in codes(store)
    assert repair(store) == []
    state = load(store).state
    assert [(e.version, e.status, e.signer) for e in state.installed] == [("1.1.0", "stored", None)]
    assert active(state) == []
    assert load(store).generation.number > 4


def test_the_doctor_finds_and_mends_what_is_safe(store, tmp_path):
    third = add(store, tmp_path, version="1.2.0")
    gone = digest_of(store, "1.0.0")
    shutil.rmtree(store.folder(gone))
    store.folder(third).chmod(0o755)
    save(store.patches / f"sha256-{'a' * 64}", files(version="3.0.0"))
    (store.patches / ".old-1-x").mkdir()
    (store.root / ".new-1-x").write_text("half")
    overwrite(store.generation(99), b"torn") if store.generation(99).exists() else store.generation(99).write_bytes(
        b"to"
    )
    (store.root / "store.json").unlink()
    expected = ["layout", "leftover", "leftover", "leftover", "patch-missing", "uncommitted", "writable"]
    assert codes(store) == expected
    assert all(finding.repairable and finding.advice for finding in examine(store))
    assert repair(store) == []
    state = load(store).state
    assert sorted(e.version for e in state.installed) == ["1.1.0", "1.2.0"]
    assert active(state) == [["acme/refusal 1.1.0"]]
    assert not store.generation(99).exists()
    assert read_stored(store, third).manifest.version == "1.2.0"


def test_what_needs_a_person_is_named_and_left(store):
    (store.root / "notes.txt").write_text("mine")
    overwrite(next(store.verdicts.iterdir()), b"{}")
    for path in store.verdicts.iterdir():
        overwrite(path, b"{}")
    shutil.rmtree(store.folder(digest_of(store, "1.1.0")))
    found = {finding.code: finding for finding in examine(store)}
    assert set(found) == {"foreign", "verdict", "patch-missing"}
    assert not any(finding.repairable for finding in found.values())
    assert {finding.code for finding in repair(store)} == set(found)


def test_a_broken_chain_ends_the_history_but_not_the_present(store):
    middle = store.generation(2)
    overwrite(middle, middle.read_bytes().replace(b'"activate"', b'"install"'))
    assert codes(store) == ["history"]
    assert [g.number for g in ancestors(store, load(store))] == [4, 3]
    assert [p.manifest.version for p in load_active(store, BASE).patches] == ["1.1.0"]


def test_a_store_of_a_later_layout_is_left_alone(store, tmp_path):
    overwrite(store.root / "store.json", b'{"schema": "llmpatch/store/v2"}\n')
    with pytest.raises(IntegrityError, match="store/v1"):
        pin(store, "acme/refusal", "1")
    assert codes(store) == ["layout"]
    with pytest.raises(LlmpatchError):
        repair(store)


def test_names_and_paths_go_through_one_resolver(store, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMPATCH_STORE", str(store.root))
    work = tmp_path / "work"
    save(work / "patches/acme/local", files("acme/local"))
    save(work / "acme/here", files("acme/here"))
    monkeypatch.chdir(work)
    assert load_patch("acme/refusal").manifest.version == "1.1.0"
    assert load_patch("acme/refusal@<1.1").manifest.version == "1.0.0"
    assert load_patch("acme/local").manifest.name == "acme/local"
    assert load_patch("acme/here").manifest.name == "acme/here"
    assert load_patch(work / "acme/here").manifest.name == "acme/here"
    for missing in ("acme/nothing", "acme/nothing@1", "acme/refusal@>=9"):
        with pytest.raises(UsageError):
            load_patch(missing)
    damage_patch(store, "1.1.0")
    with pytest.raises(IntegrityError, match=r"README\.md"):
        load_patch("acme/refusal")


def test_an_installed_name_is_not_shadowed_by_a_folder_of_patches(store, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMPATCH_STORE", str(store.root))
    save(tmp_path / "work/patches/acme/refusal", files(version="9.9.9"))
    monkeypatch.chdir(tmp_path / "work")
    assert load_patch("acme/refusal").manifest.version == "1.1.0"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("mutants")
    store = Store(root / "store")
    activate(store, add(store, root), gate=Gate())
    return store


@settings(deadline=None, max_examples=300)
@given(
    st.booleans(), st.floats(0, 1, exclude_max=True), st.sampled_from(["flip", "cut", "insert"]), st.integers(0, 7),
    st.binary(min_size=1, max_size=4),
)  # fmt: skip
def test_any_change_to_a_record_is_seen(small, of_current, place, kind, bit, more):
    before = load(small)
    path = small.current if of_current else small.generation(2)
    good = path.read_bytes()
    at = int(place * len(good))
    flipped = bytes([good[at] ^ (1 << bit)])
    middle = {"flip": flipped + good[at + 1 :], "cut": b"", "insert": more + good[at:]}[kind]
    try:
        overwrite(path, good[:at] + middle)
        head = load(small)
        if not head.damage:
            assert head == before
            assert of_current
            assert json.loads(path.read_bytes()) == json.loads(good)
    finally:
        overwrite(path, good)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_generation_or_a_clear_error(data):
    with pytest.raises(IntegrityError):
        parse_generation(data, where="generations/1.json")


def test_a_generation_reads_back_and_refuses_contradictions(store):
    generation = load(store).generation
    assert parse_generation(render_generation(generation), where="g") == generation
    assert parse_generation(render_generation(FIRST), where="g") == FIRST
    good = json.loads(render_generation(generation))
    for edit in (
        lambda g: g.update(number=1),
        lambda g: g.update(extra=1),
        lambda g: g["state"]["installed"].pop(),
        lambda g: g["state"]["installed"].append(g["state"]["installed"][0]),
        lambda g: g["state"]["revoked"].update({g["state"]["active"][0]["patches"][0]: "bad"}),
        lambda g: g["state"]["active"][0].update(patches=[]),
        lambda g: g.update(reason="a\nb"),
    ):
        mapping = json.loads(json.dumps(good))
        edit(mapping)
        with pytest.raises(IntegrityError):
            parse_generation(json.dumps(mapping).encode(), where="g")


def test_what_a_link_points_to_is_not_deleted(tmp_path):
    """A folder of the store that somebody moved elsewhere, or planted."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.txt").write_text("mine")
    link = tmp_path / "sha256-x"
    link.symlink_to(outside)
    remove_folder(link)
    assert not link.is_symlink()
    assert (outside / "thesis.txt").read_text() == "mine"


def test_a_store_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LlmpatchError, match=r"cannot read the store .*file: Not a directory"):
        load(Store(tmp_path / "file"))
