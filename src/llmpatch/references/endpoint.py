"""Any OpenAI-compatible endpoint, asked politely: concurrent, retried, rate-limited, bounded.

    EndpointReference("https://api.example.com/v1", "some-model", DecodingSection(), api_key_env="EXAMPLE_API_KEY")

The key is read from the environment when prompts are asked; it is in no attribute, no identity, no message and no
answer, even if the server echoes it. Redirects are not followed. A prompt that the service itself turns away (a content filter)
is answered with nothing, ``finish`` "none", once another one was answered, or a greeting. What the wire may carry: ``replies``.
"""

from __future__ import annotations

import asyncio
import queue
import random
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmpatch.answers import Answer
from llmpatch.connections import open_async_client
from llmpatch.errors import ReferenceFailedError, UsageError
from llmpatch.recipe import DecodingSection
from llmpatch.references.replies import ENV_NAME, Attempt, Secret, holds_secret, read_reply

if TYPE_CHECKING:
    import httpx

_MAX_BACKOFF_SECONDS = 30.0
_MAX_RETRY_AFTER_SECONDS = 600.0
# So many prompts failing in a row, each after all its retries, means that the endpoint is gone.
_GIVE_UP_AFTER = 3
_NOTHING = Answer("", "none")
_GREETING = "Hello!"  # what no filter stops: asked where it is in doubt whether a service answers at all


@dataclass(frozen=True)
class EndpointReference:
    """A model behind a URL.

    Attributes:
        url: Base URL (``.../v1``) or the full ``.../chat/completions``.
        model: What the endpoint calls it.
        decoding: How it is sampled.
        api_key_env: Name of the environment variable that holds the key.
        system: A system message.
        concurrency: Requests in flight.
        requests_per_minute: Upper limit, evenly spaced.
        timeout_seconds: For one whole request.
        retries: Further tries after the first.
        backoff_seconds: Wait before the first retry; it doubles, up to 30 s, and half of it is random.
    """

    url: str
    model: str
    decoding: DecodingSection
    api_key_env: str | None = None
    system: str | None = None
    concurrency: int = 8
    requests_per_minute: int | None = None
    timeout_seconds: float = 60.0
    retries: int = 5
    backoff_seconds: float = 0.5

    def __post_init__(self) -> None:
        """Check the address and the name of the variable (errors as :func:`check_secrets`)."""
        check_secrets(self.url, self.api_key_env)

    @property
    def address(self) -> str:
        """The full URL that is asked."""
        if urlsplit(self.url).path.rstrip("/").endswith("/chat/completions"):
            return self.url
        base, mark, query = self.url.partition("?")
        return f"{base.rstrip('/')}/chat/completions{mark}{query}"

    def identity(self) -> dict[str, Any]:
        """Address, model and decoding; what the server runs behind that name cannot be known."""
        return {
            "kind": "endpoint",
            "url": self.address,
            "model": self.model,
            "decoding": self.decoding.model_dump(mode="json"),
            "system": self.system,
        }

    def answer(self, prompts: Sequence[str]) -> Generator[tuple[int, Answer], None, None]:
        """See :class:`llmpatch.references.Reference`.

        Raises:
            UsageError: the environment variable with the key is not set.
            ReferenceFailedError: the endpoint refuses us, is gone, or some prompts failed after all retries.
        """
        run = _Run(self, list(prompts), Secret.read(self.api_key_env))
        # A thread of its own, so that this works inside a running event loop (a notebook), too.
        thread = threading.Thread(target=run.main, name="llmpatch-endpoint", daemon=True)
        thread.start()
        try:
            while (item := run.done.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            run.stop()
            thread.join()
        run.raise_failures()


class _Run:
    """One call of :meth:`EndpointReference.answer`: a loop in a thread that fills a queue."""

    def __init__(self, reference: EndpointReference, prompts: list[str], secret: Secret) -> None:
        self.reference = reference
        self.prompts = prompts
        self.secret = secret
        self.done: queue.SimpleQueue[tuple[int, Answer] | BaseException | None] = queue.SimpleQueue()
        self.failures: dict[int, str] = {}
        self.answered = 0
        self._in_a_row = 0
        self._patience = max(_GIVE_UP_AFTER, reference.concurrency)
        self._speaks = False
        self._greeted = False
        self._greeting = asyncio.Lock()
        self._turned_away: dict[int, str] = {}
        self._gate = _Gate(reference.requests_per_minute)
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._ask_all())

    def main(self) -> None:
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # handed to the thread that waits for it
            self.done.put(error)
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            self.done.put(None)

    def stop(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._task.cancel)
        except RuntimeError:  # the loop has ended by itself
            return

    def raise_failures(self) -> None:
        failed = len(self.prompts) - self.answered
        if not failed:
            return
        untried = failed - len(self.failures)
        first = next(iter(self.failures.items()), None)
        raise ReferenceFailedError(
            f"{self.reference.address}: {failed} of {len(self.prompts)} prompts got no answer"
            + (f" ({untried} were not tried any more)" if untried else "")
            + (f"; the first is {self.prompts[first[0]][:60]!r}: {first[1]}" if first else ""),
            hint="the other answers are kept: run again to ask only for the missing ones, or leave out what is never answered",
        )

    async def _ask_all(self) -> None:
        waiting = iter(range(len(self.prompts)))
        async with self._client() as client:
            workers = min(self.reference.concurrency, len(self.prompts))
            tasks = [asyncio.create_task(self._work(client, waiting)) for _ in range(workers)]
            try:
                await asyncio.gather(*tasks)
                if self._turned_away and await self._answers_at_all(client):
                    self._give_turned_away()
                self.failures |= self._turned_away
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _client(self) -> httpx.AsyncClient:
        import httpx

        return open_async_client(
            hide=self.secret.hide,
            follow_redirects=False,
            timeout=self.reference.timeout_seconds,
            limits=httpx.Limits(max_connections=self.reference.concurrency),
            headers={"Accept-Encoding": "identity", **self.secret.headers()},
        )

    async def _work(self, client: httpx.AsyncClient, waiting: Iterator[int]) -> None:
        for index in waiting:
            found = await self._ask(client, self.prompts[index])
            if found.answer is not None:
                self._speaks, self._in_a_row = True, 0
                self._give(index, found.answer)
                self._give_turned_away()
            elif found.turned_away:
                # Where nothing else was said yet, it may be the account or the model that is turned away.
                self._turned_away[index] = found.reason
                if self._speaks or (len(self._turned_away) >= self._patience and await self._answers_at_all(client)):
                    self._give_turned_away()
                elif self._greeted:
                    self._leave(waiting)
            else:
                self.failures[index] = found.reason
                self._in_a_row += not (found.about_prompt and self._speaks)
                if self._in_a_row >= self._patience:
                    self._leave(waiting)

    def _leave(self, waiting: Iterator[int]) -> None:
        """Leave nothing to the other workers; what is in flight may still succeed."""
        for _ in waiting:
            pass

    async def _answers_at_all(self, client: httpx.AsyncClient) -> bool:
        """Whether the service has answered anything; if not, a greeting is asked, once."""
        async with self._greeting:
            if not self._speaks and not self._greeted:
                found = await self._tries(client, _GREETING)
                self._speaks = self._speaks or found.answer is not None
                self._greeted = True
        return self._speaks

    def _give(self, index: int, answer: Answer) -> None:
        self.answered += 1
        self.failures.pop(index, None)
        self.done.put((index, answer))

    def _give_turned_away(self) -> None:
        while self._turned_away:
            self._give(self._turned_away.popitem()[0], _NOTHING)

    async def _ask(self, client: httpx.AsyncClient, prompt: str) -> Attempt:
        """The last try: with an answer, or with the reason why all of them failed.

        Raises:
            ReferenceFailedError: no other prompt can succeed either.
        """
        attempt = await self._tries(client, prompt)
        # A firewall forbids single prompts; a service that forbids a greeting does not know us.
        if attempt.fatal or (attempt.refused and not await self._answers_at_all(client)):
            raise ReferenceFailedError(f"{self.reference.address}: {attempt.reason}", hint=self._hint(attempt))
        return attempt

    async def _tries(self, client: httpx.AsyncClient, prompt: str) -> Attempt:
        attempt = Attempt()
        for number in range(self.reference.retries + 1):
            await self._gate.turn()
            attempt = await self._try(client, prompt)
            if attempt.answer is not None:
                return attempt
            tries = f" (after {number + 1} tries)" if number else ""
            attempt = replace(attempt, reason=self.secret.hide(attempt.reason) + tries)
            if not attempt.retry:
                break
            if attempt.retry_after is not None:
                self._gate.hold(min(attempt.retry_after, _MAX_RETRY_AFTER_SECONDS))
            if number < self.reference.retries:
                pause = min(self.reference.backoff_seconds * 2**number, _MAX_BACKOFF_SECONDS)
                await asyncio.sleep(pause * random.uniform(0.5, 1))
        return attempt

    async def _try(self, client: httpx.AsyncClient, prompt: str) -> Attempt:
        import httpx

        seconds = self.reference.timeout_seconds
        try:
            # httpx limits each read; a server that drips bytes is caught by this.
            async with (
                asyncio.timeout(seconds),
                client.stream("POST", self.reference.address, json=self._payload(prompt)) as response,
            ):
                return await read_reply(response, self.secret)
        except (TimeoutError, httpx.TimeoutException):
            return Attempt(reason=f"no answer within {seconds:g} s", retry=True)
        except httpx.InvalidURL as error:
            return Attempt(reason=str(error), fatal=True)
        except httpx.HTTPError as error:
            return Attempt(reason=f"{type(error).__name__}: {error}"[:200], retry=True)

    def _payload(self, prompt: str) -> dict[str, Any]:
        decoding = self.reference.decoding
        messages = [{"role": "system", "content": self.reference.system}] if self.reference.system else []
        return {
            "model": self.reference.model,
            "messages": [*messages, {"role": "user", "content": prompt}],
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "seed": decoding.seed,
            "stream": False,
        }

    def _hint(self, attempt: Attempt) -> str:
        if not attempt.refused:
            return "set reference.url to the final address of an OpenAI-compatible API, as https://host/v1"
        name = self.reference.api_key_env
        if name:
            return f"is the key in the environment variable {name} right, and may it use {self.reference.model}?"
        return "it wants a key: put it into an environment variable and name that in reference.api_key_env"


class _Gate:
    """When the next request may start: evenly spaced, and not before a server's Retry-After."""

    def __init__(self, per_minute: int | None) -> None:
        self._spacing = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._held = 0.0

    async def turn(self) -> None:
        while True:
            slot = max(time.monotonic(), self._next)
            self._next = slot + self._spacing
            await asyncio.sleep(max(0.0, slot - time.monotonic()))
            if self._held <= time.monotonic():
                return  # else the server asked for patience meanwhile: who waited queues again, spaced as before

    def hold(self, seconds: float) -> None:
        self._held = max(self._held, time.monotonic() + seconds)
        self._next = max(self._next, self._held)


def check_secrets(url: str, api_key_env: str | None) -> None:
    """Whether an address is one, and neither it nor the name of the key's variable is or holds a secret.

    Raises:
        UsageError: an address that is not http(s) or carries a secret; a name that is not one of a variable.
    """
    _check_url(url)
    if api_key_env is not None and not ENV_NAME.fullmatch(api_key_env):
        # Not repeated: somebody may have put the key itself there.
        raise UsageError(
            "api_key_env is not the name of an environment variable (capitals, digits, underscores)",
            hint="put the key into a variable and its name, as OPENAI_API_KEY, into the recipe",
        )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _, secret = parts.hostname, parts.port, holds_secret(url)
    except ValueError:
        raise UsageError("reference.url is not a web address", hint="write https://host/v1") from None
    if secret:
        raise UsageError(
            f"reference.url carries a secret (host {host})",
            hint="take it out of the recipe; put the key into an environment variable named in reference.api_key_env",
        )
    odd = any(character.isspace() or not character.isprintable() for character in url)
    if parts.scheme not in ("http", "https") or not host or parts.fragment or odd:
        raise UsageError(f"reference.url {url!r} is not an http(s) address", hint="write https://host/v1")
