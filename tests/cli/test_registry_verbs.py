"""The verbs that write and ask a registry, with their exit codes; the whole story is tests/integration/test_registry_walk.py."""

import json
from dataclasses import replace

import pytest

from advisorykit import DEFECT, GAP, defect, record
from advisorykit import write as write_advisory
from llmpatch.registry import add_vendor, publish, publish_target
from llmpatch.signing import write_key
from registry.webkit import serve
from registrykit import archive, customer, found, newest, release, restamp, write
from signkit import key, public


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with keys, a registry with one patch, and a customer."""
    monkeypatch.setenv("LLMPATCH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LLMPATCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in ("root-a", "root-b", "online", "vendor", "new"):
        write_key(tmp_path / f"{name}.pem", key(name), b"horse" if name == "vendor" else None)
    monkeypatch.setenv("LLMPATCH_KEY_PASSWORD", "horse")
    found(tmp_path / "site")
    release(tmp_path / "site", tmp_path / "made")
    return tmp_path


ROOTS = ("--key", "root-a.pem", "--key", "root-b.pem")


def test_a_registry_is_written_from_the_command_line(cli, home):
    made = cli(
        "registry", "init", "new-site", "--root-key", "root-a.pub.pem", "--online-key", "online.pub.pem", "--json"
    )
    assert made.code == 4
    made = cli("registry", "init", "new-site", "--root-key", "root-a.pub.pem", "--online-key", "online.pub.pem",
               "--key", "root-a.pem", "--json")  # fmt: skip
    assert (made.code, json.loads(made.out)["waiting"] != []) == (0, True)
    looked = cli("registry", "sign", "new-site", "--dry-run")
    assert (looked.code, "root 1: root gets key" in looked.out) == (0, True)
    digest = json.loads(cli("registry", "sign", "new-site", "--dry-run", "--json").out)["digest"]
    assert looked.out.splitlines()[-1] == f"digest {digest}"
    assert cli("registry", "sign", "new-site", "--key", "root-a.pem", "--seen", "0" * 64).code == 6
    assert cli("registry", "sign", "new-site", "--dry-run", "--seen", "0" * 64).code == 6
    assert cli("registry", "sign", "new-site", "--dry-run", "--seen", digest).code == 0
    assert "waiting" not in cli("registry", "sign", "new-site", "--key", "root-a.pem", "--key", "online.pem").out
    made = cli("registry", "add-vendor", "new-site", "acme", "--vendor-key", "vendor.pub.pem", "--key", "root-a.pem")
    assert (made.code, "not visible yet" in made.out) == (0, True)
    path = archive(home / "made", version="2.0.0")
    assert cli("registry", "publish", "new-site", path, "--key", "online.pem").code == 4
    assert cli("registry", "publish", "new-site", path, "--key", "vendor.pem").code == 0
    assert cli("registry", "refresh", "new-site").code == 4
    made = cli("registry", "refresh", "new-site", "--key", "online.pem", "--days", 30, "--json")
    assert (made.code, json.loads(made.out)["visible"]) == (0, True)
    made = cli("registry", "rotate", "new-site", "acme", "--add", "new.pub.pem", "--remove", "vendor.pub.pem",
               "--key", "root-a.pem", "--key", "new.pem", "--key", "online.pem")  # fmt: skip
    assert (made.code, "visible, holds until" in made.out) == (0, True)
    made = cli("registry", "withdraw", "new-site", "acme/refusal@2.0.0", "--key", "new.pem", "--key", "online.pem")
    assert made.code == 0, made.err
    assert cli("registry", "withdraw", "new-site", "acme/refusal@2.0.0", "--key", "new.pem").code == 1
    assert cli("registry", "publish", "nowhere", path, "--key", "vendor.pem").code == 1


def test_a_registry_is_asked_from_the_command_line(cli, home):
    assert cli("search").code == 1
    assert cli("registry", "list").out == "no registry is configured\n"
    assert cli("registry", "add", "acme", "site", "--root", "site/metadata/timestamp.json").code == 1
    assert cli("registry", "add", "acme", "site", "--root", "site/metadata/1.root.json").code == 0
    assert json.loads(cli("registry", "list", "--json").out)[0]["name"] == "acme"
    (offer,) = json.loads(cli("search", "refusal", "--json").out)["patches"]
    assert (offer["name"], offer["version"], offer["registry"]) == ("acme/refusal", "1.0.0", "acme")
    assert "acme/refusal" in cli("search").out
    assert cli("search", "nothing like it").out == "nothing found\n"
    assert cli("registry", "fetch", "acme/refusal", "-o", "got.lpatch").code == 0
    assert cli("verify", "got.lpatch", "--key", "vendor.pub.pem").code == 0
    again = cli("registry", "fetch", "acme/refusal", "-o", "got.lpatch")
    assert (again.code, "is there already" in again.err) == (1, True)
    assert cli("registry", "fetch", "acme/refusal", "-o", "got.lpatch", "--overwrite").code == 0
    assert cli("registry", "fetch", "acme/refusal@9", "-o", "got.lpatch").code == 1
    assert cli("registry", "advisories", "-o", "known").out == "known: 0 advisories\n"
    assert cli("registry", "mirror", "acme", "usb").code == 0
    assert cli("registry", "remove", "acme").code == 0
    assert cli("registry", "remove", "acme").code == 1


def test_install_and_upgrade_from_a_registry(cli, home):
    customer(home / "site")
    trust = ("--key", "vendor.pub.pem")
    assert cli("install", "acme/refusal", "--key", "new.pub.pem", "--skip-gate").code == 4
    done = cli("install", "acme/refusal@<2", *trust, "--skip-gate", "--json")
    assert (done.code, json.loads(done.out)["installed"]["source"].startswith("registry acme")) == (0, True)
    assert json.loads(cli("upgrade", *trust, "--skip-gate", "--json").out)["steps"] == []
    release(home / "site", home / "made", "1.1.0")
    dry = json.loads(cli("upgrade", "--dry-run", "--json").out)
    assert (dry["offered"][0]["version"], dry["steps"]) == ("1.1.0", [])
    assert cli("upgrade", "--offline", "--skip-gate").out.startswith("nothing newer")
    assert cli("upgrade", "--skip-gate").code == 1
    assert cli("upgrade", "--key", "new.pub.pem", "--skip-gate").code == 4
    done = cli("upgrade", *trust, "--skip-gate")
    assert (done.code, "1.0.0 -> 1.1.0: done" in done.out) == (0, True)
    (home / "site/metadata/timestamp.json").write_text("{}")
    assert cli("install", "acme/refusal", *trust, "--skip-gate").code == 6
    refused = cli("install", "hf://acme/refusal", *trust, "--skip-gate", "--offline")
    assert (refused.code, "needs the network" in refused.err) == (1, True)


def test_what_one_vendor_offers_wrongly_keeps_no_others_version_away(cli, home, monkeypatch):
    from llmpatch import registry

    customer(home / "site")
    trust = ("--key", "vendor.pub.pem")
    assert cli("install", "acme/refusal@<2", *trust, "--skip-gate").code == 0
    release(home / "site", home / "made", "1.1.0")
    newer = registry.newer

    def with_another(*args, **options):
        """Before acme's, one whose bytes are not what was offered."""
        found, notes = newer(*args, **options)
        return [
            *(replace(one, offer=one.offer.model_copy(update={"digest": "0" * 64})) for one in found),
            *found,
        ], notes

    monkeypatch.setattr(registry, "newer", with_another)
    done = cli("upgrade", *trust, "--skip-gate")
    assert (done.code, "1.0.0 -> 1.1.0: done" in done.out) == (6, True)
    assert "acme/refusal 1.1.0 was offered, and what came is acme/refusal" in done.err


def test_an_unreachable_registry_is_one_line(cli, home):
    customer("http://127.0.0.1:9/", root=home / "site/metadata/1.root.json")
    refused = cli("search")
    assert (refused.code, refused.err.count("\n")) == (2, 2)
    assert cli("search", "--offline").code == 2


def test_an_audit_asks_the_registries(cli, home):
    refused = cli("audit")
    assert (refused.code, "no registry is configured, and no folder" in refused.err) == (1, True)
    advisory = write_advisory(home / "known", record()) / "acme" / f"{GAP}.json"
    with serve(home / "site") as (url, _):
        customer(url, root=home / "site/metadata/1.root.json")
        assert cli("install", "acme/refusal", "--allow-unsigned", "--no-activate").code == 0
        assert cli("audit", "--registry", "nowhere").code == 1
        assert cli("audit").code == 0
        assert cli("registry", "publish", "site", advisory, "--key", "vendor.pem", "--key", "online.pem").code == 0
        assert cli("audit", "--offline").code == 0  # nothing is known of it yet
        seen = cli("audit", "--format", "json")
        assert (seen.code, json.loads(seen.out)["gaps"][0]["advisory"]) == (3, GAP)
        assert f"error: {GAP} is open on tiny-llama" in seen.err
    assert cli("audit", "--offline").code == 3
    assert cli("audit", "--offline", "--exit-zero", "--registry", "acme").code == 0
    gone = cli("audit")
    assert (gone.code, gone.err.count("\n")) == (2, 2)
    for more in ("--offline", "--registry=acme"):
        mixed = cli("audit", "--advisories", "known", more)
        assert (mixed.code, "asks no registry" in mixed.err) == (1, True)


def test_a_registry_that_speaks_for_anothers_vendor_takes_nothing_out(cli, home):
    """It gives acme's name to a key of its own, and has it revoke what acme signed."""
    evil = home / "evil"
    found(evil, vendors=())
    # It may name acme's own key beside its own: anybody has the public half.
    add_vendor(evil, "acme", [public("evilco"), public("vendor")], keys=[key("root-a"), key("root-b"), key("online")])
    advisory = write_advisory(home / "known", defect(("introduced", "0"), revoke=True)) / "acme" / f"{DEFECT}.json"
    publish(evil, [advisory], keys=[key("evilco"), key("online")])
    customer(home / "site")
    trust = ("--key", "vendor.pub.pem")
    assert cli("install", "acme/refusal", *trust, "--skip-gate").code == 0
    customer(evil, "evil")
    audit = cli("audit", "--apply", "--format", "json")
    (said,) = json.loads(audit.out)["defects"]
    assert (audit.code, said["revokes"], said["revoked"], said["doubted"]) == (3, False, False, True)
    assert len(json.loads(cli("list", "--json").out)["active"]) == 1
    assert "says a key that is not known to be its vendor's" in cli("audit").out
    write_key(home / "evilco.pem", key("evilco"), None)
    policy = cli("keys", "show", "evilco.pub.pem", "--trust", "other/*").out
    (home / "home/trust.json").write_text(policy)
    assert json.loads(cli("audit", "--apply", "--format", "json").out)["defects"][0]["doubted"]
    (home / "home/trust.json").write_text(policy.replace("other/*", "acme/*"))  # now it is one's own word
    assert json.loads(cli("audit", "--apply", "--format", "json").out)["defects"][0]["revoked"]


def test_a_patch_by_a_key_that_was_revoked_since_fails_the_audit(cli, home):
    customer(home / "site")
    assert cli("install", "acme/refusal", "--key", "vendor.pub.pem", "--skip-gate").code == 0
    assert cli("audit").code == 0
    policy = json.loads(cli("keys", "show", "vendor.pub.pem", "--trust", "acme/*").out)
    (signer,) = [entry["signer"] for entry in json.loads(cli("list", "--json").out)["installed"]]
    (home / "home/trust.json").write_text(json.dumps(policy | {"revoked": [signer]}))
    found = cli("audit")
    assert (found.code, f"was signed by key {signer[:16]}, which is revoked" in found.err) == (3, True)
    assert f"problem: acme/refusal 1.0.0, active on tiny-llama, was signed by key {signer[:16]}" in found.out
    (one,) = json.loads(cli("audit", "--format", "json").out)["distrusted"]
    assert (one["name"], one["key"]) == ("acme/refusal", signer)
    (result,) = json.loads(cli("audit", "--format", "sarif").out)["runs"][0]["results"]
    assert result["ruleId"] == "llmpatch-distrusted"


def test_the_key_that_signed_a_patch_revokes_it(cli, home):
    advisory = write_advisory(home / "known", defect(("introduced", "0"), revoke=True)) / "acme" / f"{DEFECT}.json"
    customer(home / "site")
    assert cli("install", "acme/refusal", "--key", "vendor.pub.pem", "--skip-gate").code == 0
    publish(home / "site", [advisory], keys=[key("vendor"), key("online")])
    found = cli("audit", "--apply", "--format", "json")
    assert (found.code, "nothing is active on tiny-llama any more" in found.err) == (3, True)
    report = json.loads(found.out)
    assert (report["bare"], "nothing is active on tiny-llama any more" in report["problems"][0]) == (
        ["tiny-llama"],
        True,
    )
    assert json.loads(cli("list", "--json").out)["active"] == []
    assert cli("audit", "--apply").code == 0


def test_an_audit_that_could_not_see_all_advisories_fails(cli, home):
    top = newest(home / "site", "targets")
    top.signed.version += 1
    top.signed.delegations.roles["acme"].paths = ["patches/*/*"]
    write(home / "site", "targets", top, "root-a", "root-b")
    restamp(home / "site", "online")
    customer(home / "site")
    blind = cli("audit", "--format", "json")
    assert (blind.code, len(json.loads(blind.out)["left_out"])) == (3, 1)
    assert "left out: the role acme" in blind.err
    assert "hint: tell the registry" in blind.err
    assert cli("audit", "--exit-zero").code == 0


def test_a_folder_of_advisories_that_is_not_whole_says_so(cli, home):
    publish_target(home / "site", "advisories/acme/x_ACME-2026-0002.json", b"{", keys=[key("vendor"), key("online")])
    advisory = write_advisory(home / "mine", record()) / "acme" / f"{GAP}.json"
    publish(home / "site", [advisory], keys=[key("vendor"), key("online")])
    customer(home / "site")
    fetched = cli("registry", "advisories", "-o", "known", "--json")
    assert (fetched.code, "known is not whole" in fetched.err) == (3, True)
    said = json.loads(fetched.out)
    assert (said["files"], len(said["left_out"]), said["strange"]) == ([f"known/acme/{GAP}.json"], 1, [])
