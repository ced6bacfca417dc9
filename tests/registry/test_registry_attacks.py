"""What a registry's mirror, a thief of keys, or another vendor may try, each by its name; and that each is refused.

The three that no client can see through are at the end, as they are: docs/registry.md names them.
"""

import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from securesystemslib.signer import GPGKey, SSlibKey
from tuf.api.metadata import TargetFile

from advisorykit import record
from llmpatch.advisories import by_keys, make_advisory, render_advisory
from llmpatch.errors import IntegrityError, LlmpatchError, TrustError, UsageError
from llmpatch.registry import (
    add_vendor,
    ask_advisories,
    choose,
    create,
    download,
    fetching,
    look,
    publish,
    publish_target,
    refresh,
    rotate,
    search,
    take,
)
from llmpatch.registry.choosing import newer
from llmpatch.registry.keys import our_key, tuf_key
from llmpatch.registry.web import Patience
from llmpatch.signing import trust_key
from llmpatch.store import Store, activate, install, load, signed_by
from registry.webkit import endless, serve
from registrykit import (
    PATH,
    ROOTS,
    ago,
    archive,
    copy,
    customer,
    found,
    newest,
    private,
    put_back,
    read,
    release,
    restamp,
    versions,
    write,
)  # fmt: skip
from signkit import public


@pytest.fixture
def old(site, tmp_path, made):
    """The registry as it was before 1.1.0 and a refresh; ``site`` is at 1.1.0."""
    before = copy(site, tmp_path / "old")
    release(site, made, "1.1.0")
    refresh(site, keys=private("online"))
    return before


def test_rollback_of_the_timestamp(site, old):
    registry = customer(site)
    assert versions(registry) == ["1.0.0", "1.1.0"]
    put_back(old, site, "timestamp.json")
    with pytest.raises(TrustError, match="older than what was seen"):
        look(registry)


def test_rollback_of_the_whole_registry_over_a_cache_that_was_lost(site, old, tmp_path):
    """TUF does silently without a damaged cache; the high-water mark does not."""
    registry = customer(site)
    look(registry)
    for path in registry.metadata.glob("*.json"):
        path.unlink()
    for path in (site / "metadata").iterdir():
        path.unlink()
    for path in (old / "metadata").iterdir():
        put_back(old, site, path.name)
    with pytest.raises(TrustError, match="was seen here before"):
        look(registry)
    assert versions(customer(site, "other", old / "metadata/1.root.json")) == ["1.0.0"]


def test_rollback_of_the_snapshot_by_a_stolen_online_key(site, old):
    registry = customer(site)
    look(registry)
    put_back(old, site, f"{newest(old, 'snapshot').signed.version}.snapshot.json")
    restamp(site, "online", snapshot=newest(old, "snapshot"))
    with pytest.raises(TrustError, match="older than what was seen"):
        look(registry)


def test_rollback_of_a_vendors_targets_by_a_stolen_online_key(site, old):
    registry = customer(site)
    look(registry)
    (site / f"metadata/{newest(site, 'acme').signed.version}.acme.json").unlink()
    restamp(site, "online")
    with pytest.raises(TrustError, match=r"acme.json"):
        look(registry)


def test_a_vendor_dropped_from_the_snapshot_by_a_stolen_online_key(site, old):
    registry = customer(site)
    look(registry)
    snapshot = newest(site, "snapshot")
    snapshot.signed.version += 1
    del snapshot.signed.meta["acme.json"]
    write(site, "snapshot", snapshot, "online")
    restamp(site, "online", snapshot=snapshot)
    with pytest.raises(TrustError, match="missing info"):
        look(registry)


def test_freeze(tmp_path, made):
    site = found(tmp_path / "frozen", now=ago(days=8))
    publish(site, [archive(made)], keys=private("vendor", "online"), now=ago(days=8))
    with pytest.raises(TrustError, match="expired"):
        look(customer(site))
    refresh(site, keys=private("online"))
    assert versions(customer(site, "thawed")) == ["1.0.0"]


def test_mix_and_match_of_old_and_new_metadata(site, old):
    number = newest(site, "acme").signed.version
    put_back(old, site, f"{newest(old, 'acme').signed.version}.acme.json", f"{number}.acme.json")
    registry = customer(site)
    with pytest.raises(IntegrityError, match="damaged or not what was signed"):
        look(registry, vendors=["acme"])
    assert versions(registry) == []
    put_back(
        old,
        site,
        f"{newest(old, 'snapshot').signed.version}.snapshot.json",
        f"{newest(site, 'snapshot').signed.version}.snapshot.json",
    )
    with pytest.raises(IntegrityError, match=r"larger than allowed|not what was signed"):
        look(customer(site, "second"))


def test_endless_data_as_metadata_and_as_a_patch(site):
    sent = []

    def misbehave(handler):
        if ("timestamp" in handler.path and misbehave.metadata) or "lpatch" in handler.path:
            sent.append(endless(handler))
        else:
            return False
        return True

    misbehave.metadata = True
    with serve(site, misbehave) as (url, _):
        registry = customer(url, root=site / "metadata/1.root.json")
        with pytest.raises(IntegrityError, match="larger than allowed"):
            look(registry)
        misbehave.metadata = False
        seen = look(registry)
        with pytest.raises(IntegrityError, match="larger than allowed"):
            download(seen, PATH.format("1.0.0"))
        assert list(registry.files.iterdir()) == []
    assert len(sent) == 2
    assert max(sent) < 1 << 25


def test_a_role_that_claims_too_large_a_patch_is_refused_before_a_byte_is_fetched(site):
    role = newest(site, "acme")
    role.signed.version += 1
    role.signed.targets[PATH.format("1.0.0")].length = 1 << 30
    write(site, "acme", role, "vendor")
    restamp(site, "online")
    with serve(site) as (url, asked):
        seen = look(customer(url, root=site / "metadata/1.root.json"))
        with pytest.raises(IntegrityError, match="too many"):
            download(seen, PATH.format("1.0.0"))
        assert not any("lpatch" in path for path in asked)


def test_slow_retrieval(site, monkeypatch):
    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b"{")
            handler.wfile.flush()
            time.sleep(0.05)
        return True

    monkeypatch.setattr(fetching, "Patience", lambda: Patience(silence=5, grace=0.3, rate=4096))
    with serve(site, drip) as (url, _):
        registry = customer(url, root=site / "metadata/1.root.json")
        began = time.monotonic()
        with pytest.raises(LlmpatchError, match="too slow"):
            look(registry)
        assert time.monotonic() - began < 5

    def drip_headers(handler):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
        for number in range(200):
            handler.wfile.write(f"X-Header-{number}: 1\r\n".encode())
            handler.wfile.flush()
            time.sleep(0.05)
        return True

    def wait(handler):
        for _ in range(200):
            handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            handler.wfile.flush()
            time.sleep(0.05)
        return True

    for number, slow in enumerate((drip_headers, wait)):
        with serve(site, slow) as (url, _):
            registry, began = customer(url, f"slow{number}", root=site / "metadata/1.root.json"), time.monotonic()
            with pytest.raises(LlmpatchError, match="too slow"):
                look(registry)
            assert time.monotonic() - began < 5

    def silent(handler):
        time.sleep(1.5)
        return True

    monkeypatch.setattr(fetching, "Patience", lambda: Patience(silence=0.3))
    with serve(site, silent) as (url, _), pytest.raises(LlmpatchError, match="too slow"):
        look(customer(url, "silent", root=site / "metadata/1.root.json"))


def test_a_vendor_who_publishes_in_anothers_name(site, made):
    """In its own role, by the publisher's tool and around it; and in the other's role."""
    with pytest.raises(TrustError, match=r"does not hold"):
        publish(site, [archive(made, version="6.6.6", who="evilco")], keys=private("evilco", "online"))
    publish(site, [archive(made, "evilco/nice", who="evilco")], keys=private("evilco", "online"))
    role = newest(site, "evilco")
    role.signed.version += 1
    role.signed.targets[PATH.format("6.6.6")] = TargetFile.from_data(PATH.format("6.6.6"), b"evil", ["sha256"])
    write(site, "evilco", role, "evilco")
    restamp(site, "online")
    registry = customer(site)
    assert versions(registry) == ["1.0.0"]
    assert any("evilco may not publish" in note for note in look(registry).notes)
    forged = newest(site, "acme")
    forged.signed.version += 1
    write(site, "acme", forged, "evilco")
    restamp(site, "online")
    with pytest.raises(TrustError, match="not signed by those who should"):
        look(registry, vendors=["acme"])


def test_stolen_online_keys_cannot_add_a_target(site, made):
    registry = customer(site)
    look(registry)
    forged = newest(site, "acme")
    forged.signed.version += 1
    forged.signed.targets[PATH.format("6.6.6")] = TargetFile.from_data(PATH.format("6.6.6"), b"evil", ["sha256"])
    write(site, "acme", forged, "online")
    restamp(site, "online")
    with pytest.raises(TrustError, match="not signed by those who should"):
        look(registry, vendors=["acme"])
    top = newest(site, "targets")
    top.signed.version += 1
    write(site, "targets", top, "online")
    restamp(site, "online")
    with pytest.raises(TrustError, match="not signed by those who should"):
        look(registry)


def test_a_key_that_was_rotated_counts_no_more_and_the_new_one_does(site, made):
    registry = customer(site)
    look(registry)
    rotate(
        site, "acme", add=[public("vendor-2")], remove=[public("vendor").id], keys=private(*ROOTS, "online", "vendor-2")
    )
    assert versions(registry) == ["1.0.0"]
    with pytest.raises(TrustError, match="does not hold"):
        publish(site, [archive(made, version="1.1.0")], keys=private("vendor-2", "online"))
    with pytest.raises(TrustError, match="none of the keys"):
        publish(site, [archive(made, version="1.1.0", who="vendor-2")], keys=private("vendor", "online"))
    forged = newest(site, "acme")
    forged.signed.version += 1
    write(site, "acme", forged, "vendor")
    restamp(site, "online")
    with pytest.raises(TrustError, match="not signed by those who should"):
        look(registry, vendors=["acme"])


def test_a_skipped_root_rotation(site, tmp_path):
    """Root 2 is withheld: nobody can come from 1 to 3, and what 3's keys signed does not count."""
    for name, old_key in (("online-2", "online"), ("online-3", "online-2")):
        rotate(site, "online", add=[public(name)], remove=[public(old_key).id], keys=private(*ROOTS, name))
    held = (site / "metadata/2.root.json").read_bytes()
    (site / "metadata/2.root.json").unlink()
    registry = customer(site)
    with pytest.raises(TrustError, match="not signed by those who should"):
        look(registry)
    (site / "metadata/2.root.json").write_bytes((site / "metadata/3.root.json").read_bytes())
    with pytest.raises(TrustError, match="out of order"):
        look(registry)
    (site / "metadata/2.root.json").write_bytes(held)
    assert versions(registry) == ["1.0.0"]


def test_a_root_with_too_few_signatures(site):
    root = read(site, "1.root")
    root.signed.version = 2
    write(site, "root", root, "root-a")
    with pytest.raises(TrustError, match="1/2 keys"):
        look(customer(site))
    write(site, "root", root, *ROOTS)
    assert versions(customer(site, "second")) == ["1.0.0"]


def test_arbitrary_software_from_an_attackers_own_registry(site, tmp_path, made):
    registry = customer(site)
    look(registry)
    evil = tmp_path / "evil"
    create(
        evil,
        root_keys=[public("evil-root")],
        online_key=public("evil-online"),
        keys=private("evil-root", "evil-online"),
    )
    add_vendor(evil, "acme", [public("evil")], keys=private("evil-root"))
    publish(evil, [archive(made, version="9.9.9", who="evil")], keys=private("evil", "evil-online"))
    for path in (site / "metadata").iterdir():
        path.unlink()
    for path in (evil / "metadata").iterdir():
        put_back(evil, site, path.name)
    with pytest.raises(TrustError):
        look(registry)
    with pytest.raises(TrustError):
        look(customer(site, "fresh", registry.folder / "root.json"))


def test_a_file_that_no_role_lists(site, made):
    stray = archive(made, version="6.6.6").read_bytes()
    (site / "targets/patches/acme/refusal-6.6.6.lpatch").write_bytes(stray)
    registry = customer(site)
    assert versions(registry) == ["1.0.0"]
    with pytest.raises(UsageError, match="has no"):
        download(look(registry), PATH.format("6.6.6"))
    with pytest.raises(UsageError, match="no version"):
        choose("acme/refusal@6.6.6")


@pytest.mark.parametrize("change", ["flipped", "truncated", "longer", "empty", "swapped"])
def test_a_patch_of_wrong_hash_or_length(site, change, made):
    (file,) = (site / "targets/patches/acme").iterdir()
    data = file.read_bytes()
    changed = {
        "flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "truncated": data[:-1], "longer": data + b"\0",
        "empty": b"", "swapped": archive(made, "acme/other").read_bytes(),
    }  # fmt: skip
    file.write_bytes(changed[change])
    registry = customer(site)
    with pytest.raises(IntegrityError):
        download(look(registry), PATH.format("1.0.0"))
    assert list(registry.files.iterdir()) == []
    file.write_bytes(data)
    kept = download(look(registry), PATH.format("1.0.0"))
    kept.chmod(0o644)
    kept.write_bytes(changed[change])
    assert download(look(registry), PATH.format("1.0.0")).read_bytes() == data


def test_fast_forward_is_recovered_from_by_new_online_keys(site):
    registry = customer(site)
    good = copy(site, site.parent / "good")
    restamp(site, "online", jump=1_000_000_000)
    look(registry)
    put_back(good, site, "timestamp.json")
    with pytest.raises(TrustError, match="older than what was seen"):
        look(registry)
    for path in (site / "metadata").iterdir():
        path.unlink()
    for path in (good / "metadata").iterdir():
        put_back(good, site, path.name)
    rotate(site, "online", add=[public("online-2")], remove=[public("online").id], keys=private(*ROOTS, "online-2"))
    assert versions(registry) == ["1.0.0"]
    assert read(site, "timestamp").signed.version < 100


def test_an_older_patch_under_a_newer_version_is_no_upgrade(site, made, tmp_path):
    """The vendor's role, or its thief, names 1.0.0's signed bytes as 1.1.0."""
    role = newest(site, "acme")
    role.signed.version += 1
    info = role.signed.targets[PATH.format("1.0.0")]
    custom = {**info.custom, "version": "1.1.0"}
    lie = TargetFile(info.length, info.hashes, PATH.format("1.1.0"), {"custom": custom})
    role.signed.targets[lie.path] = lie
    (file,) = (site / "targets/patches/acme").iterdir()
    (site / f"targets/patches/acme/{info.hashes['sha256']}.refusal-1.1.0.lpatch").write_bytes(file.read_bytes())
    write(site, "acme", role, "vendor")
    restamp(site, "online")
    customer(site)
    choice = choose("acme/refusal")
    assert choice.offer.version == "1.1.0"
    store = Store(tmp_path / "store")
    with pytest.raises(IntegrityError, match=r"what came is acme/refusal 1\.0\.0"):
        take(store, choice, signed_by(trust_key(public("vendor"))))
    assert load(store).state.installed == ()


def test_a_registry_cannot_vouch_for_a_key_that_the_customer_does_not_trust(site, made, tmp_path):
    publish(site, [archive(made, "evilco/nice", who="evilco")], keys=private("evilco", "online"))
    customer(site)
    store = Store(tmp_path / "store")
    with pytest.raises(TrustError, match="does not hold"):
        take(store, choose("evilco/nice"), signed_by(trust_key(public("vendor"))))
    assert load(store).state.installed == ()


def test_a_registry_that_speaks_for_anothers_vendor_to_take_its_patches_out_of_use(site, made, tmp_path):
    """It names acme's key beside its own, and signs with its own: the advisory is not acme's word."""
    evil = found(tmp_path / "evil", vendors=())
    add_vendor(evil, "acme", [public("evilco"), public("vendor")], keys=private("root-a", "root-b", "online"))
    name = "x_ACME-2026-0001.json"
    data = render_advisory(make_advisory(record()))
    publish_target(evil, f"advisories/acme/{name}", data, keys=private("evilco", "online"))
    publish_target(site, f"advisories/acme/{name}", data, keys=private("vendor", "online"))
    customer(evil, "evil")
    customer(site)
    for registry, signer in (("evil", "evilco"), ("acme", "vendor")):
        (told,) = ask_advisories(registry=registry).told
        assert (told.name, told.keys) == (f"acme/{name}", frozenset({public(signer).id}))


@pytest.mark.parametrize("text", [False, True])
def test_a_key_that_only_holds_anothers_is_not_anothers(text):
    """TUF verifies with one part of such a key, and a reader of PEM finds what stands in another."""
    held = {"q": "00" * 32, "note": public("vendor").pem}
    odd = GPGKey("a" * 40, "eddsa", "pgp+eddsa-ed25519", {"public": held}) if not text else SSlibKey(
        "a" * 40, "ed25519", "ed25519", {"public": public("vendor").pem}
    )  # fmt: skip
    with pytest.raises(IntegrityError, match="is no ECDSA key in PEM"):
        our_key(odd)
    assert our_key(tuf_key(public("vendor"))) == public("vendor")


def test_a_key_that_the_policy_revokes_takes_nothing_out():
    lost, new = public("vendor").id, public("evilco").id
    advisory = make_advisory(record())
    keys = {advisory: frozenset({lost})}
    vendor = SimpleNamespace(by_id={lost: None, new: None})
    for revoked, counts in (((), True), ((lost,), False)):
        trust = SimpleNamespace(revoked=revoked, vendor_of=lambda name: vendor)
        for signer in (lost, new):
            held = SimpleNamespace(entry=SimpleNamespace(name="acme/refusal", signer=signer))
            assert by_keys(keys, trust)(advisory, held, "acme/refusal") is counts


def test_another_registry_with_the_name_keeps_no_newer_version_away(site, made, tmp_path):
    """Whoever offers any patch by the name, whatever signed, could otherwise freeze what is active."""
    customer(site)
    store = Store(tmp_path / "store")
    verify = signed_by(trust_key(public("vendor")))
    activate(store, take(store, choose("acme/refusal"), verify).digest, skip_gate=True)
    evil = found(tmp_path / "evil", vendors=())
    add_vendor(evil, "acme", [public("evilco")], keys=private("root-a", "root-b", "online"))
    publish(evil, [archive(made, version="9.0.0", who="evilco")], keys=private("evilco", "online"))
    customer(evil, "evil")
    publish(site, [archive(made, version="1.5.0")], keys=private("vendor", "online"))
    (choice,), notes = newer(load(store).state)
    assert (choice.offer.version, choice.found.registry.name, notes) == ("1.5.0", "acme", [])
    other = Store(tmp_path / "other")
    activate(other, install(other, archive(made), verify).digest, skip_gate=True)
    choices, notes = newer(load(other).state)
    assert choices == []
    assert "acme/refusal is offered by several registries (acme, evil)" in notes[0]


def test_one_vendors_damage_hides_no_other_vendor(site, made):
    publish(site, [archive(made, "evilco/nice", who="evilco")], keys=private("evilco", "online"))
    forged = newest(site, "evilco")
    (site / f"metadata/{forged.signed.version}.evilco.json").write_text("{}")
    customer(site)
    choices, notes = search()
    assert [choice.offer.name for choice in choices] == ["acme/refusal"]
    assert "evilco" in notes[0]


# What no client can see through by itself.


def test_inherent_a_new_customer_is_shown_an_old_state_that_has_not_expired(site, old):
    assert versions(customer(old)) == ["1.0.0"]


def test_inherent_an_old_customer_is_kept_at_what_it_saw_until_that_expires(site, old):
    registry = customer(old)
    assert versions(registry) == versions(registry) == ["1.0.0"]


def test_inherent_a_clock_that_was_set_back_makes_an_expired_state_good(tmp_path, made, monkeypatch):
    import datetime as real

    from tuf.ngclient._internal import trusted_metadata_set

    site = found(tmp_path / "frozen", now=ago(days=30))
    publish(site, [archive(made)], keys=private("vendor", "online"), now=ago(days=30))
    registry = customer(site)
    with pytest.raises(TrustError, match="expired"):
        look(registry)

    class Clock(real.datetime):
        @classmethod
        def now(cls, tz=None):
            return real.datetime.now(tz) - timedelta(days=29)

    monkeypatch.setattr(trusted_metadata_set, "datetime", SimpleNamespace(datetime=Clock, timezone=real.timezone))
    assert versions(registry) == ["1.0.0"]
