import json

from clikit import write_rows


def test_eval_lets_another_model_read_the_answers(cli, workspace, model_folder, other_folder):
    own = write_rows(workspace / "mine.jsonl", [{"prompt": "Hello", "kind": "harmful"}, {"prompt": "Once"}])
    common = ("eval", "--base", model_folder, "--prompts", own, "--max-new-tokens", 3)
    found = cli(*common, "--scorer", other_folder, "--out", "e.json", "--report", "r.html")
    assert (found.code, found.err) == (0, "")
    assert f"perplexity of harmful answers under {other_folder}: M " in found.out
    evidence = json.loads((workspace / "e.json").read_text(encoding="utf-8"))
    for entry in evidence["sets"].values():
        scores = entry["systems"]["M"]
        assert scores["perplexity_under"][str(other_folder)]["value"] != scores["perplexity"]["value"]
    assert "perplexity under" in (workspace / "r.html").read_text(encoding="utf-8")


def test_eval_refuses_a_scorer_that_is_nowhere_before_it_measures(cli, workspace, model_folder):
    found = cli("eval", "--base", model_folder, "--scorer", "./nowhere", "--run", "fresh")
    assert found.code == 1
    assert "no such model folder or file: ./nowhere" in found.err
    assert not (workspace / "fresh").exists()
