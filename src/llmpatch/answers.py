"""Answers: what a model said, and why it stopped.

    Answer("I can't help with that.", "stop")

The one shape in which models, references and recordings hand over text. Knows nothing about prompts or scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Finish = Literal["stop", "length", "none"]
FINISHES: tuple[Finish, ...] = get_args(Finish)


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: What was said, without special tokens.
        finish: ``stop`` when the model ended it itself, ``length`` when it was cut off, ``none`` where nothing was said: a
            service would not hand the prompt to its model.
    """

    text: str
    finish: Finish
