"""The targets of ``llmpatch export``, and ``export.json``: what was written, for whom, and how far it is from the prefix.

export(base, patches, "gguf", Path("out"))
read_description(Path("out")).slots.text

"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmpatch.artifact import Patch, prefix_of
from llmpatch.artifact.card import base_id
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.bases import Base
from llmpatch.errors import IntegrityError, UsageError
from llmpatch.exporting.checkpoint import write_checkpoint
from llmpatch.exporting.embeds import write_embeds
from llmpatch.exporting.folder import check_new, new_folder
from llmpatch.exporting.gguf_model import write_gguf, write_lora_gguf
from llmpatch.exporting.job import Job, Made
from llmpatch.exporting.lora import write_lora
from llmpatch.exporting.peft_folder import write_peft
from llmpatch.files import read_bytes, sha256_file, write_json
from llmpatch.prefix import check_head
from llmpatch.recipe import describe

SCHEMA = "llmpatch/export/v1"
EXPORT_FILE = "export.json"
MAX_EXPORT_BYTES = 1 << 20
TARGETS: dict[str, Callable[[Job, Path], Made]] = {
    "peft": write_peft,
    "lora": write_lora,
    "lora-gguf": write_lora_gguf,
    "checkpoint": write_checkpoint,
    "gguf": write_gguf,
    "vllm-embeds": write_embeds,
}
DTYPES = ("float32", "bfloat16", "float16")
_WITH_DTYPE = ("checkpoint", "lora")
Text = Annotated[str, Field(max_length=4096)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PatchLine(_Section):
    """A patch whose rows are in an export."""

    name: Text
    version: Text
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SlotSection(_Section):
    """The tokens that stand for the patch; ``bos``: what follows them in raw text, where the engine no longer adds it."""

    text: Annotated[str, Field(max_length=1 << 16)]
    ids: Annotated[tuple[int, ...], Field(max_length=4096)]
    bos: Text = ""


class Description(_Section):
    """The content of ``export.json``."""

    schema_: Annotated[Literal["llmpatch/export/v1"], Field(alias="schema")]
    to: Literal["peft", "lora", "lora-gguf", "checkpoint", "gguf", "vllm-embeds"]
    base: Text
    tokens: Annotated[int, Field(ge=1)]
    patches: Annotated[tuple[PatchLine, ...], Field(min_length=1, max_length=64)]
    slots: SlotSection | None = None
    how: dict[str, Any]
    notes: tuple[Text, ...] = ()
    checks: dict[str, dict[str, float]]
    files: dict[str, str]

    @property
    def level(self) -> str:
        """The patches in one line, as ``llmpatch/refusal 1.1.0``."""
        return ", ".join(f"{patch.name} {patch.version}" for patch in self.patches)


def export(base: Base, patches: Sequence[Patch], to: str, out: Path, *, dtype: str = "float32") -> Made:
    """Write patches for an engine. The folder appears when its check has passed, or not at all.

    Args:
        base: The loaded base.
        patches: Their rows go one after another, as given.
        to: One of :data:`TARGETS`.
        out: A new or empty folder.
        dtype: Of the weights in ``checkpoint`` and ``lora``.

    Returns:
        What was measured, and what to do with it; also in ``export.json``.

    Raises:
        UsageError: an unknown target, no patch, a base that cannot hold patch tokens, a folder with something in it.
        WrongBaseError: a patch for another base.
        LlmpatchError: the result does not do what the run-time prefix does, or the disk is full.
    """
    import torch

    out = Path(out)
    if to not in TARGETS:
        raise UsageError(f"no export called {to!r}", hint=f"it can be {', '.join(TARGETS)}")
    if not patches:
        raise UsageError("no patch was given", hint="name at least one")
    if dtype not in DTYPES or (dtype != "float32" and to not in _WITH_DTYPE):
        raise UsageError(
            f"{to} does not store {dtype} weights", hint=f"--dtype ({', '.join(DTYPES)}) goes with {_either()}"
        )
    check_new(out)
    notes = [note for patch in patches for note in patch.check_base(base)]
    check_head(base)
    rows = prefix_of(patches)
    if not isinstance(rows, torch.Tensor):
        raise UsageError(
            f"{patches[0].manifest.name} holds patches side by side, and other engines read rows one after another",
            hint="serve it here (`llmpatch serve`), or export a cumulative patch or the single ones",
        )
    first = patches[0].manifest
    job = Job(base, rows, base_id(first), first.base.revision, dtype)
    with new_folder(out) as folder:
        made = TARGETS[to](job, folder)
        made = Made(made.checks, made.slots, made.how, (*made.notes, *notes))
        write_json(folder / EXPORT_FILE, _describe(job, patches, to, made, folder))
    return made


def read_description(folder: Path) -> Description:
    """Read the ``export.json`` of an export; the other files are not opened.

    Raises:
        UsageError: there is none.
        IntegrityError: it is not of this schema.
    """
    path = Path(folder) / EXPORT_FILE
    mapping = parse_object(read_bytes(path, limit=MAX_EXPORT_BYTES), where=str(path))
    try:
        return Description.model_validate_json(json.dumps(mapping))
    except ValidationError as error:
        raise IntegrityError(
            f"{path}: {shown(describe(error), 300)}", hint="this file is written by `llmpatch export`; export again"
        ) from None


def _describe(job: Job, patches: Sequence[Patch], to: str, made: Made, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "to": to,
        "base": job.base.name,
        "tokens": len(job.rows),
        "patches": [{"name": p.manifest.name, "version": p.manifest.version, "digest": p.digest} for p in patches],
    }
    if made.slots is not None:
        bos = _bos(job.base) if to != "checkpoint" else ""
        found["slots"] = {"text": made.slots.text, "ids": list(made.slots.ids), "bos": bos}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return found | {
        "how": made.how,
        "notes": list(made.notes),
        "checks": {name: measured.plain() for name, measured in made.checks.items()},
        "files": {path.relative_to(folder).as_posix(): sha256_file(path) for path in files},
    }


def _bos(base: Base) -> str:
    """The BOS token's text where the base's tokenizer puts it before raw text."""
    ids = base.text_ids("a")
    bos = base.tokenizer.bos_token_id
    return str(base.tokenizer.bos_token) if bos is not None and ids[:1] == [bos] else ""


def _either() -> str:
    return " and ".join(_WITH_DTYPE)
