"""Write a registry: who may, what waits, what is visible when, and what an interruption leaves."""

import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from tuf.api.metadata import Metadata, Root, TargetFile

from advisorykit import record
from llmpatch.errors import IntegrityError, TrustError, UsageError
from llmpatch.registry import (
    add_vendor,
    cosign,
    create,
    drafted,
    look,
    offers,
    publish,
    publish_target,
    read_target,
    refresh,
    rotate,
    settling,
    withdraw,
)  # fmt: skip
from patchkit import contents
from registrykit import ROOTS, ago, archive, customer, found, newest, private, read, release, versions, write
from signkit import packed, public

ADVISORY = "advisories/acme/x_ACME-2026-0001.json"


def test_what_is_published_is_visible_once_the_online_key_has_signed(site, made):
    registry = customer(site)
    done = publish(site, [archive(made, version="1.1.0")], keys=private("vendor"))
    assert (done.written, done.visible) == (("acme 2",), False)
    assert versions(registry) == ["1.0.0"]
    done = refresh(site, keys=private("online"))
    assert done.visible
    assert versions(registry) == ["1.0.0", "1.1.0"]


def test_what_is_offered_says_what_the_patch_says(site):
    (offer,), notes = offers(look(customer(site)))
    assert notes == []
    assert (offer.name, offer.version, offer.base, offer.fixes) == (
        "acme/refusal", "1.0.0", "tiny-llama", ("x_ACME-2026-0001",),
    )  # fmt: skip
    assert len(offer.digest) == 64


def test_a_version_is_published_once(site, made):
    with pytest.raises(UsageError, match="was published with other content"):
        publish(site, [archive(made, fixed=(1, 2))], keys=private("vendor", "online"))
    number = newest(site, "acme").signed.version
    done = publish(site, [archive(made)], keys=private("vendor", "online"))
    assert (done.written, done.visible, newest(site, "acme").signed.version) == ((), True, number)


def test_only_whole_signed_patches_of_a_vendor_are_published(site, made):
    unsigned = made / "unsigned.lpatch"
    unsigned.write_bytes(packed(contents(name="acme/refusal", version="3.0.0")))
    with pytest.raises(TrustError, match="is not signed"):
        publish(site, [unsigned], keys=private("vendor"))
    damaged = archive(made, version="3.0.0")
    damaged.write_bytes(damaged.read_bytes()[:-5])
    with pytest.raises(IntegrityError):
        publish(site, [damaged], keys=private("vendor"))
    with pytest.raises(UsageError, match="is no vendor"):
        publish(site, [archive(made, "nobody/x")], keys=private("vendor"))
    with pytest.raises(UsageError, match="one vendor at a time"):
        publish(site, [archive(made, version="3.0.0"), archive(made, "evilco/x", who="evilco")], keys=private("vendor"))
    with pytest.raises(UsageError, match="is not a registry"):
        publish(made, [archive(made)], keys=private("vendor"))
    assert versions(customer(site)) == ["1.0.0"]


def test_an_advisory_is_a_target_and_a_newer_one_takes_its_place(site):
    registry = customer(site)
    for text in (b'{"a": 1}', b'{"a": 2}'):
        publish_target(site, ADVISORY, text, keys=private("vendor", "online"))
        assert read_target(look(registry), ADVISORY) == text
    for path, data in (("patches/acme/x-1.0.0.lpatch", b""), ("advisories/acme/../x", b""), (ADVISORY, bytes(2 << 20))):
        with pytest.raises(UsageError):
            publish_target(site, path, data, keys=private("vendor", "online"))
    with pytest.raises(TrustError, match="none of the keys"):
        publish_target(site, ADVISORY, b"{}", keys=private("evilco", "online"))


def test_a_withdrawn_patch_is_offered_no_longer(site):
    registry = customer(site)
    with pytest.raises(UsageError, match="is not published"):
        withdraw(site, "acme/refusal@9.0.0", keys=private("vendor"))
    withdraw(site, "acme/refusal@1.0.0", keys=private("vendor", "online"))
    assert versions(registry) == []


def test_a_withdrawn_version_comes_back_only_as_it_was(site, made):
    withdraw(site, "acme/refusal@1.0.0", keys=private("vendor", "online"))
    publish(site, [archive(made, version="2.0.0")], keys=private("vendor", "online"))
    with pytest.raises(UsageError, match="was published with other content, and withdrawn"):
        publish(site, [archive(made, fixed=(1, 2))], keys=private("vendor", "online"))
    publish(site, [archive(made)], keys=private("vendor", "online"))
    assert versions(customer(site)) == ["1.0.0", "2.0.0"]


def test_a_registry_of_two_root_keys_is_made_on_two_machines(tmp_path):
    site = tmp_path / "site"
    roots = [public(name) for name in ROOTS]
    made = create(site, root_keys=roots, online_key=public("online"), threshold=2, keys=private("root-a"))
    assert (made.written, made.visible, len(made.waiting)) == ((), False, 2)
    with pytest.raises(UsageError, match="its root lacks signatures"):
        refresh(site, keys=private("online"))
    with pytest.raises(TrustError, match="none of the keys may sign"):
        cosign(site, keys=private("stranger"))
    one = public(ROOTS[0]).id[:16]
    assert {"root 1: threshold of root 2", f"root 1: root gets key {one}"} < set(drafted(site).changes)
    made = cosign(site, keys=private("root-b"))
    assert made.waiting == ("a new root is put into place only together with a signature by its online key",)
    made = cosign(site, keys=private("online", "root-b"))
    assert made.visible
    assert not list((site / "drafts").iterdir())
    with pytest.raises(UsageError, match="nothing waits"):
        cosign(site, keys=private("root-b"))
    made = add_vendor(site, "acme", [public("vendor")], keys=private("root-b"))
    assert made.waiting == ("targets 2 needs more signatures",)
    told = drafted(site).changes
    assert told[:-2] == (
        "targets 2: threshold of acme 1",
        f"targets 2: acme gets key {public('vendor').id[:16]}",
        "targets 2: acme may publish advisories/acme/*",
        "targets 2: acme may publish patches/acme/*",
        f"targets 2: then 1 of {public('vendor').id} signs for acme",
    )
    assert "expires" in told[-2]
    with pytest.raises(UsageError, match="a draft of targets waits"):
        add_vendor(site, "other", [public("other")], keys=private("root-b"))
    assert cosign(site, keys=private("root-a")).written == ("targets 2",)
    with pytest.raises(UsageError, match="is a vendor already"):
        add_vendor(site, "acme", [public("vendor")], keys=private(*ROOTS))


def test_wrong_foundations_are_refused(tmp_path, site):
    two = [public(name) for name in ROOTS]
    for wrong in (
        {"root_keys": two, "threshold": 3}, {"root_keys": [two[0]] * 2, "threshold": 2}, {"root_keys": []},
        {"root_keys": two, "online_key": two[0]},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            create(tmp_path / "new", **{"online_key": public("online"), "keys": private(*ROOTS, "online")} | wrong)
        assert not (tmp_path / "new/metadata").exists()
    with pytest.raises(UsageError, match="is a registry already"):
        create(site, root_keys=two, online_key=public("online"), keys=private(*ROOTS, "online"))
    for name in ("root", "online", "targets", "timestamp", "Acme", "a/b", "..", ""):
        with pytest.raises(UsageError, match="cannot be a vendor's name"):
            add_vendor(site, name, [public("vendor")], keys=private(*ROOTS))


def test_rotations_that_would_lock_everybody_out_are_refused(site):
    keys = private(*ROOTS, "online")
    for role, wrong in (
        ("online", {"remove": [public("online").id]}), ("root", {"remove": [public("root-a").id]}),
        ("root", {"threshold": 5}), ("acme", {"remove": [public("vendor").id]}), ("acme", {"threshold": 2}),
        ("acme", {"remove": [public("evilco").id]}), ("nobody", {"add": [public("x")]}), ("root", {}),
        ("online", {"add": [public("root-a")]}),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            rotate(site, role, keys=keys, **wrong)
    with pytest.raises(TrustError):
        rotate(site, "acme", add=[public("x")], keys=private("vendor", "online"))
    assert versions(customer(site)) == ["1.0.0"]


def test_every_root_key_is_replaced_and_the_first_customer_follows(site, made):
    registry = customer(site)
    look(registry)
    rotate(site, "root", add=[public("root-c")], remove=[public("root-a").id], keys=private(*ROOTS, "root-c", "online"))
    late = customer(site, "late")
    rotate(site, "root", add=[public("root-d")], remove=[public("root-b").id],
           keys=private("root-b", "root-c", "root-d", "online"))  # fmt: skip
    with pytest.raises(TrustError):
        add_vendor(site, "more", [public("more")], keys=private(*ROOTS))
    add_vendor(site, "more", [public("more")], keys=private("root-c", "root-d", "online"))
    release(site, made, "1.1.0")
    for known in (registry, late, customer(site, "new", site / "metadata/3.root.json")):
        assert versions(known) == ["1.0.0", "1.1.0"]


def test_a_vendor_signs_anew_after_its_key_was_replaced_without_it(site, made):
    registry = customer(site)
    done = rotate(site, "acme", add=[public("new")], remove=[public("vendor").id], keys=private(*ROOTS, "online"))
    assert "clients refuse acme" in done.notes[0]
    assert versions(registry) == []
    assert publish(site, [], keys=private("new", "online")).visible
    assert versions(registry) == ["1.0.0"]


def test_a_vendor_whose_key_is_replaced_before_anything_was_visible(tmp_path, made):
    site = found(tmp_path / "site")
    assert not publish(site, [archive(made)], keys=private("vendor")).visible
    done = rotate(site, "acme", add=[public("new")], remove=[public("vendor").id], keys=private(*ROOTS, "online"))
    assert "what acme published was never visible" in done.notes[0]
    registry = customer(site)
    assert versions(registry) == []
    assert publish(site, [archive(made, who="new")], keys=private("new", "online")).visible
    assert versions(registry) == ["1.0.0"]


def test_roles_are_signed_anew_before_their_year_is_over(tmp_path, made):
    site = found(tmp_path / "site", now=ago(days=200))
    publish(site, [archive(made)], keys=private("vendor", "online"), now=ago(days=200))
    done = refresh(site, keys=private("online"))
    assert (done.written, done.visible) == ((), True)
    done = refresh(site, keys=private(*ROOTS, "vendor", "online"), life=timedelta(days=90))
    assert sorted(done.written) == ["acme 2", "root 2", "targets 3"]
    assert (read(site, "timestamp").signed.expires - ago(days=0)).days == 89
    assert versions(customer(site)) == ["1.0.0"]
    with pytest.raises(TrustError, match="none of the keys is the online key"):
        refresh(site, keys=private("vendor"))


@pytest.mark.parametrize("change", ["publish", "rotate-online", "rotate-root", "rotate-vendor"])
def test_an_interruption_at_any_write_leaves_a_registry_that_goes_on(site, made, monkeypatch, change):
    """After each number of writes: a customer sees old or new or a refusal, never half; the next refresh mends it."""
    import shutil

    from llmpatch.registry import publishing, repository

    everything = private(*ROOTS, "online", "online-2", "root-c", "vendor", "vendor-2")
    changes = {
        "publish": lambda: publish(site, [archive(made, version="1.1.0")], keys=private("vendor", "online")),
        "rotate-online": lambda: rotate(
            site, "online", add=[public("online-2")], remove=[public("online").id], keys=everything
        ),
        "rotate-root": lambda: rotate(
            site, "root", add=[public("root-c")], remove=[public("root-a").id], keys=everything
        ),
        "rotate-vendor": lambda: rotate(
            site, "acme", add=[public("vendor-2")], remove=[public("vendor").id], keys=everything
        ),
    }
    before, kept = site.parent / "before", repository.write_bytes
    shutil.copytree(site, before)

    class PowerCut(BaseException):
        pass

    for allowed in range(20):
        shutil.rmtree(site)
        shutil.copytree(before, site)
        left = [allowed]

        def write(path, data, left=left):
            if not left[0]:
                raise PowerCut
            left[0] -= 1
            kept(path, data)

        for module in (repository, publishing, settling):
            monkeypatch.setattr(module, "write_bytes", write)
        try:
            changes[change]()
            finished = True
        except PowerCut:
            finished = False
        for module in (repository, publishing, settling):
            monkeypatch.setattr(module, "write_bytes", kept)
        registry = customer(site, f"after-{allowed}")
        try:
            assert versions(registry) in (["1.0.0"], ["1.0.0", "1.1.0"])
        except TrustError:
            assert change in ("rotate-online", "rotate-root")
            assert not finished
        assert refresh(site, keys=everything).visible
        publish(site, [archive(made, version="1.2.0", who="vendor")], keys=everything) if change == "publish" else None
        assert "1.0.0" in versions(registry) or change == "rotate-vendor"
        if finished:
            break
    assert finished
    assert allowed >= 3


def test_metadata_that_is_damaged_in_the_folder_is_named(site):
    (site / "metadata/timestamp.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"timestamp\.json"):
        refresh(site, keys=private("online"))


def test_a_strangers_role_in_the_folder_is_passed_by(site, made):
    forged = newest(site, "acme")
    forged.signed.version += 5
    from registrykit import write

    write(site, "acme", forged, "stranger")
    release(site, made, "1.1.0")
    assert versions(customer(site)) == ["1.0.0", "1.1.0"]
    assert json.loads((site / "metadata/2.acme.json").read_text())["signed"]["version"] == 2


def test_a_file_that_went_missing_stops_a_refresh_before_anything_is_written(site):
    stamp = (site / "metadata/timestamp.json").read_bytes()
    next((site / "targets/patches/acme").iterdir()).unlink()
    with pytest.raises(UsageError, match="is missing"):
        refresh(site, keys=private("online"))
    assert (site / "metadata/timestamp.json").read_bytes() == stamp


def test_who_signs_can_see_that_a_draft_was_changed_on_its_way(tmp_path):
    """A rotation of the online key, which whoever sent it made into one of all keys."""
    site = tmp_path / "site"
    roots = [public(name) for name in ROOTS]
    create(site, root_keys=roots, online_key=public("online"), threshold=2, keys=private("root-a", "root-b", "online"))
    rotate(site, "online", add=[public("other")], keys=private("root-a"))
    path = site / "drafts/root.json"
    draft = Metadata[Root].from_file(str(path))
    two = public("root-b").id
    draft.signed.roles["root"].threshold = 1
    draft.signed.revoke_key(two, "root")
    draft.to_file(str(path))
    said = drafted(site).changes
    assert {"root 2: threshold of root 2 -> 1", f"root 2: root loses key {two[:16]}"} < set(said)
    assert f"root 2: timestamp gets key {public('other').id[:16]}" in said


def wait_for_targets(site, change):
    """A draft of the list of vendors, with what somebody put into it."""
    top = newest(site, "targets")
    top.signed.version += 1
    change(top.signed)
    (site / "drafts").mkdir(exist_ok=True)
    top.to_file(str(site / "drafts/targets.json"))


def test_who_signs_sees_paths_targets_and_whatever_else_differs(site):
    """A renewal of the list of vendors, in which one may write where another does, and the list itself names a file."""
    info = TargetFile(3, {"sha256": "ab" * 32}, "patches/acme/refusal-9.0.0.lpatch")

    def change(top):
        role = top.delegations.roles["evilco"]
        role.paths = ["patches/evilco/*", "patches/acme/*"]
        role.terminating = False
        top.targets[info.path] = info
        top.unrecognized_fields["colour"] = "red"

    wait_for_targets(site, lambda top: None)
    assert drafted(site).changes[0] == "targets 4: signs the same again"
    wait_for_targets(site, change)
    whole = public("evilco").id
    said = drafted(site).changes
    assert f"targets 4: then 1 of {whole} signs for evilco" in said
    before = hashlib.sha256(newest(site, "targets").signed_bytes).hexdigest()
    assert said[-1] == f"targets 4: compared with version 3, sha256 {before}"
    assert [line for line in said[:-2] if " then " not in line] == [
        "targets 4: evilco may publish patches/acme/*",
        "targets 4: evilco may no longer publish advisories/evilco/*",
        "targets 4: evilco: terminating true -> false",
        f'targets 4: adds target {info.path}: {{"hashes": {{"sha256": "{"ab" * 32}"}}, "length": 3}}',
        'targets 4: colour "red"',
    ]


def test_what_is_signed_is_what_was_shown(site):
    """The draft is changed between the look and the signature."""
    wait_for_targets(site, lambda top: None)
    seen = drafted(site).digest
    wait_for_targets(site, lambda top: top.delegations.roles["evilco"].paths.append("patches/acme/*"))
    before = (site / "drafts/targets.json").read_bytes()
    assert drafted(site).digest != seen
    with pytest.raises(IntegrityError, match="is not what was shown"):
        cosign(site, keys=private("root-a"), seen=seen)
    assert (site / "drafts/targets.json").read_bytes() == before
    wait_for_targets(site, lambda top: None)
    assert cosign(site, keys=private("root-a"), seen=seen).waiting
    assert drafted(site).digest == seen  # a signature more is no other draft
    assert cosign(site, keys=private("root-b"), seen=seen).written == ("targets 4",)


def test_another_beginning_is_another_draft(site):
    """Whoever can write there may put other published roles beside a draft that then seems to change nothing."""
    wait_for_targets(site, lambda top: top.unrecognized_fields.update(colour="red"))
    seen = drafted(site)
    assert seen.changes[0] == 'targets 4: colour "red"'
    top = newest(site, "targets")
    top.signed.unrecognized_fields["colour"] = "red"
    write(site, "targets", top, "root-a", "root-b")
    now = drafted(site)
    assert now.changes[0] == "targets 4: signs the same again"
    assert now.digest != seen.digest
    with pytest.raises(IntegrityError, match="is not what was shown"):
        cosign(site, keys=private("root-a"), seen=seen.digest)


def test_a_draft_with_another_key_under_a_known_name_is_refused(site):
    """What is shown of it would be that nothing changes."""
    top = newest(site, "targets")
    top.signed.version += 1
    top.signed.delegations.keys[public("vendor").id].keyval["public"] = public("evilco").pem
    (site / "drafts").mkdir(exist_ok=True)
    top.to_file(str(site / "drafts/targets.json"))
    for do in (lambda: drafted(site), lambda: cosign(site, keys=private("root-a"))):
        with pytest.raises(IntegrityError, match="is another one than its name says"):
            do()


def test_a_registry_that_has_begun_is_not_begun_anew(site, tmp_path):
    other = tmp_path / "other"
    create(other, root_keys=[public("root-a")], online_key=public("online"), threshold=1, keys=private("root-a"))
    (site / "drafts").mkdir(exist_ok=True)
    shutil.copy(next((other / "drafts").glob("root.json")), site / "drafts/root.json")
    with pytest.raises(UsageError, match="would begin this registry anew"):
        cosign(site, keys=private("root-a", "online"))


def test_what_holds_until_a_time_holds_until_its_first_part_ends(site):
    soon = datetime.now(UTC) + timedelta(days=360)
    made = refresh(site, keys=private("online"), now=soon, life=timedelta(days=90))
    root = Metadata[Root].from_file(str(max(site.glob("metadata/*.root.json"))))
    assert made.expires <= root.signed.expires < soon + timedelta(days=90)


def test_a_vendor_whose_role_ends_first_is_named_and_the_customer_told_that_date(site):
    role, soon = newest(site, "acme"), datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    role.signed.version += 1
    role.signed.expires = soon
    write(site, "acme", role, "vendor")
    made = refresh(site, keys=private("online"))
    assert made.notes == (f"what acme says holds until {soon:%Y-%m-%d} only: its vendor must sign it anew",)
    assert look(customer(site)).expires == soon < made.expires


def test_what_no_client_would_take_is_not_made_visible(site):
    top = newest(site, "targets").signed.expires
    with pytest.raises(TrustError, match=f"was over on {top:%Y-%m-%d}: clients refuse"):
        refresh(site, keys=private("online"), now=top + timedelta(days=1))


def test_an_advisory_that_clients_would_not_read_is_not_published(site, tmp_path, monkeypatch):
    monkeypatch.setattr("llmpatch.advisories.MAX_ADVISORY_BYTES", 300)
    path = tmp_path / f"{record()['id']}.json"
    path.write_text(json.dumps(record()))
    with pytest.raises(UsageError, match="as it is published, more than the 300 that clients read"):
        publish(site, [path], keys=private("vendor"))
