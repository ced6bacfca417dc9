"""Errors as OpenAI's clients read them: a status, and ``{"error": {"message", "type", "param", "code"}}``.

    status_of(UsageError("...")), body_of(error)

Only messages of our own errors leave the server; whatever else happens is "internal error", and its cause is in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmpatch.artifact.strict_json import shown
from llmpatch.errors import GateError, IntegrityError, LlmpatchError, TrustError, UsageError, WrongBaseError
from llmpatch.serving.jobs import BusyError, EngineError
from llmpatch.serving.patchsets import CanaryError

RETRY_AFTER = "2"
NOT_JSON = "the request is not sent as JSON (send the header content-type: application/json)"


class RequestError(UsageError):
    """A request that cannot be answered as it stands."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.code, self.status = param, code, status


_STATUS: Sequence[tuple[type[LlmpatchError], int]] = (
    (BusyError, 503),
    (CanaryError, 503),
    (EngineError, 500),
    (UsageError, 400),
    (WrongBaseError, 400),
    (TrustError, 403),
    (GateError, 409),
    (IntegrityError, 503),
)
_TYPES = {401: "authentication_error", 403: "permission_error", 503: "server_error", 500: "server_error"}


def status_of(error: LlmpatchError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, RequestError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 503)


def body_of(error: LlmpatchError) -> dict[str, Any]:
    """The body of an error."""
    text = f"{error.message} ({error.hint})" if error.hint else error.message
    return error_body(
        text, status_of(error), param=getattr(error, "param", None), code=getattr(error, "code", None)
    )  # fmt: skip


def error_body(message: str, status: int, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of any error."""
    kind = _TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def is_json(content_type: str) -> bool:
    """Whether a content type is one of JSON: what is sent as another, FastAPI hands on as bytes, unread."""
    kind, _, subtype = content_type.partition(";")[0].strip().lower().partition("/")
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))


def describe_invalid(errors: Sequence[Any]) -> tuple[str, str]:
    """One line about the first things that are wrong in a request, and the name of the first field."""
    lines = []
    for error in errors[:3]:
        where = ".".join(str(part) for part in error.get("loc", ()) if part != "body")
        lines.append(f"{shown(where, 80)}: {shown(str(error.get('msg', 'invalid')), 200)}" if where else
                     shown(str(error.get("msg", "invalid")), 200))  # fmt: skip
    first = ".".join(str(part) for part in errors[0].get("loc", ())[1:] if part != "body") if errors else ""
    return "; ".join(lines) or "invalid request", first[:80]
