"""Ask a registry: caches, offline, what is chosen, mirrors, several registries, and bad input."""

import json

import pytest

from advisorykit import record
from llmpatch.advisories import make_advisory, render_advisory
from llmpatch.errors import IntegrityError, LlmpatchError, TrustError, UsageError
from llmpatch.registry import (
    add_registry,
    ask_advisories,
    choose,
    download,
    fetch_advisories,
    load_registries,
    load_registry,
    look,
    mirror,
    newer,
    publish,
    publish_target,
    refresh,
    remove_registry,
    save_offered,
    search,
    take,
)  # fmt: skip
from llmpatch.registry.fetching import check_url
from llmpatch.registry.sourcing import install_from
from llmpatch.signing import trust_key
from llmpatch.store import Store, activate, load, pin, revoke, rollback, signed_by, upgrade
from registry.webkit import serve
from registrykit import PATH, archive, copy, customer, found, private, put_back, release, restamp, seen, versions
from signkit import public


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def verify():
    return signed_by(trust_key(public("vendor")))


def test_a_patch_comes_over_http_and_what_was_fetched_is_not_fetched_again(site, store, verify):
    with serve(site) as (url, asked):
        customer(url, root=site / "metadata/1.root.json")
        entry = take(store, choose("acme/refusal"), verify)
        assert (entry.version, entry.source) == ("1.0.0", f"registry acme: {url}")
        before = len(asked)
        take(store, choose("acme/refusal"), verify)
        assert [path.rpartition("/")[2] for path in asked[before:]] == ["2.root.json", "timestamp.json"]


def test_offline_uses_what_was_fetched_and_refuses_the_rest(site, made, store, verify):
    release(site, made, "1.1.0")
    with serve(site) as (url, asked):
        customer(url, root=site / "metadata/1.root.json")
        with pytest.raises(LlmpatchError, match=r"offline, and timestamp\.json was not fetched"):
            choose("acme/refusal", offline=True)
        take(store, choose("acme/refusal@1.0.0"), verify)
        before = len(asked)
        assert [c.offer.version for c in search(offline=True)[0]] == ["1.1.0", "1.0.0"]
        assert take(store, choose("acme/refusal@1.0.0", offline=True), verify).version == "1.0.0"
        with pytest.raises(LlmpatchError, match=r"offline, and .*1\.1\.0\.lpatch was not fetched"):
            take(store, choose("acme/refusal", offline=True), verify)
        assert len(asked) == before
    with pytest.raises(LlmpatchError, match="cannot fetch"):
        choose("acme/refusal")
    assert choose("acme/refusal", offline=True).offer.version == "1.1.0"


def test_offline_does_not_make_an_expired_state_good(site, store, verify, monkeypatch):
    from datetime import UTC, datetime, timedelta
    from types import SimpleNamespace

    from tuf.ngclient._internal import trusted_metadata_set

    with serve(site) as (url, _):
        customer(url, root=site / "metadata/1.root.json")
        choose("acme/refusal")
    later = SimpleNamespace(now=lambda tz=None: datetime.now(tz) + timedelta(days=8))
    monkeypatch.setattr(
        trusted_metadata_set, "datetime", SimpleNamespace(datetime=later, timezone=SimpleNamespace(utc=UTC))
    )
    with pytest.raises(TrustError, match="expired"):
        choose("acme/refusal", offline=True)


def test_the_highest_release_is_chosen_and_revoked_ones_are_not(site, made):
    for version in ("1.1.0", "2.0.0-rc.1"):
        release(site, made, version)
    customer(site)
    assert choose("acme/refusal").offer.version == "1.1.0"
    assert choose("acme/refusal@>=2.0.0-rc.1").offer.version == "2.0.0-rc.1"
    assert choose("acme/refusal@<1.1").offer.version == "1.0.0"
    digest = choose("acme/refusal").offer.digest
    assert choose("acme/refusal", revoked={digest: "why"}).offer.version == "1.0.0"
    with pytest.raises(TrustError, match="revoked"):
        choose("acme/refusal@1.1.0", revoked=[digest])
    for wrong in ("acme/refusal@3", "acme/other", "nobody/x"):
        with pytest.raises(UsageError):
            choose(wrong)
    assert [c.offer.version for c in search("REFUSAL")[0]] == ["2.0.0-rc.1", "1.1.0", "1.0.0"]
    assert [c.offer.version for c in search("x_acme-2026-0001")[0]] != []
    assert search("nothing like it")[0] == []


def test_upgrades_come_from_the_registry_within_pins_and_not_back_to_what_was_rolled_back(site, made, store, verify):
    customer(site)
    first = take(store, choose("acme/refusal"), verify)
    assert newer(load(store).state) == ([], [])
    activate(store, first.digest, skip_gate=True)
    assert newer(load(store).state) == ([], [])
    for version in ("1.1.0", "2.0.0"):
        release(site, made, version)
    pin(store, "acme/refusal", ">=1,<2")
    ((choice,), _) = newer(load(store).state)
    assert choice.offer.version == "1.1.0"
    assert newer(load(store).state, ["acme/other"]) == ([], [])
    take(store, choice, verify)
    assert newer(load(store).state) == ([], [])
    (step,) = upgrade(store, skip_gate=True)
    assert (step.new.version, step.done) == ("1.1.0", True)
    rollback(store)
    assert newer(load(store).state) == ([], [])
    pin(store, "acme/refusal", None)
    ((choice,), _) = newer(load(store).state)
    revoke(store, choice.offer.digest, "x_ACME-2026-0002")
    assert newer(load(store).state) == ([], [])


def test_two_registries_with_one_name_are_told_apart(site, made, tmp_path, store, verify):
    other = found(tmp_path / "other")
    release(other, made, "3.0.0")
    customer(site)
    customer(other, "other")
    with pytest.raises(UsageError, match="several registries: acme, other"):
        choose("acme/refusal")
    assert choose("acme/refusal", registry="other").offer.version == "3.0.0"
    assert install_from(store, "acme/refusal", verify, registry="acme").version == "1.0.0"
    activate(store, load(store).state.installed[0].digest, skip_gate=True)
    assert newer(load(store).state) == ([], [])
    assert [c.offer.version for c in newer(load(store).state, registry="other")[0]] == ["3.0.0"]


def test_a_name_means_a_path_first_and_a_range_means_a_registry(site, made, tmp_path, store, verify, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no patch at acme/refusal"):
        install_from(store, "acme/refusal", verify)
    with pytest.raises(UsageError, match="no registry is configured"):
        install_from(store, "acme/refusal@1", verify)
    customer(site)
    assert install_from(store, "acme/refusal", verify).source.startswith("registry acme")
    archive(made, version="5.0.0").rename(tmp_path / "refusal.lpatch")
    (tmp_path / "patches/acme").mkdir(parents=True)
    (tmp_path / "refusal.lpatch").rename(tmp_path / "patches/acme/refusal.lpatch")
    assert install_from(store, "acme/refusal", verify).version == "5.0.0"
    assert install_from(store, "acme/refusal@<9", verify).version == "1.0.0"
    assert install_from(store, "acme/refusal", verify, registry="acme").version == "1.0.0"
    with pytest.raises(UsageError, match="not a name in a registry"):
        install_from(store, "patches/acme/refusal.lpatch", verify, registry="acme")
    with pytest.raises(UsageError, match="needs the network"):
        install_from(store, "hf://acme/refusal", verify, offline=True)


def test_a_mirror_is_carried_into_a_closed_network(site, made, tmp_path, store, verify):
    release(site, made, "1.1.0")
    data = render_advisory(make_advisory(record()))
    publish_target(site, "advisories/acme/x_ACME-2026-0001.json", data, keys=private("vendor", "online"))
    usb = tmp_path / "usb"
    with serve(site) as (url, _):
        outside = customer(url, "outside", site / "metadata/1.root.json")
        assert mirror(outside, usb).vendors == {"acme"}
        stamp = (usb / "metadata/timestamp.json").read_bytes()
        release(site, made, "1.2.0")
        mirror(outside, usb)
        assert (usb / "metadata/timestamp.json").read_bytes() != stamp
    remove_registry("outside")
    inside = customer(usb, "inside", site / "metadata/1.root.json")
    assert versions(inside) == ["1.0.0", "1.1.0", "1.2.0"]
    assert take(store, choose("acme/refusal", offline=True), verify).version == "1.2.0"
    name = "acme/x_ACME-2026-0001.json"
    fetched = fetch_advisories(tmp_path / "known")
    assert (fetched.files, fetched.left_out, fetched.strange) == ((tmp_path / "known" / name,), (), ())
    assert fetched.files[0].read_bytes() == data
    asked = ask_advisories(offline=True)
    assert [(told.name, told.data, told.keys) for told in asked.told] == [
        (name, data, frozenset({public("vendor").id}))
    ]
    assert asked.left_out == ()
    (tmp_path / "known/acme/x_ACME-2025-0009.json").write_bytes(b"{}")
    (strange,) = fetch_advisories(tmp_path / "known").strange
    assert ("x_ACME-2025-0009" in strange, "no registry" in strange) == (True, True)
    with pytest.raises(UsageError, match="is a registry, not a copy"):
        mirror(inside, site)


def test_a_mirror_that_is_interrupted_shows_what_it_did_before(site, made, tmp_path, monkeypatch):
    from llmpatch.registry import mirroring

    outside, usb = customer(site, "outside"), tmp_path / "usb"
    mirror(outside, usb)
    release(site, made, "1.1.0")
    kept, left = mirroring.write_bytes, [2]

    def write(path, data):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        kept(path, data)

    monkeypatch.setattr(mirroring, "write_bytes", write)
    with pytest.raises(KeyboardInterrupt):
        mirror(outside, usb)
    inside = customer(usb, "inside", site / "metadata/1.root.json")
    assert versions(inside) == ["1.0.0"]
    monkeypatch.setattr(mirroring, "write_bytes", kept)
    mirror(outside, usb)
    assert versions(inside) == ["1.0.0", "1.1.0"]


def test_what_another_process_fetches_while_a_mirror_copies_is_copied_too(site, made, tmp_path, monkeypatch):
    from llmpatch.registry import mirroring

    outside, usb, read, came = customer(site, "outside"), tmp_path / "usb", mirroring.read_target, []

    def slow(found, path):
        if not came:  # once: a release, and a look at it, between two files
            came.append(path)
            release(site, made, "1.1.0")
            look(outside)
        return read(found, path)

    monkeypatch.setattr(mirroring, "read_target", slow)
    mirror(outside, usb)
    inside = customer(usb, "inside", site / "metadata/1.root.json")
    assert versions(inside) == ["1.0.0", "1.1.0"]
    assert len(list((usb / "targets/patches/acme").iterdir())) == 2


def test_a_timestamp_that_came_without_its_snapshot_is_not_copied(site, made, tmp_path, monkeypatch):
    from llmpatch.registry import mirroring

    outside, usb, read, came = customer(site, "outside"), tmp_path / "usb", mirroring.read_target, []

    def slow(found, path):
        if not came:  # another process gets the new timestamp, and then the network breaks
            came.append(path)
            release(site, made, "1.1.0")
            (outside.metadata / "timestamp.json").write_bytes((site / "metadata/timestamp.json").read_bytes())
        return read(found, path)

    monkeypatch.setattr(mirroring, "read_target", slow)
    mirror(outside, usb)
    inside = customer(usb, "inside", site / "metadata/1.root.json")
    assert versions(inside) == ["1.0.0", "1.1.0"]


def test_a_patch_is_saved_for_a_test_before_it_is_installed(site, tmp_path):
    customer(site)
    choice = choose("acme/refusal")
    with pytest.raises(UsageError, match="does not end in"):
        save_offered(choice, tmp_path / "x.zip")
    save_offered(choice, tmp_path / "x.lpatch")
    assert (tmp_path / "x.lpatch").read_bytes() == next((site / "targets/patches/acme").iterdir()).read_bytes()


def test_the_marks_are_kept_and_a_damaged_one_is_said(site, made):
    registry = customer(site)
    look(registry)
    before = seen(registry)
    assert (before["root"], before["roles"]["acme"]) == (1, 1)
    release(site, made, "1.1.0")
    look(registry)
    assert seen(registry)["roles"]["acme"] == 2
    for damage in ("", "{}", "[1]", json.dumps({**before, "more": 1})):
        (registry.folder / "seen.json").write_text(damage)
        with pytest.raises(IntegrityError, match=r"seen\.json is damaged"):
            look(registry)


def test_a_root_that_was_seen_cannot_be_taken_back(site, tmp_path):
    from llmpatch.registry import rotate

    registry, old = customer(site), copy(site, tmp_path / "old")
    rotate(
        site,
        "online",
        add=[public("online-2")],
        remove=[public("online").id],
        keys=private("root-a", "root-b", "online-2"),
    )
    look(registry)
    for path in (registry.metadata / "root_history").iterdir():
        path.unlink()
    for path in registry.metadata.glob("*.json"):
        path.unlink()
    for path in (site / "metadata").iterdir():
        path.unlink()
    for path in (old / "metadata").iterdir():
        put_back(old, site, path.name)
    with pytest.raises(TrustError, match="root has version 1, and version 2 was seen"):
        look(registry)


def test_a_role_that_is_no_vendors_is_left_out(site):
    from registrykit import newest, write

    top = newest(site, "targets")
    top.signed.version += 1
    top.signed.delegations.roles["acme"].paths = ["patches/*/*"]
    write(site, "targets", top, "root-a", "root-b")
    restamp(site, "online")
    found = look(customer(site))
    assert found.targets == {}
    assert "left out: the role acme" in found.notes[0]


def test_an_offer_that_is_none_is_left_out_and_said(site):
    from registrykit import newest, write

    role = newest(site, "acme")
    role.signed.version += 1
    role.signed.targets[PATH.format("1.0.0")].unrecognized_fields["custom"] = {"name": "x"}
    write(site, "acme", role, "vendor")
    restamp(site, "online")
    customer(site)
    choices, notes = search()
    assert choices == []
    assert "not an offer" in notes[0]


@pytest.mark.parametrize(
    "nasty", [b"", b"{}", b"null", b"[" * 5000, b'{"signed": {}, "signatures": []}', b"\xff\xfe", b"{" * 900]
)
@pytest.mark.parametrize("role", ["timestamp", "{}.snapshot", "{}.targets", "{}.acme", "2.root"])
def test_junk_for_metadata_is_one_clear_error(site, role, nasty):
    from registrykit import newest

    name = role.format(newest(site, role.removeprefix("{}.")).signed.version) if "{}" in role else role
    registry = customer(site)
    (site / f"metadata/{name}.json").write_bytes(nasty)
    with pytest.raises((IntegrityError, TrustError)):
        look(registry, vendors=["acme"])


def test_wrong_configurations_are_refused(site, tmp_path, home):
    root = site / "metadata/1.root.json"
    for name, url, file in (
        ("Acme", str(site), root), ("..", str(site), root), ("a", str(tmp_path / "nothing"), root), ("a", "ftp://x/", root),
        ("a", "https://u:p@x/", root), ("a", "https://x/?q", root), ("a", "file://host/x", root), ("a", "https:///x", root),
        ("a", str(site), site / "metadata/timestamp.json"), ("a", str(site), tmp_path / "none.json"),
        ("a", "https://x/\n", root),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            add_registry(name, url, file)
    too_few = tmp_path / "few.json"
    mapping = json.loads(root.read_text())
    mapping["signatures"] = mapping["signatures"][:1]
    too_few.write_text(json.dumps(mapping))
    with pytest.raises(UsageError, match="enough of its own keys"):
        add_registry("a", str(site), too_few)
    assert load_registries() == []
    customer(site)
    with pytest.raises(UsageError, match="already"):
        customer(site)
    with pytest.raises(UsageError, match="no registry b; configured: acme"):
        load_registry("b")
    config = home / "registries/acme/registry.json"
    config.chmod(0o644)
    config.write_text("{}")
    with pytest.raises(IntegrityError):
        load_registry("acme")
    assert check_url("https://x/y") == "https://x/y/"


def test_a_target_that_is_not_there_any_more(site):
    registry = customer(site)
    found = look(registry)
    next((site / "targets/patches/acme").iterdir()).unlink()
    with pytest.raises(LlmpatchError, match="no such file"):
        download(found, PATH.format("1.0.0"))


def test_publishing_is_seen_at_once_by_a_client_in_between(site, made):
    """Nothing of a change shows before its timestamp: the client keeps getting one whole state."""
    registry = customer(site)
    publish(site, [archive(made, version="1.1.0")], keys=private("vendor"))
    assert versions(registry) == ["1.0.0"]
    refresh(site, keys=private("online"))
    assert versions(registry) == ["1.0.0", "1.1.0"]
