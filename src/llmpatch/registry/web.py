"""One file over HTTP, bounded in size, in silence and in slowness, never decompressed. Needs no ``tuf``.

for block in stream(url, Patience(), {}): ...
read_web(url, limit=65536, headers={}, where="patch.json")
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmpatch.artifact.strict_json import shown
from llmpatch.connections import open_client
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

    sent = {**headers, "Accept-Encoding": "identity"}
    watch = _Watch(patience)
    try:
        with (
            open_client(timeout=patience.silence, follow_redirects=True, max_redirects=5) as client,
            watch,
            client.stream("GET", url, headers=sent, extensions={"trace": watch.told}) as response,
        ):
            if response.status_code != 200:
                raise StatusError(url, response.status_code)
            for block in response.iter_raw():
                watch.received += len(block)
                if watch.late():
                    watch.gave_up = True
                    break
                yield block
    except httpx.TimeoutException:
        raise SlowError(
            f"{shown(url, 200)}: too slow, silent for {patience.silence:.0f} s", hint="try another mirror"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:
        if not watch.gave_up:
            raise LlmpatchError(
                f"cannot fetch {shown(url, 200)}: {shown(str(error), 200)}", hint="check the address and the network"
            ) from None
    if watch.gave_up:
        said = f"{watch.received:,} bytes in {watch.elapsed:.0f} s"
        raise SlowError(f"{shown(url, 200)}: too slow, {said}", hint="try another mirror")


class _Watch:
    """Ends a request that drips, wherever it drips: in headers and in lines between blocks no block comes to be counted.

    It closes the connections themselves, which httpcore tells of as they are made: closing a client leaves alone what is only
    just being connected.
    """

    def __init__(self, patience: Patience) -> None:
        self.patience, self.received, self.gave_up = patience, 0, False
        self._began, self._done = time.monotonic(), threading.Event()
        self._connections: list[Any] = []
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def late(self) -> bool:
        return self.elapsed > self.patience.grace and self.received < self.patience.rate * self.elapsed

    def told(self, event: str, info: Mapping[str, Any]) -> None:
        """For httpcore's ``trace``."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._connections.append(info["return_value"])

    def _look(self) -> None:
        while not self._done.wait(min(1.0, self.patience.grace)):
            if self.late():
                self.gave_up = True
                for connection in list(self._connections):
                    connection.close()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()


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
