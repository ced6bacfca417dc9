"""How far a system is from the safer model ``M'``: the log-likelihood it gives to answers that ``M'`` gave.

    distances(base, System("M+", prefix=rows), prompts, {"hb:1": [Answer("I can't help with that.", "stop")]})
    # {"hb:1": {"reference_log_likelihood": -1.21}}

Nats per token behind the chat prompt, the mean over a prompt's recorded answers; the end of turn is not counted, and what
follows 256 tokens neither. Prompts are held out, so this is not what training fitted. Knows nothing about harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llmpatch.answers import Answer
from llmpatch.evals.columns import Column
from llmpatch.evals.reading import open_reader, score_texts
from llmpatch.evals.systems import System
from llmpatch.progress import Progress, Silent
from llmpatch.prompts import Prompt

if TYPE_CHECKING:
    from llmpatch.bases import Base

KEY = "reference_log_likelihood"
COLUMNS = (Column(KEY, "log-likelihood of M' answers, nats per token", "higher", "score"),)
ANSWER_TOKENS = 256


def distances(
    base: Base,
    system: System,
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[Answer]],
    *,
    progress: Progress | None = None,
    title: str = "",
) -> Mapping[str, Mapping[str, float]]:
    """By prompt id, the mean log-likelihood per token of the recorded answers under a system.

    Args:
        base: The base under test.
        system: A live one.
        prompts: What ``M'`` was asked; those without an answer of at least one token are left out.
        answers: By prompt id.
        progress: Where to show progress.
        title: What to call it there.

    Raises:
        UsageError: a prompt and an answer that do not fit the context.
    """
    model = system.base or base
    rows: list[tuple[str, list[int], list[int]]] = []
    for prompt in prompts:
        context = model.chat_ids(prompt.text, system.system_message)
        for answer in answers.get(prompt.id, ()):
            text = model.tokenizer.encode(answer.text, add_special_tokens=False)[:ANSWER_TOKENS]
            if text:
                rows.append((prompt.id, context, text))
    with (progress or Silent()).stage(title or "Likelihood", len(rows)) as advance:
        scores = score_texts(
            open_reader(model, system.prefix), [r[1] for r in rows], [r[2] for r in rows], advance=advance
        )
    found: dict[str, list[float]] = {}
    for (ident, _, text), score in zip(rows, scores, strict=True):
        found.setdefault(ident, []).append(score.log_prob / len(text))
    return {ident: {KEY: sum(values) / len(values)} for ident, values in found.items()}
