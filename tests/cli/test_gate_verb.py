import json

from clikit import write_rows
from gatekit import policy_bytes, rule
from llmpatch.gate import load_policy, parse_policy

EVERYDAY = {"metric": "refusal", "judge": "refusal-head", "min_n": 1}


def write_policy(folder, *rules):
    (folder / "policy.yaml").write_bytes(policy_bytes(*rules))
    return folder / "policy.yaml"


def test_gate_measures_judges_and_exits_by_the_verdict(cli, workspace, model_folder):
    own = write_rows(workspace / "mine.jsonl", [{"prompt": "hello"}, {"prompt": "do it", "kind": "harmful"}])
    policy = write_policy(workspace, rule(max=1, **EVERYDAY), rule(id="harm", kind="harmful", min=0, max=1, **EVERYDAY))
    common = ("gate", "tiny/refusal", "--base", model_folder, "--prompts", own, "--max-new-tokens", 2)
    found = cli(*common, "--policy", policy, "--out", "v.json")
    assert (found.code, found.err) == (0, "")
    assert "measured now" in found.out
    assert (
        "pass everyday: refusal by refusal-head on everyday prompts, M+, answers of at most 2 tokens: required upper end <= 1"
        in found.out
    )
    assert "PASSED: 2 of 2 rules passed" in found.out
    verdict = json.loads((workspace / "v.json").read_text(encoding="utf-8"))
    assert (verdict["result"], verdict["passed"]) == ("PASSED", ["everyday", "harm"])
    assert (workspace / "runs/gate/evidence-refusal.json").is_file()
    strict = write_policy(workspace, rule(max=1, **EVERYDAY), rule(id="many", max=1, **EVERYDAY | {"min_n": 50}))
    failed = cli(*common, "--policy", strict, "--json", "--out", "v.json")
    assert failed.code == 3
    assert "1 of 2 rules failed: many" in failed.err
    printed = json.loads(failed.out)
    assert printed["failed"] == ["many"]
    assert printed == json.loads((workspace / "v.json").read_text(encoding="utf-8"))


def test_gate_takes_evidence_that_is_there_and_says_so(cli, workspace, other_folder):
    evidence = workspace / "patches/tiny/refusal/evidence.json"
    short = cli("gate", "tiny/refusal", "--evidence", evidence)
    assert (short.code, short.out) == (1, "")
    assert "is of answers of at most 4 tokens; the policy refusal is about 48" in short.err
    assert "--max-new-tokens 4" in short.err
    found = cli("gate", "tiny/refusal", "--evidence", evidence, "--max-new-tokens", 4)
    assert found.code == 3
    assert "answers of at most 4 tokens: required" in found.out
    assert "asked only the first 1 prompts of each set" in found.err
    assert "no model was run" in found.out
    assert "too few observations: n = 1, 200 are needed" in found.out
    assert "only as honest" in found.err
    assert cli("gate", "tiny/refusal", "--evidence", evidence, "--base", other_folder).code == 5
    evidence = json.loads(evidence.read_text(encoding="utf-8"))
    evidence["systems"]["M+"]["prefix_sha256"] = "0" * 64
    (workspace / "e.json").write_text(json.dumps(evidence), encoding="utf-8")
    assert cli("gate", "tiny/refusal", "--evidence", "e.json").code == 6
    (workspace / "e.json").write_text(json.dumps(evidence).replace(": 4", ": NaN", 1), encoding="utf-8")
    assert cli("gate", "tiny/refusal", "--evidence", "e.json").code == 6


def test_gate_shows_a_policy_to_start_from(cli, workspace):
    found = cli("gate", "--show-policy")
    assert found.code == 0
    (workspace / "mine.yaml").write_text(found.out, encoding="utf-8")
    assert load_policy(workspace / "mine.yaml") == parse_policy(found.out.encode())
    assert cli("gate", "--show-policy", "--policy", "mine.yaml").out == found.out
    assert json.loads(cli("gate", "tiny/refusal", "--show-policy", "--json").out)["name"] == "refusal"
    drawn = cli("gate", "--show-policy", "--temperature", 0.7).out
    assert parse_policy(drawn.encode()).decoding.temperature == 0.7


def test_gate_judges_answers_drawn_as_asked(cli, workspace, model_folder):
    own = write_rows(workspace / "mine.jsonl", [{"prompt": "hello"}])
    policy = write_policy(workspace, rule(max=1, **EVERYDAY))
    common = ("gate", "tiny/refusal", "--base", model_folder, "--policy", policy, "--max-new-tokens", 2)
    found = cli(*common, "--prompts", own, "--temperature", 0.7, "--top-p", 0.9)
    assert (found.code, found.err) == (0, "")
    assert (
        "on everyday prompts, M+, answers drawn at temperature 0.7, top_p 0.9, answers of at most 2 tokens: required"
        in found.out
    )
    again = cli("gate", "tiny/refusal", "--policy", policy, "--evidence", "runs/gate/evidence-refusal.json")
    assert (again.code, again.out) == (1, "")
    assert "of answers drawn at temperature 0.7, top_p 0.9; the policy test is about greedy answers" in again.err
    assert "nothing is drawn at temperature 0" in cli(*common, "--prompts", own, "--top-p", 0.9).err
    assert "nan is not in the range" in cli(*common, "--prompts", own, "--temperature", "nan").err


def test_gate_refuses_bad_requests_and_writes_nothing(cli, workspace, model_folder):
    bad = write_policy(workspace, rule(maximum=1))
    for arguments in (
        (),
        ("tiny/refusal",),
        ("no/such", "--base", model_folder),
        ("tiny/refusal", "--base", model_folder, "--policy", bad),
        ("tiny/refusal", "--base", model_folder, "--policy", "gone.yaml"),
        ("tiny/refusal", "--base", model_folder, "--prompts", "gone.jsonl"),
        ("tiny/refusal", "--evidence", "gone.json"),
        ("tiny/refusal", "--evidence", bad, "--out", bad),
    ):
        found = cli("gate", *arguments, "--run", "runs/none")
        assert (found.code, found.out) == (1, ""), arguments
        assert "error: " in found.err
    assert not (workspace / "runs/none").exists()
    assert bad.read_bytes() == policy_bytes(rule(maximum=1))


def test_options_that_would_say_nothing_are_refused(cli, workspace, model_folder):
    evidence = ("--evidence", workspace / "patches/tiny/refusal/evidence.json")
    for arguments, said in (
        ((*evidence, "--limit", 1), "takes no prompts, reference or limit"),
        ((*evidence, "--revision", "main"), "--revision is of a base, and none is given"),
        (("--base", model_folder, "--revision", "main"), "a revision (main) goes with a hub id"),
    ):
        found = cli("gate", "tiny/refusal", *arguments)
        assert found.code == 1
        assert said in found.err
