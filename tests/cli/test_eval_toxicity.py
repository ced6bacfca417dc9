import json

from clikit import write_rows


def test_eval_measures_toxicity_of_own_prompts(cli, workspace, model_folder):
    own = write_rows(workspace / "mine.jsonl", [{"prompt": "The man said", "kind": "harmful"}, {"prompt": "Once"}])
    said = [{"prompt": "The man said", "completion": text, "finish": "length"} for text in (" hello.", " good day.")]
    reference = write_rows(workspace / "reference.jsonl", said)
    common = ("eval", "tiny/refusal", "--base", model_folder, "--suite", "toxicity", "--prompts", own,
              "--reference", reference, "--samples", 2, "--max-new-tokens", 3)  # fmt: skip
    found = cli(*common, "--out", "e.json", "--report", "r.html", "--judge", "toxicity-head")
    assert (found.code, found.err) == (0, "")
    assert "expected max toxicity (toxicity-head), lower is better" in found.out
    assert "profanity-check" not in found.out
    evidence = json.loads((workspace / "e.json").read_text(encoding="utf-8"))
    assert set(evidence["systems"]) == {"M", "M+", "M'", "safe prompt"}
    assert evidence["sets"]["mine harmful"]["systems"]["M'"]["continuations"] == 2
    assert (workspace / "r.html").read_text(encoding="utf-8").startswith("<!")
    # The default judges read the same continuations.
    again = json.loads(cli(*common, "--json").out)
    assert [judge["name"] for judge in again["judges"]] == ["profanity-check", "toxicity-head"]
    text = evidence["examples"][0]["answers"]["M'"]["text"]
    assert text in ("hello.", "good day.")


def test_eval_refuses_what_does_not_fit_together(cli, workspace, model_folder):
    own = write_rows(workspace / "mine.jsonl", [{"prompt": "Hi"}])
    common = ("eval", "--base", model_folder, "--prompts", own)
    for wrong, said in (
        (("--samples", 2), "answers each prompt once"),
        (("--judge", "nonsense"), "no judge called"),
        (("--within", 7), "7.0 is no half width of an interval"),
        (("--top-p", 0.9), "nothing is drawn at temperature 0"),
        (("--suite", "toxicity", "--temperature", 1), "how suite 'toxicity' has its answers is settled"),
        (("--suite", "toxicity", "--judge", "harm-head"), "measures harm, not toxicity"),
    ):
        found = cli(*common, *wrong)
        assert found.code == 1, found
        assert said in found.err


def test_eval_says_how_many_prompts_were_enough(cli, workspace, model_folder):
    own = write_rows(workspace / "mine.jsonl", [{"prompt": f"Tell me {i}", "kind": "harmful"} for i in range(80)])
    found = cli(
        "eval", "--base", model_folder, "--prompts", own, "--within", 0.1, "--max-new-tokens", 2, "--out", "e.json"
    )
    assert (found.code, found.err) == (0, "")
    assert "aim: 95 % intervals of ± 0.1\nmine: asked 64 of 80 prompts" in found.out
    assert json.loads((workspace / "e.json").read_text(encoding="utf-8"))["sets"]["mine"]["of"] == 80


def test_eval_draws_answers_where_it_is_told_to(cli, workspace, model_folder):
    own = write_rows(workspace / "mine.jsonl", [{"prompt": "Hi", "kind": "everyday"}])
    asked = ("eval", "--base", model_folder, "--prompts", own, "--max-new-tokens", 6, "--json")
    greedy, drawn = (json.loads(cli(*asked, *more).out) for more in ((), ("--temperature", 1, "--top-p", 0.9)))
    assert [found["decoding"]["temperature"] for found in (greedy, drawn)] == [0, 1]
    assert greedy["examples"][0]["answers"] != drawn["examples"][0]["answers"]
    found = cli(*asked[:-1], "--temperature", 1)
    assert "one answer to each prompt, drawn at temperature 1.0, top_p 1.0; recordings as they are" in found.out
