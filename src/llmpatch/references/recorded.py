"""A recording: answers somebody sampled before, as JSON Lines.

    RecordedReference(Path("data/references/qwen.jsonl"))

A row has ``prompt`` and ``completion``, and may have ``id`` and ``finish``. Prompts are matched by exact text, and
the first row wins. A ``provenance.json`` beside it (or ``qwen.provenance.json``, as ``llmpatch record`` writes it) says where the
answers come from and becomes part of the identity.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmpatch.answers import FINISHES, Answer
from llmpatch.errors import ReferenceFailedError, UsageError
from llmpatch.files import iterate_lines, parse_row, read_bytes, sha256_file

_MAX_PROVENANCE_BYTES = 1 << 16


@dataclass(frozen=True)
class RecordedReference:
    """Answers from a file.

    Attributes:
        path: The JSON Lines file.
    """

    path: Path

    @cached_property
    def rows(self) -> dict[str, Answer]:
        """Answers by prompt text.

        Raises:
            UsageError: a missing or malformed file; a row without a text prompt and completion; an unknown finish.
        """
        answers: dict[str, Answer] = {}
        for number, line in enumerate(iterate_lines(self.path), start=1):
            row = parse_row(line.text, self.path, line.number)
            prompt, completion, finish = row.get("prompt"), row.get("completion"), row.get("finish", "stop")
            if not isinstance(prompt, str) or not isinstance(completion, str):
                raise UsageError(
                    f"{self.path}: row {number} has no text `prompt` and `completion`",
                    hint='rows look like {"prompt": "...", "completion": "...", "finish": "stop"}',
                )
            if finish not in FINISHES:
                raise UsageError(
                    f"{self.path}: row {number} has finish {finish!r}", hint=f"use one of {', '.join(FINISHES)}"
                )
            answers.setdefault(prompt, Answer(completion, finish))
        return answers

    def identity(self) -> dict[str, Any]:
        """The file's digest and its provenance (errors as for :attr:`rows`)."""
        count = len(self.rows)  # first, so that a missing or malformed file is reported as such
        return {
            "kind": "recorded",
            "sha256": sha256_file(self.path),
            "rows": count,
            "provenance": _provenance(
                self.path.with_suffix(".provenance.json"), self.path.with_name("provenance.json")
            ),
        }

    def answer(self, prompts: Sequence[str]) -> Generator[tuple[int, Answer], None, None]:
        """See :class:`llmpatch.references.Reference`; prompts that were not recorded fail after all the others."""
        rows = self.rows
        for index, prompt in enumerate(prompts):
            if prompt in rows:
                yield index, rows[prompt]
        missing = [prompt for prompt in prompts if prompt not in rows]
        if missing:
            first = missing[0] if len(missing[0]) <= 80 else missing[0][:80] + "..."
            raise ReferenceFailedError(
                f"{self.path} has no answer to {len(missing)} of {len(prompts)} prompts; the first is {first!r}",
                hint="record them with the reference it was made with, or leave those prompts out",
            )


def _provenance(*paths: Path) -> dict[str, Any] | None:
    """What the first of these files that is there says."""
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return None
    try:
        found = json.loads(read_bytes(path, limit=_MAX_PROVENANCE_BYTES).decode("utf-8"))
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode("utf-8")  # as it will be kept
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}", hint="mend or delete it") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is not a JSON object", hint="mend or delete it")
    return found
