"""One request from its patch set to its answer: jobs for the engine, their events, and what becomes of them.

    asked = await ask(server, request)              # a snapshot of the patch set, token ids, room
    body = await answer(server, asked)              # or: async for text in stream(server, asked)

A request that nobody waits for any more gives its rows back.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from llmpatch.errors import LlmpatchError
from llmpatch.serving.desk import Desk
from llmpatch.serving.jobs import BusyError, Event, Job, Piece, Scored
from llmpatch.serving.limits import MAX_NAMING, Limits
from llmpatch.serving.patchsets import Ready
from llmpatch.serving.problems import RequestError, body_of
from llmpatch.serving.prompting import chat_ids, names_of, room_for, text_ids
from llmpatch.serving.replies import Choice, Reply, Usage, sse
from llmpatch.serving.requests import USUAL_TOKENS, ChatRequest, CompletionRequest
from llmpatch.serving.sampling import Sampling

Request = ChatRequest | CompletionRequest


@dataclass(frozen=True, eq=False)
class Asked:
    """A request with all that its answer depends on.

    Attributes:
        request: What was sent.
        ready: The patch set, for the whole request.
        prompts: Token ids of each prompt.
        rooms: Longest answer to each.
        reply: The shape of the answer.
    """

    request: Request
    ready: Ready
    prompts: list[list[int]]
    rooms: list[int]
    reply: Reply

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return self.request.n or 1

    def usage(self, written: int) -> Usage:
        """Numbers of tokens."""
        prefix, scored = self.ready.prefix, bool(getattr(self.request, "echo", False))
        shared = 0 if scored else sum(prefix.shared(ids) - prefix.rows for ids in self.prompts)
        return Usage(sum(map(len, self.prompts)), shared, written)


async def ask(desk: Desk, limits: Limits, served: str, request: Request) -> Asked:
    """Take a snapshot of the patch set that a request wants, and see whether the request fits.

    Raises:
        RequestError: it does not fit the limits.
        LlmpatchError: see :meth:`~llmpatch.serving.desk.Desk.snapshot` and :meth:`~llmpatch.serving.desk.Desk.named`.
    """
    names = names_of(request.model, request.patches, served=served)
    ready = desk.snapshot() if names is None else await _named(desk, limits, names)
    base = desk.engine.base
    if isinstance(request, ChatRequest):
        prompts = [await asyncio.to_thread(chat_ids, base, request.messages)]
        wanted, top, kind, usual = request.max_completion_tokens or request.max_tokens, request.top, "chat", None
    else:
        prompts = [await asyncio.to_thread(text_ids, base, prompt) for prompt in request.prompts]
        wanted, top, kind = request.max_tokens, request.logprobs, "text"
        usual = None if "max_tokens" in request.model_fields_set else USUAL_TOKENS
    if len(prompts) * (request.n or 1) > limits.max_n:
        raise RequestError(f"{len(prompts)} prompts times n = {request.n or 1}; this server gives at most "
                           f"{limits.max_n} choices a request", param="n")  # fmt: skip
    longest, param = min(limits.max_tokens, usual or limits.max_tokens), "messages" if kind == "chat" else "prompt"
    rooms = [room_for(ids, ready.prefix.rows, limits.context, wanted, longest, param) for ids in prompts]
    reply = Reply("chat" if kind == "chat" else "text", request.model or served, ready.level, base, top is not None)
    return Asked(request, ready, prompts, rooms, reply)


async def _named(desk: Desk, limits: Limits, names: list[str]) -> Ready:
    """The set that a request names. Those that must be computed first wait for one another, and never for longer than a request.

    Raises:
        BusyError: too many of them wait, or it took too long.
        LlmpatchError: see :meth:`~llmpatch.serving.desk.Desk.named`.
    """
    if ready := await asyncio.to_thread(desk.named_at_hand, names):
        return ready
    if desk.naming >= MAX_NAMING:
        raise BusyError("too many patch sets are being made ready", hint="try again later, or use the active set")
    desk.naming += 1
    try:
        async with asyncio.timeout(limits.request_seconds):
            return await asyncio.get_running_loop().run_in_executor(desk.namer, desk.named, names)
    except TimeoutError:
        raise BusyError("the patch set was not ready in time", hint="try again later") from None
    finally:
        desk.naming -= 1


async def events(desk: Desk, limits: Limits, asked: Asked) -> AsyncIterator[tuple[int, Event]]:
    """Submit a request, and give its events with the index of their prompt, to the end of all choices.

    Raises:
        LlmpatchError: what the engine says instead of an answer.
    """
    queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def emit(index: int, event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and whoever waited with it
            loop.call_soon_threadsafe(queue.put_nowait, (index, event))

    jobs = _jobs(asked, limits, emit)
    left = len(jobs) * asked.choices
    desk.engine.submit(*jobs)
    try:
        while left:
            index, event = await queue.get()
            if isinstance(event, LlmpatchError):
                raise event
            left -= isinstance(event, Piece) and event.finish is not None
            yield index, event
    finally:
        for job in jobs:
            job.cancel()
        if left:
            desk.engine.wake()


def _jobs(asked: Asked, limits: Limits, emit: Any) -> list[Job]:
    request, deadline = asked.request, time.monotonic() + limits.request_seconds
    top = request.top if isinstance(request, ChatRequest) else request.logprobs
    sampling = Sampling(
        temperature=limits.temperature if request.temperature is None else request.temperature,
        top_p=limits.top_p if request.top_p is None else request.top_p,
        seed=None if request.seed is None else request.seed % (1 << 32),
        top_logprobs=top,
    )
    scores = isinstance(request, CompletionRequest) and bool(request.echo) and top is not None
    return [
        Job(
            ids, asked.ready.prefix, asked.ready.level, sampling, room, functools.partial(emit, index),
            choices=asked.choices, stops=request.stops, stream=bool(request.stream), score_prompt=scores,
            ignore_eos=request.ignore_eos, prompt=index, deadline=deadline,
            continues=isinstance(request, CompletionRequest),
        )
        for index, (ids, room) in enumerate(zip(asked.prompts, asked.rooms, strict=True))
    ]  # fmt: skip


async def answer(desk: Desk, limits: Limits, asked: Asked) -> dict[str, Any]:
    """The whole response.

    Raises:
        LlmpatchError: what the engine says instead.
    """
    choices = [Choice() for _ in range(len(asked.prompts) * asked.choices)]
    if isinstance(asked.request, CompletionRequest) and asked.request.echo:
        for i, choice in enumerate(choices):
            choice.echoed = desk.engine.base.decode(asked.prompts[i // asked.choices])
    async for index, event in events(desk, limits, asked):
        mine = choices[index * asked.choices : (index + 1) * asked.choices]
        if isinstance(event, Scored):
            for choice in mine:
                choice.scored = list(event.tokens)
        elif isinstance(event, Piece):
            _add(mine[event.choice], event)
    usage = asked.usage(sum(choice.count for choice in choices))
    # The texts of all tokens take seconds where a long prompt is scored, and other answers go on meanwhile.
    whole = functools.partial(asked.reply.whole, choices, usage)
    return await asyncio.to_thread(whole) if asked.reply.logprobs else whole()


def _add(choice: Choice, piece: Piece) -> None:
    choice.text += piece.text
    choice.tokens += piece.tokens
    choice.finish, choice.count = piece.finish, piece.count


async def stream(desk: Desk, limits: Limits, asked: Asked) -> AsyncIterator[str]:
    """The response as server-sent events.

    The first one comes with the first token, so that what goes wrong before is an error with a status; what goes wrong
    later is an event with an ``error``.

    Raises:
        LlmpatchError: before the first event, what the engine says instead.
    """
    reply, counts, sent, opened = asked.reply, dict[int, int](), dict[int, int](), set[int]()
    try:
        async for index, event in events(desk, limits, asked):
            if not isinstance(event, Piece):
                continue
            place = index * asked.choices + event.choice
            counts[place] = event.count
            if reply.kind == "chat" and place not in opened:
                opened.add(place)
                yield reply.opening(place)
            opened.add(place)
            piece = Choice(event.text, list(event.tokens), event.finish)
            yield reply.chunk(place, piece, sent.get(place, 0))
            sent[place] = sent.get(place, 0) + reply.length(piece)
    except LlmpatchError as error:
        if not opened:
            raise
        yield sse(body_of(error))
        return
    if asked.request.wants_usage:
        yield reply.last(asked.usage(sum(counts.values())))
    yield "data: [DONE]\n\n"
