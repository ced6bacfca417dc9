import io
import json
import sys

import pytest

from clikit import write_rows
from llmpatch.artifact import read_patch
from llmpatch.bases import load_base
from llmpatch.evals import SUITES


def test_show_says_what_a_patch_is_without_loading_a_model(cli, workspace):
    found = cli("show", "tiny/refusal")
    patch = read_patch(workspace / "patches/tiny/refusal")
    assert found.code == 0
    assert found.out.startswith("tiny/refusal 0.1.0\n")
    for text in (
        patch.digest,
        "A patch for a random model.",
        "4 of 32 numbers",
        "HarmBench standard, declined",
        "none:",
    ):
        assert text in found.out
    shown = json.loads(cli("show", "patches/tiny/refusal", "--json").out)
    assert shown["digest"] == patch.digest
    assert shown["manifest"]["name"] == "tiny/refusal"
    assert shown["results"] == patch.evidence["results"]


def test_show_refuses_damage_and_absence(cli, workspace):
    card = workspace / "patches/tiny/refusal/README.md"
    card.write_text(card.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert cli("show", "tiny/refusal").code == 6
    assert cli("show", "no/such").code == 1


def test_build_prints_results_and_never_overwrites_unasked(cli, workspace):
    again = ("build", "recipes/demo.yaml", "-o", "patches/tiny/refusal", "--run", "runs/tiny")
    assert cli(*again).code == 1
    before = read_patch(workspace / "patches/tiny/refusal").embeddings
    found = cli(*again, "--overwrite", "--json")
    assert found.code == 0
    printed = json.loads(found.out)
    assert printed["digest"] == read_patch(workspace / "patches/tiny/refusal").digest
    assert (workspace / printed["report"]).is_file()
    assert (read_patch(workspace / "patches/tiny/refusal").embeddings == before).all()


def test_build_checks_a_recipe_without_building(cli, workspace):
    found = cli("build", "recipes/demo.yaml", "-o", "new", "--dry-run", "--json", "--set", "training.sft.steps=7")
    assert found.code == 0
    assert json.loads(found.out)["train"] == {"harmful": 4, "borderline": 4, "everyday": 4}
    assert "SFT 7 steps" in json.loads(found.out)["method"]
    assert "SFT 2 steps" in cli("build", "recipes/demo.yaml", "-o", "new", "--dry-run").out
    assert not (workspace / "new").exists()


@pytest.mark.parametrize(
    ("assignment", "said"),
    [("training.sft.stepz=7", "training.sft.stepz"), ("training.sft.steps=many", "sft.steps"), ("seed", "no '='"),
     ("prompts.harmful.train=[]", "prompts.harmful.train"), ("prompts.harmful.train=[gone.jsonl]", "gone.jsonl")],
)  # fmt: skip
def test_build_names_what_is_wrong_in_a_recipe(cli, workspace, assignment, said):
    found = cli("build", "recipes/demo.yaml", "-o", "new", "--dry-run", "--set", assignment)
    assert found.code == 1
    assert said in found.err


def test_eval_measures_own_prompts_and_writes_what_is_asked(cli, workspace, model_folder):
    kinds = ("harmful", "borderline", "everyday")
    own = write_rows(workspace / "mine.jsonl", [{"prompt": f"do {k}", "kind": k} for k in kinds for _ in range(1)])
    answers = write_rows(workspace / "reference.jsonl", [{"prompt": "do harmful", "completion": "I'm sorry, I can't."}])
    common = ("eval", "tiny/refusal", "--base", model_folder, "--prompts", own, "--reference", answers,
              "--max-new-tokens", 4)  # fmt: skip
    found = cli(*common, "--out", "e.json", "--report", "r.html")
    assert (found.code, found.err) == (0, "")
    assert "mine harmful, declined" in found.out
    evidence = json.loads((workspace / "e.json").read_text(encoding="utf-8"))
    assert set(evidence["systems"]) == {"M", "M+", "M'", "safe prompt"}
    assert evidence["sets"]["mine harmful"]["systems"]["M'"]["refusal"]["refusal-head"]["n"] == 1
    assert (workspace / "r.html").read_text(encoding="utf-8").startswith("<!")
    printed = json.loads(cli(*common, "--json").out)
    assert printed["sets"]["mine harmful"]["systems"] == evidence["sets"]["mine harmful"]["systems"]


def test_eval_of_a_base_alone_takes_the_suite(cli, workspace, model_folder):
    found = cli("eval", "--base", model_folder, "--limit", 1, "--max-new-tokens", 2, "--json", "--report", "r.html")
    assert found.code == 0
    evidence = json.loads(found.out)
    assert set(evidence["sets"]) == {file.name for file in SUITES["refusal"]}
    assert "M+" not in evidence["systems"]
    assert cli("eval", "--base", model_folder, "--suite", "nonsense").code == 1
    assert cli("eval", "--base", model_folder, "--report", "runs").code == 1


def test_chat_answers_each_line_on_its_own(cli, workspace, model_folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n\nhello\nx\n"))
    found = cli("chat", "--base", model_folder, "--patch", "tiny/refusal", "--max-new-tokens", 3)
    model = read_patch(workspace / "patches/tiny/refusal").apply(load_base(str(model_folder)))
    first, last = (answers[0] for answers in model.generate(["hello", "x"], max_new_tokens=3))
    from llmpatch._cli.output import safe

    assert found.code == 0
    assert found.out == "".join(safe(text) + "\n" for text in (first, first, last))


def test_chat_stops_at_a_question_that_does_not_fit(cli, model_folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 5000 + "\n"))
    assert cli("chat", "--base", model_folder, "--max-new-tokens", 3).code == 1


def test_models_lists_where_they_lie_and_knows_its_own(cli):
    found = cli("models", "list")
    assert found.code == 0
    assert "smollm2" in found.out
    assert "Apache-2.0" in found.out
    assert cli("models", "pull", "nonsense").code == 1
    assert cli("models", "pull", "smollm2").out.strip().endswith("SmolLM2-135M-Instruct.Q4_1.gguf")


def test_demo_builds_shows_and_compares(cli, workspace):
    (workspace / "patches/tiny").rename(workspace / "patches/smollm2")
    found = cli("demo")
    assert found.code == 0
    for text in (
        "Before and after",
        "BEFORE",
        "AFTER",
        "everyday: ",
        "runs/demo/report.html",
        "small training",
        "reaches",
    ):
        assert text in found.out
    assert read_patch(workspace / "runs/demo/patch").manifest.name == "tiny/refusal"


def test_demo_says_where_it_can_run(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = cli("demo")
    assert found.code == 1
    assert "repository" in found.err
