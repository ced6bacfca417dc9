"""A patch on disk: five files in a folder or a ``.lpatch``, read once, bounded, and checked against each other.

    patch = load_patch("smollm2/refusal")     # a folder, a .lpatch, or a name under ./patches
    patch.manifest.summary, patch.embeddings  # (tokens, dim) float32
    model = patch.apply(base)                 # raises WrongBaseError for another base

Reading needs numpy and pydantic only. ``parse_patch`` takes the bytes of the files from wherever they come, so that a
signature can be checked over the very bytes that are used. Knows nothing about keys or installed patches.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.artifact.card import adapter_config
from llmpatch.artifact.layout import (
    ARCHIVE_SUFFIX,
    CARD_FILE,
    CONFIG_FILE,
    DAMAGED,
    EVIDENCE_FILE,
    LIMITS,
    MANIFEST_FILE,
    TENSOR_FILE,
)
from llmpatch.artifact.manifest import Manifest, parse_manifest
from llmpatch.artifact.reading import read_contents
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.artifact.tensors import Embeddings, Tensor, decode_tensor, row_norms
from llmpatch.errors import IntegrityError, UsageError, WrongBaseError
from llmpatch.files import expanded

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.patched import PatchedModel
    from llmpatch.prefix import Rows

NORM_TOLERANCE = 1e-3
MAX_NORM_RATIO = 1000.0
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
        path: The folder or ``.lpatch`` it was read from.
        files: sha256 of each of the five files.
        signature: The bytes of ``patch.sig``, unchecked; ``None`` without one.
    """

    manifest: Manifest
    embeddings: Embeddings = field(repr=False)
    evidence: dict[str, Any] = field(repr=False)
    path: Path
    files: Mapping[str, str] = field(repr=False)
    signature: bytes | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        """The identity of the patch: sha256 over lines of ``sha256  name``, sorted by name.

        ``sha256sum README.md adapter_config.json adapter_model.safetensors evidence.json patch.json | sha256sum``
        """
        lines = "".join(f"{self.files[name]}  {name}\n" for name in sorted(self.files))
        return hashlib.sha256(lines.encode("ascii")).hexdigest()

    def prefix(self) -> Rows:
        """What stands in front of a base: [tokens, dim] float32, or the members' rows side by side."""
        import torch

        rows = torch.tensor(self.embeddings)
        if self.manifest.arrangement is None or self.manifest.members is None:
            return rows
        from llmpatch.prefix import parallel

        return parallel(torch.split(rows, [member.tokens for member in self.manifest.members]))

    @property
    def prefix_sha256(self) -> str:
        """The digest of :meth:`prefix` by which evidence names it."""
        from llmpatch.prefix import prefix_digest

        return prefix_digest(self.embeddings if self.manifest.arrangement is None else self.prefix())

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
                f"{found.quantisation}, where it was not measured: it can do much less there, so run `llmpatch gate` on this base"
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
        return PatchedModel(base, self.prefix(), self.manifest.name)


def prefix_of(patches: Sequence[Patch]) -> Rows | None:
    """What stands in front of a base with these patches one after another; ``None`` without any.

    Raises:
        UsageError: one of several has its members side by side: it does not stand in a row with others.
    """
    import torch

    if len(patches) == 1:
        return patches[0].prefix()
    for patch in patches:
        if patch.manifest.arrangement:
            raise UsageError(
                f"{patch.manifest.name} {patch.manifest.version} holds patches side by side: no other goes before or behind it",
                hint="compose the single patches: `llmpatch compose --parallel P1 P2 ...`",
            )
    return torch.cat([torch.tensor(patch.embeddings) for patch in patches]) if patches else None


def load_patch(path_or_name: str | Path) -> Patch:
    """Read the patch in a folder or a ``.lpatch``, or of a name such as ``smollm2/refusal`` that lies in ``./patches``.

    Raises:
        UsageError: there is no such folder, file or name.
        IntegrityError: the patch is damaged, foreign or oversized.
    """
    return read_patch(find_patch(path_or_name))


def find_patch(path_or_name: str | Path) -> Path:
    """The path that is meant: a name that is no path is looked up in ``./patches``, as a folder or a ``.lpatch``."""
    path = expanded(path_or_name)
    if os.path.lexists(path) or not re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", str(path_or_name)):
        return path
    named = Path("patches") / path
    packed = named.with_name(named.name + ARCHIVE_SUFFIX)
    return next((found for found in (named, packed) if found.exists()), path)


def read_patch(path: Path) -> Patch:
    """Read the patch in a folder or a ``.lpatch``: each file once, no links, no other files, no more bytes than allowed.

    Its signature is read, not checked: that takes a key (``llmpatch verify``).

    Raises:
        UsageError: there is no such folder or file.
        IntegrityError: anything in it is damaged, missing, foreign or oversized.
        LlmpatchError: it cannot be read.
    """
    contents = read_contents(Path(path))
    return parse_patch(contents.files, Path(path), signature=contents.signature)


def parse_patch(contents: Mapping[str, bytes], path: Path, *, signature: bytes | None = None) -> Patch:
    """Check the bytes of the five files against each other.

    Args:
        contents: File name -> content.
        path: Where they come from, for messages.
        signature: The bytes of ``patch.sig``, to be kept with the patch.

    Raises:
        IntegrityError: as in :func:`read_patch`.
        UsageError: the patch needs a newer llmpatch.
    """
    if set(contents) != set(LIMITS):
        names = ", ".join(shown(name) for name in sorted(set(contents) ^ set(LIMITS))[:3])
        raise IntegrityError(f"{path}: missing or foreign files: {names}", hint=DAMAGED)
    for name, limit in LIMITS.items():
        if len(contents[name]) > limit:
            raise _oversized(path / name, limit)
    manifest = parse_manifest(contents[MANIFEST_FILE], where=str(path / MANIFEST_FILE))
    _check_client(manifest, path)
    files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    for name, digest in manifest.files.items():
        if files[name] != digest:
            raise IntegrityError(
                f"{path / name} is not the file that {MANIFEST_FILE} names by its sha256", hint=DAMAGED
            )
    tensor = decode_tensor(contents[TENSOR_FILE], where=str(path / TENSOR_FILE))
    _check_tensor(tensor, manifest, path / TENSOR_FILE)
    _check_config(parse_object(contents[CONFIG_FILE], where=str(path / CONFIG_FILE)), manifest, path / CONFIG_FILE)
    evidence = parse_object(contents[EVIDENCE_FILE], where=str(path / EVIDENCE_FILE))
    _check_text(contents[CARD_FILE], path / CARD_FILE)
    return Patch(manifest, tensor.embeddings, evidence, path, files, signature)


def _oversized(where: Path, limit: int) -> IntegrityError:
    return IntegrityError(f"{where} is larger than {limit:,} bytes", hint=DAMAGED)


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
            hint=DAMAGED,
        )
    if tensor.digest != prefix.digest:
        raise IntegrityError(f"{where}: the tensor's sha256 is not prefix.digest of {MANIFEST_FILE}", hint=DAMAGED)
    norms = row_norms(tensor.embeddings)
    for name, value in (("min", norms.min()), ("mean", norms.mean()), ("max", norms.max())):
        declared = float(getattr(prefix.norm, name))
        if abs(float(value) - declared) > NORM_TOLERANCE * declared:
            raise IntegrityError(
                f"{where}: the {name} norm is {value:.6g}, {MANIFEST_FILE} says {declared:.6g}", hint=DAMAGED
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
        raise IntegrityError(f"{where}: {names} is not what {MANIFEST_FILE} gives", hint=DAMAGED)


def _check_text(data: bytes, where: Path) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{where} is not UTF-8 text: {error.reason}", hint=DAMAGED) from None


def _differences(manifest: Manifest, base: Base) -> list[str]:
    from llmpatch.bases import Fingerprint

    return Fingerprint(**manifest.base.fingerprint.model_dump()).differences(base.fingerprint)


def _load_hint(manifest: Manifest) -> str:
    revision = f" at revision {shown(manifest.base.revision)}" if manifest.base.revision else ""
    return f"load the base {shown(manifest.base.name)}{revision}"
