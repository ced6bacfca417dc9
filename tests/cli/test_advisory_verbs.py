"""audit, advisory, sbom and attestation from the command line: what they print, what they change, how they fail."""

import json

import pytest

from advisorykit import DEFECT, GAP, defect, record, write
from clikit import write_rows
from gatekit import policy_bytes, rule
from llmpatch.artifact import describe_base, input_norm_p999, write_patch
from patchkit import EVIDENCE, embeddings, fields
from storekit import fixes, folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMPATCH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LLMPATCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMPATCH_KEY_PASSWORD", "correct horse")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def installed(cli, path, *more):
    assert cli("install", path, "--allow-unsigned", *more).code == 0


def test_an_audit_from_an_open_gap_to_a_revoked_patch_and_back(cli, home):
    write(home / "a", record())
    audit = ("audit", "--advisories", "a")
    found = cli(*audit)
    assert (found.code, "no base" in found.out) == (0, True)
    installed(cli, folder(home / "made"), "--no-activate")
    found = cli(*audit)
    assert (found.code, "OPEN" in found.out) == (3, True)
    assert f"error: {GAP} is open on tiny-llama" in found.err
    assert "hint: install or activate the patch" in found.err
    assert cli(*audit, "--exit-zero").code == 0
    assert cli("activate", "acme/refusal", "--skip-gate").code == 0
    assert (cli(*audit).code, "closed" in cli(*audit).out) == (0, True)
    installed(cli, folder(home / "made", version="1.1.0"), "--skip-gate")
    write(home / "a", defect(("introduced", "1.1.0"), revoke=True))
    found = cli(*audit)
    assert (found.code, "--apply" in found.err) == (3, True)
    before = json.loads(cli("list", "--json").out)
    assert before["revoked"] == {}
    found = cli(*audit, "--apply", "--format", "json")
    assert found.code == 0, found.err
    assert f"revoke acme/refusal 1.1.0: {DEFECT}: over-refuses" in found.err
    assert json.loads(found.out)["defects"][0]["revoked"] is True
    after = json.loads(cli("list", "--json").out)
    assert after["active"][0]["patches"][0]["version"] == "1.0.0"
    assert list(after["revoked"].values()) == [f"{DEFECT}: over-refuses"]
    assert DEFECT in cli("history").out
    assert cli("activate", "acme/refusal@1.1.0", "--skip-gate").code == 4
    number = json.loads(cli("list", "--json").out)["generation"]
    assert cli(*audit, "--apply").code == 0
    assert json.loads(cli("list", "--json").out)["generation"] == number


def test_gaps_that_nothing_closes_can_be_let_pass(cli, home):
    installed(cli, folder(home / "made"), "--skip-gate")
    unfixed = record("x_ACME-2026-0003")
    unfixed["affected"][0]["database_specific"]["fixed_by"] = []
    write(home / "a", unfixed)
    assert cli("audit", "--advisories", "a").code == 3
    assert cli("audit", "--advisories", "a", "--ignore-unfixed").code == 0


def test_reports_go_where_they_are_told(cli, home):
    installed(cli, folder(home / "made"), "--no-activate")
    write(home / "a", record())
    for form in ("sarif", "cyclonedx", "json", "table"):
        assert cli("audit", "--advisories", "a", "--format", form, "--out", f"{form}.out").code == 3
        assert cli("audit", "--advisories", "a", "--format", form, "--exit-zero").code == 0
    assert json.loads((home / "sarif.out").read_text())["version"] == "2.1.0"
    assert json.loads((home / "cyclonedx.out").read_text())["vulnerabilities"][0]["analysis"]["state"] == "exploitable"
    assert json.loads((home / "json.out").read_text())["schema"] == "llmpatch/audit/v1"
    assert GAP in (home / "table.out").read_text()
    assert cli("audit", "--advisories", "a", "--out", home).code == 1
    assert json.loads(cli("sbom").out)["specVersion"] == "1.6"
    assert cli("sbom", "--advisories", "a", "-o", "sbom.json").code == 0
    assert "vulnerabilities" in json.loads((home / "sbom.json").read_text())
    assert cli("sbom", "--advisories", "none").code == 1


def test_one_vendors_bad_advisory_keeps_no_revocation_of_anothers_away(cli, home):
    installed(cli, folder(home / "made"), "--skip-gate")
    write(home / "a", defect(revoke=True))
    bad = home / "a/other/x_OTHER-2026-0002.json"
    bad.parent.mkdir()
    bad.write_text("{")
    for verb in (("sbom", "--advisories", "a"), ("advisory", "check", "a")):
        found = cli(*verb)
        assert (found.code, found.out, found.err.count("\n")) == (6, "", 2)
    assert cli("audit", "--advisories", "a", "--apply", "--out", ".").code == 1  # before anything is revoked
    found = cli("audit", "--advisories", "a", "--apply", "--format", "json")
    assert (found.code, "x_OTHER-2026-0002" in found.err) == (3, True)
    (left,) = json.loads(found.out)["left_out"]
    assert left.startswith("left out: a/other/x_OTHER-2026-0002.json")
    assert left in json.loads(found.out)["problems"]
    assert list(json.loads(cli("list", "--json").out)["revoked"].values()) == [f"{DEFECT}: over-refuses"]
    assert cli("audit", "--advisories", "a").code == 3  # not green, though nothing else is wrong any more
    assert cli("audit").code == 1
    assert cli("audit", "--advisories", "none").code == 1


def test_an_advisory_is_drafted_checked_and_never_overwritten(cli, home):
    patch = folder(home / "made")
    (home / "a").mkdir()
    new = ("advisory", "new", patch, "--id", GAP)
    assert json.loads(cli(*new).out)["id"] == GAP
    assert cli(*new, "-o", "a").code == 0
    draft = (home / f"a/{GAP}.json").read_text()
    assert json.loads(draft)["database_specific"]["measured"][0]["n"] == EVIDENCE["results"][0]["n"]
    assert cli(*new, "-o", "a").code == 1
    assert (home / f"a/{GAP}.json").read_text() == draft
    assert cli(*new, "-o", "other.json").code == 1
    assert cli("advisory", "new", patch, "--id", "ACME-1").code == 1
    assert cli("advisory", "new", patch, "--id", DEFECT, "--revoke").code == 1
    assert cli("advisory", "new", patch, "--id", DEFECT, "--defect", "--fixed", "x").code == 1
    found = cli("advisory", "new", patch, "--id", DEFECT, "--defect", "--revoke", "--summary", "bad", "-o", "a")
    assert found.code == 0, found.err
    listed = json.loads(cli("advisory", "check", "a", "--json").out)
    assert [(row["id"], row["kind"], row["about"]) for row in listed] == [
        (GAP, "gap", "tiny-llama"), (DEFECT, "revokes", "acme/refusal"),
    ]  # fmt: skip
    assert cli("advisory", "check", f"a/{GAP}.json").code == 0
    assert cli("advisory", "check", "none.json").code == 1


def test_an_audit_of_a_loaded_base_and_the_attestation_of_its_gate(cli, home, model_folder, other_folder, tiny_base):
    path = home / "made"
    made = fields(name="acme/refusal", version="1.0.0", fixes=fixes(1), supersedes=[], base=describe_base(tiny_base))
    write_patch(path, made, embeddings(), EVIDENCE, base_p999=input_norm_p999(tiny_base))
    (home / "policy.yaml").write_bytes(policy_bytes(rule(max=1, judge="refusal-head", min_n=1)))
    own = write_rows(home / "mine.jsonl", [{"prompt": "hello"}])
    assert cli("keys", "generate", "-o", "qa.pem").code == 0
    assert cli("keys", "generate", "-o", "other.pem").code == 0
    gate = ("--base", model_folder, "--prompts", own, "--policy", "policy.yaml")
    assert cli("install", path, "--allow-unsigned", "--skip-gate", "--attest-key", "qa.pem").code == 1
    found = cli("install", path, "--allow-unsigned", *gate, "--attest-key", "qa.pem", "--json")
    assert found.code == 0, found.err
    record_ = json.loads(found.out)["active"][0]["gate"]
    kept = home / f"store/verdicts/{record_['attestation']}.json"
    assert kept.read_bytes() == (home / "runs/gate/attestation.json").read_bytes()
    found = cli("attestation", "acme/refusal", "--key", "qa.pub.pem", "-o", "out.json")
    assert (found.code, found.out.startswith("PASSED: 1 rules passed")) == (0, True), found.err
    assert "not checked" not in found.out
    assert "not checked" in cli("attestation", "out.json").out
    statement = json.loads(cli("attestation", "acme/refusal", "--json").out)
    digest = json.loads(cli("list", "--json").out)["installed"][0]["digest"]
    assert statement["subject"][0]["digest"] == {"sha256": digest}
    verdict = json.loads((home / f"store/verdicts/{record_['verdict']}.json").read_text())["verdict"]
    assert statement["predicate"]["verdict"] == verdict
    assert cli("attestation", "acme/refusal", "--key", "other.pub.pem").code == 4
    assert cli("attestation", "acme/other").code == 1
    draft = cli("advisory", "new", "acme/refusal", "--id", GAP).out
    write(home / "a", json.loads(draft))
    found = cli("audit", "--advisories", "a", "--base", model_folder, "--format", "json")
    assert (found.code, json.loads(found.out)["gaps"][0]["status"]) == (0, "closed")
    assert cli("deactivate", "acme/refusal").code == 0
    assert cli("audit", "--advisories", "a", "--base", model_folder).code == 3
    found = cli("audit", "--advisories", "a", "--base", other_folder, "--format", "json")
    assert (found.code, json.loads(found.out)["gaps"]) == (0, [])
    assert cli("rollback").code == 0
    kept.chmod(0o644)
    kept.write_text("{}")
    assert cli("attestation", "acme/refusal").code == 6
    assert [f["code"] for f in json.loads(cli("doctor", "--json").out)["found"]] == ["attestation"]
