"""Scores kept on disk as a judge gives them, so that a judge that fails midway is not asked twice for anything.

    scores = judge_kept(open_judge("perspective"), ["", ""], ["a text", "another"], Path("work/scores"))

One JSON Lines file per judge, named by the digest of its identity: another version of a judge starts afresh. Nothing read
there or said by a judge is trusted.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.errors import IntegrityError, LlmpatchError
from llmpatch.files import digest_json, read_bytes

if TYPE_CHECKING:
    from llmpatch.judges import Judge

BATCH = 32
MAX_STORE_BYTES = 1 << 28


def judge_kept(
    judge: Judge,
    prompts: Sequence[str],
    answers: Sequence[str],
    store: Path | None,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """One score per answer, in order; the same prompt and answer are judged once.

    Args:
        judge: Who scores.
        prompts: What was asked, as many as answers.
        answers: What was said.
        store: Folder of kept scores; ``None`` keeps none.
        advance: Called with the number of answers done.

    Raises:
        LlmpatchError: the judge fails or gives something other than probabilities; what it gave before is kept.
        IntegrityError: the file of kept scores is damaged.
    """
    from llmpatch.judges import identity

    path = store / f"{digest_json(identity(judge))[:32]}.scores.jsonl" if store else None
    known = _load(path) if path and path.exists() else {}
    keys = [digest_json([prompt, answer])[:32] for prompt, answer in zip(prompts, answers, strict=True)]
    missing = list({key: i for i, key in enumerate(keys) if key not in known}.values())
    advance(len(keys) - len(missing))
    for at in range(0, len(missing), BATCH):
        part = missing[at : at + BATCH]
        found = judge.score([prompts[i] for i in part], [answers[i] for i in part])
        _check(judge, found, len(part))
        new = {keys[i]: float(score) for i, score in zip(part, found, strict=True)}
        known |= new
        if path:
            _append(path, new)
        advance(len(part))
    return [known[key] for key in keys]


def _check(judge: Judge, found: Sequence[float], wanted: int) -> None:
    wrong = [score for score in found if not _is_score(score)]
    if len(found) != wanted or wrong:
        said = f"the score {wrong[0]!r:.40}" if wrong else f"{len(found)} scores for {wanted} texts"
        raise LlmpatchError(
            f"judge {judge.name} gave {said}", hint="run again, or choose another judge; what it gave before is kept"
        )


def _is_score(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= 1


def _load(path: Path) -> dict[str, float]:
    """Scores by key; a last line that a killed run tore is cut off."""
    data = read_bytes(path, limit=MAX_STORE_BYTES)
    whole = data[: data.rfind(b"\n") + 1]
    found: dict[str, float] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            key, score = json.loads(line)
            if not isinstance(key, str) or not _is_score(score):
                raise ValueError
        except (ValueError, TypeError, RecursionError):
            raise IntegrityError(
                f"kept scores {path} are damaged in line {number}", hint="delete that file; its texts are judged again"
            ) from None
        found[key] = float(score)
    if len(whole) != len(data):
        try:
            os.truncate(path, len(whole))
        except OSError as error:
            raise LlmpatchError(f"cannot mend {path}: {error.strerror}", hint="check its permissions") from error
    return found


def _append(path: Path, scores: dict[str, float]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps([key, score]) + "\n" for key, score in scores.items())
    except OSError as error:
        raise LlmpatchError(
            f"cannot write {path}: {error.strerror}", hint="free some space and run again; the scores so far are kept"
        ) from error
