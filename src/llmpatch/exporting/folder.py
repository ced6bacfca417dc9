"""A folder that appears whole or not at all.

with new_folder(Path("out")) as folder:
    (folder / "file").write_text("...")
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmpatch.errors import LlmpatchError, UsageError


def check_new(out: Path) -> None:
    """Refuse a path at which something lies.

    Raises:
        UsageError: there is a file, a link or a folder with something in it.
    """
    if out.name in {"", ".."}:
        raise UsageError(f"{out} has no name to write under", hint="name a new folder")
    if os.path.lexists(out) and (out.is_symlink() or not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already", hint="choose a new or an empty folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` to write into; it becomes ``out`` at the end, and is removed after any error.

    Raises:
        UsageError: something lies at ``out``.
        LlmpatchError: the disk is full, or the place cannot be written.
    """
    from safetensors import SafetensorError

    check_new(out)
    temporary: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.new-", dir=out.parent))
        yield temporary
        _sync(temporary)
        temporary.chmod(0o755)
        temporary.replace(out)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LlmpatchError(
            f"cannot write {out}: {reason}", hint="free some space or choose another folder; nothing was written"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            path.chmod(0o755)
