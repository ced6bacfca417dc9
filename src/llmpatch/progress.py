"""Progress of long work: bars with rate and time left on a terminal, silence elsewhere.

with console().stage("Sampling", total=800) as advance:
    advance(8)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[..., None]


class Progress(Protocol):
    """Something that shows how far long work has come."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """Open one stage of ``total`` units; call the result with the units done (and ``note=`` for a short remark)."""
        ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:  # noqa: ARG002 - the protocol's arguments
        """See :class:`Progress`."""
        yield _nothing


def _nothing(units: int = 1, note: str = "") -> None:
    """Show no progress."""
    del units, note


class Console:
    """Rich bars on standard error."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """See :class:`Progress`."""
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        with RichProgress(*columns, console=RichConsole(stderr=True)) as bar:
            task = bar.add_task(name, total=total, note="", rate="")

            def advance(units: int = 1, note: str = "") -> None:
                speed = bar.tasks[0].speed
                bar.update(task, advance=units, rate=f"{speed:.1f}/s" if speed else "")
                if note:
                    bar.update(task, note=note)

            yield advance


def console() -> Progress:
    """Bars when standard error is a terminal, else silence."""
    return Console() if sys.stderr.isatty() else Silent()
