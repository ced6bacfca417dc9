"""Perplexity under other models: their own figures, kept, and said only of answers that are there."""

from __future__ import annotations

import math

import pytest

from clikit import save, write_rows
from llmpatch.answers import Answer
from llmpatch.errors import IntegrityError, UsageError
from llmpatch.evals import System
from llmpatch.evals.scorers import evaluate_scored
from tinymodels import make_tiny

TEXTS = ["Tell me about rain", "What is a stone?"]


@pytest.fixture
def scorer(tmp_path):
    return str(save(tmp_path / "scorer", make_tiny("qwen2", seed=5)))


def own(tmp_path, texts=TEXTS, kind="harmful"):
    return [write_rows(tmp_path / "own.jsonl", [{"prompt": text, "kind": kind} for text in texts])]


def by_hand(model, prompt, answer):
    """Summed nats and tokens of an answer behind a chat prompt."""
    import torch

    asked, said = model.chat_ids(prompt), model.tokenizer.encode(answer, add_special_tokens=False)
    with torch.no_grad():
        scores = model.model(input_ids=torch.tensor([asked + said])).logits[0].log_softmax(-1)
    picked = scores[len(asked) - 1 : -1].gather(1, torch.tensor(said)[:, None])
    return -float(picked.sum()), len(said)


def test_the_perplexity_is_the_scorers_own(tmp_path, scorer):
    base = make_tiny()
    recorded = {TEXTS[0]: Answer("It falls from clouds.", "stop"), TEXTS[1]: Answer("A hard thing", "stop")}
    evidence = evaluate_scored(
        base, [System("M"), System("M'", recorded=recorded)], [scorer], prompts=own(tmp_path), max_new_tokens=4,
        store=tmp_path / "store", data=tmp_path,
    )  # fmt: skip
    rows = [by_hand(make_tiny("qwen2", seed=5), text, recorded[text].text) for text in TEXTS]
    wanted = math.exp(sum(nats for nats, _ in rows) / sum(n for _, n in rows))
    for entry in (evidence["sets"]["own"], evidence["kinds"]["harmful"]):
        assert entry["systems"]["M'"]["perplexity_under"][scorer]["value"] == pytest.approx(wanted, rel=1e-3)
        assert entry["systems"]["M"]["perplexity_under"][scorer]["n"] == 2
    assert evidence["scorers"][0]["fingerprint"]["embeddings"] != evidence["base"]["fingerprint"]["embeddings"]


def test_what_a_scorer_said_is_kept_and_checked(tmp_path, scorer, monkeypatch):
    def measure():
        return evaluate_scored(
            make_tiny(), [System("M")], [scorer], prompts=own(tmp_path), max_new_tokens=4, store=tmp_path / "store",
            data=tmp_path,
        )["sets"]["own"]["systems"]["M"]["perplexity_under"]  # fmt: skip

    first = measure()
    _, by_scorer = sorted((tmp_path / "store").glob("*.losses.json"), key=lambda path: path.stat().st_mtime_ns)
    monkeypatch.setattr("llmpatch.evals.kept_losses.answer_losses", lambda *a: pytest.fail("scored again"))
    assert measure() == first
    by_scorer.write_text('{"own": 1}')
    with pytest.raises(IntegrityError, match=r"kept losses .* are damaged"):
        measure()


def test_samples_of_continuations_are_scored_as_the_base_scores_them(tmp_path):
    """Of a scorer that is the base itself, the figure is the evidence's own perplexity."""
    same = str(save(tmp_path / "same", make_tiny()))
    evidence = evaluate_scored(
        make_tiny(), [System("M")], [same], suite="toxicity", prompts=own(tmp_path, ["It was a", "They said that"]),
        samples=3, max_new_tokens=5, store=None, data=tmp_path,
    )  # fmt: skip
    found = evidence["sets"]["own"]["systems"]["M"]
    assert found["perplexity_under"][same] == pytest.approx(found["perplexity"], rel=1e-3)


@pytest.mark.parametrize(
    ("suite", "scorers", "message"),
    [
        ("utility", ["./nowhere"], "has no answers to score"),
        ("refusal", ["./nowhere"], "no such model"),
        ("refusal", ["a/b", "a/b"], "a name twice"),
    ],
)
def test_bad_scorers_are_said_before_anything_is_measured(tmp_path, suite, scorers, message):
    with pytest.raises(UsageError, match=message):
        evaluate_scored(make_tiny(), [System("M")], scorers, suite=suite, prompts=own(tmp_path), data=tmp_path)
