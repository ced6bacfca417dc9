"""The outermost layer: bounds what comes in, marks what goes out, and lets no stack trace leave.

    app = Guard(app, limits, level=lambda: desk.active.level, done=lambda path, status, seconds: ...)

A body is read whole, within a size and a time, before anything looks at it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from llmpatch.serving.limits import Limits
from llmpatch.serving.problems import error_body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LEVEL_HEADER = b"x-llmpatch-level"
_DROPPED = 8  # times the largest body: how much of a larger one is still taken in
LOG = logging.getLogger("llmpatch.serving")


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Guard:
    """See the module.

    Args:
        app: What is guarded.
        limits: Of bodies.
        level: The patch level that a response is marked with when it is not marked already.
        done: Told path, status and seconds of each response.
    """

    def __init__(
        self, app: App, limits: Limits, level: Callable[[], str], done: Callable[[str, int, float], None]
    ) -> None:
        self.app, self.limits, self.level, self.done = app, limits, level, done

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._headers(message.get("headers", ()))
            await send(message)

        try:
            body = await self._read(scope, receive)
            await self.app(scope, _replay(body, receive), marked)
        except _RefusedError as refused:
            if refused.status == 413 and (b"expect", b"100-continue") not in scope["headers"]:
                await self._drop_rest(receive)
            await _respond(marked, refused.status, refused.message)
        except Exception:  # the cause goes to the log, and nowhere else
            LOG.exception("a request failed: %s %s", scope["method"], scope["path"][:200])
            if not status:
                await _respond(marked, 500, "internal error")
        finally:
            self.done(scope["path"], status, time.monotonic() - began)

    def _headers(self, headers: Any) -> list[tuple[bytes, bytes]]:
        found = [(bytes(name), bytes(value)) for name, value in headers]
        names = {name.lower() for name, _ in found}
        more = {LEVEL_HEADER: self.level().encode("ascii", "replace"), b"x-content-type-options": b"nosniff",
                b"cache-control": b"no-store"}  # fmt: skip
        return found + [(name, value) for name, value in more.items() if name not in names]

    async def _read(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        limit = self.limits.body_bytes
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > limit:
            raise _RefusedError(413, f"the body has {int(declared)} bytes; at most {limit} are taken")
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _RefusedError(400, "the client left")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise _RefusedError(413, f"the body has more than {limit} bytes")
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise _RefusedError(408, f"the body took over {self.limits.body_seconds:g} seconds") from None

    async def _drop_rest(self, receive: Receive) -> None:
        """Take in what a client still sends, unkept and within bounds: its connection would be reset before it had the answer."""
        left = _DROPPED * self.limits.body_bytes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.body_seconds):
                while left > 0:
                    message = await receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
                    left -= len(message.get("body", b""))


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _respond(send: Send, status: int, message: str) -> None:
    data = json.dumps(error_body(message, status)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
