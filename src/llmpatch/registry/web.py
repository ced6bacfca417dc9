"""One file over HTTP, bounded in size, in silence and in slowness, never decompressed. Needs no ``tuf``.

for block in stream(url, Patience(), {}): ...
read_web(url, limit=65536, headers={}, where="patch.json")
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, LlmpatchError


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        silence: Seconds without a byte, connecting included.
        grace: Seconds in which it may be slower than ``rate``.
        rate: Bytes a second that must have come on average after that.
    """

    silence: float = 15.0
    grace: float = 20.0
    rate: float = 4096.0


class StatusError(LlmpatchError):
    """The server answered with another status than 200."""

    def __init__(self, url: str, status: int) -> None:
        super().__init__(f"{shown(url, 200)}: HTTP status {status}", hint="check the address")
        self.status = status


class SlowError(LlmpatchError):
    """The server is silent, or drips."""


def stream(url: str, patience: Patience, headers: Mapping[str, str]) -> Iterator[bytes]:
    """The body of a response, in blocks as they come. Follows five redirects at most.

    Raises:
        StatusError: another status than 200.
        SlowError: the server keeps us waiting.
        LlmpatchError: it cannot be reached.
    """
    import httpx

    began, received = time.monotonic(), 0
    sent = {**headers, "Accept-Encoding": "identity"}
    try:
        with (
            httpx.Client(timeout=patience.silence, follow_redirects=True, max_redirects=5) as client,
            client.stream("GET", url, headers=sent) as response,
        ):
            if response.status_code != 200:
                raise StatusError(url, response.status_code)
            for block in response.iter_raw():
                received += len(block)
                elapsed = time.monotonic() - began
                if elapsed > patience.grace and received < patience.rate * elapsed:
                    raise SlowError(
                        f"{shown(url, 200)}: too slow, {received:,} bytes in {elapsed:.0f} s", hint="try another mirror"
                    )
                yield block
    except httpx.TimeoutException:
        raise SlowError(
            f"{shown(url, 200)}: too slow, silent for {patience.silence:.0f} s", hint="try another mirror"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise LlmpatchError(
            f"cannot fetch {shown(url, 200)}: {shown(str(error), 200)}", hint="check the address and the network"
        ) from None


def read_web(
    url: str, *, limit: int, headers: Mapping[str, str], where: str, patience: Patience | None = None
) -> bytes:
    """A whole file of at most ``limit`` bytes (errors as in :func:`stream`).

    Raises:
        IntegrityError: it is larger; no more than ``limit`` and one block are read.
    """
    data = bytearray()
    for block in stream(url, patience or Patience(), headers):
        data += block
        if len(data) > limit:
            raise IntegrityError(f"{where} is larger than {limit:,} bytes", hint="try again, or another mirror")
    return bytes(data)
