"""The web application: two paths are patched, one is passed on, all others do not exist.

    uvicorn.run(make_app(Settings("http://127.0.0.1:8000", plan)), host="127.0.0.1", port=8100)

Answers are passed on byte for byte as they arrive, streams too. Every answer names the patches in ``x-llmpatch-level``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmpatch.connections import open_async_client
from llmpatch.errors import UsageError
from llmpatch.gateway.plan import Plan
from llmpatch.serving.leaving import unless_gone
from llmpatch.serving.problems import RequestError

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI, Request, Response

MAX_BODY_BYTES = 8 << 20
LEVEL_HEADER = "x-llmpatch-level"
BODY_SECONDS = 20.0
_TO_UPSTREAM = ("authorization", "x-api-key", "accept", "user-agent", "x-request-id", "traceparent", "tracestate")
_TO_CLIENT = ("content-type", "content-encoding", "cache-control", "retry-after", "x-request-id", "content-length")


@dataclass(frozen=True)
class Settings:
    """Where requests go and what they get.

    Attributes:
        upstream: The server's URL, without ``/v1``.
        plan: How requests are changed.
        timeout: Seconds without a byte from the upstream before a request fails.
        max_body: Bytes of a request.
    """

    upstream: str
    plan: Plan
    timeout: float = 600.0
    max_body: int = MAX_BODY_BYTES


def make_app(settings: Settings) -> FastAPI:
    """The application.

    Raises:
        UsageError: FastAPI is not installed.
    """
    try:
        from fastapi import FastAPI, Request
    except ImportError:
        raise UsageError("the gateway needs FastAPI", hint='pip install "llmpatch[serve]"') from None
    import httpx

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limits = httpx.Timeout(settings.timeout, connect=min(10.0, settings.timeout), pool=None)
        pool = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        async with open_async_client(base_url=settings.upstream, timeout=limits, limits=pool) as client:
            app.state.client = client
            yield

    app = FastAPI(title="llmpatch gateway", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    async def chat(request: Request) -> Response:
        return await _patched(request, settings, chat=True)

    async def completions(request: Request) -> Response:
        return await _patched(request, settings, chat=False)

    async def models(request: Request) -> Response:
        return await _forward(request, settings, "GET", None)

    async def health() -> dict[str, Any]:
        return {"status": "ok", "level": settings.plan.level, "export": settings.plan.to}

    async def unknown(request: Request) -> Response:
        return _error(404, f"{request.url.path[:100]} is not served here: only what is patched is passed on", settings)

    for path, handler in (("/v1/chat/completions", chat), ("/v1/completions", completions)):
        app.add_api_route(path, _typed(handler, Request), methods=["POST"])
    app.add_api_route("/v1/models", _typed(models, Request), methods=["GET"])
    app.add_api_route("/health", health, methods=["GET"])
    everything = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
    app.add_api_route("/{path:path}", _typed(unknown, Request), methods=everything)
    return app


def _typed(handler: Any, request: type) -> Any:
    """FastAPI reads annotations as objects; ours are texts, since it is imported late."""
    handler.__annotations__ = {"request": request}
    return handler


async def _patched(request: Request, settings: Settings, *, chat: bool) -> Response:
    try:
        body = await _read(request, settings.max_body)
        changed = settings.plan.chat(body) if chat else settings.plan.completion(body)
    except UsageError as error:
        return _error(413 if "larger than" in error.message else 400, f"{error.message} ({error.hint})", settings)
    except TimeoutError:
        return _error(408, f"the body took over {BODY_SECONDS:g} seconds", settings)
    return await _forward(request, settings, "POST", json.dumps(changed).encode())


async def _read(request: Request, limit: int) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        UsageError: too large, or not a JSON object.
        TimeoutError: it does not come.
    """
    data = bytearray()
    async with asyncio.timeout(BODY_SECONDS):
        async for block in request.stream():
            data += block
            if len(data) > limit:
                raise UsageError(f"the request is larger than {limit:,} bytes", hint="shorten it")
    try:
        found = json.loads(bytes(data), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise UsageError("the request is not JSON", hint="send a JSON object in UTF-8") from None
    if not isinstance(found, dict):
        raise UsageError("the request is not a JSON object", hint="see the OpenAI API reference")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


async def _forward(request: Request, settings: Settings, method: str, body: bytes | None) -> Response:
    """Pass a request on, and its answer back as it arrives. A client that leaves takes its request with it."""
    import httpx
    from fastapi.responses import StreamingResponse

    client: httpx.AsyncClient = request.app.state.client
    # As bytes: a header may hold what ASCII has not.
    headers = [(name, value) for name, value in request.headers.raw if name.decode("latin-1").lower() in _TO_UPSTREAM]
    headers += [(b"accept-encoding", b"identity")] + ([] if body is None else [(b"content-type", b"application/json")])
    try:
        wanted = client.build_request(method, request.url.path, content=body, headers=headers)
        reply = await unless_gone(request, client.send(wanted, stream=True))
    except RequestError as error:
        return _error(error.status, error.message, settings)
    except httpx.TimeoutException:
        return _error(504, f"the engine did not answer within {settings.timeout:g} s", settings)
    except httpx.HTTPError as error:
        return _error(502, f"the engine cannot be reached ({type(error).__name__})", settings)
    kept = {name: reply.headers[name] for name in _TO_CLIENT if name in reply.headers}
    return StreamingResponse(_pass(reply), reply.status_code, {**kept, LEVEL_HEADER: _header(settings.plan.level)})


async def _pass(reply: httpx.Response) -> AsyncIterator[bytes]:
    """The bytes of an answer. A stream that breaks ends with an event that says so: silence would look like an end."""
    import httpx

    try:
        async for block in reply.aiter_raw():
            yield block
    except httpx.HTTPError as error:
        if "content-length" in reply.headers:
            raise  # the client sees that bytes are missing
        text = {"error": {"message": f"the engine broke off ({type(error).__name__})", "type": "upstream_error"}}
        yield f"\n\ndata: {json.dumps(text)}\n\n".encode()
    finally:
        await reply.aclose()


def _error(status: int, message: str, settings: Settings) -> Response:
    from fastapi.responses import JSONResponse

    kind = "invalid_request_error" if status < 500 else "upstream_error"
    content = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return JSONResponse(content, status, {LEVEL_HEADER: _header(settings.plan.level)})


def _header(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")
