"""A power cut keeps of a change only what was flushed, and any part of the rest: the store is as before or as after.

Every change to the disk is recorded, then replayed up to each point on a model of a disk: a folder's names and a file's bytes
are safe once they were flushed, and until then there or not, each by chance.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path

import pytest
from crash_worker import content, operations
from test_store_crashes import template  # noqa: F401

from llmpatch.store import Store, load

CHANCES = 4


class Disk:
    """Inodes of a folder tree: what is there, and what is safe."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.top = self._read(root)

    def _read(self, path: Path) -> dict:
        if path.is_dir():
            names = {p.name: self._read(p) for p in path.iterdir()}
            return {"names": names, "safe": dict(names)}
        return {"data": path.read_bytes(), "safe": path.read_bytes()}

    def find(self, path: str) -> dict:
        node = self.top
        for part in Path(path).relative_to(self.root).parts:
            node = node["names"][part]
        return node

    def parent(self, path: str) -> tuple[dict, str]:
        return self.find(str(Path(path).parent))["names"], Path(path).name

    def apply(self, step: tuple) -> None:
        kind, *rest = step
        if kind == "flush":
            rest[0]["safe"] = dict(rest[0]["names"]) if "names" in rest[0] else rest[0]["data"]
        elif kind == "write":
            rest[0]["data"] += rest[1]
        elif kind == "create":
            names, name = self.parent(rest[0])
            names[name] = rest[1]
        elif kind == "move":
            names, name = self.parent(rest[0])
            others, other = self.parent(rest[1])
            others[other] = names.pop(name)
        else:
            names, name = self.parent(rest[0])
            del names[name]

    def lay_out(self, target: Path, chance: random.Random) -> None:
        """What a cut leaves."""

        def lay(node: dict, path: Path) -> None:
            kept = "safe" if chance.random() < 0.5 else "names" if "names" in node else "data"
            if "names" in node:
                path.mkdir()
                for name, child in node[kept].items():
                    lay(child, path / name)
            else:
                path.write_bytes(node[kept])

        lay(self.top, target)


def record(operation, store: Store, disk: Disk, monkeypatch) -> list[tuple]:
    """The changes that an operation makes, each applied to ``disk`` as it happens so that inodes can be named."""
    steps: list[tuple] = []
    handles: dict[int, dict] = {}
    real = {
        n: getattr(os, n) for n in ("open", "write", "fsync", "close", "mkdir", "rename", "replace", "unlink", "rmdir")
    }

    def note(*step) -> None:
        steps.append(step)
        disk.apply(step)

    def opened(path, flags, mode=0o777, **options):
        fresh = flags & os.O_CREAT and not os.path.lexists(path)
        handle = real["open"](path, flags, mode, **options)
        if not options and str(path).startswith(disk.root):
            if fresh:
                note("create", str(path), {"data": b"", "safe": b""})
            handles[handle] = disk.find(str(path))
        return handle

    def written(handle, data):
        note("write", handles[handle], bytes(data))
        return real["write"](handle, data)

    def flushed(handle):
        note("flush", handles[handle])

    def closed(handle):
        handles.pop(handle, None)
        real["close"](handle)

    def made(path, mode=0o777):
        real["mkdir"](path, mode)
        note("create", str(path), {"names": {}, "safe": {}})

    def moved(name):
        def call(source, target):
            real[name](source, target)
            note("move", str(source), str(target))

        return call

    def removed(name):
        def call(path):
            real[name](path)
            note("remove", str(path))

        return call

    patched = {
        "open": opened, "write": written, "fsync": flushed, "close": closed, "mkdir": made, "rename": moved("rename"),
        "replace": moved("replace"), "unlink": removed("unlink"), "rmdir": removed("rmdir"),
    }  # fmt: skip
    with monkeypatch.context() as patch:
        for name, function in patched.items():
            patch.setattr(os, name, function)
        operation(store)
    return steps


@pytest.mark.parametrize("name", ["first install", "install", "activate", "rollback", "gc"])
def test_what_was_flushed_is_enough(template, tmp_path, monkeypatch, name):  # noqa: F811
    store = Store(tmp_path / "disk" / "store")
    if name == "first install":
        store.root.parent.mkdir()
    else:
        shutil.copytree(template / "store", store.root)
    operation = operations(template)[name]
    old = content(store)
    before = tmp_path / "before"
    shutil.copytree(store.root.parent, before)
    steps = len(record(operation, store, Disk(store.root.parent), monkeypatch))
    new = content(store)
    assert old != new
    assert steps > 4
    seen = []
    shutil.rmtree(store.root.parent)
    for stop in range(steps + 1):
        shutil.copytree(before, store.root.parent)
        disk = Disk(store.root.parent)
        _replay(operation, store, disk, stop, monkeypatch)
        shutil.rmtree(store.root.parent)
        for seed in range(CHANCES):
            left = tmp_path / "left"
            disk.lay_out(left, random.Random(seed))
            found = Store(left / "store")
            state = content(found)
            assert state in (old, new), (stop, seed)
            assert load(found).damage == ()
            if stop == steps:
                assert state == new
            seen.append(state == new)
            shutil.rmtree(left)
    assert {True, False} == set(seen)


class Cut(BaseException):
    """The power is gone."""


def _replay(operation, store: Store, disk: Disk, stop: int, monkeypatch) -> None:
    """Run again and keep the disk as it was after ``stop`` changes."""
    seen = 0
    apply = disk.apply

    def counted(step) -> None:
        nonlocal seen
        if seen < stop:
            apply(step)
            seen += 1
        else:
            raise Cut

    disk.apply = counted
    with contextlib.suppress(Cut):
        record(operation, store, disk, monkeypatch)
