"""Answer a file of prompts, keeping every finished answer, so that a killed command goes on where it was.

    answer_file(base, rows, Path("out.jsonl"), prefix=None, settings=Settings(decoding), progress=console())

Prompts are sorted by length into fixed blocks of one batch each. A block is sampled as a whole, with a seed made of the
seed and the block's number, so an interrupted and an uninterrupted run give the same bytes. Answers wait in
``OUT.partial/<identity>.partial.jsonl``; other options have another identity and never mix.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.errors import UsageError
from llmpatch.files import expanded, read_jsonl, write_jsonl

if TYPE_CHECKING:
    from llmpatch.answers import Answer
    from llmpatch.bases import Base
    from llmpatch.prefix import Rows
    from llmpatch.progress import Progress
    from llmpatch.recipe import DecodingSection

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How prompts are answered.

    Attributes:
        decoding: Length, temperature and seed.
        samples: Answers per prompt.
        raw: Continue the text instead of answering through the chat template.
        system: A system message instead of the template's own.
    """

    decoding: DecodingSection
    samples: int = 1
    raw: bool = False
    system: str | None = None


def read_rows(path: Path) -> list[Row]:
    """Rows with a text ``prompt``.

    Raises:
        UsageError: missing, empty or malformed file, or a row without a text ``prompt``.
    """
    rows = read_jsonl(path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("prompt"), str) or not row["prompt"]:
            raise UsageError(f"{path}: row {number} has no text `prompt`", hint='rows look like {"prompt": "..."}')
        try:
            json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except ValueError:
            raise UsageError(
                f"{path}: row {number} holds a lone surrogate, NaN or Infinity",
                hint="JSON and UTF-8 have no such thing",
            ) from None
    if not rows:
        raise UsageError(f"{path} has no prompts", hint="add at least one row")
    return rows


def check_out(path: Path, *inputs: Path | str | None) -> None:
    """Refuse an output that is a folder, one of the inputs, or in one, before anything is computed.

    Args:
        path: The output.
        inputs: Files and folders that are read; a name that is no path, as of a base or an installed patch, is none.

    Raises:
        UsageError: as said.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder, --out is a file", hint="name a file in it")
    for text in inputs:
        other = expanded(text) if text else None
        if other is None or not other.exists():
            continue
        if path.exists() and path.samefile(other):
            raise UsageError(f"--out {path} is also an input", hint="write to another file")
        if path.parent.is_dir() and path.parent.samefile(other):
            raise UsageError(f"--out {path} would lie in {other}, which is an input", hint="write it elsewhere")


def answer_file(
    base: Base, rows: list[Row], out: Path, *, prefix: Rows | None, settings: Settings, progress: Progress
) -> None:
    """Write ``rows`` with ``completions`` (a list of ``samples`` texts) to ``out``, in the same order.

    Args:
        base: The model.
        rows: From :func:`read_rows`.
        out: Written atomically at the end.
        prefix: Virtual tokens, or ``None`` for the base alone.
        settings: How prompts are answered.
        progress: Where to show progress.

    Raises:
        UsageError: a prompt that does not fit the context, by its row.
        IntegrityError: a damaged file of kept answers.
        LlmpatchError: the disk is full, or the folder cannot be written; finished answers are kept.
    """
    from llmpatch.references.shards import Shard

    prompts = [str(row["prompt"]) for row in rows]
    lengths = _lengths(base, prompts, settings, 0 if prefix is None else len(prefix))
    slots = [prompt for prompt in prompts for _ in range(settings.samples)]
    shard = Shard.of(_identity(base, prefix, settings), slots, out.parent / f"{out.name}.partial")
    known = _answer(base, prompts, lengths, shard, prefix, settings, progress)
    k = settings.samples
    write_jsonl(out, [{**row, "completions": [known[i * k + s].text for s in range(k)]} for i, row in enumerate(rows)])
    shard.partial.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another command's answers may lie there
        shard.folder.rmdir()


def _answer(
    base: Base,
    prompts: list[str],
    lengths: list[int],
    shard: Any,
    prefix: Rows | None,
    settings: Settings,
    progress: Progress,
) -> dict[int, Answer]:
    """All answers by slot (prompt index times samples plus sample), each kept as it comes."""
    from llmpatch.generation import BATCH_SIZE, generate

    known: dict[int, Answer] = shard.load()
    samples = settings.samples
    order = sorted(range(len(prompts)), key=lambda i: lengths[i])
    size = max(1, BATCH_SIZE // samples)
    with progress.stage("Answering", len(prompts) * samples) as advance:
        advance(len(known))
        for start in range(0, len(order), size):
            block = order[start : start + size]
            if all(i * samples + s in known for i in block for s in range(samples)):
                continue
            decoding = settings.decoding.model_copy(update={"seed": _block_seed(settings.decoding.seed, start)})
            found = generate(
                base,
                [prompts[i] for i in block],
                decoding=decoding,
                prefix=prefix,
                system=settings.system,
                raw=settings.raw,
                samples=samples,
            )
            for index, answers in found:
                for sample, answer in enumerate(answers):
                    slot = block[index] * samples + sample
                    if slot not in known:
                        shard.append(slot, answer)
                        known[slot] = answer
                        advance(1)
    return known


def _block_seed(seed: int, start: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{start}".encode()).digest()[:4], "big")


def _lengths(base: Base, prompts: list[str], settings: Settings, virtual: int) -> list[int]:
    """Tokens of each prompt, all of which must fit, so that row 1,000 does not fail after an hour."""
    room = base.context - settings.decoding.max_new_tokens - virtual
    lengths = []
    for number, prompt in enumerate(prompts, start=1):
        n = len(base.prompt_ids(prompt, settings.system, raw=settings.raw))
        if not 1 <= n <= room:
            raise UsageError(
                f"the prompt of row {number} has {n} tokens; between 1 and {room} fit the context of {base.context}",
                hint="shorten it or --max-new-tokens",
            )
        lengths.append(n)
    return lengths


def _identity(base: Base, prefix: Rows | None, settings: Settings) -> dict[str, Any]:
    """Everything the answers depend on, as JSON reads it back."""
    from llmpatch.prefix import prefix_digest
    from llmpatch.references.local import TransformersReference

    found = TransformersReference(base, settings.decoding, settings.system).identity()
    found |= {
        "prefix": None if prefix is None else prefix_digest(prefix),
        "samples": settings.samples,
        "raw": settings.raw,
    }
    loaded: dict[str, Any] = json.loads(json.dumps(found))
    return loaded
