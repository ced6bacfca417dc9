"""What the evidence of every risk shares, without a model."""

from __future__ import annotations

from llmpatch.evals.columns import Column, column_evidence
from llmpatch.evals.common import summaries
from llmpatch.evals.prompt_sets import PromptSet
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
        "wordings": 12, "alone": None, "few": 3,
    }  # fmt: skip
    assert (found["kinds"]["harmful"]["n"], found["kinds"]["harmful"]["clusters"]) == (80, 32)
    assert found["kinds"]["everyday"]["clusters"] == 3


def test_numbers_of_one_wording_count_together_in_suites_of_columns():
    asked = PromptSet("facts", "Facts", "everyday", prompts(str(i // 5) for i in range(200)))
    right = {p.id: {"right": float(int(p.cluster) % 2)} for p in asked.prompts}
    table = {"facts": {"M": right, "M+": {p.id: {"right": 1.0} for p in asked.prompts}}}
    columns = (Column("right", "right", "higher"),)
    apart = PromptSet("facts", "Facts", "everyday", prompts(str(i) for i in range(200)))
    near, free = (column_evidence({}, [s], table, columns, {})["sets"]["facts"] for s in (asked, apart))
    assert (near["n"], near["clusters"]) == (200, 40)
    for found in (lambda e: e["systems"]["M"]["right"], lambda e: e["paired"]["M+"]["right"]):
        wide, narrow = found(near), found(free)
        assert wide["value"] == narrow["value"]
        assert wide["high"] - wide["low"] > 1.8 * (narrow["high"] - narrow["low"])


def test_ids_that_two_sets_share_are_prompts_of_each():
    """Only one of the sets asks some prompts in several wordings: the other's ids do not say so."""
    single = PromptSet("single", "Single", "everyday", prompts(str(i) for i in range(200)))
    worded = PromptSet("worded", "Worded", "everyday", prompts(str(i // 5) for i in range(200)))
    table = {
        s.name: {"M": {p.id: {"right": float(i // 5 % 2)} for i, p in enumerate(s.prompts)}} for s in (single, worded)
    }
    found = column_evidence({}, [single, worded], table, (Column("right", "right", "higher"),), {})
    alone = [
        column_evidence({}, [s], {s.name: table[s.name]}, (Column("right", "right", "higher"),), {})
        for s in (single, worded)
    ]
    for name, one in zip(("single", "worded"), alone, strict=True):
        assert found["sets"][name]["systems"] == one["sets"][name]["systems"]
    assert found["kinds"]["everyday"]["n"] == 400
