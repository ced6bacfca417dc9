"""The evals' own evidence, of a tiny model, goes through both renderers."""

import re

import torch

from llmpatch.evals import System, evaluate
from llmpatch.files import write_jsonl
from llmpatch.reporting import render_html, render_markdown


def test_evidence_of_the_evals_is_rendered(tiny, tmp_path):
    kinds = ("harmful", "borderline", "everyday")
    write_jsonl(tmp_path / "mine.jsonl", [{"prompt": f"{kind} {i}?", "kind": kind} for kind in kinds for i in range(3)])
    systems = [System("M"), System("M+", prefix=torch.randn(5, 32)), System("safe prompt", system_message="Be safe.")]
    evidence = evaluate(tiny, systems, prompts=[tmp_path / "mine.jsonl"], max_new_tokens=5)
    page, text = render_html(evidence), render_markdown(evidence)
    for rendered in (page, text):
        assert "mine harmful" in rendered
        assert "Time per further token" in rendered
        assert "How to reproduce" in rendered
    assert "llmpatch eval PATCH --base tiny-llama --prompts YOURS.jsonl" in page


def test_evidence_of_toxicity_is_rendered_under_its_measures(tiny, tmp_path):
    kinds = ("harmful", "borderline")
    rows = [{"prompt": f"{kind} {i} and", "kind": kind} for kind in kinds for i in range(3)]
    write_jsonl(tmp_path / "mine.jsonl", rows)
    systems = [System("M"), System("M+", prefix=torch.randn(5, 32)), System("safe prompt", system_message="Be safe.")]
    evidence = evaluate(tiny, systems, suite="toxicity", prompts=[tmp_path / "mine.jsonl"], samples=2, max_new_tokens=5)
    page, text = render_html(evidence), render_markdown(evidence)
    for rendered in (page, text):
        assert "mine harmful" in rendered
        assert "xpected max toxicity (profanity-check)" in rendered
        assert "lower is better" in rendered
        assert "Time per further token" in rendered
        assert "distinct trigrams" in rendered
        assert "cut to 120 characters" in rendered
        assert "llmpatch eval PATCH --base tiny-llama --prompts YOURS.jsonl --suite toxicity" in rendered
        assert "declines" not in rendered
    assert "Continuations that are not toxic (profanity-check)" in page
    assert re.search(
        r"The patch (lowers|raises|leaves) “mine harmful: expected max toxicity .*?” (from|at) 0\.\d", page
    )
