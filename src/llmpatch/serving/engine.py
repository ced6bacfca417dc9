"""The one thread that owns the model: takes jobs in as rows get free, and steps the batch until nothing is left.

    engine = Engine(base, Limits())
    engine.start()
    engine.submit(job)                      # BusyError when the queue is full
    engine.call(lambda batch: ...)          # run something on the model between two steps, and wait for it
    engine.stop(seconds=30)                 # drain, then end

Jobs enter in the order they came. Whatever goes wrong in a step fails the jobs in it and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from llmpatch.bases import Base
from llmpatch.prefix import check_head
from llmpatch.serving.batch import Batch
from llmpatch.serving.jobs import BusyError, EngineError, Job
from llmpatch.serving.limits import Limits

T = TypeVar("T")
LOG = logging.getLogger("llmpatch.serving")
_WAIT_HINT = "try again in a moment"


class Engine:
    """Owner of a base.

    Args:
        base: Loaded and not used by anybody else from now on.
        limits: Rows, queue and context.

    Raises:
        UsageError: the base's vocabulary head or layers are of an unknown kind.
    """

    def __init__(self, base: Base, limits: Limits) -> None:
        check_head(base)
        self.base, self.limits = base, limits.for_base(base)
        self.batch = Batch(base, self.limits)
        self.failures = 0
        self._waiting: deque[Job] = deque()
        self._calls: deque[tuple[Callable[[Batch], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing: float | None = None
        self._thread = threading.Thread(target=self._run, name="llmpatch-engine", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def queued(self) -> int:
        """Jobs that wait for a row."""
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """Rows in use."""
        return len(self.batch)

    def levels(self) -> Counter[str]:
        """How many jobs each patch level has in flight, waiting ones included."""
        with self._changed:
            jobs = {*self._waiting, *(row.job for row in self.batch.rows())}
        return Counter(job.level for job in jobs)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def submit(self, *jobs: Job) -> None:
        """Queue the jobs of one request: all of them, or none.

        Raises:
            BusyError: the queue is full, or the server is closing.
        """
        with self._changed:
            if self._closing is not None:
                raise BusyError("the server is shutting down", hint="ask another one")
            if self._waiting and len(self._waiting) + len(jobs) > self.limits.queue:
                raise BusyError(f"{len(self._waiting)} requests wait already", hint=_WAIT_HINT)
            self._waiting.extend(jobs)
            self._changed.notify()

    def call(self, function: Callable[[Batch], T]) -> T:
        """Run a function between two steps, where it may use the model, and return what it returns.

        Raises:
            BusyError: the server is closing; whatever the function raises.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._closing is not None:
                raise BusyError("the server is shutting down", hint="ask another one")
            self._calls.append((function, future))
            self._changed.notify()
        return future.result()

    def wake(self) -> None:
        """Look at cancelled jobs now."""
        with self._changed:
            self._changed.notify()

    def stop(self, seconds: float) -> None:
        """Take nothing new, finish what was taken, at most for so long, and end the thread."""
        with self._changed:
            self._closing = time.monotonic() + seconds
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(seconds + 60)

    def _run(self) -> None:
        while self._wait():
            self._run_calls()
            try:
                self._drop()
                self._admit()
                if len(self.batch):
                    self.batch.step()
            except Exception:  # nothing that one step meets may end the server
                LOG.exception("a step failed; its requests are answered with an error")
                self._fail()

    def _wait(self) -> bool:
        """Wait for something to do; False to end."""
        with self._changed:
            while True:
                if self._closing is not None and (time.monotonic() > self._closing or not self._has_work()):
                    self._refuse_all()
                    return False
                if self._has_work():
                    return True
                self.batch.memory.shrink()
                self._changed.wait()

    def _has_work(self) -> bool:
        return bool(self._calls or self._waiting or len(self.batch))

    def _run_calls(self) -> None:
        while self._calls:
            function, future = self._calls.popleft()
            try:
                future.set_result(function(self.batch))
            except BaseException as error:  # goes to whoever asked
                future.set_exception(error)

    def _drop(self) -> None:
        for row in list(self.batch.expired()):
            self.batch.drop(row)
        with self._changed:
            now = time.monotonic()
            late = [job for job in self._waiting if now > job.deadline]
            kept = [job for job in self._waiting if now <= job.deadline and not job.cancelled.is_set()]
            if len(kept) < len(self._waiting):
                self._waiting = deque(kept)
        for job in late:
            job.emit(BusyError("no row got free in time", hint=_WAIT_HINT))

    def _admit(self) -> None:
        with self._changed:
            while self._waiting and self._waiting[0].choices <= self.batch.free:
                job = self._waiting.popleft()
                try:
                    self.batch.enter(job)
                except Exception:
                    job.emit(_failed())
                    raise

    def _fail(self) -> None:
        """Answer what was in the batch with an error, and start with fresh memory."""
        self.failures += 1
        failed = {id(row.job): row.job for row in self.batch.rows()}
        counts = self.batch.counts
        self.batch = Batch(self.base, self.limits)
        self.batch.counts = counts
        for job in failed.values():
            job.emit(_failed())

    def _refuse_all(self) -> None:
        error = BusyError("the server is shutting down", hint="ask another one")
        for job in {id(job): job for job in [*self._waiting, *(row.job for row in self.batch.rows())]}.values():
            job.emit(error)
        for _, future in self._calls:
            future.set_exception(error)
        self._waiting.clear()
        self._calls.clear()


def _failed() -> EngineError:
    return EngineError("the engine failed at this request", hint="the server's log says why")
