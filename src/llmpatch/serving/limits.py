"""What one request may ask for, and how much of it the server takes at a time.

Limits(rows=8).for_base(base).context     # never more than the base was made for
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmpatch.bases import Base

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_TOP_LOGPROBS = 20
MAX_PATCHES = 16
MAX_PROMPTS = 64
MAX_NAMING = 16  # requests that wait for a patch set of their own to be made ready


@dataclass(frozen=True)
class Limits:
    """Limits of a server, and what a request gets that names nothing itself.

    Attributes:
        rows: Answers written at a time; each choice of a request is one.
        queue: Requests that may wait for a row. One more is answered 503.
        context: Positions of one row: patch rows, prompt and answer.
        max_tokens: Longest answer in tokens.
        max_n: Most choices of a request, over all its prompts.
        body_bytes: Largest request body.
        body_seconds: Longest time for a body to arrive.
        request_seconds: Longest time of a request. One that still waits then is answered 503; one that is being answered
            ends there with the finish reason ``length``.
        connections: Open connections; one more is answered 503.
        temperature: Of a request that names none.
        top_p: Of a request that names none.
    """

    rows: int = 16
    queue: int = 64
    context: int = 2048
    max_tokens: int = 1024
    max_n: int = 8
    body_bytes: int = 1 << 20
    body_seconds: float = 20.0
    request_seconds: float = 300.0
    connections: int = 512
    temperature: float = 1.0
    top_p: float = 1.0

    def for_base(self, base: Base) -> Limits:
        """The same limits, within the context of a base, and with no more choices than rows."""
        return replace(self, context=min(self.context, base.context), max_n=min(self.max_n, self.rows))
