"""Measure patches alone, in a stack and, where something is lost, in pairs: who hurts whom.

    bench = Bench(base, tasks, store=Path("runs/compose"), progress=console())
    record = measure_together(bench, stack)
    [figure for figure in record.measured[0].figures if figure.hurt]

The record is what a lock file pins and what the store's algebra reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.artifact import Patch, release_time
from llmpatch.artifact.composition import Record, make_record
from llmpatch.composing.measures import Column, Task, measure, risks_of
from llmpatch.composing.retention import make_figures
from llmpatch.composing.stack import Stack, stack_prefix
from llmpatch.errors import UsageError
from llmpatch.prefix import prefix_digest
from llmpatch.progress import Progress, Silent

if TYPE_CHECKING:
    from llmpatch.bases import Base


@dataclass(frozen=True)
class Bench:
    """A base and what is measured on it; nothing is measured twice.

    Attributes:
        base: The base ``M``.
        tasks: The risks.
        store: Folder of kept answers and scores.
        progress: Where to show progress.
        parallel: Whether several patches stand side by side.
    """

    base: Base
    tasks: Sequence[Task]
    store: Path | None = None
    progress: Progress = field(default_factory=Silent)
    parallel: bool = False
    _known: dict[tuple[str, str], list[Column]] = field(default_factory=dict, repr=False)

    def columns(self, patches: Sequence[Patch], task: Task, title: str) -> list[Column]:
        """A task's measures behind patches in their order; behind none it is the base."""
        rows = stack_prefix(patches, parallel=self.parallel) if patches else None
        key = (prefix_digest(rows) if rows is not None else "", task.risk)
        if key not in self._known:
            self._known[key] = measure(self.base, rows, task, store=self.store, progress=self.progress, title=title)
        return self._known[key]

    def figures(self, patches: Sequence[Patch], title: str) -> list[dict[str, Any]]:
        """Every measure of every patch: without any, alone, and behind all of them."""
        found = []
        for patch in patches:
            for task in self.tasks:
                if task.risk in risks_of(patch):
                    before = self.columns([], task, "M")
                    alone = self.columns([patch], task, f"{patch.manifest.name} alone")
                    together = self.columns(patches, task, title)
                    found += make_figures(patch.digest, before, alone, together)
        return found


def measure_together(bench: Bench, stack: Stack) -> Record:
    """What a stack keeps of each of its patches.

    Where a patch of three or more loses something, each pair it is in is measured in the same order, too, to find with
    whom. Pairs that lose nothing are in the record as well: then only all together do.

    Raises:
        UsageError: fewer than two patches; a prompt that does not fit behind so many rows.
        LlmpatchError: a measurement failed; what was answered is kept.
    """
    patches = stack.patches
    if len(patches) < 2:
        raise UsageError("one patch is no stack", hint="name two or more, in the order of their rows")
    figures = bench.figures(patches, "together")
    measured = [{"patches": [p.digest for p in patches], "figures": figures}]
    losers = {figure["patch"] for figure in figures if figure["hurt"]}
    pairs = [(a, b) for i, a in enumerate(patches) for b in patches[i + 1 :] if {a.digest, b.digest} & losers]
    for pair in pairs if len(patches) > 2 else ():
        title = (" beside " if stack.parallel else ", then ").join(patch.manifest.name for patch in pair)
        measured.append({"patches": [p.digest for p in pair], "figures": bench.figures(pair, title)})
    base = bench.base
    return make_record(
        {
            "created": release_time(),
            "base": {"name": base.name, "fingerprint": asdict(base.fingerprint)},
            "patches": [{"name": p.manifest.name, "version": p.manifest.version, "digest": p.digest} for p in patches],
            "measured": measured,
            **stack.arrangement,
            **({"limit": limits[0]} if (limits := [t.limit for t in bench.tasks if t.limit]) else {}),
        }
    )


def losses_in_words(record: Record) -> list[str]:
    """One sentence per loss: who loses what, behind or before whom, with the numbers."""
    found = []
    for measured in record.measured:
        for figure in measured.hurt:
            others = " and ".join(record.title(digest) for digest in measured.patches if digest != figure.patch)
            kept = figure.kept
            share = (
                f"{100 * kept.value:.1f} % [{100 * kept.low:.1f}, {100 * kept.high:.1f}] of its gain kept, "
                if kept
                else ""
            )
            found.append(
                f"{record.title(figure.patch)} loses together with {others}: {figure.risk}, {figure.metric} "
                f"{figure.together:.3f}, alone {figure.alone:.3f}, without any {figure.before:.3f} ({share}"
                f"change {figure.change.value:+.3f} [{figure.change.low:+.3f}, {figure.change.high:+.3f}], "
                f"n={figure.change.n})"
            )
    return found
