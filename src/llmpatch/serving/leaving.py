"""Work that nobody waits for any more is cancelled.

    answer = await unless_gone(request, write_answer())

Knows HTTP's end of a connection, and nothing of what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from llmpatch.serving.problems import RequestError

if TYPE_CHECKING:
    from fastapi import Request

T = TypeVar("T")
CLIENT_LEFT = 499


async def unless_gone(http: Request, work: Awaitable[T]) -> T:
    """Do something for a request whose body was read, unless the client leaves first.

    Raises:
        RequestError: it left; the work is cancelled.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(http))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise RequestError("the client left", status=CLIENT_LEFT)
    finally:
        for task in (doing, leaving):
            task.cancel()


async def _gone(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
