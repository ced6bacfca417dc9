"""Whether an answer names the fact that was asked for.

    is_right(("Paris",), "The capital of France is Paris.")      # True
    load_facts(Path("data/utility/facts.jsonl"))                 # [(Prompt(...), ("Paris",)), ...]

Likelihoods of given choices, as the suite ``utility`` compares them, do not see that a model has begun to *say* something else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from llmpatch.errors import UsageError
from llmpatch.files import read_jsonl
from llmpatch.prompts import Prompt, load_prompts

_MOST, _LONGEST = 16, 200


def is_right(answers: Sequence[str], text: str) -> bool:
    """Whether one of the answers stands in a text, as words of their own.

    Args:
        answers: Forms of the right answer. One of one or two letters, as ``He`` for helium, counts in its own case only; a number
            only by itself, as the 5 of "5 days" and not of "4.5", "-5" or "5,000". A hyphen may be a space.
        text: What was said.
    """
    return any(re.search(_pattern(one), text, 0 if len(one) <= 2 else re.IGNORECASE) for one in answers)


def _pattern(answer: str) -> str:
    words = re.escape(answer).replace(r"\-", "[- ]")
    if answer[0].isdecimal() and answer[-1].isdecimal():
        return rf"(?<![\w.,-]){words}(?!\w|[.,]?\d)"
    return rf"(?<!\w){words}(?!\w)"


def load_facts(path: Path) -> list[tuple[Prompt, tuple[str, ...]]]:
    """Questions with the forms of their answer, of rows ``{"prompt", "answers": ["Paris"]}``.

    Raises:
        UsageError: as :func:`llmpatch.prompts.load_prompts`; a row without a list of texts ``answers``.
    """
    found = []
    for number, (prompt, row) in enumerate(zip(load_prompts(path, "everyday"), read_jsonl(path), strict=True), start=1):
        answers = row.get("answers")
        texts = answers if isinstance(answers, list) and len(answers) <= _MOST else []
        if not texts or not all(isinstance(one, str) and one.strip() and len(one) <= _LONGEST for one in texts):
            raise UsageError(
                f"{path}: row {number} has no list of texts `answers`",
                hint='rows look like {"prompt": "What is the capital of France?", "answers": ["Paris"]}',
            )
        found.append((prompt, tuple(one.strip() for one in texts)))
    return found
