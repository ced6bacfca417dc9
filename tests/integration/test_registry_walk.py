"""The walk through a registry that docs/registry.md tells of, from the command line: its script is the test."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(not (ROOT / "patches/smollm2/refusal").is_dir(), reason="the official patch is not built yet")
def test_a_vendor_publishes_and_a_customer_installs_audits_upgrades_and_goes_back(tmp_path):
    command = [sys.executable, str(ROOT / "scripts/demo_registry.py"), str(tmp_path / "walk")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "all as expected" in done.stdout
    assert re.findall(r"exit code (\d)", done.stdout) == ["3", "4", "4", "4", "4"]
    environment = {**os.environ, "LLMPATCH_HOME": str(tmp_path / "walk/customer")}
    environment.pop("LLMPATCH_STORE", None)
    listed = subprocess.run(
        [sys.executable, "-m", "llmpatch", "list", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    state = json.loads(listed.stdout)
    assert [patch["version"] for group in state["active"] for patch in group["patches"]] == ["1.2.0"]
    assert {entry["version"]: entry["status"] for entry in state["installed"]} == {
        "1.0.0": "superseded", "1.1.0": "revoked", "1.2.0": "active",
    }  # fmt: skip
    assert "x_ACME-2026-0002" in next(iter(state["revoked"].values()))
