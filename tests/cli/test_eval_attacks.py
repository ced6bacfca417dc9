import json


def test_eval_runs_the_attacks_that_are_named(cli, workspace, model_folder):
    common = ("eval", "tiny/refusal", "--base", model_folder, "--suite", "attacks", "--limit", 1, "--max-new-tokens", 2)
    found = cli(*common, "--attacks", "none,rot13,gcg@1x2", "--out", "e.json", "--report", "r.html")
    assert (found.code, found.err) == (0, "")
    assert "ROT13, complied" in found.out
    evidence = json.loads((workspace / "e.json").read_text(encoding="utf-8"))
    assert list(evidence["sets"]) == ["none", "rot13", "gcg"]
    assert set(evidence["sets"]["gcg"]["systems"]) == {"M", "M+", "safe prompt"}
    assert set(evidence["attacks"]["gcg"]["halving"]) == {"harm-head", "harm-strings"}
    assert "GCG suffix" in (workspace / "r.html").read_text(encoding="utf-8")


def test_eval_says_which_attack_it_does_not_know(cli, workspace, model_folder):
    found = cli("eval", "--base", model_folder, "--suite", "attacks", "--attacks", "none,magic")
    assert found.code == 1
    assert "magic" in found.err
    assert cli("eval", "--base", model_folder, "--attacks", "none").code == 1
