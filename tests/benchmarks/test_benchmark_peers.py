"""The comparison with TRL and PEFT compares the same training: on a tiny model both end at the same rows."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_benchmark_scripts import script

from clikit import save
from llmpatch.files import write_jsonl

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def options(tiny, tmp_path):
    def pair(i):
        about = {"id": str(i), "kind": "harmful", "chosen_ends": False, "rejected_ends": False, "cluster": str(i)}
        texts = {
            "prompt": f"Tell me about {i} " + "and more " * (i % 3),
            "chosen": f"no, not {i}",
            "rejected": f"yes {i} it is",
        }
        return {**about, **texts, "chosen_score": 1.0, "rejected_score": 0.0}

    source = tmp_path / "pairs.jsonl"
    write_jsonl(source, [pair(i) for i in range(40)])
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
def test_trl_with_pefts_prompt_tuning_ends_where_ours_does(options, stage, tmp_path):
    peers = script("peers")
    found = {}
    for side in ("ours", "trl", *(["trl_kept"] if stage == "dpo" else [])):
        found[side] = peers.work(options, side, stage, str(tmp_path / f"{side}.safetensors"))
        assert found[side]["step_seconds"] > 0
    ours = load_file(tmp_path / "ours.safetensors")["rows"]
    for side in found.keys() - {"ours"}:
        theirs = load_file(tmp_path / f"{side}.safetensors")["rows"]
        assert float((theirs - ours).norm() / ours.norm()) < 1e-3
        assert found[side]["validation_loss"] == pytest.approx(found["ours"]["validation_loss"], rel=1e-3)
        assert found[side]["flops"] > found["ours"]["flops"] > 0


def test_the_command_writes_ratios_of_each_round(options, tmp_path):
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in vars(options).items()]
    command = [
        sys.executable,
        "benchmarks/peers.py",
        *arguments,
        "--rounds",
        "1",
        "--sides",
        "ours,lora",
        f"--out={tmp_path}/o.json",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "o.json").read_text())
    for stage in ("sft", "dpo"):
        assert set(found[stage]) == {"ours", "lora"}
        assert found[stage]["lora"]["seconds_over_ours"]["n"] == 1
        assert found[stage]["lora"]["validation_loss"] is None
