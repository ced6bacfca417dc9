"""The HTTP application: OpenAI's endpoints, health, metrics, the page, and the operator's endpoints.

    app = make_app(desk, keeper, served="smollm2", admin=Admin(token))

Routes only: what a request means is in ``answering``, what is active in ``desk``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import importlib.resources
import re
import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from llmpatch import __version__
from llmpatch.errors import LlmpatchError
from llmpatch.serving.admin import Admin, admin_routes
from llmpatch.serving.answering import answer, ask, stream
from llmpatch.serving.desk import Desk
from llmpatch.serving.guard import LEVEL_HEADER, Guard
from llmpatch.serving.jobs import BusyError
from llmpatch.serving.keeper import Keeper
from llmpatch.serving.leaving import unless_gone
from llmpatch.serving.metrics import CONTENT_TYPE, Metrics
from llmpatch.serving.patchsets import UNPATCHED
from llmpatch.serving.problems import (
    NOT_JSON,
    RETRY_AFTER,
    RequestError,
    body_of,
    describe_invalid,
    error_body,
    is_json,
    status_of,
)
from llmpatch.serving.requests import ChatRequest, CompletionRequest

T = TypeVar("T")
_PATHS = {"/", "/health", "/metrics", "/openapi.json", "/v1/models", "/v1/chat/completions", "/v1/completions",
          "/admin/status", "/admin/activate", "/admin/rollback"}  # fmt: skip


def make_app(desk: Desk, keeper: Keeper, *, served: str, admin: Admin) -> Guard:
    """The application.

    Args:
        desk: What answers.
        keeper: Started and stopped with the application; so is the engine stopped.
        served: Name of the base, as clients call it.
        admin: Who may change what is active.
    """
    limits, metrics = desk.engine.limits, Metrics(desk, keeper)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        keeper.start()
        yield
        await asyncio.to_thread(keeper.stop)
        desk.namer.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(desk.engine.stop, limits.request_seconds)

    app = FastAPI(title="llmpatch", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.include_router(_openai_routes(desk, metrics, served))
    app.include_router(_watching_routes(desk, metrics, served))
    app.include_router(admin_routes(desk, admin))
    _handle_errors(app)

    def done(path: str, status: int, seconds: float) -> None:
        known = path if path in _PATHS else "other"
        metrics.requests.labels(known, str(status)).inc()
        metrics.seconds.labels(known).observe(seconds)

    return Guard(app, limits, lambda: desk.active.level, done)


def _openai_routes(desk: Desk, metrics: Metrics, served: str) -> APIRouter:
    router, limits = APIRouter(prefix="/v1", tags=["openai"]), desk.engine.limits

    async def respond(request: ChatRequest | CompletionRequest, http: Request) -> Response:
        asked = await unless_gone(http, ask(desk, limits, served, request))
        headers = {LEVEL_HEADER.decode(): asked.ready.level}
        if not request.stream:
            body = await unless_gone(http, answer(desk, limits, asked))
            metrics.count_answer(asked.ready.level)
            return JSONResponse(body, headers=headers)
        began = time.monotonic()
        events = stream(desk, limits, asked)
        first = await unless_gone(http, anext(events))
        metrics.first_seconds.observe(time.monotonic() - began)
        metrics.count_answer(asked.ready.level)
        return StreamingResponse(_after(first, events), media_type="text/event-stream", headers=headers)

    @router.post("/chat/completions")
    async def chat(request: ChatRequest, http: Request) -> Response:
        return await respond(request, http)

    @router.post("/completions")
    async def complete(request: CompletionRequest, http: Request) -> Response:
        return await respond(request, http)

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": await asyncio.to_thread(_models, desk, served)}

    @router.get("/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        for found in await asyncio.to_thread(_models, desk, served):
            if found["id"] == model:
                return found
        raise RequestError("no such model; GET /v1/models lists all", param="model", code="model_not_found", status=404)

    return router


def _models(desk: Desk, served: str) -> list[dict[str, Any]]:
    """The base with what is active, and each set of one patch that a request may name."""
    level = desk.active.level
    ids = {served: level}
    if not desk.fixed:
        ids[f"{served}@{UNPATCHED}"] = UNPATCHED
        ids |= {f"{served}@{title}": title for title in desk.titles()}
    return [
        {"id": name, "object": "model", "created": 0, "owned_by": "llmpatch", "patch_level": level}
        for name, level in ids.items()
    ]


def _watching_routes(desk: Desk, metrics: Metrics, served: str) -> APIRouter:
    router = APIRouter()
    page = (importlib.resources.files("llmpatch.serving") / "page.html").read_text(encoding="utf-8")
    policy = _policy(page)

    @router.get("/", include_in_schema=False)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": policy, "referrer-policy": "no-referrer"})

    @router.get("/health")
    async def health() -> JSONResponse:
        body = {"status": "ok" if desk.healthy else "failing", "base": served, "level": desk.active.level,
                "fixed": desk.fixed, "trouble": desk.trouble}  # fmt: skip
        return JSONResponse(body, status_code=200 if desk.healthy else 503)

    @router.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    return router


def _policy(page: str) -> str:
    """A policy under which the page's own script and style run, and nothing else."""

    def digests(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in parts
        )

    return (
        f"default-src 'none'; script-src {digests('script')}; style-src {digests('style')}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _handle_errors(app: FastAPI) -> None:
    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, LlmpatchError)
        headers = {"retry-after": RETRY_AFTER} if isinstance(error, BusyError) else None
        return JSONResponse(body_of(error), status_of(error), headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        if not is_json(request.headers.get("content-type", "")):
            return JSONResponse(error_body(NOT_JSON, 415), 415)
        message, field = describe_invalid(error.errors())
        return JSONResponse(error_body(message, 400, param=field or None), 400)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse(error_body(str(error.detail), error.status_code), error.status_code, error.headers)

    async def unknown(_: Request, __: Exception) -> Response:  # the guard logs it
        return JSONResponse(error_body("internal error", 500), 500)

    app.add_exception_handler(Exception, unknown)
    app.add_exception_handler(LlmpatchError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


async def _after(first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
    try:
        yield first
        async for event in events:
            yield event
    finally:
        await events.aclose()  # type: ignore[attr-defined]
