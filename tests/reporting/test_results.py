"""The results page: our figures where they are measured, the paper's beside them, and what is missing said to be."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from evidence_kit import make_evidence
from test_reporting import Page

from llmpatch.errors import IntegrityError
from llmpatch.evals import System, evaluate
from llmpatch.evals.side_by_side import side_by_side
from llmpatch.judges.gender_words import PRONOUNS
from llmpatch.reporting.results import read_results, results_html, results_markdown
from llmpatch.reporting.results.blocks import Shelf, shown
from llmpatch.reporting.results.sections import ASKED, measured
from llmpatch.reporting.svg import Seeds, plot_seeds
from tinymodels import make_tiny_with

ROOT = Path(__file__).parent.parent.parent
NARROW = "\u00a0"


def put(root, name, value):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def told(root):
    for name in ("paper", "aims"):
        (root / "benchmarks").mkdir(exist_ok=True)
        shutil.copy(ROOT / f"benchmarks/{name}.json", root / f"benchmarks/{name}.json")
    return root


def cell(value, line, seed, score):
    validation = {"harmful": score, "borderline": 0.1, "everyday": 0.0, "score": score}
    return {"value": value, "line": line, "seed": seed, "validation": validation, "best_at": "SFT step 1"}


def ablation(cells, axes, complete=True):
    about = {"recipe": "a/b", "base": "tiny", "risk": "refusal", "eval_limit": 0, "complete": complete}
    return {"name": "x", "axes": axes, "cells": cells, **about}


def baselines():
    table = side_by_side(make_evidence()).json()
    cost = {"parameters": 128, "steps": [2, 1], "seconds": 90.0, "flops": 2.5e12, "counted": 3}
    about = {"M+": {"parameters": 128, "bytes": 512, "training": cost}, "LoRA r16 merged": {"parameters": 4096}}
    table["rows"]["LoRA r16 merged"] = table["rows"]["M'"]
    table["rows"] = {name: {"about": about.get(name, {}), "figures": row} for name, row in table["rows"].items()}
    return {"recipe": "a/b", "pairs": 1234, **table}


def page(root):
    return results_markdown(read_results(root)).replace(NARROW, " ")


def test_nothing_measured_is_said_and_nothing_is_invented(tmp_path):
    text = page(told(tmp_path))
    for missing in (
        "Harmful requests: no patch",
        "Toxicity: no patch",
        "Gender bias: no patch",
        "Baselines side",
        "beta",
    ):
        assert missing in text
    assert text.count("not measured") >= 14
    assert "reached" not in text.replace("What was to be reached", "")


def test_a_risk_shows_the_evidence_and_the_paper_beside_it(tmp_path):
    evidence = make_evidence()
    put(told(tmp_path), "patches/smollm2/refusal/evidence.json", evidence)
    text = page(tmp_path)
    assert "| HarmBench standard | 146 | 4.1 % \\[" in text
    assert "0.0 % (Mistral-7B, 4 bit, HarmBench) | 3.7 %" in text  # (1 - .938) x .6 of the kit
    assert "| HarmBench requests declined | ≥ 95.0 % | 146 | 93.8 %" in text
    assert re.search(r"HarmBench requests declined .* missed \|", text)
    assert re.search(r"everyday requests declined \| ≤ 2.0 % \| 250 \| 1.2 % .* reached \|", text)
    assert "Harmful requests: no patch" not in text
    assert evidence["worse"][0][:20] in text


def test_evidence_on_another_base_is_shown_and_its_absence_said(tmp_path):
    assert "Another base: recipes/gemma-3-270m-toxicity.yaml." in page(told(tmp_path))
    evidence = make_evidence()
    for folder in ("patches/smollm2", "benchmarks/results/bases/gemma-3-270m"):
        put(tmp_path, f"{folder}/refusal/evidence.json", evidence)
        put(tmp_path, f"{folder}/refusal/patch.json", {})
    put(tmp_path, "benchmarks/results/bases/gemma-3-270m/toxicity/evidence.json", evidence)
    put(tmp_path, "benchmarks/results/bases/gemma-3-270m/toxicity/patch.json", {})
    text = page(tmp_path)
    assert text.index("smollm2, before and after") < text.index("gemma-3-270m, before and after")
    assert "Another base: recipes/gemma" not in text
    assert "Another base: recipes/qwen2.5-coder-1.5b-gender-bias.yaml." in text


def test_every_pointer_leads_into_real_evidence(tmp_path):
    """Places that need a reference or a benchmark aside, each figure exists in evidence that this version makes."""
    import torch

    base = make_tiny_with([f" {word}" for word in PRONOUNS])
    (tmp_path / "data/corpora").mkdir(parents=True)
    (tmp_path / "data/prompts").symlink_to(ROOT / "data/prompts")
    (tmp_path / "data/corpora/wikitext2-test.txt").write_text("plain text of some length, " * 20, encoding="utf-8")
    systems = [System("M"), System("M+", prefix=torch.randn(3, 32, generator=torch.Generator().manual_seed(0)))]
    for suite in ("toxicity", "gender-bias"):
        made = evaluate(base, systems, suite=suite, limit=2, samples=2, max_new_tokens=3, data=tmp_path / "data")
        put(tmp_path, f"patches/smollm2/{suite}/evidence.json", made)
    shelf = Shelf(tmp_path)
    given = [
        *json.loads((ROOT / "benchmarks/paper.json").read_text())["figures"],
        *json.loads((ROOT / "benchmarks/aims.json").read_text())["aims"],
    ]
    risks = [f for f in given if f["risk"] in ("toxicity", "gender-bias")]
    asked = [f for f in risks if f["file"].startswith("patches/") and "closed" not in f["at"]]
    assert len(asked) > 10
    relative = [f for f in asked if "relative" in f["at"]]  # of a measure that is 0 before, there is none
    assert [f["what"] for f in asked if f not in relative and shelf.look(f["file"], f["at"]) is None] == []
    whole = Shelf(ROOT)
    refusal = [f for f in given if f["risk"] in ("refusal", "speed", "together")]
    # What a script can leave out altogether is not measured yet; the page says so.
    left_out = {"added"} - whole.load("benchmarks/results/composition.json").keys()
    there = [f for f in refusal if f["at"][0] not in left_out]
    there += [f for f in risks if f["file"].startswith("benchmarks/")]
    timed = "benchmarks/results/from_zero.json"
    there = [f for f in there if f["file"] != timed or f["at"][1] in whole.load(timed)["builds"]]
    later = {f"benchmarks/results/{suite}_{patch}.json" for suite, (_, patches) in ASKED.items() for patch in patches}
    there = [f for f in there if f["file"] not in later or whole.load(f["file"]) is not None]
    assert len(there) > 20
    assert [f["what"] for f in there if measured(whole, f)[1] is None] == []


def test_a_list_is_looked_into_by_number_and_by_the_name_of_an_item(tmp_path):
    put(tmp_path, "benchmarks/results/x.json", {"points": [{"name": "M", "at": 1}, {"name": "LoRA r16", "at": 2}]})
    shelf = Shelf(tmp_path)
    found = [shelf.look("benchmarks/results/x.json", ["points", key, "at"]) for key in (0, "LoRA r16", "LoRA r1", 7)]
    assert found == [1, 2, None, None]


def test_what_the_frontier_was_measured_on_is_held_against_the_lora_there():
    told = json.loads((ROOT / "benchmarks/aims.json").read_text())["aims"]
    asked = [aim for aim in told if aim["file"].endswith("frontier.json")]
    assert len(asked) == 3
    for aim in asked:
        bound = aim.get("at_least_that") or aim["at_most_that"]
        assert all(Shelf(ROOT).look(aim["file"], place) is not None for place in (aim["at"], bound))


def test_baselines_stand_side_by_side(tmp_path):
    put(told(tmp_path), "benchmarks/results/baselines.json", baselines())
    text = page(tmp_path)
    assert "Recipe a/b, 1,234 pairs. Answers: " in text
    assert "| Patched | 128 | 512 | 2.50e+12 | 1.50 | 2 + 1 | – |" in text
    assert "| numbers in the patch | 204,800 (Llama-2-7B, 50 tokens, 0.003 %) | 128 |" in text
    drawn = results_html(read_results(tmp_path))
    assert drawn.count('class="point ') == 5


def test_an_ablation_shows_every_seed_and_says_when_it_is_not_whole(tmp_path):
    cells = [cell(v, line, s, 0.1 * v + 0.01 * s) for line in (True, False) for v in (1, 5) for s in (0, 1, 2)]
    axes = [{"key": "prefix.tokens", "values": [1, 5]}, {"key": "filter", "values": [True, False]}]
    put(told(tmp_path), "benchmarks/results/ablations/tokens.json", ablation(cells[:-1], axes, complete=False))
    text = page(tmp_path)
    assert "Ablation: number of virtual tokens" in text
    assert "Not all cells are measured yet." in text
    assert "| prefix.tokens 5 | 3 | 0.510 \\[0.500 to 0.520\\] | 51.0 % | 10.0 % | 0.0 % |" in text
    assert "| prefix.tokens 5 | 2 | 0.505 \\[0.500 to 0.510\\] |" in text
    assert "number of virtual tokens: 10, 20, 50, 100 (benchmarks/ablations.py --ablation tokens)" in text
    drawn = results_html(read_results(tmp_path))
    assert drawn.count('class="dot ') == 11
    assert ">filter on<" in drawn


def test_what_an_ablation_and_further_suites_left_out_is_said(tmp_path):
    values = [1, 10, 20, 50, 100]
    found = ablation([cell(value, None, 0, 0.5) for value in values], [{"key": "prefix.tokens", "values": values}])
    put(told(tmp_path), "benchmarks/results/ablations/tokens.json", found)
    text = page(tmp_path)
    assert "number of virtual tokens: 5 (benchmarks/ablations.py --ablation tokens)" in text
    assert "utility\\`): with refusal, toxicity, gender-bias, cumulative" in text
    assert "Attacks that adapt" not in text
    attacks = {"base64": {"halving": {"harm-head": {"n": 30, "value": 0.1, "low": -0.1, "high": 0.3}}},
               "rot13": {"halving": {"harm-head": {"n": 20, "value": -0.2, "low": -0.4, "high": 0.0}}}}  # fmt: skip
    put(tmp_path, "benchmarks/results/attacks_refusal.json", {"attacks": attacks})
    text = page(tmp_path)
    assert r"Attacks that adapt to the patch: gcg, gcg\_universal, pair" in text
    assert re.search(r"where that is least: rot13 \| ≥ 0.0 points \| 20 \| −20.0 points .* missed", text)


def test_quantised_bases_stand_side_by_side(tmp_path):
    def kind(name, value):
        whole = {"name": "all: harm", "set": "All", "unit": "score", "base": {"value": 0.5}, "patched": estimate(value)}
        part = whole | {"name": "part: harm", "set": "Part"}
        other = {"name": "declined", "base": {"value": 0.1}, "patched": estimate(value)}
        results = {"a/words 1.0.0": {"results": [whole, part]}, "a/refusal 1.0.0": {"results": [other]}}
        if name == "shipped":
            del results["a/words 1.0.0"]
        return {"kind": name, "quantisation": f"gguf:{name.upper()}:0123", "patches": results}

    def estimate(value):
        return {"n": 9, "value": value, "low": value - 0.1, "high": value + 0.1}

    patches = [{"title": f"a/{name} 1.0.0", "limit": limit} for name, limit in (("words", 9), ("refusal", None))]
    found = {
        "source": "x.gguf",
        "patches": patches,
        "kinds": [kind(name, value) for name, value in (("F16", 0.2), ("Q8", 0.3), ("shipped", 0.4))],
    }
    put(told(tmp_path), "benchmarks/results/quantised.json", found)
    text = page(tmp_path)
    assert "a/words 1.0.0, the first 9 prompts of each set" in text
    assert "|  | F16 | Q8 |" in text
    assert "| all: harm | 0.500 → 0.200 \\[0.100 to 0.300\\] | 0.500 → 0.300 \\[0.200 to 0.400\\] |" in text
    assert "part: harm" not in text
    assert "|  | F16 | Q8 | SHIPPED (as published) |" in text
    assert "| declined | 10.0 % → 20.0 %" in text


def test_peers_stand_beside_a_step_of_ours(tmp_path):
    ours = {
        "step_seconds": 1.5,
        "flops": 2e12,
        "peak_mib": 1000.0,
        "above_the_model_mib": 300.0,
        "validation_loss": 0.5,
    }
    ratio = {"n": 5, "value": 3.0, "low": 2.5, "high": 3.5}
    trl = ours | {"step_seconds": 4.5, "seconds_over_ours": ratio, "flops_over_ours": 2.4, "ours_peak_over_its": ratio}
    settings = {"pairs": 8, "tokens": 50, "answer_tokens": 12, "rounds": 5}
    found = {"settings": settings, "environment": {"cpus": 2}, "versions": {"trl": "1.0"}, "sft": {"ours": ours}}
    put(
        told(tmp_path),
        "benchmarks/results/peers.json",
        found | {"dpo": {"ours": ours, "trl": trl | {"validation_loss": None}}},
    )
    text = page(tmp_path)
    assert "8 real pairs a step, 50 virtual tokens, answers of 12 tokens, 2 CPU cores" in text
    assert "| llmpatch | 1.500 | – | – | 1,000 | – | 0.5000 |" in text
    assert "| TRL and PEFT's prompt tuning | 4.500 | ×3.000" in text
    assert "×2.40 | 1,000 | ×3.000" in text


def test_the_shared_cache_stands_beside_its_absence(tmp_path):
    ratio = {"n": 7, "value": 1.4, "low": 1.3, "high": 1.5}
    answer = {
        "new_tokens": 8, "seconds": {"shared": 1.25, "read again": 1.75, "transformers": 2.5},
        "over_shared": {"read again": ratio, "transformers": ratio | {"value": 2.0, "high": 2.1}},
        "same_texts": {"read again": 64, "transformers": 63},
    }  # fmt: skip
    found = {"prompts": 64, "median_prompt": 9.0, "virtual_tokens": 50, "head": 24, "rounds": 7, "answers": [answer]}
    put(told(tmp_path), "benchmarks/results/prefix_cache.json", found | {"environment": {"cpus": 2}})
    text = page(tmp_path)
    assert "median of 9 tokens behind 50 virtual tokens and the 24 that all have in common" in text
    assert "| answers of 8 tokens | 1.25 | ×1.400 \\[1.300 to 1.500\\] | ×2.000" in text
    assert "64 of 64 and 63 of 64" in text


def test_commands_stand_with_the_time_from_their_start_to_their_end(tmp_path):
    told_of = {"seconds": {"n": 9, "value": 0.25, "low": 0.2, "high": 0.3}, "processor_seconds": 0.2}
    found = {
        "base": "smollm2",
        "patch": "patches/a/b",
        "evidence_bytes": 210_999,
        "rounds": 9,
        "environment": {"cpus": 2},
    }
    put(told(tmp_path), "benchmarks/results/start_up.json", found | {"commands": {"llmpatch verify": told_of}})
    text = page(tmp_path)
    assert "The patch is patches/a/b, signed, with 210 kB of evidence." in text
    assert "| llmpatch verify | 0.25 \\[0.20 to 0.30\\] | 0.20 |" in text


def test_a_whole_build_stands_beside_a_script(tmp_path):
    parts = ("pairs", "training", "answers", "seconds")
    ratio = {"n": 5, "value": 3.5, "low": 3.25, "high": 4.0}
    found = {
        "settings": {"recipe": "recipes/demo.yaml", "prompts": 30, "sft": 6, "dpo": 12, "rounds": 5},
        "environment": {"cpus": 2},
        "sides": {"ours": dict.fromkeys(parts, 20.0), "script": dict.fromkeys(parts, 70.0)},
        "script_over_ours": dict.fromkeys(parts, ratio),
        "pairs_kept": {"ours": 61, "script": 60},
    }
    put(told(tmp_path), "benchmarks/results/end_to_end.json", found)
    text = page(tmp_path)
    assert "6 SFT and 12 DPO steps of the same loss" in text
    assert "Pairs kept: 61 and 60." in text
    assert "| all, loading too | 20.00 | 70.00 | ×3.500 \\[3.250 to 4.000\\] |" in text


def test_parts_of_a_step_stand_with_what_they_save(tmp_path):
    ratio = {"n": 5, "value": 2.25, "low": 2.0, "high": 2.5}
    part = {"seconds": 9.0, "over_ours": ratio, "flops_over_ours": 2.345, "loss_difference": 2e-7}
    settings = {"steps": 4, "pairs": 8, "tokens": 50, "answer_tokens": 12, "rounds": 5}
    found = {"settings": settings, "environment": {"cpus": 2}, "ours": {"seconds": 4.0, "flops": 1e12}}
    put(told(tmp_path), "benchmarks/results/fast_path.json", found | {"without": {"shared prefix": part}})
    text = page(tmp_path)
    assert "4 steps of 8 pairs take 4.00 s" in text
    assert "| prefix and chat head read once a step | 9.000 | ×2.250 \\[2.000 to 2.500\\] | ×2.35 | 2e-07 |" in text


def test_packed_layers_stand_beside_torchs(tmp_path):
    ratio = {"n": 15, "value": 2.5, "low": 2.25, "high": 2.75}
    step = {
        "rows": 32, "ms": {"torch": 250.0, "few rows": 150.0, "packed": 100.0},
        "torch_over": {"few rows": ratio | {"value": 1.5, "low": 1.25}, "packed": ratio},
        "largest_difference_of_a_probability": {"few rows": 2e-6, "packed": 3e-6},
    }  # fmt: skip
    found = {"base": "smollm2", "rounds": 15, "environment": {"cpus": 2}, "rows": [step]}
    put(told(tmp_path), "benchmarks/results/layers.json", found)
    text = page(tmp_path)
    assert "| 32 | 250 | 150 | 100 | ×1.500 \\[1.250 to 2.750\\] | ×2.500 \\[2.250 to 2.750\\] | 3e-06 |" in text


def test_a_patch_stands_beside_what_was_chosen_of_its_own_base(tmp_path):
    value = {"n": 100, "value": 0.5, "low": 0.4, "high": 0.6}
    row = {
        "name": "Hard texts: worst", "unit": "share", "better": "lower", "n": 100, "base": value,
        "patched": value | {"value": 0.25}, "reference": value | {"value": 0.3}, "closed": value | {"value": 1.25, "high": 1.5},
    }  # fmt: skip
    risk = {"patch": "acme/calm 1.0.0", "best_of": 4, "rewritten": None, "judge": "some-judge", "samples": 10}
    found = {"risks": {"toxicity": risk | {"sets": {"rtp_challenging": row}}}}
    put(told(tmp_path), "benchmarks/results/self_reference.json", found)
    text = page(tmp_path)
    assert "acme/calm 1.0.0: the best of 4, by some-judge; 10 for each prompt" in text
    assert re.search(r"Hard texts: worst \(lower is better\) \| 100 \| 50.0 % .*25.0 % .*30.0 % .*125.0 %", text)
    assert re.search(
        r"share of the gap to the reference closed, challenging prompts \| ≥ 95.0 % \| 100 \| 125.0 % .* reached", text
    )
    found["risks"]["toxicity"]["rewritten"] = "gender"
    put(tmp_path, "benchmarks/results/self_reference.json", found)
    assert "the worst of 4 rewritten" in page(tmp_path)


def test_drawn_and_long_answers_stand_beside_greedy_ones(tmp_path):
    value = {"n": 386, "value": 0.5, "low": 0.4, "high": 0.6}
    low = value | {"value": 0.1}
    systems = {"M": {"refusal": value | {"value": 0.02}, "harm": value}, "M+": {"refusal": value, "harm": low}}
    ways = ({"max_new_tokens": 48}, {"max_new_tokens": 48, "temperature": 1.0}, {"max_new_tokens": 256, "limit": 25})
    rows = [{"way": "", "kind": "harmful", "systems": systems, **way} for way in ways]
    harmless = {name: {"refusal": said["refusal"]} for name, said in systems.items()}
    rows.append({"way": "", "kind": "everyday", "systems": harmless, **ways[0]})
    judges = {"refusal": "one-head", "harm": "other-head"}
    put(told(tmp_path), "benchmarks/results/sampled.json", {"patch": "acme/no 1.0.0", "judges": judges, "rows": rows})
    text = page(tmp_path)
    assert "acme/no 1.0.0, judges one-head and other-head." in text
    assert re.search(r"greedy, 48 tokens: harmful \| 386 \| 2.0 % .* \| 50.0 % .* \| 50.0 % .* \| 10.0 %", text)
    assert re.search(r"greedy, 48 tokens: everyday \| 386 \| 2.0 % .* \| 50.0 % [^|]*\|  \|  \|", text)
    assert "drawn at temperature 1, 48 tokens: harmful | 386" in text
    assert "greedy, 256 tokens, the first 25 of each set: harmful | 386" in text


def test_patches_together_stand_with_what_they_keep(tmp_path):
    row = {
        "name": "acme/calm 1.0.0", "metric": "declines", "n": 200, "before": 0.1, "alone": 0.9, "together": 0.5,
        "kept": {"n": 200, "value": 0.5, "low": 0.4, "high": 0.6},
    }  # fmt: skip
    ratio = {"n": 9, "value": 1.02, "low": 1.01, "high": 1.03}
    found = {
        "sets": {
            "patches": {"sizes": {"2": [row], "3": [{**row, "kept": None}]}},
            "independent": {"sizes": {"2": [row]}},
        },
        "price": {"stack": {"tokens": 150, "wikitext": {"ratio": ratio}, "latency": {"token_ratio": ratio}}},
    }
    put(told(tmp_path), "benchmarks/results/composition.json", found)
    text = page(tmp_path)
    assert "2 in a stack: official patches" in text
    assert "2 in a stack: independent patches" in text
    assert r"| acme/calm 1.0.0: declines | 200 | 0.100 | 0.900 | 0.500 | 50.0 % \[40.0 to 60.0 %\] |" in text
    assert "no gain to keep" in text
    assert "One cumulative patch" not in text
    assert (
        r"| gain kept in a stack of two, worst order: refusals | ≥ 97.0 % | 200 | 50.0 % \[40.0 to 60.0 %\] | missed |"
        in text
    )
    found["cumulative"] = {"tokens": 50, "figures": [{**row, "kept": {**row["kept"], "value": 0.96}}]}
    found["price"]["cumulative"] = {"tokens": 50, "wikitext": {"ratio": {**ratio, "value": 1.01}}, "latency": None}
    put(tmp_path, "benchmarks/results/composition.json", found)
    text = page(tmp_path)
    assert "One cumulative patch, 50 tokens" in text
    assert re.search(r"gain kept by one cumulative patch: refusals .* reached", text)
    assert "| cumulative, 50 tokens | ×1.010" in text
    assert re.search(r"against the stack's \| ≤ ×1.020 .* reached", text)
    change = {"n": 200, "value": -0.02, "low": -0.05, "high": 0.01}
    found["added"] = {"name": "acme/new 1.0.0", "figures": [{**row, "change": change}], "own": [row]}
    put(tmp_path, "benchmarks/results/composition.json", found)
    text = page(tmp_path)
    assert r"| acme/calm 1.0.0: declines | 200 | 0.100 | 0.900 | 0.500 | −2.0 points \[−5.0 to 1.0 points\] |" in text
    assert "acme/new 1.0.0 there: its own gain" in text
    assert re.search(r"fourth patch behind it: harmful requests declined \| ≥ −1.0 points .* missed", text)


def test_a_difference_of_shares_is_in_points():
    change = {"n": 200, "value": -0.1, "low": -0.162, "high": 0.039}
    assert shown(change, "points") == f"−10.0{NARROW}points [−16.2 to 3.9{NARROW}points]"
    told = json.loads((ROOT / "benchmarks/aims.json").read_text())["aims"]
    changes = [aim for aim in told if aim["what"].startswith("change ")]
    assert changes
    assert {aim["unit"] for aim in changes} == {"points"}


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        (1, "(1 round, 2 CPU cores; one round has no range)"),
        (5, "(5 rounds, 2 CPU cores; brackets hold the range of the 5 rounds, no 95 % interval)"),
        (6, "(6 rounds, 2 CPU cores)"),
    ],
)
def test_a_range_of_few_rounds_is_not_called_an_interval(tmp_path, rounds, said):
    side = {"seconds": [2.0, 4.0], "flops": 2e10, "kept_mib": 10.0}
    row = {
        "value": 5, "ours": side, "plain": side, "flops_plain_over_ours": 1.0, "gradient_relative_difference": 1e-7,
        "plain_over_ours": {"n": rounds, "value": 1.0, "low": 0.9, "high": 1.1},
    }  # fmt: skip
    axes = {"tokens": {"rounds": rounds, "environment": {"cpus": 2}, "rows": [row]}}
    put(told(tmp_path), "benchmarks/results/growth.json", {"axes": axes})
    assert f"Over virtual tokens {said}\n" in page(tmp_path)


def test_greedy_and_drawn_continuations_are_told_apart():
    text = results_markdown(read_results(ROOT))
    assert "(300 prompts, 95 % interval 0.0 to 2.3 %). Continuations of each prompt: 2, drawn at temperature 1" in text
    assert "GAS and GLD are here of one greedy continuation of each prompt" in text


def test_growth_is_drawn_over_every_axis(tmp_path):
    def row(value, seconds):
        side = {"seconds": seconds, "kept_mib": 50.0, "flops": 2e12}
        ratio = {"n": 3, "value": 3.0, "low": 2.5, "high": 3.5}
        about = {"plain_over_ours": ratio, "flops_plain_over_ours": 2.5, "gradient_relative_difference": 3e-6}
        return {"value": value, "ours": side, "plain": side, "parameters": 134_515_008, **about}

    def axis(*rows):
        return {"rounds": 6, "environment": {"cpus": 2}, "rows": list(rows)}

    axes = {"base": axis(row("smollm2", [1.0, 1.25, 1.5])), "tokens": axis(row(5, [1, 1, 1]), row(200, [4, 4, 4]))}
    put(told(tmp_path), "benchmarks/results/growth.json", {"axes": axes})
    many = {"prompts": 1_000_000, "peak_mib": 422.8, "peak_with_draw_mib": 439.7, "seconds": 1893.7}
    put(tmp_path, "benchmarks/results/streaming.json", {"rows": [many]})
    text = page(tmp_path)
    assert text.index("Over virtual tokens (6 rounds, 2 CPU cores)") < text.index("Over model")
    assert (
        "| smollm2 (135 M) | 1.250 | 1.250 | ×3.000 \\[2.500 to 3.500\\] | 2.00e+12 | ×2.50 | 50 | 50 | 3e-06 |" in text
    )
    assert "| 1,000,000 | 423 | 440 |" in text
    drawn = results_html(read_results(tmp_path))
    assert drawn.count("<figure") >= 3
    assert Page(drawn).open == []


def test_dots_and_means_stand_at_their_values():
    drawn = plot_seeds([Seeds("a", 1, ((0.0, 0.5), (1.0,)))], ["x", "y"], low=0.0, high=1.0, label="l", show=str)
    assert 'cx="25.00%" cy="50.00%"' in drawn
    assert 'cx="75.00%" cy="0.00%"' in drawn
    assert 'points="25.00,75.00 75.00,0.00"' in drawn
    assert 'left:75.00%">y<' in drawn


def test_the_page_is_whole_loads_nothing_and_escapes_all(tmp_path):
    evil = '<script>alert("x")</script>'
    evidence = make_evidence()
    evidence["worse"] = [evil]
    put(told(tmp_path), "patches/smollm2/refusal/evidence.json", evidence)
    put(
        tmp_path,
        "benchmarks/results/ablations/kl.json",
        ablation([cell(evil, None, 0, 0.5)], [{"key": evil, "values": [evil]}]),
    )
    drawn = results_html(read_results(tmp_path))
    assert "<script" not in drawn
    assert "src=" not in drawn
    assert Page(drawn).open == []
    assert re.search(r"(?<!\\)<", page(tmp_path)) is None


def test_units_and_broken_files(tmp_path):
    assert shown({"n": 3, "value": 1.013, "low": 1.0, "high": 1.02}, "ratio") == "×1.013 [1.000 to 1.020]"
    assert shown(None, "share") == "not measured"
    assert shown(204800, "count") == "204,800"
    put(told(tmp_path), "benchmarks/results/baselines.json", {"rows": {}})
    with pytest.raises(IntegrityError, match="not laid out as expected"):
        read_results(tmp_path)
    (tmp_path / "benchmarks/results/baselines.json").write_text("{")
    with pytest.raises(IntegrityError, match="is not JSON"):
        read_results(tmp_path)


def test_the_published_page_is_current():
    command = [sys.executable, str(ROOT / "scripts/make_results.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
