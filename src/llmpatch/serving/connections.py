"""Connections that say nothing: uvicorn counts them and waits for the head of a request as long as a client likes.

    uvicorn.Config(app, http=PromptProtocol)

A connection that is open and asks for nothing is closed, so that a few hundred silent ones do not keep everybody else out.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0


class PromptProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, where a request's head has a time to arrive. Between requests uvicorn's own keep-alive time counts."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects."""
        super().connection_made(transport)
        self._wait()

    def handle_events(self) -> None:
        """Some bytes came, or an answer was finished."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_more()
        elif self._waiting is None and self.timeout_keep_alive_task is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
