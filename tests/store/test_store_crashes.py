"""A process that is killed at any file-system call leaves the old state or the new one, and trying again succeeds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmpatch.store import Store, activate, load, pin
from storekit import Gate, active, add, folder

WORKER = Path(__file__).with_name("crash_worker.py")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("template")
    store = Store(root / "store")
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        activate(store, add(store, root / "made", version=version), gate=Gate())
    add(store, root / "made", version="1.3.0")
    pin(store, "acme/refusal", ">=1.1")
    pin(store, "acme/refusal", None)
    assert active(load(store).state) == [["acme/refusal 1.2.0"]]
    (root / "new").parent.mkdir(exist_ok=True)
    folder(root / "made", "acme/tone", fixed=(2,)).rename(root / "new")
    return root


@pytest.mark.parametrize(
    ("operation", "least"), [("first install", 40), ("install", 30), ("activate", 15), ("rollback", 15), ("gc", 30)]
)
def test_killed_at_every_call(template, tmp_path, operation, least):
    command = [sys.executable, str(WORKER), str(template), str(tmp_path), operation]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert found["wrong"] == []
    assert not found["old is new"]
    assert found["calls"] >= least
    assert found["old"] + found["new"] == 2 * found["calls"]
    assert found["old"] > 0
    assert found["new"] > 0
