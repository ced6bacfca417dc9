"""One question to a judge that is a web service, with some patience while it is busy.

    ask_json(client, url, request, Service("Perspective", offline="check the network", ...))

Knows HTTP statuses, pauses and sizes; nothing about what is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmpatch.errors import LlmpatchError

MAX_PAUSE_SECONDS = 60.0
MAX_REPLY_BYTES = 1 << 20
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Service:
    """How a service is called in messages, and what to do when it fails.

    Attributes:
        name: As a sentence begins with it.
        offline: What to do when it does not answer.
        refused: What to do about an HTTP status.
        foreign: What to do when what answers is something else.
        first_pause: Seconds before the second try; they double.
        tries: How often it is asked.
    """

    name: str
    offline: str
    refused: Callable[[int], str]
    foreign: str
    first_pause: float
    tries: int = 4


def ask_json(
    client: Any, url: str, request: dict[str, Any], service: Service, sleep: Callable[[float], None] = time.sleep
) -> Any:
    """The reply to a POST as JSON; a busy service is asked again.

    Raises:
        LlmpatchError: it does not answer, refuses, sends more than 1 MiB or no JSON.
    """
    import httpx

    for attempt in range(service.tries):
        last = attempt == service.tries - 1
        pause = service.first_pause * 2.0**attempt
        try:
            reply = client.post(url, json=request)
        except httpx.HTTPError as error:
            if last:
                raise LlmpatchError(
                    f"{service.name} does not answer: {type(error).__name__}", hint=service.offline
                ) from None
            sleep(min(pause, MAX_PAUSE_SECONDS))
            continue
        if reply.status_code in _AGAIN and not last:
            asked = reply.headers.get("retry-after", "")
            sleep(min(float(asked) if asked.isdigit() and len(asked) < 6 else pause, MAX_PAUSE_SECONDS))
            continue
        if reply.status_code != 200:
            raise LlmpatchError(
                f"{service.name} answers HTTP {reply.status_code}", hint=service.refused(reply.status_code)
            )
        if len(reply.content) > MAX_REPLY_BYTES:
            raise LlmpatchError(f"{service.name} sent {len(reply.content):,} bytes", hint=service.foreign)
        try:
            return reply.json()
        except (ValueError, RecursionError):
            raise LlmpatchError(f"{service.name} did not answer in JSON", hint=service.foreign) from None
    raise AssertionError("the last try returns or raises")
