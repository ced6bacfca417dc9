"""The comparison with TRL and PEFT compares the same training: on a tiny model both go the same way to the same loss."""

import argparse
import json
import sys
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from test_benchmark_scripts import ROOT, script

from clikit import save
from llmpatch.files import write_jsonl
from llmpatch.prefix import init_prefix
from llmpatch.recipe import PrefixSection
from tinymodels import make_tiny


@pytest.fixture
def options(tiny, tmp_path):
    def pair(i):
        kind = ("harmful", "borderline", "everyday")[i % 3]
        about = {"id": str(i), "kind": kind, "chosen_ends": False, "rejected_ends": False, "cluster": str(i)}
        texts = {
            "prompt": f"Tell me about {i} " + "and more " * (i % 3),
            "chosen": f"no, not {i}",
            "rejected": f"yes {i} it is",
        }
        return {**about, **texts, "chosen_score": 1.0, "rejected_score": 0.0}

    source = tmp_path / "pairs.jsonl"
    write_jsonl(source, [pair(i) for i in range(52)])
    told = {
        "base": str(save(tmp_path / "model", tiny)),
        "steps": 3,
        "pairs": 4,
        "tokens": 4,
        "answer_tokens": 3,
        "source": source,
    }
    return argparse.Namespace(**told)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_trl_with_pefts_prompt_tuning_goes_where_ours_goes(tiny, options, stage, tmp_path):
    peers = script("peers")
    found = {}
    for side in ("ours", "trl", *(["trl_kept"] if stage == "dpo" else [])):
        found[side] = peers.work(options, side, stage, str(tmp_path / f"{side}.safetensors"))
        assert found[side]["step_seconds"] > 0
    ours, start = load_file(tmp_path / "ours.safetensors")["rows"], init_prefix(tiny, PrefixSection(tokens=4), 0)
    for side in found.keys() - {"ours"}:
        theirs = load_file(tmp_path / f"{side}.safetensors")["rows"]
        # AdamW makes steps of one size out of gradients of any: where one is nearly zero, rounding decides its sign.
        moved = torch.nn.functional.cosine_similarity((theirs - start).flatten(), (ours - start).flatten(), dim=0)
        assert float(moved) > 0.98
        assert found[side]["validation_loss"] == pytest.approx(found["ours"]["validation_loss"], rel=1e-3)
        assert found[side]["flops"] > found["ours"]["flops"] > 0


def test_ratios_compare_what_ran_in_one_round(options, tmp_path, monkeypatch):
    peers = script("peers")
    monkeypatch.setattr(
        peers,
        "ask",
        lambda o, side, stage, folder: peers.work(o, side, stage, str(folder / f"{stage}-{side}.safetensors")),
    )
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in vars(options).items()]
    monkeypatch.setattr(
        sys, "argv", ["peers.py", *arguments, "--rounds=2", "--sides=ours,lora", f"--out={tmp_path}/o.json"]
    )
    peers.main()
    found = json.loads((tmp_path / "o.json").read_text())
    for stage in ("sft", "dpo"):
        assert set(found[stage]) == {"ours", "lora"}
        assert found[stage]["lora"]["seconds_over_ours"]["n"] == 2
        assert found[stage]["lora"]["validation_loss"] is None
        assert found[stage]["ours"]["validation_loss"] > 0


def test_each_side_is_a_process_of_its_own(options, tmp_path):
    found = script("peers").ask(options, "ours", "dpo", tmp_path)
    assert found["step_seconds"] > 0
    assert found["peak_mib"] > found["above_the_model_mib"] >= 0
    assert (tmp_path / "dpo-ours.safetensors").is_file()


@pytest.fixture
def beside(monkeypatch):
    """A benchmark imports those beside it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.mark.usefixtures("beside")
def test_growth_measures_both_sides_of_every_axis_and_keeps_the_others(options, tmp_path, monkeypatch):
    arguments = [f"--base={options.base}", f"--source={options.source}", "--rounds=2", f"--out={tmp_path}/g.json"]
    folders = [str(save(tmp_path / name, make_tiny(seed=seed))) for seed, name in enumerate("ab")]
    axes = {"tokens": "2,4", "pairs": "3", "answer": "2", "prompt": "5,40", "base": ",".join(folders)}
    fewer = partial(script("growth").Step, tokens=4, pairs=4, answer=3)
    for axis, values in axes.items():
        growth = script("growth")
        monkeypatch.setattr(growth, "Step", fewer)
        monkeypatch.setattr(sys, "argv", ["growth.py", f"--axis={axis}", f"--values={values}", *arguments])
        growth.main()
    found = json.loads((tmp_path / "g.json").read_text())["axes"]
    assert set(found) == set(axes)
    for rows in (axis["rows"] for axis in found.values()):
        for row in rows:
            assert row["gradient_relative_difference"] < 1e-4
            assert row["flops_plain_over_ours"] > 1
            assert row["plain"]["kept_mib"] > row["ours"]["kept_mib"] >= 0.1
            assert len(row["ours"]["seconds"]) == row["plain_over_ours"]["n"] == 2
    short, long = (row["ours"]["flops"] for row in found["prompt"]["rows"])
    assert long > 2 * short
    assert [row["value"] for row in found["base"]["rows"]] == folders


@pytest.mark.usefixtures("beside")
def test_growth_says_which_pairs_are_missing(options, monkeypatch, tmp_path):
    arguments = [f"--base={options.base}", f"--source={options.source}", f"--out={tmp_path}/g.json"]
    monkeypatch.setattr(sys, "argv", ["growth.py", "--axis=answer", "--values=400", *arguments])
    with pytest.raises(SystemExit, match="0 pairs have answers of 400 tokens, 8 are needed"):
        script("growth").main()
    assert not (tmp_path / "g.json").exists()


def test_every_part_of_a_step_can_be_left_out_and_the_loss_stays(options, tmp_path, monkeypatch):
    fast = script("fast_path")
    arguments = ["--pairs=3", "--steps=2", "--tokens=4", "--answer-tokens=3", "--rounds=2"]
    places = [f"--base={options.base}", f"--source={options.source}", f"--out={tmp_path}/f.json"]
    monkeypatch.setattr(sys, "argv", ["fast_path.py", *arguments, *places])
    fast.main()
    found = json.loads((tmp_path / "f.json").read_text())["without"]
    assert list(found) == list(fast.LEFT_OUT)
    for part in found.values():
        assert part["loss_difference"] < 1e-5
        assert part["over_ours"]["n"] == 2
    for name in ("shared prefix", "shared prompt", "logits on demand", "kept reference"):
        assert found[name]["flops_over_ours"] > 1.05
    assert found["packed weights"]["flops_over_ours"] == 1
    assert found["batches by length"]["flops_over_ours"] >= 1


def test_a_part_is_not_measured_on_too_few_pairs(options, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["fast_path.py", "--pairs=99", f"--base={options.base}", f"--source={options.source}"]
    )
    with pytest.raises(SystemExit, match="52 pairs, 396 are needed"):
        script("fast_path").main()
