"""HTTP clients of httpx, whose trouble with the environment is one line: a proxy of a wrong kind, no certificates.

    with open_client(timeout=30.0) as client:
        client.get("https://example.org")

Knows nothing about what is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from llmpatch.errors import UsageError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")


def open_client(**options: Any) -> httpx.Client:
    """``httpx.Client(**options)``.

    Raises:
        UsageError: the environment names a proxy or certificates that cannot be used.
    """
    import httpx

    return _opened(lambda: httpx.Client(**options), str)


def open_async_client(*, hide: Callable[[str], str] = str, **options: Any) -> httpx.AsyncClient:
    """``httpx.AsyncClient(**options)``; ``hide`` keeps a key out of the error (errors as in :func:`open_client`)."""
    import httpx

    return _opened(lambda: httpx.AsyncClient(**options), hide)


def _opened(make: Callable[[], T], hide: Callable[[str], str]) -> T:
    import httpx

    try:
        return make()
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        raise UsageError(
            f"cannot set up HTTP: {hide(str(error))[:200]}",
            hint="check the environment: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE",
        ) from None
