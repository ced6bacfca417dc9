"""The advisories that the registries carry, as the folder that ``llmpatch audit`` reads.

fetch_advisories(Path("advisories"))        # advisories/VENDOR/ID.json
"""

from __future__ import annotations

from pathlib import Path

from llmpatch.errors import UsageError
from llmpatch.files import write_bytes
from llmpatch.registry.client import look, read_target
from llmpatch.registry.configured import chosen_registries
from llmpatch.registry.layout import ADVISORIES


def fetch_advisories(
    folder: Path, *, registry: str | None = None, offline: bool = False
) -> tuple[list[Path], list[str]]:
    """Bring a folder of advisories up to date.

    Args:
        folder: Where they go, as ``VENDOR/ID.json``.
        registry: Only this one.
        offline: Use what the last visit left.

    Returns:
        The files, and what was left out and why.

    Raises:
        UsageError: no registry is configured; two of them carry an advisory that differs.
        LlmpatchError: as in :func:`~llmpatch.registry.client.look` and :func:`~llmpatch.registry.client.download`.
    """
    held: dict[str, bytes] = {}
    notes: list[str] = []
    for each in chosen_registries(registry):
        found = look(each, offline=offline)
        notes += found.notes
        for path in sorted(found.targets):
            if path.startswith(f"{ADVISORIES}/"):
                data = read_target(found, path)
                if held.setdefault(path, data) != data:
                    raise UsageError(f"two registries carry another {path}", hint="--registry NAME")
    for path, data in held.items():
        write_bytes(folder / path.removeprefix(f"{ADVISORIES}/"), data)
    return [folder / path.removeprefix(f"{ADVISORIES}/") for path in held], notes
