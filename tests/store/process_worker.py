"""Runs as its own process: makes 25 changes to one store, and reads it all the while.

python process_worker.py STORE PATCHES NUMBER
"""

from __future__ import annotations

import sys
from pathlib import Path

from llmpatch.bases import Fingerprint
from llmpatch.store import Store, activate, collect, deactivate, install, load, load_active, pick, pin, revoke, unsigned


def main(store: Store, patches: Path, number: int) -> None:
    name = f"acme/worker-{number}"
    mine = Fingerprint("1" * 64, "2" * 64, "3" * 64, f"{number}" * 64, "none")

    def note(i: int) -> str:
        return f"worker {number} change {i}"

    for i in range(25):
        kind = i % 5
        if kind == 0:
            install(store, patches / f"{number}-{i // 5}", unsigned, reason=note(i))
        elif kind == 1:
            activate(store, pick(load(store).state, f"{name}@1.{i // 5}.0").digest, skip_gate=True, reason=note(i))
        elif kind == 2:
            pin(store, name, f">=1.{i // 5}", reason=note(i))
        elif kind == 3:
            pin(store, name, None, reason=note(i))
        elif i < 20:
            deactivate(store, pick(load(store).state, name).digest, reason=note(i))
        else:
            revoke(store, f"{number}{i:x}".rjust(64, "0"), note(i))
        if i == 22:
            collect(store, keep=1000)
        active = load_active(store, mine)
        assert active.notes == ()
        assert len(active.patches) == (1 if kind in (1, 2, 3) or i == 24 else 0)


if __name__ == "__main__":
    main(Store(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]))
