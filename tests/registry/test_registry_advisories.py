"""Advisories out of registries where one vendor, or one registry, is hostile: the others' words still count, and it is said."""

import json

import pytest

from advisorykit import DEFECT, GAP, defect, record
from llmpatch.advisories import make_advisory, render_advisory
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.registry import (
    add_vendor,
    advising,
    ask_advisories,
    fetch_advisories,
    look,
    publish_target,
    remove_registry,
)
from llmpatch.registry.configured import registries_folder
from registrykit import copy, customer, found, newest, private, restamp, write
from signkit import public

LATER = "2027-01-01T00:00:00Z"


def said(site, made, who="vendor", vendor="acme", name="", data=None):
    """Publish an advisory, or any bytes under a name."""
    data = render_advisory(make_advisory(made)) if data is None else data
    path = f"advisories/{vendor}/{name or made['id'] + '.json'}"
    publish_target(site, path, data, keys=private(who, "online"))
    return data


def ids(asked):
    return [told.advisory.id for told in asked.told]


def stored(site, name):
    (path,) = (site / "targets/advisories/evilco").glob(f"*.{name}")
    return path


@pytest.fixture
def evil(tmp_path):
    """A registry of its own, in which acme's name has another key."""
    folder = found(tmp_path / "evil", vendors=())
    add_vendor(folder, "acme", [public("evilco")], keys=private("root-a", "root-b", "online"))
    return folder


def test_what_is_wrong_with_one_vendors_files_is_left_out_and_said(site):
    said(site, record())
    good = record("x_EVILCO-2026-0001")
    wrong = {
        "x_EVILCO-2026-0002.json": (b"{", "Expecting"),
        "x_EVILCO-2026-0003.json": (b" " * (300 << 10), "is larger than 262,144 bytes"),
        f"{GAP}.json": (render_advisory(make_advisory(record())), "an advisory of acme in evilco's folder"),
        "x_EVILCO-2026-0004.json": (render_advisory(make_advisory(good)), "holds x_EVILCO-2026-0001"),
        "note.txt": (b"{}", "is not an advisory"),
    }
    for name, (data, _) in wrong.items():
        said(site, None, "evilco", "evilco", name, data)
    said(site, good, "evilco", "evilco")
    said(site, record("x_EVILCO-2026-0005"), "evilco", "evilco")
    stored(site, "x_EVILCO-2026-0005.json").unlink()
    customer(site)
    asked = ask_advisories()
    assert ids(asked) == [GAP, "x_EVILCO-2026-0001"]
    assert len(asked.left_out) == len(wrong) + 1
    for name, (_, why) in {**wrong, "x_EVILCO-2026-0005.json": (b"", "no such file")}.items():
        start = f"left out: registry acme: advisories/evilco/{name}"
        assert any(text.startswith(start) and why in text for text in asked.left_out), name


def test_a_registry_whose_files_are_damaged_silences_no_other_and_can_be_removed(site):
    said(site, record())
    customer(site)
    broken = registries_folder() / "broken"
    broken.mkdir()
    (broken / "registry.json").write_text("{")
    asked = ask_advisories()
    assert ids(asked) == [GAP]
    assert [text.startswith("left out: ") and "registry.json" in text for text in asked.left_out] == [True]
    remove_registry("broken")
    assert ask_advisories().left_out == ()
    with pytest.raises(UsageError, match="no registry broken; configured: acme"):
        remove_registry("broken")


def test_a_vendor_that_says_too_much_hides_only_its_own_oldest(site, monkeypatch):
    said(site, record())
    for number in (1, 2, 3, 4):
        said(site, record(f"x_EVILCO-2026-000{number}"), "evilco", "evilco")
    customer(site)
    monkeypatch.setattr(advising, "MAX_PER_VENDOR", 2)
    asked = ask_advisories()
    assert ids(asked) == [GAP, "x_EVILCO-2026-0003", "x_EVILCO-2026-0004"]
    text = "left out: registry acme: {} advisories of evilco, the oldest: too many, or too large together"
    assert asked.left_out == (text.format(2),)
    size = len(render_advisory(make_advisory(record("x_EVILCO-2026-0001"))))
    monkeypatch.setattr(advising, "MAX_VENDOR_BYTES", size)
    asked = ask_advisories()
    assert (ids(asked), asked.left_out) == ([GAP, "x_EVILCO-2026-0004"], (text.format(3),))


def test_files_that_do_not_come_are_waited_for_a_few_times_and_what_came_before_counts(site, monkeypatch):
    for number in (1, 2, 3, 4):
        said(site, record(f"x_EVILCO-2026-000{number}"), "evilco", "evilco")
    customer(site)
    for number in (2, 3, 4):
        stored(site, f"x_EVILCO-2026-000{number}.json").unlink()
    monkeypatch.setattr(advising, "MAX_FAILURES", 2)
    read, waited = advising.read_target, []

    def counted(source, path):
        waited.append(not source.offline)
        return read(source, path)

    monkeypatch.setattr(advising, "read_target", counted)
    asked = ask_advisories()
    assert (ids(asked), len(asked.left_out)) == (["x_EVILCO-2026-0001"], 3)
    assert waited == [True, True, False, False]


def test_a_flood_of_foreign_paths_is_one_vendors_few_lines(site):
    said(site, record("x_EVILCO-2026-0001"), "evilco", "evilco")
    role = newest(site, "evilco")
    (info,) = role.signed.targets.values()
    role.signed.version += 1
    role.signed.targets |= {f"advisories/acme/x{number}.json": info for number in range(50)}
    write(site, "evilco", role, "evilco")
    restamp(site, "online")
    notes = look(customer(site)).notes
    assert (len(notes), notes[-1]) == (21, "left out: 30 more of evilco")


def test_by_different_keys_each_of_two_counts_with_its_own_power(site, evil, tmp_path):
    """Else whoever gives acme's name to a key of its own takes acme's word away."""
    mine = said(site, defect(revoke=True))
    theirs = said(evil, defect(modified=LATER, withdrawn=LATER), "evilco")
    customer(site)
    customer(evil, "evil")
    asked = ask_advisories()
    assert {(told.data, told.keys) for told in asked.told} == {
        (mine, frozenset({public("vendor").id})), (theirs, frozenset({public("evilco").id})),
    }  # fmt: skip
    name = f"acme/{DEFECT}.json"
    assert asked.left_out == (
        f"registries acme, evil carry different {name}: each counts; ask its vendor which is right",
    )
    fetched = fetch_advisories(tmp_path / "known")
    assert fetched.files == ()
    assert fetched.left_out[-1] == f"left out: {name} has room for one of them"


def test_by_one_key_the_later_counts_and_a_replayed_one_takes_nothing_out(site, tmp_path):
    said(site, defect(revoke=True))
    old = copy(site, tmp_path / "old")
    said(site, defect(modified=LATER, withdrawn=LATER))
    customer(site)
    customer(old, "old")
    asked = ask_advisories()
    assert [(told.advisory.withdrawn, told.registries) for told in asked.told] == [(LATER, ("acme",))]
    assert asked.left_out == (
        f"left out: registry old: acme/{DEFECT}.json: its key signed a later one elsewhere",
    )  # fmt: skip


def test_who_copies_an_advisory_gets_no_say_in_what_replaces_it():
    """Two registries of one attacker: one repeats acme's words under its key, the other says something later by it."""

    def told(key, registry, **changes):
        advisory = make_advisory(defect(revoke=True, **changes))
        return advising.Told("acme/x.json", b"", advisory, frozenset({key}), (registry,))

    mine, same = told("acme", "a"), told("evil", "b")
    settled, notes = advising._settled([mine, same, told("evil", "c", modified=LATER)])
    assert [one.keys for one in settled] == [frozenset({"acme"}), frozenset({"evil"})]
    assert len(notes) == 2
    settled, notes = advising._settled([mine, same])
    assert ([(one.keys, one.registries) for one in settled], notes) == (
        [(frozenset({"acme", "evil"}), ("a", "b"))], [],
    )  # fmt: skip


def test_a_part_of_a_vendors_keys_takes_nothing_back_that_needed_all():
    """One of two keys is lost, and its finder says later, in a registry of his own, that nothing is wrong."""

    def told(registry, *keys, **changes):
        return advising.Told(
            "acme/x.json", b"", make_advisory(defect(revoke=True, **changes)), frozenset(keys), (registry,)
        )

    mine = told("a", "one", "two")
    settled, _ = advising._settled([mine, told("b", "one", modified=LATER, withdrawn=LATER)])
    assert mine in settled
    later = told("b", "one", "two", "three", modified=LATER, withdrawn=LATER)
    assert advising._settled([mine, later])[0] == [later]


def test_a_registry_that_cannot_be_asked_stops_no_other(site, evil):
    said(site, record())
    customer(site)
    customer(evil, "evil")
    stamp = evil / "metadata/timestamp.json"
    whole = stamp.read_bytes()
    stamp.write_text(json.dumps({"signed": {}}))
    asked = ask_advisories()
    assert ids(asked) == [GAP]
    (left,) = asked.left_out
    assert left.startswith("left out: registry evil: ")
    (site / "metadata/timestamp.json").unlink()
    with pytest.raises(LlmpatchError, match="registry acme"):
        ask_advisories()
    stamp.write_bytes(whole)
    assert ask_advisories().told == ()
