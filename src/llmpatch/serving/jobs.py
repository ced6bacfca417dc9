"""What the engine is asked for, and what it answers.

    job = Job(ids, ready, Sampling(temperature=0), max_tokens=16, emit=events.append)
    engine.submit(job)          # emit is called from the engine's thread: Piece, ..., Piece(finish="stop")

Knows nothing about HTTP and nothing about models.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmpatch.answers import Finish
from llmpatch.errors import LlmpatchError
from llmpatch.serving.sampling import Sampling, Token

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.serving.keyvalues import Prefix


class BusyError(LlmpatchError):
    """The server has no room or no time for a request now. HTTP 503."""


class EngineError(LlmpatchError):
    """The engine failed at a request; its cause is in the server's log only. HTTP 500."""


@dataclass(frozen=True)
class Piece:
    """Some text of one choice.

    Attributes:
        choice: Index of the choice.
        text: What is new.
        tokens: The tokens that it ends, for log-probabilities.
        finish: Why the answer ended, in the last piece of a choice.
        count: Tokens written so far.
    """

    choice: int
    text: str
    tokens: tuple[Token, ...] = ()
    finish: Finish | None = None
    count: int = 0


@dataclass(frozen=True)
class Scored:
    """The prompt's own tokens with their log-probabilities, before the first piece; the first one has none."""

    tokens: tuple[Token, ...]


Event = Piece | Scored | LlmpatchError


@dataclass(eq=False)
class Job:
    """One prompt and the answers wanted to it.

    Attributes:
        ids: Token ids of the prompt.
        prefix: What stands before it; held until the job is done, whatever is swapped meanwhile.
        level: Name of that patch set, for whoever counts.
        sampling: How answers are drawn.
        max_tokens: Longest answer; 0 scores the prompt only.
        emit: Called with each event, from the engine's thread; must not block.
        choices: Number of answers.
        stops: Texts that end an answer.
        stream: Emit text as it comes; otherwise one piece a choice.
        score_prompt: Emit :class:`Scored` first.
        ignore_eos: Write on behind the end of an answer; for measurements.
        prompt: Index of the prompt within its request, for the random numbers.
        continues: Whether the answer continues the prompt's text, rather than being a text of its own.
        deadline: On ``time.monotonic()``'s clock.
    """

    ids: Sequence[int]
    prefix: Prefix
    level: str
    sampling: Sampling
    max_tokens: int
    emit: Callable[[Event], None]
    choices: int = 1
    stops: tuple[str, ...] = ()
    stream: bool = True
    score_prompt: bool = False
    ignore_eos: bool = False
    prompt: int = 0
    continues: bool = False
    deadline: float = float("inf")
    born: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Nobody waits any more: its rows are freed before the next step."""
        self.cancelled.set()


@dataclass(eq=False)
class Row:
    """One choice being written.

    Attributes:
        job: Whose.
        choice: Its index.
        length: Positions in memory.
        shared: How many of them are the prefix's.
        ids: Tokens still to be read.
        random: Generator of the choice's random numbers.
        speech: Turns tokens into text.
        next: The token chosen last, not yet in memory.
        count: Tokens written.
        text: What was said and not emitted, when nothing is streamed.
        tokens: The tokens of it.
        scored: Of the prompt, when it is scored.
    """

    job: Job
    choice: int
    length: int
    shared: int
    ids: Sequence[int]
    random: Any
    speech: Any
    next: int = 0
    count: int = 0
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    scored: list[Token] = field(default_factory=list)


def first_row(base: Base, job: Job) -> Row:
    """The row that reads a job's prompt; it starts behind what the prompt shares with the prefix."""
    shared = job.prefix.rows if job.score_prompt else job.prefix.shared(job.ids)
    return _row(base, job, 0, shared, shared, job.ids[shared - job.prefix.rows :])


def sibling(base: Base, row: Row, choice: int) -> Row:
    """Another choice of a job whose first row has read the prompt."""
    return _row(base, row.job, choice, row.length, row.shared, ())


def _row(base: Base, job: Job, choice: int, length: int, shared: int, ids: Sequence[int]) -> Row:
    from llmpatch.bases import TAIL
    from llmpatch.serving.sampling import make_generator
    from llmpatch.serving.speech import Speech

    random = make_generator(job.sampling, choice, job.prompt)
    behind = job.ids[-TAIL:] if job.continues and base.hides_spaces else ()
    return Row(job, choice, length, shared, ids, random, Speech(base, job.stops, behind))
