"""Runs as its own process: asks one registry through a shared cache, again and again, and installs what it finds.

python client_worker.py STORE ROUNDS
"""

from __future__ import annotations

import sys
from pathlib import Path

from llmpatch.registry import choose, take
from llmpatch.signing import trust_key
from llmpatch.store import Store, signed_by
from signkit import public


def main(store: Store, rounds: int) -> None:
    verify = signed_by(trust_key(public("vendor")))
    for _ in range(rounds):
        entry = take(store, choose("acme/refusal"), verify)
        sys.stdout.write(f"{entry.version}\n")


if __name__ == "__main__":
    main(Store(Path(sys.argv[1])), int(sys.argv[2]))
