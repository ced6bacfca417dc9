"""Runs as its own process: stops an operation at every file-system call it makes, in a forked child each time.

    python crash_worker.py TEMPLATE WORK OPERATION     # one line of JSON: what was left after each stop

TEMPLATE holds a store made by ``make_template``. The child dies by ``os._exit`` in the middle of the call: a write has
written half, a rename or link has not happened (and in a second pass has).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

from llmpatch.store import (
    Store,
    activate,
    ancestors,
    collect,
    examine,
    install,
    load,
    pick,
    read_stored,
    rollback,
    unsigned,
)

CALLS = ("open", "write", "fsync", "mkdir", "chmod", "rename", "replace", "unlink", "rmdir", "close")


def operations(template: Path) -> dict:
    return {
        "first install": lambda s: install(s, template / "new", unsigned),
        "install": lambda s: install(s, template / "new", unsigned),
        "activate": lambda s: activate(s, pick(load(s).state, "acme/refusal@1.3.0").digest, skip_gate=True),
        "rollback": rollback,
        "gc": lambda s: collect(s, keep=1),
    }


def count_calls(operation, store: Store, stop_at: int | None, after: bool) -> int:
    """Run with every call counted; the ``stop_at``-th one ends the process, before it or (``after``) behind it."""
    seen = 0

    def wrapped(name, real):
        def call(*arguments, **options):
            nonlocal seen
            seen += 1
            if seen == stop_at:
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) if after else len(arguments[1]) // 2])
                elif after:
                    with contextlib.suppress(OSError):
                        real(*arguments, **options)
                os._exit(9)
            return real(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))
    operation(store)
    return seen


def content(store: Store) -> list:
    """What holds, as far as it does not tell when and who."""
    state = load(store).state
    titles = {e.digest: f"{e.name} {e.version}" for e in state.installed}
    for digest in titles:
        read_stored(store, digest)
    active = [[titles[d] for d in group.patches] for group in state.active]
    return [sorted(f"{titles[e.digest]} {e.status}" for e in state.installed), active, dict(state.high_water)]


def child(work) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(template: Path, work: Path, name: str) -> None:
    # A killed process loses nothing that it wrote; test_store_powercuts.py cuts the power.
    os.fsync = lambda handle: None
    operation = operations(template)[name]
    source = template / ("empty" if name == "first install" else "store")

    def fresh(label: str) -> Store:
        target = work / label
        if source.is_dir():
            shutil.copytree(source, target)
        return Store(target)

    whole = fresh("whole")
    old = content(whole)
    operation(whole)
    new = content(whole)
    found = {"old": 0, "new": 0, "wrong": [], "calls": 0, "old is new": old == new}
    for after in (False, True):
        for stop in range(1, 1000):
            store = fresh(f"{after}-{stop}")
            code = child(lambda: count_calls(operation, store, stop, after))  # noqa: B023
            if code == 0:
                found["calls"] = stop - 1
                break
            left = content(store)
            damage = [*load(store).damage, *(f.message for f in examine(store) if not f.repairable)]
            kind = "old" if left == old else "new" if left == new else None
            chain = [g.number for g in ancestors(store, load(store))]
            retry = "nothing" if kind == "new" and name == "rollback" else child(lambda: operation(store))  # noqa: B023
            if code != 9 or kind is None or damage or chain[-1] != 0 or retry not in (0, "nothing"):
                found["wrong"].append([after, stop, code, left, damage, retry])
            elif content(store) != new:
                found["wrong"].append([after, stop, "after the retry", content(store)])
            found[kind or "old"] += 1
            shutil.rmtree(store.root)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
