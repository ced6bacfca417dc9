"""The advisories that the registries carry: for ``llmpatch audit`` itself, or as a folder that it reads.

asked = ask_advisories()                    # asked.held: "VENDOR/ID.json" -> bytes
fetch_advisories(Path("advisories"))        # advisories/VENDOR/ID.json
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmpatch.artifact.strict_json import shown
from llmpatch.errors import UsageError
from llmpatch.files import write_bytes
from llmpatch.registry.client import look, read_target
from llmpatch.registry.configured import chosen_registries
from llmpatch.registry.layout import ADVISORIES, vendor_of


@dataclass(frozen=True)
class Asked:
    """What the registries carry.

    Attributes:
        held: ``VENDOR/ID.json`` -> its bytes, each signed by that vendor.
        keys: The same names -> ids of the keys that signed for the vendor in the registries that carry it.
        left_out: What was left out, and why.
    """

    held: dict[str, bytes]
    keys: dict[str, frozenset[str]]
    left_out: list[str]


def ask_advisories(*, registry: str | None = None, offline: bool = False) -> Asked:
    """Ask the configured registries for all their advisories.

    Args:
        registry: Only this one.
        offline: Use what the last visit left.

    Raises:
        UsageError: no registry is configured; two of them carry an advisory that differs.
        LlmpatchError: as in :func:`~llmpatch.registry.client.look` and :func:`~llmpatch.registry.client.download`.
    """
    held: dict[str, bytes] = {}
    keys: dict[str, frozenset[str]] = {}
    notes: list[str] = []
    for each in chosen_registries(registry):
        found = look(each, offline=offline)
        notes += [f"registry {each.name}: {shown(note, 300)}" for note in found.notes]
        for path in sorted(found.targets):
            if path.startswith(f"{ADVISORIES}/"):
                data, name = read_target(found, path), path.removeprefix(f"{ADVISORIES}/")
                if held.setdefault(name, data) != data:
                    raise UsageError(f"two registries carry another {path}", hint="--registry NAME")
                keys[name] = keys.get(name, frozenset()) | found.keys.get(vendor_of(path), frozenset())
    return Asked(held, keys, notes)


def fetch_advisories(
    folder: Path, *, registry: str | None = None, offline: bool = False
) -> tuple[list[Path], list[str]]:
    """Bring a folder of advisories up to date.

    Args:
        folder: Where they go, as ``VENDOR/ID.json``.
        registry: Only this one.
        offline: Use what the last visit left.

    Returns:
        The files; what was left out and why, and what lies there that no registry carries.

    Raises:
        LlmpatchError: as in :func:`ask_advisories`, or the disk refuses.
    """
    asked = ask_advisories(registry=registry, offline=offline)
    held, notes = asked.held, asked.left_out
    for path, data in held.items():
        write_bytes(folder / path, data)
    for lying in sorted(folder.glob("*/*.json")) if registry is None and not notes else ():
        if lying.relative_to(folder).as_posix() not in held:
            notes.append(
                f"{lying} is in no registry, or no longer: an audit of {folder} still goes by it; delete it if that is wrong"
            )
    return [folder / path for path in held], notes
