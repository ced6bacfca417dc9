import json
from pathlib import Path

import pytest
import torch

from llmpatch.answers import Answer
from llmpatch.artifact.strict_json import parse_object
from llmpatch.errors import UsageError
from llmpatch.evals import SUITES, System, evaluate
from llmpatch.evals.prompt_sets import load_suite
from llmpatch.evals.utility import load_questions
from llmpatch.gate import parse_evidence
from llmpatch.gate.evidence import measure
from llmpatch.gate.policy import Rule
from llmpatch.reporting import render_html, render_markdown
from tinymodels import make_tiny

ROOT = Path(__file__).parents[2]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prefix(seed=2):
    return torch.randn(4, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for file in SUITES["utility"]:
        rows = [
            {"id": f"{file.name}:{i}", "prompt": f"What is {i}?", "choices": ["one", "two", "a long answer", "no"],
             "answer": i % 4, "category": "odd_sums"}
            for i in range(8)
        ]  # fmt: skip
        write(folder / file.path, rows)
    checks = [{"check": "length_constraints:number_words", "relation": "at least", "num_words": 2}]
    rows = [
        {"id": f"i:{i}", "prompt": f"Say {i}", "checks": [*checks, {"check": "startend:quotation"}]} for i in range(4)
    ]
    write(folder / "utility/ifeval.jsonl", rows)
    for file in SUITES["refusal"]:
        write(
            folder / file.path,
            [{"id": f"{file.name}:{i}", "prompt": f"{file.name} {i}?", "kind": file.kind} for i in range(3)],
        )
    (folder / "corpora").mkdir()
    (folder / "corpora" / "wikitext2-test.txt").write_text("The rain in Spain stays mainly in the plain. " * 40)
    return folder


def by_hand(base, rows, context, choice):
    """Log-likelihood of a choice by one forward pass, the prefix as input embeddings."""
    whole, start = base.text_ids(f"{context} {choice}"), len(base.text_ids(context))
    embeds = base.embed(torch.tensor(whole))
    past = 0 if rows is None else len(rows)
    with torch.no_grad():
        logits = base.model(inputs_embeds=(embeds if rows is None else torch.cat([rows, embeds]))[None]).logits[0]
    return sum(float(logits[past + i - 1].log_softmax(-1)[whole[i]]) for i in range(start, len(whole)))


def test_utility_gives_accuracies_that_a_report_and_a_gate_read(data):
    tiny = make_tiny(max_position_embeddings=2048)
    systems = [
        System("M"),
        System("M+", prefix=prefix()),
        System("M'", samples={}),
        System("safe", system_message="Be safe."),
    ]
    found = evaluate(tiny, systems, suite="utility", data=data)
    assert found == parse_object(json.dumps(found, allow_nan=False).encode(), where="evidence")
    assert (found["suite"], found["risk"], found["kinds"]["everyday"]["n"]) == ("utility", "utility", 24)
    for file in SUITES["utility"]:
        entry = found["sets"][file.name]
        assert entry["systems"].keys() == {"M", "M+", "safe"}
        questions = load_questions(data / file.path, form=file.name)
        for name, rows in (("M", None), ("M+", prefix())):
            right = {"accuracy": 0, "accuracy_norm": 0}
            for q in questions:
                scores = [by_hand(tiny, rows, q.context, choice) for choice in q.choices]
                lengths = [len(choice) for choice in q.choices]
                right["accuracy"] += max(range(4), key=lambda i: scores[i]) == q.answer
                right["accuracy_norm"] += max(range(4), key=lambda i: scores[i] / lengths[i]) == q.answer
            for key, count in right.items():
                assert entry["systems"][name][key]["value"] == pytest.approx(count / 8, abs=1e-6)
        moved = entry["paired"]["M+"]["accuracy"]
        assert moved["value"] == pytest.approx(
            entry["systems"]["M+"]["accuracy"]["value"] - entry["systems"]["M"]["accuracy"]["value"], abs=1e-6
        )
        assert moved["low"] <= moved["value"] <= moved["high"]
        assert moved["n"] == 8
    assert found["price"]["M+"]["wikitext"]["ratio"]["n"] > 0
    assert "ARC-Challenge" in render_html(found)
    assert "accuracy by length" in render_markdown(found)
    evidence = parse_evidence(json.dumps(found).encode())
    rule = Rule(id="a", why="b", risk="utility", metric="accuracy", set="mmlu", change="difference", min=-0.02, min_n=1)
    assert measure(rule, evidence).n == 8


def test_questions_are_put_as_the_harness_puts_them(data):
    forms = {file.name: load_questions(data / file.path, form=file.name)[0] for file in SUITES["utility"]}
    assert forms["arc_challenge"].context == "Question: What is 0?\nAnswer:"
    assert forms["arc_challenge"].choices == ("one", "two", "a long answer", "no")
    assert forms["mmlu"].context == (
        "The following are multiple choice questions (with answers) about odd sums.\n\n"
        "What is 0?\nA. one\nB. two\nC. a long answer\nD. no\nAnswer:"
    )
    assert forms["mmlu"].choices == ("A", "B", "C", "D")
    assert forms["truthfulqa"].context.endswith("Barcelona, Spain.\n\nQ: What is 0?\nA:")


def test_the_questions_of_the_repository_are_whole():
    counts = {f.name: len(load_questions(ROOT / "data" / f.path, form=f.name)) for f in SUITES["utility"]}
    assert counts == {"arc_challenge": 500, "mmlu": 570, "truthfulqa": 591}
    assert {s.name: len(s.prompts) for s in load_suite("ifeval", data=ROOT / "data")} == {"ifeval": 372}


def test_ifeval_counts_answers_that_have_the_form(tiny, data):
    answers = {"i:0": '"two words"', "i:1": "two words", "i:2": "word", "i:3": '"word"'}
    recorded = {ident: Answer(text, "stop") for ident, text in answers.items()}
    found = evaluate(tiny, [System("M"), System("M+", recorded=recorded)], suite="ifeval", data=data, max_new_tokens=3)
    scores = found["sets"]["ifeval"]["systems"]["M+"]
    assert scores["followed"]["value"] == 0.25
    assert scores["checks_passed"]["value"] == 0.5
    assert found["sets"]["ifeval"]["paired"]["M+"]["followed"]["n"] == 4
    assert found["decoding"]["max_new_tokens"] == 3
    assert parse_evidence(json.dumps(found).encode()).risk == "ifeval"


def test_facts_are_counted_where_an_answer_names_them(tiny, data):
    questions = [("f:0", ["Paris"]), ("f:1", ["seven", "7"]), ("f:2", ["He"]), ("f:3", ["Rome"])]
    rows = [{"id": ident, "prompt": f"What is {ident}?", "answers": answers} for ident, answers in questions]
    write(data / "utility/facts.jsonl", rows)
    said = {"f:0": "It is paris, I think.", "f:1": "There are 7.", "f:2": "he said so", "f:3": "Romeo"}
    recorded = {ident: Answer(text, "stop") for ident, text in said.items()}
    found = evaluate(tiny, [System("M"), System("M+", recorded=recorded)], suite="facts", data=data)
    scores = found["sets"]["facts"]["systems"]["M+"]["right"]
    assert (scores["value"], scores["n"]) == (0.5, 4)
    assert found["sets"]["facts"]["paired"]["M+"]["right"]["n"] == 4
    assert (found["risk"], found["decoding"]["max_new_tokens"]) == ("facts", 32)
    evidence = parse_evidence(json.dumps(found).encode())
    rule = Rule(id="a", why="b", risk="facts", metric="right", set="facts", change="difference", min=-0.02, min_n=1)
    assert measure(rule, evidence).n == 4


def test_the_distance_is_the_likelihood_of_recorded_answers(tiny, data):
    texts = {"harmbench_standard:0": ["I can't.", "No."], "everyday:1": ["Yes, and more."], "xstest_safe:0": [""]}
    samples = {ident: [Answer(text, "stop") for text in said] for ident, said in texts.items()}
    systems = [System("M"), System("M+", prefix=prefix()), System("M'", samples=samples)]
    found = evaluate(tiny, systems, suite="distance", data=data)
    assert found["sets"].keys() == {"harmbench_standard", "everyday"}
    prompts = {p.id: p.text for s in load_suite("distance", data=data) for p in s.prompts}
    for name, rows in (("M", None), ("M+", prefix())):
        wanted = []
        for text in texts["harmbench_standard:0"]:
            context, said = tiny.chat_ids(prompts["harmbench_standard:0"]), tiny.tokenizer.encode(text)
            embeds = tiny.embed(torch.tensor([*context, *said]))
            past = 0 if rows is None else len(rows)
            with torch.no_grad():
                both = embeds if rows is None else torch.cat([rows, embeds])
                logits = tiny.model(inputs_embeds=both[None]).logits[0].log_softmax(-1)
            at = past + len(context) - 1
            wanted.append(sum(float(logits[at + i, token]) for i, token in enumerate(said)) / len(said))
        scores = found["sets"]["harmbench_standard"]["systems"][name]["reference_log_likelihood"]
        assert scores["value"] == pytest.approx(sum(wanted) / 2, abs=1e-3)
    moved = found["kinds"]["everyday"]["paired"]["M+"]["reference_log_likelihood"]
    assert (moved["n"], 0 < moved["p"] <= 1) == (1, True)
    assert "log-likelihood of M' answers" in render_markdown(found)
    assert parse_evidence(json.dumps(found).encode()).risk == "distance"


def test_what_cannot_be_measured_is_refused(tiny, data, tmp_path):
    both = [System("M"), System("M+", prefix=prefix())]
    for systems, options, message in (
        (both, {"suite": "distance"}, "needs its recorded answers"),
        ([*both, System("M'", samples={"x": []})], {"suite": "distance"}, "no answer to any of these prompts"),
        (both, {"suite": "utility", "judges": []}, "judges nothing"),
        (both, {"suite": "utility", "samples": 2}, "answers each prompt once"),
        (both[1:], {"suite": "utility"}, "`M` must be there"),
        (both, {"suite": "ifeval", "data": tmp_path / "no"}, "no such file"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate(tiny, systems, **{"data": data, **options})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "row 1 has no `choices`"),
        ({"choices": ["a"], "answer": 0}, "row 1 has no `choices`"),
        ({"choices": ["a", "a"], "answer": 0}, "row 1 has no `choices`"),
        ({"choices": ["a", " "], "answer": 0}, "row 1 has no `choices`"),
        ({"choices": ["a", 3], "answer": 0}, "row 1 has no `choices`"),
        ({"choices": ["a", "b"]}, "row 1 has answer 'None'"),
        ({"choices": ["a", "b"], "answer": 2}, "row 1 has answer '2'"),
        ({"choices": ["a", "b"], "answer": True}, "row 1 has answer 'True'"),
    ],
)
def test_malformed_questions_are_refused_by_row(tmp_path, row, message):
    path = write(tmp_path / "mine.jsonl", [{"prompt": "What?", **row}])
    with pytest.raises(UsageError, match=message):
        load_questions(path)


def test_own_questions_take_the_suites_place(tiny, data, tmp_path):
    path = write(tmp_path / "mine.jsonl", [{"prompt": "What?", "choices": ["a", "b"], "answer": 1}])
    found = evaluate(tiny, [System("M")], suite="utility", prompts=[path], data=data)
    assert (found["suite"], found["risk"], list(found["sets"]), found["worse"]) == (
        "own prompts",
        "utility",
        ["mine"],
        [],
    )


# Long context


def long_data(data):
    for file in SUITES["long-context"]:
        write(data / file.path, [{"id": f"h:{i}", "prompt": f"Request {i}?", "kind": "harmful"} for i in range(5)])
    (data / "corpora" / "wikitext2-test.txt").write_text(" ".join(f"Sentence {i} of a text." for i in range(4000)))
    return data


def test_refusals_are_measured_behind_texts_that_fit(data):
    base = make_tiny(max_position_embeddings=900)
    no = Answer("I'm sorry, but I can't help with that.", "stop")
    fading = {f"after_500/h:{i}": no for i in range(2)} | {f"h:{i}": no for i in range(5)}
    systems = [System("M"), System("M+", prefix=prefix()), System("safe prompt", system_message="Be safe."),
               System("M'", recorded=fading)]  # fmt: skip
    found = evaluate(base, systems, suite="long-context", data=long_data(data), max_new_tokens=3)
    assert found == parse_object(json.dumps(found, allow_nan=False).encode(), where="evidence")
    assert (list(found["sets"]), found["left_out"]) == (["after_0", "after_500"], [1000, 2000])
    assert {name: s["systems"]["M'"]["n"] for name, s in found["sets"].items()} == {"after_0": 5, "after_500": 2}
    assert found["sets"]["after_500"]["systems"]["M+"]["refusal"]["refusal-head"]["n"] == 5
    assert found["fade"]["after_500"]["M+"]["refusal-head"]["n"] == 5
    assert found["fade"]["after_500"]["M'"]["refusal-phrases"]["n"] == 2
    assert found["fade"]["after_500"]["M'"]["refusal-phrases"]["value"] == 0.0
    assert (found["kinds"], found["price"]) == ({}, {})
    assert any(row["name"].startswith("Harmful requests behind 500 tokens") for row in found["results"])
    assert "behind 500 tokens" in render_html(found)
    assert parse_evidence(json.dumps(found).encode()).risk == "long-context"


def test_requests_stand_behind_passages_of_the_length(data, monkeypatch):
    from llmpatch.evals import long_context

    base = make_tiny(max_position_embeddings=4096)
    asked = []
    ask = long_context.ask
    monkeypatch.setattr(long_context, "ask", lambda b, s, p, *a, **k: asked.append(p) or ask(b, s, p, *a, **k))
    evaluate(base, [System("M")], suite="long-context", data=long_data(data), max_new_tokens=2, limit=5)
    assert [len(group) for group in asked] == [5, *[2, 1, 1, 1] * 3]
    assert [p.text for p in asked[0]] == [f"Request {i}?" for i in range(5)]
    for length, groups in zip((500, 1000, 2000), (asked[1:5], asked[5:9], asked[9:]), strict=True):
        texts = [text for group in groups for text in (p.text.rpartition("\n\n")[0] for p in group)]
        assert len(set(texts)) == 4
        assert all(abs(len(base.tokenizer.encode(text)) - length) <= 2 for text in texts)
        assert groups[1][0].text.endswith("\n\nRequest 1?")
    corpus = data / "corpora" / "wikitext2-test.txt"
    corpus.write_text("Too short. " * 20)
    with pytest.raises(UsageError, match="the corpus ends"):
        evaluate(base, [System("M")], suite="long-context", data=data, max_new_tokens=2)
    corpus.unlink()
    with pytest.raises(UsageError, match="no text to put before requests"):
        evaluate(base, [System("M")], suite="long-context", data=data, max_new_tokens=2)
    mine = write(data / "mine.jsonl", [{"prompt": "Hi"}])
    with pytest.raises(UsageError, match="no harmful prompts"):
        evaluate(base, [System("M")], suite="long-context", data=data, prompts=[mine])
