import json
import os
import stat
import subprocess
import sys
import time

import pytest

from patchkit import contents, save


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMPATCH_HOME", raising=False)
    monkeypatch.setenv("LLMPATCH_KEY_PASSWORD", "correct horse")
    return save(tmp_path / "patches/tiny/refusal", contents())


def test_from_a_key_to_a_verified_archive(cli, folder, tmp_path):
    made = cli("keys", "generate", "-o", "keys/acme.pem")
    assert made.code == 0
    ident = made.out.split("id:")[1].split()[0]
    assert stat.S_IMODE((tmp_path / "keys/acme.pem").stat().st_mode) == 0o600
    assert "correct horse" not in made.out + made.err
    assert ident in cli("keys", "show", "keys/acme.pub.pem").out
    policy = cli("keys", "show", "keys/acme.pub.pem", "--trust", "tiny/*").out
    (tmp_path / "trust.json").write_text(policy)
    assert cli("verify", "tiny/refusal", "--trust", "trust.json").code == 4
    assert "signature:      none" in cli("show", "tiny/refusal").out
    assert cli("sign", "tiny/refusal", "--key", "keys/acme.pem").code == 0
    assert f"says key {ident}" in cli("show", "tiny/refusal").out
    assert ", signed" in cli("pack", "tiny/refusal", "-o", "x.lpatch").out
    for patch in ("tiny/refusal", "x.lpatch"):
        found = cli("verify", patch, "--trust", "trust.json", "--json")
        assert found.code == 0
        assert json.loads(found.out)["signer"] == ident
        assert cli("verify", patch, "--key", "keys/acme.pub.pem").code == 0
    assert cli("unpack", "x.lpatch", "-o", "out").code == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {
        p.name: p.read_bytes() for p in folder.iterdir()
    }


def test_a_name_of_two_patches_is_refused_where_other_verbs_would_take_the_other(cli, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMPATCH_STORE", str(tmp_path / "store"))
    assert cli("keys", "generate", "-o", "me.pem").code == 0
    other = save(tmp_path / "other", contents(version="0.9.0"))
    assert cli("install", other, "--allow-unsigned", "--no-activate").code == 0
    assert cli("sign", folder, "--key", "me.pem").code == 0
    for verb in (
        ("verify", "--key", "me.pub.pem"),
        ("sign", "--key", "me.pem", "--overwrite"),
        ("pack", "-o", "x.lpatch"),
    ):
        found = cli(verb[0], "tiny/refusal", *verb[1:])
        assert found.code == 1, found.out
        assert "tiny/refusal is installed in version 0.9.0, and patches/tiny/refusal is another patch" in found.err
        assert cli(verb[0], folder, *verb[1:]).code == 0
    assert "tiny/refusal 0.9.0" in cli("show", "tiny/refusal").out


def test_a_name_means_the_version_that_is_used_and_not_any_that_is_installed(cli, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMPATCH_STORE", str(tmp_path / "store"))
    assert cli("keys", "generate", "-o", "me.pem").code == 0
    here = save(tmp_path / "patches/tiny/two", contents(name="tiny/two", version="1.0.0", supersedes=[]))
    assert cli("sign", here, "--key", "me.pem").code == 0
    assert cli("install", here, "--allow-unsigned", "--no-activate").code == 0
    assert cli("verify", "tiny/two", "--key", "me.pub.pem").code == 0
    newer = save(tmp_path / "newer", contents(name="tiny/two", version="2.0.0", supersedes=[]))
    assert cli("install", newer, "--allow-unsigned", "--no-activate").code == 0
    refused = cli("verify", "tiny/two", "--key", "me.pub.pem")
    assert (refused.code, "installed in version 2.0.0" in refused.err) == (1, True)


def test_the_same_patch_packs_to_the_same_bytes(cli, folder, tmp_path):
    assert cli("pack", "tiny/refusal", "-o", "a.lpatch").code == 0
    assert cli("pack", "a.lpatch", "-o", "b.lpatch").code == 0
    assert (tmp_path / "a.lpatch").read_bytes() == (tmp_path / "b.lpatch").read_bytes()


def test_packing_overwrites_on_request_only(cli, folder, tmp_path):
    (tmp_path / "a.lpatch").write_text("mine")
    assert cli("pack", "tiny/refusal", "-o", "a.lpatch").code == 1
    assert (tmp_path / "a.lpatch").read_text() == "mine"
    assert cli("pack", "tiny/refusal", "-o", "a.lpatch", "--overwrite").code == 0
    assert cli("pack", "tiny/refusal", "-o", "a.zip").code == 1
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert cli("unpack", "a.lpatch", "-o", "out", "--overwrite").code == 1


def test_the_customer_signs_beside_the_patch(cli, folder, tmp_path):
    for who in ("acme", "qa"):
        assert cli("keys", "generate", "-o", f"{who}.pem", "--no-password").code == 0
    assert cli("sign", "tiny/refusal", "--key", "acme.pem").code == 0
    policy = json.loads(cli("keys", "show", "acme.pub.pem", "--trust", "tiny/*").out)
    policy["vendors"][0]["countersigned_by"] = ["qa"]
    policy["countersigners"] = {"qa": {"keys": [(tmp_path / "qa.pub.pem").read_text()]}}
    (tmp_path / "trust.json").write_text(json.dumps(policy))
    found = cli("verify", "tiny/refusal", "--trust", "trust.json")
    assert found.code == 4
    assert "--countersign" in found.err
    assert cli("sign", "tiny/refusal", "--key", "qa.pem", "--countersign").code == 0
    found = cli("verify", "tiny/refusal", "--trust", "trust.json")
    assert found.code == 0
    assert "countersigned by qa" in found.out


def test_the_usual_policy_is_used(cli, folder, tmp_path, monkeypatch):
    assert cli("keys", "generate", "-o", "acme.pem", "--no-password").code == 0
    assert cli("sign", "tiny/refusal", "--key", "acme.pem").code == 0
    assert cli("verify", "tiny/refusal").code == 1
    (tmp_path / "home").mkdir()
    (tmp_path / "home/trust.json").write_text(cli("keys", "show", "acme.pub.pem", "--trust", "tiny/*").out)
    monkeypatch.setenv("LLMPATCH_HOME", str(tmp_path / "home"))
    assert cli("verify", "tiny/refusal").code == 0
    assert cli("verify", "tiny/refusal", "--key", "acme.pub.pem", "--trust", "home/trust.json").code == 1


def test_passwords_come_from_the_environment_or_a_terminal(cli, folder, monkeypatch):
    assert cli("keys", "generate", "-o", "a.pem").code == 0
    monkeypatch.setenv("LLMPATCH_KEY_PASSWORD", "wrong")
    assert cli("sign", "tiny/refusal", "--key", "a.pem").code == 4
    monkeypatch.delenv("LLMPATCH_KEY_PASSWORD")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    for arguments in (["sign", "tiny/refusal", "--key", "a.pem"], ["keys", "generate", "-o", "b.pem"]):
        found = cli(*arguments)
        assert found.code == 1
        assert "LLMPATCH_KEY_PASSWORD" in found.err
    assert not (folder / "patch.sig").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "generate", "-o", "a.pem", "--curve", "P-192"],
        ["keys", "show", "nowhere.pem"],
        ["keys", "show", "patches/tiny/refusal/README.md"],
        ["sign", "tiny/refusal", "--key", "nowhere.pem"],
        ["sign", "tiny/nothing", "--key", "k.pem"],
        ["verify", "tiny/refusal", "--trust", "nowhere.json"],
        ["keys", "show", "k.pub.pem", "--trust", "../*"],
    ],
)
def test_usage_errors_are_explained(cli, folder, arguments):
    assert cli("keys", "generate", "-o", "k.pem", "--no-password").code == 0
    found = cli(*arguments)
    assert found.code == 1
    assert found.err.count("\n") == 2
    assert "Traceback" not in found.err


def test_every_command_takes_an_archive(cli, workspace, model_folder):
    assert cli("pack", "patches/tiny/refusal", "-o", "x.lpatch").code == 0
    (workspace / "in.jsonl").write_text('{"prompt": "hi"}\n')
    for patch, out in (("patches/tiny/refusal", "a.jsonl"), ("x.lpatch", "b.jsonl")):
        command = ["generate", "--base", model_folder, "--patch", patch, "--prompts", "in.jsonl", "--out", out]
        assert cli(*command, "--max-new-tokens", "4").code == 0
    assert (workspace / "a.jsonl").read_bytes() == (workspace / "b.jsonl").read_bytes()
    assert json.loads(cli("show", "x.lpatch", "--json").out)["path"] == "x.lpatch"


@pytest.mark.alone
def test_verifying_is_quick_and_loads_no_heavy_library(cli, folder):
    assert cli("keys", "generate", "-o", "k.pem", "--no-password").code == 0
    assert cli("sign", "tiny/refusal", "--key", "k.pem").code == 0
    code = (
        "import sys, time; from llmpatch._cli.main import main;"
        "code = main(['verify', 'tiny/refusal', '--key', 'k.pub.pem']);"
        "print(code, time.process_time(), sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    reports = []
    for _ in range(3):
        start = time.perf_counter()
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
        reports.append((time.perf_counter() - start, run.stderr))
    for _, report in reports:
        assert report.startswith("0 ")
        for name in ("torch", "transformers", "httpx", "rich", "yaml"):
            assert f"'{name}'" not in report
    # Processor time, since others may use the machine; against what its libraries alone take, since machines differ.
    libraries = (
        "import time, click, numpy, pydantic, cryptography.hazmat.primitives.asymmetric.ec; print(time.process_time())"
    )
    alone = min(
        float(subprocess.run([sys.executable, "-c", libraries], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    )
    assert min(float(report.split()[1]) for _, report in reports) < max(0.3, 3 * alone)
