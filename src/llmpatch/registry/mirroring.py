"""Copy a registry, everything checked on the way, for a site that cannot reach it.

    mirror(load_registry("acme"), Path("/mnt/usb/acme"))
    # there: llmpatch registry add acme /mnt/usb/acme --root root.json

The copy is the registry's own signed bytes, so it holds as long as those do (`registry refresh --days 90`), and whoever
carries it can change nothing. Interrupted, it shows the state before; run again, it goes on.
"""

from __future__ import annotations

from pathlib import Path

from tuf.api.metadata import Snapshot, Targets, Timestamp

from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.files import read_bytes, write_bytes
from llmpatch.registry.client import WAIT_SECONDS, Found, look, read_target
from llmpatch.registry.configured import Registry
from llmpatch.registry.failures import explained
from llmpatch.registry.layout import (
    MAX_ROLE_BYTES,
    MAX_ROOT_BYTES,
    MAX_TIMESTAMP_BYTES,
    METADATA,
    SNAPSHOT,
    TIMESTAMP,
    TOP,
    stored_path,
)
from llmpatch.registry.repository import parse
from llmpatch.store.disk import locked


def mirror(registry: Registry, folder: Path) -> Found:
    """Bring a copy of a registry up to date.

    Args:
        registry: Which.
        folder: Where the copy lies; new, or a copy made before.

    Raises:
        UsageError: the folder is what the registry itself is served from.
        LlmpatchError: as in :func:`~llmpatch.registry.client.look` and
            :func:`~llmpatch.registry.client.download`; the copy shows what it did before.
    """
    if (folder / ".lock").exists():
        raise UsageError(f"{folder} is a registry, not a copy of one", hint="choose another folder")
    for _ in range(3):
        found = look(registry)
        if found.notes:
            raise UsageError(
                f"not everything could be checked: {found.notes[0]}", hint="a copy must be whole; try later"
            )
        for path, info in found.targets.items():
            _add(folder / stored_path(path, info.hashes["sha256"]), read_target(found, path))
        with (
            explained(f"registry {registry.name}"),
            locked(registry.folder / "lock", seconds=WAIT_SECONDS, hint="put LLMPATCH_HOME on a local disk"),
        ):
            made = _metadata(registry, found)
            if made is not None:
                for name, data in made:
                    _add(folder / METADATA / name, data)
                return found
    raise LlmpatchError(f"registry {registry.name} keeps changing while it is copied", hint="try again")


def _metadata(registry: Registry, found: Found) -> list[tuple[str, bytes]] | None:
    """The checked metadata under the names a server has them by, the timestamp last.

    ``None`` where another process has fetched newer ones meanwhile: their files were not copied.
    """
    made = [
        (path.name, read_bytes(path, limit=MAX_ROOT_BYTES))
        for path in sorted((registry.metadata / "root_history").glob("*.root.json"))
    ]
    for role in (*sorted(found.vendors), TOP, SNAPSHOT):
        data = read_bytes(registry.metadata / f"{role}.json", limit=MAX_ROLE_BYTES)
        signed = (parse(data, Snapshot, where=role) if role == SNAPSHOT else parse(data, Targets, where=role)).signed
        if role == SNAPSHOT and signed.version != found.snapshot:
            return None
        made.append((f"{signed.version}.{role}.json", data))
    name = f"{TIMESTAMP}.json"
    stamp = read_bytes(registry.metadata / name, limit=MAX_TIMESTAMP_BYTES)
    if parse(stamp, Timestamp, where=TIMESTAMP).signed.snapshot_meta.version != found.snapshot:
        return None  # one that came without its snapshot
    return [*made, (name, stamp)]


def _add(path: Path, data: bytes) -> None:
    """Write a file that is not there with this content yet."""
    if not path.is_file() or path.read_bytes() != data:
        write_bytes(path, data)
