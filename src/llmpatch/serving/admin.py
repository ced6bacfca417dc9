"""The operator's endpoints: what is active, activate, roll back. For who has the token, on this machine.

    routes = admin_routes(desk, Admin(token="...", anywhere=False))

Without a token there is none of this. Where the desk follows a store, a change goes through the store, its gates and its
history; it is done when new requests are answered by it.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request

from llmpatch.errors import UsageError
from llmpatch.files import read_bytes
from llmpatch.serving.desk import Desk
from llmpatch.serving.problems import RequestError
from llmpatch.serving.requests import ActivateRequest, RollbackRequest

VARIABLE = "LLMPATCH_ADMIN_TOKEN"
SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Admin:
    """Who may change what is active.

    Attributes:
        token: The bearer token; without one nobody may.
        anywhere: From other machines, too.
    """

    token: str | None = field(default=None, repr=False)
    anywhere: bool = False


def read_token(path: Path | None) -> str | None:
    """The token: the file's first line, else ``LLMPATCH_ADMIN_TOKEN``, else none.

    Raises:
        UsageError: no such file, or a token that can be guessed.
    """
    if path is not None:
        text = read_bytes(path, limit=4096).decode("utf-8", "replace").partition("\n")[0].strip()
    else:
        text = os.environ.get(VARIABLE, "").strip()
        if not text:
            return None
    if len(text) < SHORTEST_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError(
            f"the admin token in {path or VARIABLE} is not {SHORTEST_TOKEN} or more ASCII characters without spaces",
            hint="make one: openssl rand -hex 32",
        )
    return text


def admin_routes(desk: Desk, admin: Admin) -> APIRouter:
    """Routes below ``/admin``."""

    def check(request: Request) -> None:
        if admin.token is None:
            raise RequestError("this server has no admin token, so nobody may do this", status=403)
        if not admin.anywhere and not _is_local(request):
            raise RequestError("administered from its own machine only", status=403)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), admin.token.encode()):
            raise RequestError("the admin token is missing or wrong", status=401, code="invalid_api_key")

    router = APIRouter(prefix="/admin", dependencies=[Depends(check)], tags=["admin"])

    @router.get("/status")
    async def status() -> dict[str, Any]:
        return await asyncio.to_thread(desk.status)

    @router.post("/activate")
    async def activate(wanted: ActivateRequest) -> dict[str, Any]:
        await asyncio.to_thread(desk.activate, wanted.patches, skip_gate=wanted.skip_gate, reason=wanted.reason)
        return await asyncio.to_thread(desk.status)

    @router.post("/rollback")
    async def rollback(wanted: RollbackRequest | None = None) -> dict[str, Any]:
        await asyncio.to_thread(desk.rollback, wanted.reason if wanted else "")
        return await asyncio.to_thread(desk.status)

    return router


def _is_local(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
