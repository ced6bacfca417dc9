"""Eight processes that make 25 changes each to one store: none is lost, none fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from llmpatch.store import Store, ancestors, examine, load
from patchkit import save
from storekit import active, base, files

WORKER = Path(__file__).with_name("process_worker.py")


def test_no_change_is_lost_and_none_fails(tmp_path):
    for number in range(1, 9):
        for i in range(5):
            made = files(f"acme/worker-{number}", f"1.{i}.0", base=base(embeddings=str(number)))
            save(tmp_path / "patches" / f"{number}-{i}", made)
    store = Store(tmp_path / "store")
    command = [sys.executable, str(WORKER), str(store.root), str(tmp_path / "patches")]
    running = [subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, text=True) for number in range(1, 9)]
    failed = {number: found.communicate(timeout=500)[1] for number, found in enumerate(running, start=1)}
    assert {number: text for number, text in failed.items() if text} == {}
    head = load(store)
    past = [generation for generation in ancestors(store, head) if generation.number]
    made = sorted(" ".join(g.reason.split()[-4:]) for g in past)
    assert made == sorted(f"worker {number} change {i}" for number in range(1, 9) for i in range(25))
    assert [g.number for g in past] == list(range(200, 0, -1))
    assert len(head.state.installed) == 40
    assert sorted(active(head.state)) == [[f"acme/worker-{number} 1.4.0"] for number in range(1, 9)]
    assert examine(store) == []
