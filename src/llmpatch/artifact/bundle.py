"""A patch on disk: a folder of five files, read once, bounded, and checked against each other.

    patch = load_patch("smollm2/refusal")     # a folder, or a name under ./patches
    patch.manifest.summary, patch.embeddings  # (tokens, dim) float32
    model = patch.apply(base)                 # raises WrongBaseError for another base

Reading needs numpy and pydantic only. ``parse_patch`` takes the bytes of the files from wherever they come, so that a
signature can be checked over the very bytes that are used. Knows nothing about keys, archives or installed patches.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import stat
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.artifact.card import adapter_config
from llmpatch.artifact.manifest import Manifest, parse_manifest
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.artifact.tensors import MAX_TENSOR_BYTES, Embeddings, Tensor, decode_tensor, row_norms
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError, WrongBaseError

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.patched import PatchedModel

MANIFEST_FILE = "patch.json"
TENSOR_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
CARD_FILE = "README.md"
EVIDENCE_FILE = "evidence.json"
LIMITS = {
    CARD_FILE: 256 << 10,
    CONFIG_FILE: 16 << 10,
    TENSOR_FILE: MAX_TENSOR_BYTES,
    EVIDENCE_FILE: 1 << 20,
    MANIFEST_FILE: 256 << 10,
}
IGNORED = frozenset({"patch.sig", ".gitattributes"})
NORM_TOLERANCE = 1e-3
MAX_NORM_RATIO = 1000.0
_DAMAGED = "the patch is damaged or was changed after it was made; fetch it again"
_PARTS = {
    "config": "configuration (architecture or sizes)",
    "tokenizer": "tokenizer",
    "chat_template": "chat template",
    "embeddings": "embedding table (another model, or fine-tuned)",
}


@dataclass(frozen=True, eq=False)
class Patch:
    """A patch that has been read and found whole.

    Attributes:
        manifest: ``patch.json``.
        embeddings: The virtual tokens, (tokens, dim) float32, read-only: input embeddings after the model's scaling.
        evidence: ``evidence.json``: what was measured.
        path: The folder it was read from.
        files: sha256 of each of the five files.
    """

    manifest: Manifest
    embeddings: Embeddings = field(repr=False)
    evidence: dict[str, Any] = field(repr=False)
    path: Path
    files: Mapping[str, str] = field(repr=False)

    @property
    def digest(self) -> str:
        """The identity of the patch: sha256 over lines of ``sha256  name``, sorted by name.

        ``sha256sum README.md adapter_config.json adapter_model.safetensors evidence.json patch.json | sha256sum``
        """
        lines = "".join(f"{self.files[name]}  {name}\n" for name in sorted(self.files))
        return hashlib.sha256(lines.encode("ascii")).hexdigest()

    def check_base(self, base: Base, *, allow: bool = False) -> list[str]:
        """Compare a base with the one the patch was made for.

        Args:
            base: The loaded base.
            allow: Turn differences into warnings. A base of another width is never allowed.

        Returns:
            Warnings: another quantisation, an expired patch, allowed differences.

        Raises:
            WrongBaseError: names the parts that differ.
        """
        title, wanted = f"{self.manifest.name} {self.manifest.version}", self.manifest.base
        if base.hidden_size != wanted.hidden_size:
            raise WrongBaseError(
                f"{title} holds vectors of {wanted.hidden_size} numbers for {shown(wanted.name)}; the hidden size of "
                f"{base.name} is {base.hidden_size}",
                hint=_load_hint(self.manifest),
            )
        found = base.fingerprint
        notes = []
        if differences := _differences(self.manifest, base):
            parts = ", ".join(_PARTS.get(part, part) for part in differences)
            message = f"{title} was made for {shown(wanted.name)}; {base.name} differs in: {parts}"
            if not allow:
                raise WrongBaseError(
                    message,
                    hint=_load_hint(self.manifest) + ", or force it and measure again with `llmpatch eval`",
                )
            notes.append(f"{message}; its evidence does not hold here")
        known = {wanted.fingerprint.quantisation, *wanted.tested_on}
        if found.quantisation not in known:
            notes.append(
                f"{title} was made at quantisation {shown(wanted.fingerprint.quantisation)} and {base.name} has "
                f"{found.quantisation}, where it was not measured"
            )
        if self.manifest.expired():
            notes.append(f"{title} expired on {self.manifest.expires}; look for a newer version")
        return notes

    def apply(self, base: Base, *, force: bool = False) -> PatchedModel:
        """The base with the patch in front of everything it reads.

        Emits what :meth:`check_base` returns as ``UserWarning``.

        Args:
            base: The loaded base; it is not changed.
            force: Accept a base that differs from the one the patch was made for.

        Raises:
            WrongBaseError: another base (see :meth:`check_base`).
        """
        from llmpatch.patched import PatchedModel

        for note in self.check_base(base, allow=force):
            warnings.warn(note, UserWarning, stacklevel=2)
        return PatchedModel(base, self.embeddings, self.manifest.name)


def load_patch(path_or_name: str | Path) -> Patch:
    """Read the patch in a folder, or of a name such as ``smollm2/refusal`` that lies in ``./patches``.

    Raises:
        UsageError: there is no such folder or name.
        IntegrityError: the patch is damaged, foreign or oversized.
    """
    path = Path(path_or_name).expanduser()
    if not os.path.lexists(path) and re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", str(path_or_name)):
        named = Path("patches") / path
        path = named if named.is_dir() else path
    return read_patch(path)


def read_patch(path: Path) -> Patch:
    """Read the patch in a folder: each file once, no links, no other files, no more bytes than allowed.

    Raises:
        UsageError: there is no such folder.
        IntegrityError: anything in it is damaged, missing, foreign or oversized.
        LlmpatchError: it cannot be read.
    """
    return parse_patch(_read_folder(Path(path)), Path(path))


def parse_patch(contents: Mapping[str, bytes], path: Path) -> Patch:
    """Check the bytes of the five files against each other.

    Args:
        contents: File name -> content.
        path: Where they come from, for messages.

    Raises:
        IntegrityError: as in :func:`read_patch`.
        UsageError: the patch needs a newer llmpatch.
    """
    if set(contents) != set(LIMITS):
        names = ", ".join(shown(name) for name in sorted(set(contents) ^ set(LIMITS))[:3])
        raise IntegrityError(f"{path}: missing or foreign files: {names}", hint=_DAMAGED)
    for name, limit in LIMITS.items():
        if len(contents[name]) > limit:
            raise _oversized(path / name, limit)
    manifest = parse_manifest(contents[MANIFEST_FILE], where=str(path / MANIFEST_FILE))
    _check_client(manifest, path)
    files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    for name, digest in manifest.files.items():
        if files[name] != digest:
            raise IntegrityError(
                f"{path / name} is not the file that {MANIFEST_FILE} names by its sha256", hint=_DAMAGED
            )
    tensor = decode_tensor(contents[TENSOR_FILE], where=str(path / TENSOR_FILE))
    _check_tensor(tensor, manifest, path / TENSOR_FILE)
    _check_config(parse_object(contents[CONFIG_FILE], where=str(path / CONFIG_FILE)), manifest, path / CONFIG_FILE)
    evidence = parse_object(contents[EVIDENCE_FILE], where=str(path / EVIDENCE_FILE))
    _check_text(contents[CARD_FILE], path / CARD_FILE)
    return Patch(manifest, tensor.embeddings, evidence, path, files)


def _read_folder(path: Path) -> dict[str, bytes]:
    """The five files, through one folder handle, so that renaming the folder meanwhile cannot mix two patches."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UsageError(f"no patch at {shown(str(path), 200)}", hint=_missing_hint(path)) from None
    except NotADirectoryError:
        raise UsageError(
            f"{path} is a file; a patch is a folder with a {MANIFEST_FILE}", hint="give the folder"
        ) from None
    except ValueError:  # a NUL in the path
        raise UsageError(f"{shown(str(path))!r} is not a path", hint="give a folder or a name") from None
    except OSError as error:
        raise LlmpatchError(
            f"cannot read {shown(str(path), 200)}: {error.strerror}", hint="check its permissions"
        ) from None
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name not in LIMITS and entry.name not in IGNORED:
                    raise IntegrityError(
                        f"{path} holds {shown(entry.name)!r}, which is no part of a patch",
                        hint="a patch is five files and its signature; move anything else out",
                    )
        return {name: _read_member(folder, name, path / name) for name in LIMITS}
    finally:
        os.close(folder)


def _read_member(folder: int, name: str, where: Path) -> bytes:
    """One regular file of an open folder, at most its limit. Never follows a link, never waits for a pipe."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(handle, "rb", buffering=0, closefd=True) as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise IntegrityError(f"{where} is not a regular file", hint=_DAMAGED)
            data = _read_all(file.fileno(), LIMITS[name] + 1)
    except FileNotFoundError:
        raise IntegrityError(f"{where} is missing", hint="give the folder of a patch, or fetch it again") from None
    except PermissionError as error:
        raise LlmpatchError(f"cannot read {where}: {error.strerror}", hint="check its permissions") from None
    except OSError as error:  # ELOOP for a link; EISDIR, ENXIO for folders and sockets
        raise IntegrityError(
            f"{where} is not a regular file ({error.strerror})", hint="copy the files themselves, as `cp -rL` does"
        ) from None
    if len(data) > LIMITS[name]:
        raise _oversized(where, LIMITS[name])
    return data


def _read_all(handle: int, limit: int) -> bytes:
    blocks = []
    while limit > 0 and (block := os.read(handle, limit)):
        blocks.append(block)
        limit -= len(block)
    return b"".join(blocks)


def _oversized(where: Path, limit: int) -> IntegrityError:
    return IntegrityError(f"{where} is larger than {limit:,} bytes", hint=_DAMAGED)


def _check_client(manifest: Manifest, path: Path) -> None:
    if manifest.min_client is None:
        return
    from importlib.metadata import version

    def release(text: str) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", text)[:3]]

    if release(version("llmpatch")) < release(manifest.min_client):
        raise UsageError(
            f"{path} needs llmpatch {manifest.min_client} or newer, this is {version('llmpatch')}",
            hint="pip install --upgrade llmpatch",
        )


def _check_tensor(tensor: Tensor, manifest: Manifest, where: Path) -> None:
    """The tensor is the one the manifest describes, and its scale is that of an embedding."""
    prefix = manifest.prefix
    stored = (*tensor.embeddings.shape, tensor.dtype)
    if stored != (prefix.tokens, prefix.dim, prefix.dtype):
        raise IntegrityError(
            f"{where} holds {stored[0]} x {stored[1]} {stored[2]}, {MANIFEST_FILE} says {prefix.tokens} x {prefix.dim} "
            f"{prefix.dtype}",
            hint=_DAMAGED,
        )
    if tensor.digest != prefix.digest:
        raise IntegrityError(f"{where}: the tensor's sha256 is not prefix.digest of {MANIFEST_FILE}", hint=_DAMAGED)
    norms = row_norms(tensor.embeddings)
    for name, value in (("min", norms.min()), ("mean", norms.mean()), ("max", norms.max())):
        declared = float(getattr(prefix.norm, name))
        if abs(float(value) - declared) > NORM_TOLERANCE * declared:
            raise IntegrityError(
                f"{where}: the {name} norm is {value:.6g}, {MANIFEST_FILE} says {declared:.6g}", hint=_DAMAGED
            )
    if norms.max() > MAX_NORM_RATIO * prefix.norm.base_p999:
        raise IntegrityError(
            f"{where}: a virtual token of norm {norms.max():.4g}, over {MAX_NORM_RATIO:,.0f} times "
            f"the base's embeddings ({prefix.norm.base_p999:.4g})",
            hint="do not use this patch: no training ends there",
        )


def _check_config(found: dict[str, Any], manifest: Manifest, where: Path) -> None:
    """A foreign adapter_config.json is code to some loaders: only ours is accepted, key by key and type by type."""
    wanted = {key: json.dumps(value) for key, value in adapter_config(manifest).items()}
    given = {key: json.dumps(value) for key, value in found.items()}
    if wrong := [key for key in sorted(wanted.keys() | given.keys()) if wanted.get(key) != given.get(key)]:
        names = ", ".join(shown(key) for key in wrong[:4])
        raise IntegrityError(f"{where}: {names} is not what {MANIFEST_FILE} gives", hint=_DAMAGED)


def _check_text(data: bytes, where: Path) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{where} is not UTF-8 text: {error.reason}", hint=_DAMAGED) from None


def _differences(manifest: Manifest, base: Base) -> list[str]:
    from llmpatch.bases import Fingerprint

    return Fingerprint(**manifest.base.fingerprint.model_dump()).differences(base.fingerprint)


def _load_hint(manifest: Manifest) -> str:
    revision = f" at revision {shown(manifest.base.revision)}" if manifest.base.revision else ""
    return f"load the base {shown(manifest.base.name)}{revision}"


def _missing_hint(path: Path) -> str:
    leftovers = sorted(path.parent.glob(f".{glob.escape(path.name)}.old-*"))
    if leftovers:
        return f"an interrupted write left the last version in {leftovers[-1]}: rename it back to {path.name}"
    return "give the folder of a patch, or a name as VENDOR/SLUG that lies in ./patches"
