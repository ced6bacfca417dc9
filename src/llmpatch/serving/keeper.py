"""The threads that watch: one follows the store within milliseconds, one asks the canary now and then.

    keeper = Keeper(desk, canary_seconds=60)
    keeper.start()
    keeper.stop()

Looking whether the store changed is one ``stat`` of the file that a commit replaces.
"""

from __future__ import annotations

import logging
import threading
import time

from llmpatch.errors import LlmpatchError
from llmpatch.serving.desk import Desk

POLL_SECONDS = 0.02
RETRY_SECONDS = 2.0
LOG = logging.getLogger("llmpatch.serving")


class Keeper:
    """See the module.

    Args:
        desk: What is kept.
        canary_seconds: Time between two questions.
    """

    def __init__(self, desk: Desk, canary_seconds: float) -> None:
        self.desk, self.canary_seconds = desk, canary_seconds
        self.asked = 0
        self.failed = 0
        self._seen = _stamp(desk)
        self._stop = threading.Event()
        # Two, since the canary waits for the engine, under load for a second or two, and the store must not.
        self._threads = [
            threading.Thread(target=self._watch, name="llmpatch-keeper", daemon=True),
            threading.Thread(target=self._ask_now_and_then, name="llmpatch-canary", daemon=True),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(10)

    def _watch(self) -> None:
        retry_at = float("inf")
        # The store may have changed between the desk's first look and ours.
        self._seen = None if self.desk.follows else self._seen
        while not self._stop.wait(POLL_SECONDS):
            stamp = _stamp(self.desk)
            if stamp != self._seen or time.monotonic() > retry_at:
                self._seen = stamp
                retry_at = float("inf") if self._follow() else time.monotonic() + RETRY_SECONDS

    def _ask_now_and_then(self) -> None:
        while not self._stop.wait(self.canary_seconds):
            self._ask()

    def _follow(self) -> bool:
        try:
            self.desk.follow()
        except LlmpatchError as error:
            self.desk.trouble = error.message
            LOG.error("the store cannot be followed, %s stays: %s", self.desk.active.level, error.message)
            return False
        except Exception:
            self.desk.trouble = "an unexpected error, see the log"
            LOG.exception("the store cannot be followed, %s stays", self.desk.active.level)
            return False
        return True

    def _ask(self) -> None:
        self.asked += 1
        try:
            self.failed += not self.desk.ask_canary().ok
        except LlmpatchError as error:
            self.failed += 1
            LOG.error("the canary: %s", error.message)
        except Exception:
            self.failed += 1
            LOG.exception("the canary could not be asked")


def _stamp(desk: Desk) -> tuple[int, int, int] | None:
    if not desk.follows or desk.store is None:
        return None
    try:
        found = desk.store.current.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
