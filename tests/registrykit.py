"""A small registry in a folder, its keys, an attacker who holds some of them, and a customer."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, MetaFile

from llmpatch.registry import (
    Registry,
    add_registry,
    add_vendor,
    create,
    load_registry,
    look,
    publish,
    refresh,
    remove_registry,
)  # fmt: skip
from llmpatch.registry.keys import signers
from llmpatch.registry.repository import render
from signkit import key, packed, public, signed
from storekit import files

ROOTS = ("root-a", "root-b")
PATH = "patches/acme/refusal-{}.lpatch"


def private(*names: str) -> list[Any]:
    return [key(name) for name in names]


def archive(folder: Path, name: str = "acme/refusal", version: str = "1.0.0", who: str = "vendor", **changes) -> Path:
    """A signed ``.lpatch``."""
    path = folder / f"{name.replace('/', '_')}-{version}.lpatch"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(signed(files(name, version, **changes), who)))
    return path


def found(folder: Path, *, vendors=("acme",), now: datetime | None = None) -> Path:
    """A registry with 2 of 2 root keys, an online key, and vendors whose one key is ``vendor``, or their own name."""
    keys = private(*ROOTS, "online")
    root_keys = [public(name) for name in ROOTS]
    create(folder, root_keys=root_keys, online_key=public("online"), threshold=2, keys=keys, now=now)
    for vendor in vendors:
        add_vendor(folder, vendor, [public(vendor_key(vendor))], keys=keys, now=now)
    return folder


def vendor_key(vendor: str) -> str:
    return "vendor" if vendor == "acme" else vendor


def release(site: Path, made: Path, version: str = "1.0.0", name: str = "acme/refusal", **changes) -> None:
    """Publish a patch and make it visible."""
    who = vendor_key(name.partition("/")[0])
    publish(site, [archive(made, name, version, who, **changes)], keys=private(who, "online"))


def customer(site: Path | str, name: str = "acme", root: Path | None = None) -> Registry:
    """Add a registry, with its first root pinned."""
    pinned = root or Path(site) / "metadata/1.root.json"
    return add_registry(name, str(site), pinned)


def versions(registry: Registry) -> list[str]:
    """What is offered of acme/refusal."""
    return [
        path[len("patches/acme/refusal-") : -len(".lpatch")]
        for path in sorted(look(registry).targets)
        if "patches/acme/" in path
    ]


def read(site: Path, name: str) -> Metadata[Any]:
    return Metadata.from_bytes((site / f"metadata/{name}.json").read_bytes())


def newest(site: Path, role: str) -> Metadata[Any]:
    numbers = [int(path.name.partition(".")[0]) for path in (site / "metadata").glob(f"*.{role}.json")]
    return read(site, f"{max(numbers)}.{role}")


def write(site: Path, role: str, metadata: Metadata[Any], *who: str, number: int | None = None) -> None:
    """Sign metadata with exactly these keys and put it into the folder."""
    metadata.signatures.clear()
    for signer in signers(private(*who)).values():
        metadata.sign(signer, append=True)
    name = f"{role}.json" if role == "timestamp" else f"{number or metadata.signed.version}.{role}.json"
    (site / "metadata" / name).write_bytes(render(metadata))


def restamp(site: Path, *who: str, snapshot: Metadata[Any] | None = None, jump: int = 1) -> None:
    """A new snapshot that names what lies in the folder (or the one given), and a timestamp for it, by these keys."""
    made = snapshot
    if made is None:
        made = newest(site, "snapshot")
        for listed in made.signed.meta:
            made.signed.meta[listed] = described(newest(site, listed.removesuffix(".json")))
        made.signed.version += jump
        write(site, "snapshot", made, *who)
    stamp = read(site, "timestamp")
    stamp.signed.version += jump
    stamp.signed.snapshot_meta = described(made)
    write(site, "timestamp", stamp, *who)


def described(metadata: Metadata[Any]) -> MetaFile:
    return MetaFile.from_data(metadata.signed.version, render(metadata), ["sha256"])


def copy(site: Path, to: Path) -> Path:
    return Path(shutil.copytree(site, to))


def put_back(old: Path, site: Path, *names: str) -> None:
    """Overwrite files of a registry with those of an older copy: one name, or two for a file under another name."""
    source, target = names if len(names) == 2 else (names[0], names[0])
    shutil.copyfile(old / "metadata" / source, site / "metadata" / target)


def again(registry: Registry) -> Registry:
    return load_registry(registry.name)


def forget(registry: Registry) -> None:
    remove_registry(registry.name)


def ago(**how: float) -> datetime:
    return datetime.now(UTC) - timedelta(**how)


def seen(registry: Registry) -> dict[str, Any]:
    return json.loads((registry.folder / "seen.json").read_text())


__all__ = [
    "PATH", "ROOTS", "again", "ago", "archive", "copy", "customer", "described", "forget", "found", "newest", "private",
    "put_back", "read", "refresh", "release", "restamp", "seen", "vendor_key", "versions", "write",
]  # fmt: skip
