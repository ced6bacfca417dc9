"""The verbs of the store, from a signed archive to a rollback, on a tiny model."""

import json

import pytest

from clikit import write_rows
from gatekit import policy_bytes, rule
from llmpatch.artifact import describe_base, input_norm_p999, write_patch
from patchkit import EVIDENCE, embeddings, fields
from storekit import fixes, folder

EVERYDAY = {"metric": "refusal", "judge": "refusal-head", "min_n": 1}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMPATCH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LLMPATCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMPATCH_KEY_PASSWORD", "correct horse")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def for_base(path, base, name, version="1.0.0", fixed=(1,), seed=0):
    made = fields(name=name, version=version, fixes=fixes(*fixed), supersedes=[], base=describe_base(base))
    write_patch(path, made, embeddings(seed=seed), EVIDENCE, base_p999=input_norm_p999(base))
    return path


def installed(cli, path, *more):
    found = cli("install", path, "--allow-unsigned", *more)
    assert found.code == 0, found.err
    return found


def test_nothing_is_there_at_first(cli, home):
    assert cli("list").out == "nothing is active\n"
    assert cli("history").out == "nothing has happened yet\n"
    assert cli("doctor").code == 0
    assert cli("gc").code == 0
    assert cli("rollback").code == 1
    assert not (home / "store/patches").exists() or list((home / "store/patches").iterdir()) == []


def test_options_of_a_gate_that_would_not_run_are_refused(cli, home):
    path = folder(home / "made")
    (home / "policy.yaml").write_bytes(policy_bytes(rule(max=1, **EVERYDAY)))
    for option, values in (("--policy", ("policy.yaml",)), ("--temperature", (0.5,)), ("--limit", (3,))):
        for unused in ("--no-activate", "--skip-gate"):
            found = cli("install", path, "--allow-unsigned", "--base", "x", unused, option, *values)
            assert found.code == 1
            assert f"{option} says how a gate judges, and no gate would run" in found.err
            assert f"leave it or {unused} out" in found.err
    assert json.loads(cli("list", "--json").out)["installed"] == []


def test_only_what_is_signed_is_installed_unless_told_otherwise(cli, home):
    path = folder(home / "made")
    found = cli("install", path, "--no-activate")
    assert (found.code, "whom do you trust" in found.err) == (1, True)
    assert cli("keys", "generate", "-o", "acme.pem").code == 0
    assert cli("install", path, "--key", "acme.pub.pem", "--no-activate").code == 4
    assert cli("sign", path, "--key", "acme.pem").code == 0
    assert cli("pack", path, "-o", "refusal.lpatch").code == 0
    (home / "trust.json").write_text(cli("keys", "show", "acme.pub.pem", "--trust", "other/*").out)
    assert cli("install", "refusal.lpatch", "--trust", "trust.json", "--no-activate").code == 4
    assert json.loads(cli("list", "--json").out)["installed"] == []
    (home / "trust.json").write_text(cli("keys", "show", "acme.pub.pem", "--trust", "acme/*").out)
    found = cli("install", "refusal.lpatch", "--trust", "trust.json", "--no-activate")
    assert (found.code, "signed by key" in found.err) == (0, True)
    listed = json.loads(cli("list", "--json").out)
    assert len(listed["installed"][0]["signer"]) == 64
    assert listed["active"] == []
    assert cli("show", "acme/refusal").out.startswith("acme/refusal 1.0.0\n")


def test_an_installed_patch_is_gated_on_the_base_and_answers_by_its_name(cli, home, model_folder, tiny_base):
    own = write_rows(home / "mine.jsonl", [{"prompt": "hello"}])
    (home / "policy.yaml").write_bytes(policy_bytes(rule(max=1, **EVERYDAY)))
    (home / "strict.yaml").write_bytes(policy_bytes(rule(id="many", max=1, **EVERYDAY | {"min_n": 50})))
    gate = ("--base", model_folder, "--prompts", own)
    path = for_base(home / "made", tiny_base, "acme/refusal")
    failed = cli("install", path, "--allow-unsigned", *gate, "--policy", "strict.yaml")
    assert failed.code == 3
    assert "many" in failed.err
    assert json.loads(cli("list", "--json").out)["active"] == []
    greedy = ("--evidence", "runs/gate/evidence-refusal.json", "--policy", "policy.yaml", "--temperature", 0.7)
    drawn = cli("activate", "acme/refusal", *greedy)
    assert drawn.code == 1
    assert "is of greedy answers; the policy test is about answers drawn at temperature 0.7" in drawn.err
    found = cli("activate", "acme/refusal", *gate, "--policy", "policy.yaml", "--json", "--reason", "ticket 7")
    assert found.code == 0, found.err
    made = json.loads(found.out)
    assert (made["changed"], made["active"][0]["gate"]["result"]) == (True, "PASSED")
    kept = json.loads((home / f"store/verdicts/{made['active'][0]['gate']['verdict']}.json").read_text())
    assert kept["patches"] == [made["active"][0]["patches"][0]["digest"]]
    assert kept["verdict"]["result"] == "PASSED"
    answers = []
    for patch, out in (("acme/refusal", "by_name.jsonl"), (path, "by_path.jsonl")):
        args = ("--base", model_folder, "--patch", patch, "--prompts", own, "--out", out, "--max-new-tokens", 2)
        assert cli("generate", *args).code == 0
        answers.append((home / out).read_text())
    assert answers[0] == answers[1]
    second = for_base(home / "second", tiny_base, "acme/tone", fixed=(2,), seed=1)
    installed(cli, second, "--no-activate")
    lost = cli("activate", "acme/tone", "--policy", "policy.yaml")
    assert (lost.code, "no gate would run" in lost.err) == (1, True)
    assert cli("activate", "acme/tone", "--skip-gate").code == 1
    found = cli("activate", "acme/tone", *gate, "--policy", "policy.yaml")
    assert found.code == 0, found.err
    assert (
        "active on tiny-llama: acme/refusal 1.0.0, then acme/tone 1.0.0" in found.out or "then acme/tone" in found.out
    )
    assert "ticket 7" in cli("history").out


def test_a_wrong_base_is_refused(cli, home, other_folder, tiny_base):
    path = for_base(home / "made", tiny_base, "acme/refusal")
    assert cli("install", path, "--allow-unsigned", "--base", other_folder).code == 5
    assert json.loads(cli("list", "--json").out)["active"] == []


def test_the_gate_is_run_or_skipped_on_purpose(cli, home):
    path = folder(home / "made")
    found = cli("install", path, "--allow-unsigned")
    assert (found.code, "--skip-gate" in found.err) == (1, True)
    assert cli("list").out == "nothing is active\n"
    installed(cli, path, "--skip-gate")
    assert "gate SKIPPED" in cli("list").out
    assert "(gate skipped)" in cli("history").out
    assert cli("install", path, "--allow-unsigned", "--key", "x.pem", "--skip-gate").code == 1


def test_upgrade_pin_rollback_and_the_rest(cli, home):
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        path = folder(home / "made", version=version)
        installed(cli, path, "--skip-gate" if version == "1.0.0" else "--no-activate")
    assert cli("pin", "acme/refusal", ">=1,<2").out == "acme/refusal >=1,<2\n"
    assert cli("pin", "acme/refusal").code == 1
    assert cli("pin", "acme/refusal@1", "1").code == 1
    dry = json.loads(cli("upgrade", "--dry-run", "--json").out)
    assert [(s["from"], s["to"], s["done"]) for s in dry["steps"]] == [("1.0.0", "1.1.0", False)]
    assert "would be done" in cli("upgrade", "--dry-run").out
    assert cli("upgrade", "--offline", "--registry", "none", "--skip-gate").code == 1
    assert cli("upgrade", "--registry", "none", "--skip-gate").code == 1
    assert cli("pin", "--remove").code == 1
    for stranger in ("acme/refusals", "acme/refusal@1.1.0"):  # a schedule with a misspelt name must not look up to date
        found = cli("upgrade", stranger, "--skip-gate", "--offline")
        assert (found.code, f"{stranger} is not active; active: acme/refusal" in found.err) == (1, True)
    found = cli("upgrade")
    assert (found.code, "refused: no gate has passed" in found.out) == (1, True)
    assert cli("upgrade", "--skip-gate").code == 0
    assert cli("upgrade", "--skip-gate").out.startswith("nothing newer is installed")
    assert cli("activate", "acme/refusal@2.0.0", "--skip-gate").code == 1
    assert json.loads(cli("pin", "acme/refusal", "--remove", "--json").out) == {"pins": {}}
    assert cli("activate", "acme/refusal@2.0.0", "--skip-gate").code == 0
    assert "acme/refusal 1.1.0" in cli("rollback", "--reason", "worse").out
    assert "back to what was active" in cli("history").out
    assert cli("rollback", "--to", 999).code == 1
    assert "rolled back" in cli("list").out
    assert cli("activate", "acme/refusal@1.0.0", "--skip-gate").code == 1
    assert cli("activate", "acme/refusal@1.0.0", "--skip-gate", "--downgrade").code == 0
    revoked = json.loads(cli("revoke", "acme/refusal@1.0.0", "--reason", "x_ACME-2026-0002", "--json").out)
    assert revoked["active"][0]["patches"][0]["version"] == "1.1.0"
    assert cli("activate", "acme/refusal@1.0.0", "--skip-gate").code == 4
    assert cli("revoke", "a" * 64, "--reason", "never seen").code == 0
    assert cli("deactivate", "acme/refusal").code == 0
    assert cli("deactivate", "acme/refusal").code == 1
    dry = json.loads(cli("gc", "--keep", 1, "--dry-run", "--json").out)
    assert [p["version"] for p in dry["patches"]] == ["1.0.0", "1.1.0", "2.0.0"]
    assert "gone: acme/refusal 1.0.0" in cli("gc", "--keep", 1).out
    actions = [g["action"] for g in json.loads(cli("history", "--limit", 3, "--json").out)]
    assert actions == ["gc", "deactivate", "revoke"]


def test_the_doctor_explains_repairs_and_exits_by_what_is_left(cli, home):
    installed(cli, folder(home / "made"), "--skip-gate")
    (home / "store/current").write_text("nonsense")
    listed = cli("list")
    assert "warning" in listed.err
    assert "acme/refusal 1.0.0" in listed.out
    assert cli("pin", "acme/refusal", "1").code == 6
    found = cli("doctor")
    assert (found.code, "found: current" in found.out) == (6, True)
    mended = json.loads(cli("doctor", "--repair", "--json").out)
    assert ([f["code"] for f in mended["found"]], mended["left"]) == (["current"], [])
    assert cli("doctor").code == 0
    card = next((home / "store/patches").iterdir()) / "README.md"
    card.chmod(0o644)
    card.write_text("changed")
    assert cli("show", "acme/refusal").code == 6
    left = cli("doctor", "--repair")
    assert (left.code, "left: patch-damaged" in left.out) == (6, True)
    installed(cli, home / "made/acme_refusal-1.0.0", "--no-activate")
    assert cli("doctor").code == 0


def trusting(cli, home, *keys, revoked=()):
    """The usual policy: these keys for acme/*, and what is revoked of them. Returns the ids."""
    files = [f"{key}.pub.pem" for key in keys]
    shown = json.loads(cli("keys", "show", *files, "--json").out)
    ids = {key: found["id"] for key, found in zip(keys, shown, strict=True)}
    policy = json.loads(cli("keys", "show", *files, "--trust", "acme/*").out)
    policy["revoked"] = [ids[key] for key in revoked]
    (home / "home").mkdir(exist_ok=True)
    (home / "home/trust.json").write_text(json.dumps(policy))
    return ids


@pytest.fixture
def signed_twice(cli, home):
    """acme/refusal 1.0.0 and 1.1.0, each signed by a key of its own and installed; the first is active."""
    for key, version in (("one", "1.0.0"), ("two", "1.1.0")):
        assert cli("keys", "generate", "-o", f"{key}.pem").code == 0
        assert cli("sign", folder(home / "made", version=version), "--key", f"{key}.pem").code == 0
    trusting(cli, home, "one", "two")
    assert cli("install", "made/acme_refusal-1.0.0", "--skip-gate").code == 0
    assert cli("install", "made/acme_refusal-1.1.0", "--no-activate").code == 0
    return home


def test_what_a_revoked_key_signed_is_refused_but_for_the_way_back(cli, signed_twice):
    ids = trusting(cli, signed_twice, "one", "two", revoked=("two",))
    found = cli("activate", "acme/refusal@1.1.0", "--skip-gate")
    assert (found.code, f"was signed by key {ids['two'][:16]}, which is revoked" in found.err) == (4, True)
    assert "ask its vendor for one that another key signed" in found.err
    again = ("made/acme_refusal-1.1.0", "--allow-unsigned", "--skip-gate")
    assert cli("install", *again).code == 4  # who vouches for nobody's signature revives no key
    for named in ((), ("--key", "one.pub.pem")):
        found = cli("upgrade", "--skip-gate", "--offline", *named)
        assert (found.code, "refused: acme/refusal 1.1.0 was signed by key" in found.out) == (0, True)
    assert "refused" in cli("upgrade", "--dry-run", "--offline").out
    trusting(cli, signed_twice, "one", "two")
    assert cli("upgrade", "--skip-gate", "--offline").code == 0
    trusting(cli, signed_twice, "one", "two", revoked=("one",))
    found = cli("rollback")
    assert (found.code, "acme/refusal 1.0.0" in found.out) == (0, True)
    assert f"was signed by key {ids['one'][:16]}, which is revoked; replace it" in found.err
    assert cli("activate", "acme/refusal@1.1.0", "--skip-gate").code == 0
    (signed_twice / "home/trust.json").write_text("nonsense")
    found = cli("rollback")
    assert (found.code, "nobody knows whose keys still count" in found.err) == (0, True)


def test_a_lock_file_trusts_nothing_for_being_installed(cli, signed_twice):
    assert cli("lock", "write", "acme/refusal@1.0.0").code == 0
    assert cli("deactivate", "acme/refusal").code == 0
    trusting(cli, signed_twice, "one", "two", revoked=("one",))
    found = cli("lock", "install", "llmpatch.lock", "--skip-gate")
    assert (found.code, "acme/refusal 1.0.0 is installed, and not trusted any more" in found.err) == (4, True)
    assert "lock install LOCK SOURCE" in found.err
    assert cli("lock", "install", "llmpatch.lock", "--key", "two.pub.pem", "--no-activate").code == 4
    assert "nothing is active" in cli("list").out
    trusting(cli, signed_twice, "one", "two")
    assert cli("lock", "install", "llmpatch.lock", "--skip-gate").code == 0


def test_who_signed_is_recorded_when_a_lock_file_verifies_it(cli, home):
    assert cli("keys", "generate", "-o", "one.pem").code == 0
    assert cli("sign", folder(home / "made"), "--key", "one.pem").code == 0
    installed(cli, "made/acme_refusal-1.0.0", "--no-activate")
    assert cli("lock", "write", "acme/refusal").code == 0
    assert cli("lock", "install", "llmpatch.lock", "--key", "one.pub.pem", "--skip-gate").code == 0
    assert len(json.loads(cli("list", "--json").out)["installed"][0]["signer"]) == 64


def test_a_lock_file_of_older_versions_changes_nothing_unless_told(cli, home):
    for version in ("1.0.0", "2.0.0"):
        installed(cli, folder(home / "made", version=version), "--skip-gate")
    assert cli("lock", "write", "made/acme_refusal-1.0.0").code == 0
    assert cli("gc", "--keep", 1).code == 0
    before = cli("list", "--json").out
    install = ("lock", "install", "llmpatch.lock", "made/acme_refusal-1.0.0", "--allow-unsigned", "--skip-gate")
    found = cli(*install)
    assert (found.code, "acme/refusal 1.0.0 is older than 2.0.0, which was active here" in found.err) == (1, True)
    assert "--downgrade" in found.err
    assert cli("list", "--json").out == before
    found = cli(*install, "--downgrade")
    assert (found.code, "active on tiny-llama: acme/refusal 1.0.0" in found.out) == (0, True)


def test_a_lock_file_of_another_base_fetches_and_keeps_nothing(cli, home, model_folder, other_folder, tiny_base):
    path = for_base(home / "mine", tiny_base, "acme/refusal")
    assert cli("lock", "write", path).code == 0
    install = ("lock", "install", "llmpatch.lock", path, "--allow-unsigned")
    found = cli(*install, "--base", other_folder)
    assert (found.code, "the lock file is of" in found.err, "differ in: embeddings" in found.err) == (5, True, True)
    lock = json.loads((home / "llmpatch.lock").read_text())
    lock["base"]["fingerprint"]["config"] = "0" * 64
    (home / "other.lock").write_text(json.dumps(lock))
    found = cli("lock", "install", "other.lock", path, "--allow-unsigned", "--skip-gate")
    assert (found.code, "was made for" in found.err) == (5, True)
    assert json.loads(cli("list", "--json").out)["installed"] == []
    assert cli(*install, "--base", model_folder, "--no-activate").code == 0
