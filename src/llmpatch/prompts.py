"""Prompts: what is asked, and what the patch should do about it.

    prompts = load_prompts(Path("data/prompts/harmful_train.jsonl"))

A row needs ``prompt``; ``id``, ``kind``, ``cluster`` and ``source`` are optional for a user's own file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from llmpatch.errors import UsageError
from llmpatch.files import encodable, read_jsonl

Kind = Literal["harmful", "borderline", "everyday"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Form = Literal["chat", "raw"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request.

    Attributes:
        id: Stable name, unique in its set.
        text: What the user says.
        kind: ``harmful`` should be declined; ``borderline`` looks harmful and is not; ``everyday`` is neither.
        cluster: Near-duplicates share it; splits go by cluster.
        form: ``chat`` puts it through the chat template; ``raw`` is text to be continued as it stands.
    """

    id: str
    text: str
    kind: Kind
    cluster: str = ""
    form: Form = "chat"

    @property
    def group(self) -> str:
        """Whom it counts together with in an interval: its cluster, or itself."""
        return self.cluster or self.id


def load_prompts(path: Path, kind: Kind | None = None) -> list[Prompt]:
    """Read a prompt set.

    Args:
        path: JSON Lines file.
        kind: The kind of rows that do not name one; without it such rows are everyday.

    Raises:
        UsageError: missing, empty or malformed file; a row without a text ``prompt``; an unknown kind; an id twice.
    """
    prompts: list[Prompt] = []
    seen: set[str] = set()
    for number, row in enumerate(read_jsonl(path), start=1):
        prompt = parse_prompt(row, path, number, kind)
        if prompt.id in seen:
            raise UsageError(f"{path}: id {prompt.id!r} appears twice (row {number})", hint="give each row its own id")
        seen.add(prompt.id)
        prompts.append(prompt)
    if not prompts:
        raise UsageError(f"{path} has no prompts", hint="add at least one row")
    return prompts


def check_ids(prompts: Iterable[Prompt], where: str) -> None:
    """Refuse an id that is there twice: answers are found by it.

    Raises:
        UsageError: names the id.
    """
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise UsageError(
                f"id {prompt.id!r} appears twice among {where}",
                hint="give each row its own id; without one it is named after its file's name and its row",
            )
        seen.add(prompt.id)


def parse_prompt(row: dict[str, Any], path: Path, number: int, kind: Kind | None = None) -> Prompt:
    """One row of a prompt set.

    Args:
        row: The row.
        path: Where it stands, for the error and for an id.
        number: Which row it is, from 1.
        kind: As for :func:`load_prompts`.

    Raises:
        UsageError: a row without a text ``prompt``; an unknown kind; an ``id`` or ``cluster`` that is no name.
    """
    text = row.get("prompt")
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{path}: row {number} has no text `prompt`", hint='rows look like {"prompt": "..."}')
    if not encodable(text):
        raise UsageError(f"{path}: row {number} holds a lone surrogate, which is no text", hint="mend its `prompt`")
    found = row.get("kind", kind or "everyday")
    if found not in KINDS:
        raise UsageError(f"{path}: row {number} has kind {found!r}", hint=f"use one of {', '.join(KINDS)}")
    cluster = _label(row, "cluster", path, number) or hashlib.sha256(text.strip().lower().encode()).hexdigest()[:10]
    return Prompt(_label(row, "id", path, number) or f"{path.stem}:{number}", text, found, cluster)


def _label(row: dict[str, Any], key: str, path: Path, number: int) -> str:
    """A name in a row: text or a number; empty where there is none, as pandas writes NaN.

    Raises:
        UsageError: it is something else.
    """
    found = row.get(key)
    if found is None or found != found:  # NaN
        return ""
    text = str(found) if isinstance(found, (str, int, float)) and not isinstance(found, bool) else None
    if text is None or not encodable(text) or found in (float("inf"), float("-inf")):
        raise UsageError(f"{path}: row {number} has `{key}` {found!r}", hint="give a text or a number, or leave it out")
    return text
