"""Write a patch folder: all of it, or nothing.

    fields = {"name": "smollm2/refusal", "version": "1.0.0", "base": describe_base(base), ...}
    patch = write_patch(Path("out"), fields, embeddings, evidence, base_p999=input_norm_p999(base))

The same arguments give the same bytes. Everything is checked by the reader before the folder appears under its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmpatch.artifact.bundle import MAX_NORM_RATIO, Patch, parse_patch, read_patch
from llmpatch.artifact.card import adapter_config, model_card
from llmpatch.artifact.layout import (
    ALL_LIMITS,
    CARD_FILE,
    CONFIG_FILE,
    EVIDENCE_FILE,
    LIMITS,
    MANIFEST_FILE,
    TENSOR_FILE,
    TOLERATED,
)
from llmpatch.artifact.manifest import NO_DIGEST, make_manifest, render_manifest
from llmpatch.artifact.strict_json import parse_object
from llmpatch.artifact.tensors import MAX_DIM, MAX_TENSOR_BYTES, MAX_TOKENS, Embeddings, encode_tensor, row_norms
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError

if TYPE_CHECKING:
    from llmpatch.bases import Base

_COMPUTED = frozenset({"schema", "prefix", "files", "checksum"})


def write_patch(
    folder: Path,
    fields: Mapping[str, Any],
    embeddings: Embeddings,
    evidence: Mapping[str, Any],
    *,
    base_p999: float,
    overwrite: bool = False,
) -> Patch:
    """Write a patch and read it back.

    Args:
        folder: Where; it must not exist, be empty, or (with ``overwrite``) hold a patch.
        fields: The keys of ``patch.json`` but ``schema``, ``prefix``, ``files`` and ``checksum``, which are computed.
        embeddings: Virtual tokens, (tokens, dim), finite; stored as float32.
        evidence: What was measured, as JSON of at most 1 MiB.
        base_p999: 99.9th percentile of the norms of the base's input embeddings (:func:`input_norm_p999`).
        overwrite: Replace a patch that is there. Its signature goes with it.

    Raises:
        UsageError: a wrong field, tensor or evidence; the folder holds something else.
        LlmpatchError: the disk is full or the folder cannot be written. What was there is untouched.
    """
    check_target(Path(folder), overwrite)
    write_members(folder, render_patch(fields, embeddings, evidence, base_p999=base_p999), overwrite=overwrite)
    return read_patch(folder)


def write_members(folder: Path, members: Mapping[str, bytes], *, overwrite: bool = False) -> None:
    """Write the files of a patch, its signature included, under their names: all of them, or none.

    Args:
        folder: Where; it must not exist, be empty, or (with ``overwrite``) hold a patch.
        members: File name -> content, as read or rendered; they are not checked here.
        overwrite: Replace a patch that is there. Its signature goes with it.

    Raises:
        UsageError: the folder holds something else.
        LlmpatchError: the disk is full or the folder cannot be written. What was there is untouched.
    """
    folder = Path(folder)
    check_target(folder, overwrite)
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))
        _write_files(temporary, members)
        _swap(temporary, folder)
    except OSError as error:
        raise LlmpatchError(
            f"cannot write {folder}: {error.strerror or error}",
            hint="free some space or choose another folder; what was there is untouched",
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def render_patch(
    fields: Mapping[str, Any], embeddings: Embeddings, evidence: Mapping[str, Any], *, base_p999: float
) -> dict[str, bytes]:
    """The five files of a patch, by name (arguments and UsageError as in :func:`write_patch`)."""
    if unwanted := sorted(_COMPUTED & set(fields)):
        raise UsageError(f"patch manifest: {', '.join(unwanted)} is computed", hint="leave it out of the fields")
    tensor = _checked_embeddings(embeddings, base_p999)
    evidence_bytes = _render_json(dict(evidence), EVIDENCE_FILE)
    parsed_evidence = parse_object(evidence_bytes, where=EVIDENCE_FILE)
    contents = {TENSOR_FILE: encode_tensor(tensor), EVIDENCE_FILE: evidence_bytes}
    if len(contents[TENSOR_FILE]) > MAX_TENSOR_BYTES:
        raise UsageError(
            f"{tensor.shape[0]} virtual tokens of {tensor.shape[1]} numbers exceed {MAX_TENSOR_BYTES:,} bytes",
            hint="use fewer virtual tokens",
        )
    zeros = dict.fromkeys((CARD_FILE, CONFIG_FILE, TENSOR_FILE, EVIDENCE_FILE), NO_DIGEST)
    manifest = make_manifest({**fields, "prefix": _prefix(tensor, base_p999), "files": zeros})
    contents[CONFIG_FILE] = _render_json(adapter_config(manifest), CONFIG_FILE)
    contents[CARD_FILE] = model_card(manifest, parsed_evidence).encode("utf-8")
    digests = {name: hashlib.sha256(contents[name]).hexdigest() for name in sorted(contents)}
    contents[MANIFEST_FILE] = render_manifest(manifest.model_copy(update={"files": digests}))
    try:
        parse_patch(contents, Path("the new patch"))
    except IntegrityError as error:  # what the reader would refuse must not be written
        raise UsageError(error.message, hint="change the fields or the evidence") from error
    return {name: contents[name] for name in LIMITS}


def describe_base(
    base: Base, *, purl: str | None = None, revision: str | None = None, tested_on: Iterable[str] = ()
) -> dict[str, Any]:
    """The ``base`` section of a manifest for a loaded base.

    Args:
        base: The base the patch was trained on.
        purl: Its package URL, as ``pkg:huggingface/org/model@commit``.
        revision: The commit it was loaded at.
        tested_on: Other quantisations the evidence was measured on.
    """
    fingerprint = base.fingerprint
    parts = ("config", "tokenizer", "chat_template", "embeddings", "quantisation")
    section: dict[str, Any] = {
        "name": base.name,
        "model_type": str(getattr(base.model.config.get_text_config(), "model_type", "") or "unknown"),
        "hidden_size": base.hidden_size,
        "vocab_size": base.vocab_size,
        "fingerprint": {part: getattr(fingerprint, part) for part in parts},
        "tested_on": list(tested_on),
    }
    optional = {"purl": purl, "revision": revision}
    return section | {key: value for key, value in optional.items() if value is not None}


def input_norm_p999(base: Base) -> float:
    """The 99.9th percentile of the norms of a base's input embeddings, after the model's own scaling."""
    import torch

    starts, size = range(0, base.vocab_size, 16384), base.vocab_size
    norms = [base.embed(torch.arange(i, min(i + 16384, size))).float().norm(dim=-1).cpu().numpy() for i in starts]
    return float(np.quantile(np.concatenate(norms), 0.999))


def _checked_embeddings(embeddings: Embeddings, base_p999: float) -> Embeddings:
    tensor = np.asarray(embeddings)
    if tensor.ndim != 2 or not 1 <= tensor.shape[0] <= MAX_TOKENS or not 1 <= tensor.shape[1] <= MAX_DIM:
        raise UsageError(
            f"virtual tokens of shape {tensor.shape}, expected (tokens <= {MAX_TOKENS}, dim <= {MAX_DIM:,})",
            hint="give one row a virtual token",
        )
    if tensor.dtype.kind != "f":
        raise UsageError(f"virtual tokens of type {tensor.dtype}, expected floats", hint="convert them to float32")
    with np.errstate(over="ignore"):
        tensor = tensor.astype(np.float32)
    if not np.isfinite(tensor).all():
        raise UsageError("the virtual tokens contain NaN or infinite numbers", hint="training diverged: lower the rate")
    if not (np.isfinite(base_p999) and base_p999 > 0) or row_norms(tensor).max() > MAX_NORM_RATIO * base_p999:
        raise UsageError(
            f"virtual tokens of norm up to {row_norms(tensor).max():.4g}, the base's embeddings have {base_p999:.4g}",
            hint="training diverged: lower the rate",
        )
    return tensor


def _prefix(tensor: Embeddings, base_p999: float) -> dict[str, Any]:
    norms = row_norms(tensor)
    low, high = float(norms.min()), float(norms.max())
    mean = min(max(float(norms.mean()), low), high)  # of equal rows the rounded mean may lie outside by one ulp
    return {
        "tokens": tensor.shape[0],
        "dim": tensor.shape[1],
        "norm": {"min": low, "mean": mean, "max": high, "base_p999": float(base_p999)},
        "digest": hashlib.sha256(np.ascontiguousarray(tensor, dtype="<f4").tobytes()).hexdigest(),
    }


def _render_json(value: dict[str, Any], name: str) -> bytes:
    """Indented JSON that our own strict reader takes."""
    try:
        data = (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
        parse_object(data, where=name)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{name}: cannot be written as JSON: {error}", hint="use finite plain numbers and text"
        ) from None
    except IntegrityError as error:
        raise UsageError(error.message, hint="use finite plain numbers and text, and a flatter structure") from None
    if len(data) > LIMITS[name]:
        raise UsageError(f"{name} would have {len(data):,} bytes, at most {LIMITS[name]:,} allowed", hint="shorten it")
    return data


def check_target(folder: Path, overwrite: bool) -> None:
    """Refuse what must not be replaced.

    Raises:
        UsageError: a file, a link, a folder that is not a patch, or a patch without ``overwrite``.
    """
    if folder.name in {"", ".."}:
        raise UsageError(f"{folder} has no name to write a patch under", hint="name a new folder")
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", hint="choose another path")
    names = {entry.name for entry in folder.iterdir()}
    if not names:
        return
    if MANIFEST_FILE not in names or not names <= ALL_LIMITS.keys() | TOLERATED:
        raise UsageError(f"{folder} holds something else than a patch", hint="choose an empty or a new folder")
    if not overwrite:
        raise UsageError(f"{folder} already holds a patch", hint="choose another folder, or ask to overwrite it")


def _write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, data in contents.items():
        with (folder / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        (folder / name).chmod(0o644)
    folder.chmod(0o755)
    _sync_folder(folder)


def _swap(new: Path, folder: Path) -> None:
    """Give ``new`` the name ``folder``. An old patch is moved aside first and comes back if that fails."""
    if not folder.exists() or not any(folder.iterdir()):
        new.replace(folder)  # an empty folder is replaced in one step
        _sync_folder(folder.parent)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old-", dir=folder.parent))
    try:
        folder.replace(old)
        try:
            new.replace(folder)
        except BaseException:
            old.replace(folder)
            raise
        _sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        with contextlib.suppress(OSError):
            old.rmdir()  # only when it is still the empty place holder


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
