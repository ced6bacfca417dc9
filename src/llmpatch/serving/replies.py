"""Answers as OpenAI's clients read them, whole or as a stream of chunks.

    reply = Reply(kind="chat", id="chatcmpl-...", model="smollm2", level="acme/refusal@1.0.0:3f2a...", base=base)
    reply.whole(choices, usage), reply.chunk(piece), reply.last(usage)

``system_fingerprint`` is the patch level. Knows shapes only.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

from llmpatch.answers import Finish
from llmpatch.bases import Base
from llmpatch.serving.sampling import Token

Kind = Literal["chat", "text"]
_OBJECTS = {("chat", False): "chat.completion", ("chat", True): "chat.completion.chunk", ("text", False): "text_completion",
            ("text", True): "text_completion"}  # fmt: skip


@dataclass
class Choice:
    """One answer, as far as it is there."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: Finish | None = None
    count: int = 0
    echoed: str = ""
    scored: list[Token] = field(default_factory=list)


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens: of the prompts, of those that came out of the prefix cache, and of the answers.

    Patch rows are not counted: they are the server's, not the client's.
    """

    prompt: int
    cached: int
    written: int

    def json(self) -> dict[str, Any]:
        """As OpenAI's ``usage``."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.written,
            "total_tokens": self.prompt + self.written,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(frozen=True)
class Reply:
    """What all parts of one response say.

    Attributes:
        kind: Of a chat or of a completion.
        model: As the request calls it.
        level: Patch level.
        base: For the text of tokens.
        logprobs: Whether they were asked for.
    """

    kind: Kind
    model: str
    level: str
    base: Base
    logprobs: bool
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    _texts: dict[int, str] = field(default_factory=dict, repr=False, compare=False)

    def _head(self, stream: bool) -> dict[str, Any]:
        prefix = "chatcmpl-" if self.kind == "chat" else "cmpl-"
        return {"id": prefix + self.id, "object": _OBJECTS[self.kind, stream], "created": self.created,
                "model": self.model, "system_fingerprint": self.level}  # fmt: skip

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """The whole response."""
        made = []
        for index, choice in enumerate(choices):
            body: dict[str, Any] = {"index": index, "finish_reason": choice.finish, "logprobs": self._logprobs(choice)}
            if self.kind == "chat":
                body["message"] = {"role": "assistant", "content": choice.text, "refusal": None}
            else:
                body["text"] = choice.echoed + choice.text
            made.append(body)
        return {**self._head(False), "choices": made, "usage": usage.json()}

    def opening(self, index: int) -> str:
        """The chunk that begins a chat answer."""
        return self._event([{"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None,
                             "finish_reason": None}])  # fmt: skip

    def chunk(self, index: int, piece: Choice, before: int = 0) -> str:
        """A chunk: what is new of a choice behind the ``before`` characters of its tokens that were sent."""
        said = self._logprobs(piece, before)
        body: dict[str, Any] = {"index": index, "logprobs": said, "finish_reason": piece.finish}
        if self.kind == "chat":
            body["delta"] = {"content": piece.text} if piece.text or not piece.finish else {}
        else:
            body["text"] = piece.text
        return self._event([body])

    def last(self, usage: Usage) -> str:
        """The chunk with the numbers of tokens."""
        return self._event([], usage=usage.json())

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        return sse({**self._head(True), "choices": choices, **more})

    def _logprobs(self, choice: Choice, before: int = 0) -> dict[str, Any] | None:
        """Of tokens behind ``before`` characters that were sent already."""
        if not self.logprobs:
            return None
        if self.kind == "chat":
            return {"content": [self._token(token) for token in choice.tokens], "refusal": None}
        tokens = [*choice.scored, *choice.tokens]
        texts = [self._text(token.id) for token in tokens]
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                None if token.logprob is None else {self._text(key): value for key, value in reversed(token.top)}
                for token in tokens
            ],
            "text_offset": list(accumulate(map(len, texts[:-1]), initial=before)) if texts else [],
        }

    def _token(self, token: Token) -> dict[str, Any]:
        top = [self._entry(key, value) for key, value in token.top]
        return {**self._entry(token.id, token.logprob), "top_logprobs": top}

    def _entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self._text(token)
        data = None if "\ufffd" in text else list(text.encode("utf-8"))
        return {"token": text, "logprob": None if logprob is None else max(logprob, -9999.0), "bytes": data}

    def length(self, piece: Choice) -> int:
        """Characters of a choice's tokens, as ``text_offset`` counts them."""
        return sum(len(self._text(token.id)) for token in piece.tokens) if self.logprobs else 0

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = self.base.token_text(token)
        return self._texts[token]


def sse(value: Any) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"
