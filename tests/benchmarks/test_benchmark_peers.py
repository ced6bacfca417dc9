"""The comparison with TRL and PEFT compares the same training: on a tiny model both go the same way to the same loss."""

import argparse
import json
import sys

import pytest
import torch
from safetensors.torch import load_file
from test_benchmark_scripts import script

from clikit import save
from llmpatch.files import write_jsonl
from llmpatch.prefix import init_prefix
from llmpatch.recipe import PrefixSection


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
