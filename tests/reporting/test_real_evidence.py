"""The evals' own evidence, of a tiny model, goes through both renderers."""

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
