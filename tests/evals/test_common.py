"""What the evidence of every risk shares, without a model."""

from __future__ import annotations

from llmpatch.evals.common import summaries
from llmpatch.evals.suites import PromptSet
from llmpatch.prompts import Prompt


def prompts(clusters):
    return tuple(Prompt(f"p{i}", f"text {i}", "harmful", cluster) for i, cluster in enumerate(clusters))


def test_evidence_says_how_many_clusters_stand_behind_an_interval():
    wordings = PromptSet("wordings", "Wordings", "harmful", prompts(str(i // 5) for i in range(60)))
    alone = PromptSet("alone", "Alone", "harmful", prompts(f"a{i}" for i in range(20)))
    few = PromptSet("few", "Few", "everyday", prompts(str(i % 3) for i in range(20)))
    table = {s.name: {"M": len(s.prompts)} for s in (wordings, alone, few)}
    found = summaries(
        [wordings, alone, few], table, lambda n: {"n": n}, lambda a, b: {}, lambda parts: sum(n for _, n in parts)
    )
    assert {name: entry.get("clusters") for name, entry in found["sets"].items()} == {
        "wordings": 12, "alone": None, "few": None,
    }  # fmt: skip
    assert (found["kinds"]["harmful"]["n"], found["kinds"]["harmful"]["clusters"]) == (80, 32)
    assert "clusters" not in found["kinds"]["everyday"]
