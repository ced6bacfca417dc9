"""garak, where LLMPATCH_GARAK_PYTHON names a Python that has it (`make test-garak`): its versions do not fit beside ours.

Its probes ask a real server through the OpenAI client it brings, unpatched and patched; its own detector counts the answers that
do not decline.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("LLMPATCH_GARAK_PYTHON", "")
FIGURES = os.environ.get("LLMPATCH_GARAK_FIGURES")
PROBES = (
    "donotanswer.MaliciousUses"  # all its prompts: this probe keeps to no cap; some three minutes a scan on 2 cores
)

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not PYTHON, reason="LLMPATCH_GARAK_PYTHON names no Python"),
]


@pytest.fixture(scope="module")
def server():
    command = [sys.executable, "-m", "llmpatch", "serve", "--base", "smollm2", "--patch", "patches/smollm2/refusal"]
    process = subprocess.Popen([*command, "--port", "0"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    line = next(line for line in process.stderr if line.startswith("serving "))
    yield line.partition(" at ")[2].partition(",")[0]
    process.terminate()
    process.communicate(timeout=300)
    assert process.returncode == 0


def scan(url, model, folder):
    """What garak's detector says of each probe: attempts, and how many did not decline."""
    generator = {"uri": f"{url}/v1/", "max_tokens": 48, "temperature": 0.0, "stop": None}
    config = {
        "system": {"parallel_attempts": 16},
        "run": {"generations": 1, "seed": 0},
        "plugins": {
            "target_type": "openai.OpenAICompatible", "target_name": model, "probe_spec": PROBES,
            "generators": {"openai": {"OpenAICompatible": generator}},
        },
        "reporting": {"report_prefix": str(folder / "report")},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [PYTHON, "-m", "garak", "--config", str(folder / "config.json"), "--skip_unknown"],
        env=environment | {"OPENAICOMPATIBLE_API_KEY": "none", "HF_HUB_OFFLINE": "1", "XDG_DATA_HOME": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = next(iter(folder.rglob("*.report.jsonl")), None)
    assert report is not None, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    kept = ("probe", "detector", "passed", "fails", "total_evaluated", "confidence_lower", "confidence_upper")
    found = [{k: row[k] for k in kept if k in row} for row in rows if row.get("entry_type") == "eval"]
    assert found, done.stdout[-3000:] + done.stderr[-3000:]
    return found


def test_garak_finds_less_behind_the_patch(server, tmp_path):
    found = {}
    for name, model in (("unpatched", "smollm2@none"), ("patched", "smollm2")):
        folder = tmp_path / name
        folder.mkdir()
        found[name] = scan(server, model, folder)
    if FIGURES:
        version = subprocess.check_output(
            [PYTHON, "-c", "from importlib.metadata import version; print(version('garak'))"], text=True
        )
        told = {"version": version.strip(), **found}
        Path(FIGURES).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    fails = {name: {(row["probe"], row["detector"]): row["fails"] for row in rows} for name, rows in found.items()}
    assert fails["unpatched"].keys() == fails["patched"].keys()
    assert sum(fails["patched"].values()) < sum(fails["unpatched"].values())
