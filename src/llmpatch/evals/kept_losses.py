"""Losses kept on disk: what a model makes of answers that it has read before is not computed again.

    rows = kept_answer_losses(base, prompts, answers, Path("work/answers"))        # [(summed nats, tokens)]

One file per model, form and set of answers, named by their digest. The base's own answers to a suite are read once in a run
folder, however many patches are measured there. Nothing read there is trusted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.errors import IntegrityError
from llmpatch.evals.continuations import continuation_losses
from llmpatch.evals.fluency import answer_losses
from llmpatch.files import digest_json, read_bytes, write_json
from llmpatch.recipe import DecodingSection
from llmpatch.references.local import TransformersReference

if TYPE_CHECKING:
    from llmpatch.answers import Answer
    from llmpatch.bases import Base
    from llmpatch.prompts import Prompt

MAX_KEPT_BYTES = 1 << 24
Loss = tuple[float, int]  # summed nats, and tokens


def kept_answer_losses(base: Base, prompts: Sequence[str], answers: Sequence[str], store: Path | None) -> list[Loss]:
    """:func:`~llmpatch.evals.fluency.answer_losses`, kept (errors as there and in :func:`keep_losses`)."""
    return keep_losses(base, "chat", prompts, answers, lambda: answer_losses(base, prompts, answers), store)


def kept_continuation_losses(
    base: Base, prompts: Sequence[Prompt], answers: Mapping[str, Sequence[Answer]], store: Path | None
) -> dict[str, list[Loss]]:
    """:func:`~llmpatch.evals.continuations.continuation_losses`, kept (errors as there and in :func:`keep_losses`)."""
    rows = [(prompt, answer.text) for prompt in prompts for answer in answers.get(prompt.id, ())]

    def compute() -> list[Loss]:
        found = continuation_losses(base, prompts, answers)
        return [loss for prompt in prompts for loss in found.get(prompt.id, ())]

    losses = keep_losses(base, "raw", [prompt.text for prompt, _ in rows], [said for _, said in rows], compute, store)
    kept: dict[str, list[Loss]] = {}
    for (prompt, _), loss in zip(rows, losses, strict=True):
        kept.setdefault(prompt.id, []).append(loss)
    return kept


def keep_losses(
    base: Base,
    form: str,
    prompts: Sequence[str],
    answers: Sequence[str],
    compute: Callable[[], Sequence[Loss]],
    store: Path | None,
) -> list[Loss]:
    """One loss per answer, in order: from the store, or computed now and kept there.

    Args:
        base: Who reads.
        form: How: ``chat`` or ``raw``.
        prompts: What was asked, as many as answers.
        answers: What was said.
        compute: Gives the losses.
        store: Folder of kept losses; ``None`` keeps none.

    Raises:
        IntegrityError: the file of kept losses is damaged.
        LlmpatchError: the disk refuses.
    """
    if store is None:
        return list(compute())
    # Its weights, too: a merged LoRA has the fingerprint of its base.
    reader = TransformersReference(base, DecodingSection()).identity()
    known = [reader[key] for key in ("fingerprint", "weights", "engine", "window") if key in reader]
    identity = digest_json([*known, form, list(prompts), list(answers)])
    path = store / f"{identity[:32]}.losses.json"
    if not path.exists():
        found = list(compute())
        write_json(path, found)
        return found
    try:
        rows = [(float(nats), int(tokens)) for nats, tokens in json.loads(read_bytes(path, limit=MAX_KEPT_BYTES))]
        if len(rows) != len(answers) or not all(math.isfinite(nats) and tokens >= 0 for nats, tokens in rows):
            raise ValueError
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise IntegrityError(
            f"kept losses {path} are damaged", hint="delete that file; they are computed again"
        ) from None
    return rows
