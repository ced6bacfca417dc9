"""`compose` and `lock`, and several --patch as one stack."""

from __future__ import annotations

import json

import pytest

from composekit import make_patch, save
from llmpatch.artifact import pack_members, read_contents, read_patch
from llmpatch.artifact.composition import parse_record
from llmpatch.store import default_store, known_here, load


@pytest.fixture
def two(workspace, tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMPATCH_STORE", str(tmp_path / "store"))
    return [
        save(workspace / "one", make_patch(tiny_base, "acme/one", "refusal", seed=1)),
        save(workspace / "two", make_patch(tiny_base, "acme/two", "toxicity", seed=2)),
    ]


def test_compose_measures_writes_and_remembers(cli, two, workspace, model_folder):
    options = ("--base", model_folder, "--limit", 1, "--samples", 1, "--allow-loss", "--run", "run")
    found = cli("compose", *two, "-o", "both", "--remember", *options)
    assert found.code == 0, found.err
    assert "acme/one 1.0.0  declines (refusal-head)" in found.out
    assert "patch: both" in found.out
    patch = read_patch(workspace / "both")
    assert [m.name for m in patch.manifest.members] == ["acme/one", "acme/two"]
    record = parse_record((workspace / "run/composition.json").read_bytes(), where="x")
    assert record.digests == tuple(read_patch(path).digest for path in two)
    assert known_here(default_store())[0].patches == record.digests
    again = cli("compose", *two, "--search", "--json", *options)
    shown = json.loads(again.out)
    assert [row["order"] for row in shown["orders"]["orders"]] == [[0, 1], [1, 0]]
    assert "patch" not in shown

    lock = cli("lock", "write", *two, "--composition", "run/composition.json", "-o", "my.lock")
    assert lock.code == 0, lock.err
    assert "measured together" in lock.out
    trusting = ("--allow-unsigned",)
    refused = cli("lock", "install", "my.lock", two[1], two[0], *trusting, "--skip-gate")
    assert refused.code == 6
    assert "the lock file wants acme/one 1.0.0" in refused.err
    assert load(default_store()).state.installed == ()
    packed = workspace / "one.lpatch"
    contents = read_contents(two[0])
    packed.write_bytes(pack_members(dict(contents.files)))
    done = cli("lock", "install", "my.lock", packed, two[1], *trusting, "--skip-gate")
    lost = any(measured.hurt for measured in record.measured)
    assert done.code == (1 if lost else 0), done.err
    if not lost:
        assert "acme/one 1.0.0, then acme/two 1.0.0" in done.out
        assert cli("lock", "check", "my.lock").code == 0
    assert cli("lock", "check", "my.lock", two[1], two[0]).code == 6


def test_what_cannot_be_put_together_ends_with_its_code_and_no_file(cli, two, workspace, other_folder, tiny_base):
    rival = save(workspace / "rival", make_patch(tiny_base, "acme/rival", "refusal",
                                                 conflicts=[{"name": "acme/one", "versions": "*"}]))  # fmt: skip
    for arguments, code, said in (
        ((two[0], two[0]), 1, "acme/one 1.0.0 is there twice"),
        ((two[0], rival), 1, "acme/rival 1.0.0 and acme/one 1.0.0 conflict"),
        ((two[0],), 1, "one patch is no stack"),
        ((*two, "--base", other_folder), 5, "embedding table"),
        ((*two, "--prompts", "nonsense"), 1, "is not RISK=FILE"),
        ((*two, "--name", "NoVendor"), 1, "the patch's manifest would not take name"),
        ((*two, "--version", "one"), 1, "the patch's manifest would not take version"),
        ((), 1, "Missing argument"),
    ):
        found = cli("compose", *arguments, "-o", "both")
        assert (found.code, said in found.err) == (code, True), found.err
        assert "Traceback" not in found.err
    assert not (workspace / "both").exists()
    for arguments, code in (
        (("write", two[0], two[0]), 1),
        (("check", "none.lock"), 1),
        (("install", two[0] / "patch.json"), 6),
    ):
        assert cli("lock", *arguments).code == code


def test_a_dry_run_says_what_it_would_be_without_a_model(cli, two):
    found = cli("compose", *two, "--dry-run", "--json")
    assert found.code == 0, found.err
    assert json.loads(found.out)["tokens"] == 6


def test_several_patches_are_one_stack_for_generate_and_eval(cli, two, workspace, model_folder):
    (workspace / "in.jsonl").write_text('{"prompt": "Hi", "kind": "harmful"}\n', encoding="utf-8")
    twice = cli("generate", "--base", model_folder, "--patch", two[0], "--patch", two[0], "--prompts", "in.jsonl",
                "--out", "out.jsonl")  # fmt: skip
    assert (twice.code, "there twice" in twice.err) == (1, True)
    found = cli("eval", *two, "--base", model_folder, "--prompts", "in.jsonl", "--max-new-tokens", 3, "--json")
    assert found.code == 0, found.err
    assert json.loads(found.out)["systems"]["M+"]["tokens"] == 6


def test_a_name_for_what_is_not_written_is_refused(cli, two):
    for option in (("--name", "acme/both"), ("--version", "2.0.0"), ("--summary", "Both."), ("--overwrite",)):
        found = cli("compose", *two, *option)
        assert found.code == 1
        assert "are of a patch to be written" in found.err
