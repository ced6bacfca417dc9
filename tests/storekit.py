"""Small whole patches for one base, installed in a store without keys or models."""

from __future__ import annotations

import copy
from pathlib import Path

from llmpatch.artifact import parse_patch
from llmpatch.store import Judged, Store, Verified, install, unsigned
from patchkit import FIELDS, contents, save

ADVISORIES = {n: f"x_ACME-2026-{n:04d}" for n in range(1, 10)}


def fixes(*numbers: int) -> list[dict]:
    return [
        {"risk": "refusal", "metric": f"m{n}", "before": 0.1, "after": 0.9, "n": 200, "advisory": ADVISORIES[n]}
        for n in numbers
    ]


def base(quantisation: str = "none", embeddings: str = "4", **changes) -> dict:
    made = copy.deepcopy(FIELDS["base"]) | changes
    made["fingerprint"] |= {"quantisation": quantisation, "embeddings": embeddings * 64}
    return made


def files(name="acme/refusal", version="1.0.0", fixed=(1,), **changes) -> dict[str, bytes]:
    common = {"name": name, "version": version, "fixes": fixes(*fixed), "supersedes": [], "base": base()}
    return contents(**(common | changes))


def folder(root: Path, name="acme/refusal", version="1.0.0", fixed=(1,), **changes) -> Path:
    path = root / f"{name.replace('/', '_')}-{version}"
    return save(path, files(name, version, fixed, **changes))


def add(store: Store, root: Path, name="acme/refusal", version="1.0.0", fixed=(1,), **changes):
    """Install a patch, and return its digest."""
    return install(store, folder(root, name, version, fixed, **changes), unsigned).digest


def verified(**changes) -> Verified:
    made = files(**changes)
    return Verified(parse_patch(made, Path("made")), made)


class Gate:
    """A gate that says what it is told and remembers what it was asked."""

    def __init__(self, passed: bool = True) -> None:
        self.passed, self.asked = passed, []

    def __call__(self, patches):
        self.asked.append(tuple(f"{p.manifest.name} {p.manifest.version}" for p in patches))
        digests = [p.digest for p in patches]
        failed = () if self.passed else ("everyday-declined",)
        return Judged(self.passed, failed, "test policy", "7" * 64, {"patches": digests, "passed": self.passed})


def active(state) -> list[list[str]]:
    """Names and versions of each active set."""
    titles = {e.digest: f"{e.name} {e.version}" for e in state.installed}
    return [[titles[d] for d in group.patches] for group in state.active]


def statuses(state) -> dict[str, str]:
    return {f"{e.name} {e.version}": e.status for e in state.installed}
