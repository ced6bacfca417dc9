"""The benchmarks of the server, on a tiny model: real servers, real swaps, and figures that add up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clikit import save
from servekit import save_patch

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def ask(tiny, tmp_path):
    base, patch = save(tmp_path / "model", tiny), save_patch(tmp_path, tiny, "acme/first", seed=1)

    def run(name, *arguments):
        out = tmp_path / "out.json"
        command = [
            sys.executable,
            f"benchmarks/{name}.py",
            "--base",
            str(base),
            "--patch",
            str(patch),
            "--out",
            str(out),
        ]
        done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(out.read_text())

    return run


def test_a_soak_counts_every_request_and_every_swap(ask):
    found = ask("soak", "--minutes", "0.05", "--requests", "30", "--swaps", "4", "--workers", "3")["soak"]
    assert found["requests"] >= 30
    said = found["right"] + found.get("neither", 0)
    assert found["requests"] == said + found.get("left by the client", 0)
    assert sum(found["by_level"].values()) == said
    assert found["right"] > 15
    assert len(found["by_level"]) == 2
    assert found["questions_that_differ"] > 0
    assert found["swaps"] == 4
    assert 0 < found["swap_seconds"]["median"] <= found["swap_seconds"]["max"] < 30
    assert found["failures"] == []


def test_speed_and_fuzz_are_measured_in_parts_and_kept(ask):
    first = ask("serving", "--parts", "speed", "--rounds", "2", "--tokens", "4")
    assert [size["at_a_time"] for size in first["speed"]] == [1, 8]
    assert all(size["first_token_ratio"]["n"] == 2 for size in first["speed"])
    both = ask("serving", "--parts", "fuzz,without_cache", "--fuzz", "40", "--rounds", "2", "--tokens", "4")
    assert both["speed"] == first["speed"]
    assert sum(both["fuzz"]["statuses"].values()) == 40
    assert (both["fuzz"]["wrong"], both["fuzz"]["health"]) == (0, 200)
    assert both["without_cache"]["re_prefill_first_token"]["ratio"]["n"] == 2
    assert both["without_cache"]["peft_answer"]["tokens"] == 4
