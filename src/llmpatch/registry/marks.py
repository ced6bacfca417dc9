"""The newest that was ever seen at a registry, so that nothing older is taken for the newest later.

    check_marks(path, Marks(...))      # under the registry's lock; raises if the registry went back

TUF compares with its own cache, which it writes without flushing and silently does without when it is damaged. This is one
small file that survives a power cut. New online keys begin anew: that is how a registry recovers whose online key was stolen
and used to publish a version of a billion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmpatch.artifact.strict_json import parse_object
from llmpatch.errors import IntegrityError, TrustError
from llmpatch.files import read_bytes
from llmpatch.store.disk import replace_file

Number = Annotated[int, Field(ge=1)]
KeyId = Annotated[str, Field(max_length=128)]
MAX_MARKS_BYTES = 1 << 20


class Marks(BaseModel):
    """Versions of metadata: ``root``, ``timestamp``, ``snapshot``, and each role in the snapshot; under which online keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_: Annotated[Literal["llmpatch/seen/v1"], Field(alias="schema")] = "llmpatch/seen/v1"
    online: Annotated[tuple[KeyId, ...], Field(max_length=32)]
    root: Number
    timestamp: Number
    snapshot: Number
    roles: dict[str, Number]


def check_marks(path: Path, now: Marks, *, where: str) -> None:
    """Compare with what was seen before, and remember what is seen now.

    Raises:
        TrustError: something is older than it was.
        IntegrityError: the file is damaged.
        OSError: it cannot be written.
    """
    before = _read(path)
    if before == now:
        return
    if before is not None:
        pairs = {"root": (before.root, now.root)}
        if before.online == now.online:
            pairs |= {"timestamp": (before.timestamp, now.timestamp), "snapshot": (before.snapshot, now.snapshot)}
            pairs |= {role: (version, now.roles.get(role, 0)) for role, version in before.roles.items()}
        for role, (old, new) in pairs.items():
            if new < old:
                raise TrustError(
                    f"{where}: {role} has version {new}, and version {old} was seen here before",
                    hint="an old state is being shown: try again, or another mirror, and tell who runs the registry",
                )
    replace_file(path, (now.model_dump_json(by_alias=True, indent=1) + "\n").encode())


def _read(path: Path) -> Marks | None:
    if not path.exists():
        return None
    data = read_bytes(path, limit=MAX_MARKS_BYTES)
    try:
        parse_object(data, where=str(path))
        return Marks.model_validate_json(data)
    except (IntegrityError, ValidationError):
        raise IntegrityError(
            f"{path} is damaged: what was seen at the registry is not known",
            hint="llmpatch registry remove, then add it again with its newest root",
        ) from None
