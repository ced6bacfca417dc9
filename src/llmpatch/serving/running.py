"""Serve an application on a socket until the process is asked to end, then let what runs finish.

run_server(app, host="127.0.0.1", port=8000, limits=limits, ready=print)
"""

from __future__ import annotations

import logging
import math
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from llmpatch.errors import LlmpatchError
from llmpatch.serving.limits import Limits

if TYPE_CHECKING:
    import uvicorn


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        LlmpatchError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LlmpatchError(
            f"cannot listen on {host} port {port}: {reason}", hint="choose another --port or --host"
        ) from None


def run_server(app: Any, listening: socket.socket, limits: Limits) -> None:
    """Serve until SIGINT or SIGTERM; requests that run then are finished, new connections are refused.

    Args:
        app: The ASGI application.
        listening: From :func:`open_socket`.
        limits: Connections, and how long a request may take.
    """
    _log_to_stderr()
    # uvicorn raises the signal again when it is done: after a drain that was asked for, the exit code is 0.
    before = signal.signal(signal.SIGTERM, _nothing)
    try:
        make_server(app, limits).run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)


def make_server(app: Any, limits: Limits) -> uvicorn.Server:
    """The HTTP server, not started."""
    import uvicorn

    from llmpatch.serving.connections import PromptProtocol

    config = uvicorn.Config(
        app, log_config=None, access_log=False, proxy_headers=False, server_header=False, http=PromptProtocol, loop="asyncio",
        lifespan="on", limit_concurrency=limits.connections, timeout_keep_alive=15, h11_max_incomplete_event_size=1 << 16,
        timeout_graceful_shutdown=math.ceil(limits.request_seconds) + 5,
    )  # fmt: skip
    return uvicorn.Server(config)


def _nothing(*_: Any) -> None:
    pass


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (("llmpatch.serving", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
