"""Replies of an OpenAI-compatible endpoint: what an answer is, what is worth another try, what must never be shown.

    attempt = await read_reply(response, Secret.read("OPENAI_API_KEY"))

Every reply is hostile until it has the right shape; nothing larger than 8 MB is read.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from llmpatch.answers import Answer
from llmpatch.errors import UsageError

if TYPE_CHECKING:
    import httpx

MAX_BODY_BYTES = 8 << 20
ENV_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_SHOWN = 200
_RETRIED = {408, 409, 425, 429}
_TURNED_AWAY = {400, 403, 413, 422}
_ABOUT_PROMPT = {400, 413, 422}
# How services say that a filter of theirs stopped this prompt (Azure, OpenAI, OpenRouter, DeepSeek, DashScope), and not that an
# account is stopped.
_FILTERED = re.compile(
    r"content[_ ]?(filter|policy|management)|moderation_blocked|requires moderation|(prompt|input|request) was flagged"
    r"|responsible ?ai ?policy|content exists risk|data_?inspection_?failed|inappropriate content",
    re.IGNORECASE,
)
# Ends of a choice by which it is whole, and those by which a server says that it broke off. Any other may be a limit of its own.
_WHOLE = {None, "stop", "tool_calls", "function_call", "eos_token", "stop_sequence", "end_turn"}
_BROKEN = {"error", "abort", "cancelled", "insufficient_system_resource"}
_HIDDEN = "[key hidden]"
_SECRET_PARAMETER = re.compile(r"key|token|secret|sig|password|^code$|^sk-", re.IGNORECASE)


@dataclass(frozen=True)
class Attempt:
    """What one request came to.

    Attributes:
        answer: The answer, if there is one.
        reason: Why there is none.
        retry: Whether another try may help.
        retry_after: Seconds the server asked us to wait.
        fatal: Whether no other prompt can succeed either.
        refused: Whether it is about the key, as far as one reply can tell.
        about_prompt: Whether it says nothing about other prompts, where some were answered.
        turned_away: Whether a filter of the service stopped this prompt.
    """

    answer: Answer | None = None
    reason: str = ""
    retry: bool = False
    retry_after: float | None = None
    fatal: bool = False
    refused: bool = False
    about_prompt: bool = False
    turned_away: bool = False


@dataclass(frozen=True)
class Secret:
    """The key of an endpoint, kept out of every text.

    Attributes:
        key: The key, or empty where the endpoint wants none.
    """

    key: str = field(default="", repr=False)

    @classmethod
    def read(cls, variable: str | None) -> Secret:
        """Read the key from the environment.

        Raises:
            UsageError: the variable is not set, or holds something that no header can carry.
        """
        if variable is None:
            return cls()
        key = os.environ.get(variable, "").strip()
        if not key:
            raise UsageError(f"the environment variable {variable} is not set", hint=f"export {variable}=... first")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(
                f"the environment variable {variable} holds spaces or characters no key has", hint="set it again"
            )
        return cls(key)

    def headers(self) -> dict[str, str]:
        """Headers that carry the key."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def hide(self, text: str) -> str:
        """``text`` without the key."""
        if not self.key:
            return text
        return text.replace(self.key, _HIDDEN).replace(json.dumps(self.key)[1:-1], _HIDDEN)

    def hide_in_answer(self, text: str) -> str:
        """``text`` without the key; placeholders of a few characters are no secret and stay."""
        return self.hide(text) if len(self.key) >= 8 else text


def holds_secret(url: str) -> bool:
    """Whether an address carries a password, or a parameter that looks like a key: addresses are written into evidence.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    named = parse_qs(parts.query, keep_blank_values=True)
    return bool(parts.username or parts.password or any(map(_SECRET_PARAMETER.search, named)))


async def read_reply(response: httpx.Response, secret: Secret) -> Attempt:
    """Read and judge one reply, at most 8 MB of it."""
    status = response.status_code
    if 300 <= status < 400:
        target = _shown(response.headers.get("Location", "nowhere"), secret)
        return Attempt(reason=f"it redirects ({status}) to {target}; redirects are not followed", fatal=True)
    body = bytearray()
    # Raw: we asked for no compression, so a compressed bomb stays the small rubbish that it is.
    async for block in response.aiter_raw():
        body += block
        if len(body) > MAX_BODY_BYTES:
            return Attempt(reason=f"status {status} with a body larger than {MAX_BODY_BYTES:,} bytes", retry=True)
    text = body.decode("utf-8", "replace")
    if status in _TURNED_AWAY and _FILTERED.search(_complaint(text)):
        return Attempt(reason=f"status {status}: {_shown(text, secret)}", turned_away=True)
    if status in (401, 403):
        return Attempt(reason=f"it refuses us ({status}): {_shown(text, secret)}", fatal=status == 401, refused=True)
    if status != 200:
        return Attempt(
            reason=f"status {status}: {_shown(text, secret)}",
            retry=status in _RETRIED or status >= 500,
            retry_after=_retry_after(response.headers.get("Retry-After")),
            about_prompt=status in _ABOUT_PROMPT,
        )
    answer = parse_answer(text)
    if answer is None:
        return Attempt(reason=f"not a whole chat completion: {_shown(text, secret)}", retry=True)
    if answer.finish == "none":
        return Attempt(reason="a filter of the service stopped it", turned_away=True)
    return Attempt(answer=Answer(secret.hide_in_answer(answer.text), answer.finish))


def _complaint(body: str) -> str:
    """What an error says of itself, without what it repeats of the request; a body that is no JSON object is that itself."""
    try:
        reply: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body[:_SHOWN]
    error = reply.get("error") if isinstance(reply, dict) else None
    told = [error.get(key) for key in ("code", "type", "message")] if isinstance(error, dict) else [error]
    return " ".join(text[: 4 * _SHOWN] for text in told if isinstance(text, str))


def parse_answer(body: str) -> Answer | None:
    """The first choice of a chat completion; ``None`` for anything else.

    A stated refusal is an answer, and so is nothing, where a model thought until it was cut. What a filter stopped is none,
    however far it came, and so is what broke off. An end that is not known to be the model's own counts as cut.
    """
    try:
        reply: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return None
    text, finish = message.get("content"), choice.get("finish_reason")
    if finish == "content_filter":
        return Answer("", "none")
    if text is None:
        text = message.get("refusal")
    if text is None and finish == "length":
        text = ""
    if not isinstance(text, str) or not (finish is None or isinstance(finish, str)) or finish in _BROKEN:
        return None
    return Answer(text, "stop" if finish in _WHOLE else "length")


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _shown(text: str, secret: Secret) -> str:
    """The start of a foreign text, safe for a terminal: the key hidden, control characters escaped."""
    start = secret.hide(text)[:_SHOWN].strip()
    return repr(start) if start else "(empty)"
