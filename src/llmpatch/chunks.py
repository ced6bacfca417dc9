"""A recipe's training prompts a chunk at a time, however many there are.

    dealt = deal(recipe, size=1024)
    len(dealt)                     # how many chunks
    dealt.read(12)                 # the prompts of one of them: the same share of every kind

Files are read line by line, once to count and to check and then a chunk at a time; what stays in memory is the place of
every 1,024th row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from llmpatch.errors import RecipeError, UsageError
from llmpatch.files import Line, iterate_lines, parse_row
from llmpatch.prompts import KINDS, Form, Kind, Prompt, check_ids, load_prompts, parse_prompt
from llmpatch.recipe import PromptSet, Recipe

STRIDE = 1024
CHUNK = 512


@dataclass(frozen=True)
class Source:
    """One file of prompts: its rows, and where every 1,024th begins.

    Attributes:
        path: The file.
        kind: Of rows that do not name one.
        form: Of all of them.
        rows: How many count; more may follow.
        marks: For each stride, the byte at which its first line begins and the number of that line.
    """

    path: Path
    kind: Kind
    form: Form
    rows: int
    marks: tuple[tuple[int, int], ...]

    def read(self, start: int, stop: int) -> Iterator[Prompt]:
        """The rows from ``start`` up to ``stop``."""
        if start >= stop:
            return
        offset, number = self.marks[start // STRIDE]
        first = start - start % STRIDE
        lines = iterate_lines(self.path, offset=offset, number=number)
        for row, line in enumerate(islice(lines, stop - first), start=first):
            if row >= start:
                yield _prompt(line, self, row + 1)


@dataclass(frozen=True)
class Dealt:
    """The prompts of a recipe, dealt into chunks.

    Attributes:
        sources: Of each kind, its files.
        chunks: How many chunks there are.
    """

    sources: dict[Kind, tuple[Source, ...]]
    chunks: int

    def __len__(self) -> int:
        return self.chunks

    @property
    def counts(self) -> dict[Kind, int]:
        """Prompts of each kind."""
        return {kind: sum(source.rows for source in found) for kind, found in self.sources.items()}

    def size(self, number: int) -> int:
        """How many prompts a chunk has."""
        return sum(stop - start for start, stop in (self._span(number, total) for total in self.counts.values()))

    def _span(self, number: int, total: int) -> tuple[int, int]:
        """Which of a kind's prompts are in a chunk."""
        return number * total // self.chunks, (number + 1) * total // self.chunks

    def read(self, number: int) -> list[Prompt]:
        """One chunk's prompts: of each kind with ``n`` prompts those from ``number * n / chunks`` on.

        Raises:
            UsageError: an id twice in a kind's prompts of it, or a file that has changed since it was dealt.
        """
        found: list[Prompt] = []
        for kind, total in self.counts.items():
            start, stop = self._span(number, total)
            own: list[Prompt] = []
            passed = 0
            for source in self.sources[kind]:
                low, high = (min(max(place - passed, 0), source.rows) for place in (start, stop))
                rows = list(source.read(low, high))
                if len(rows) != high - low:
                    raise UsageError(f"{source.path} has become shorter", hint="leave it as it was, or begin again")
                own += rows
                passed += source.rows
            check_ids(own, f"the {kind} prompts")
            found += own
        return found


def deal(recipe: Recipe, size: int = CHUNK) -> Dealt:
    """Count and check a recipe's training prompts, and deal them.

    Args:
        recipe: Whose ``prompts``.
        size: Prompts in a chunk, about.

    Raises:
        UsageError: a missing, empty or malformed set.
        RecipeError: a cluster that is also among the validation prompts.
    """
    sets: dict[Kind, PromptSet] = {kind: found for kind in KINDS if (found := getattr(recipe.prompts, kind))}
    held = {
        prompt.cluster
        for kind, section in sets.items()
        for prompt in [p for path in section.validation for p in load_prompts(Path(path), kind)][
            : section.validation_limit
        ]
    }
    sources: dict[Kind, tuple[Source, ...]] = {}
    for kind, section in sets.items():
        left = section.limit
        files: list[Source] = []
        for path in section.train:
            if left is None or left > 0:
                files.append(_scan(Path(path), kind, section.form, left, held))
                left = left if left is None else left - files[-1].rows
        sources[kind] = tuple(files)
    total = sum(source.rows for found in sources.values() for source in found)
    return Dealt(sources, max(1, -(-total // size)))


def _scan(path: Path, kind: Kind, form: Form, most: int | None, held: set[str]) -> Source:
    """Read a file once: every row is checked, and the places of some are kept."""
    marks: list[tuple[int, int]] = []
    rows = 0
    found = Source(path, kind, form, 0, ())
    for line in islice(iterate_lines(path), most):
        if rows % STRIDE == 0:
            marks.append((line.offset, line.number))
        rows += 1
        prompt = _prompt(line, found, rows)
        if prompt.cluster in held:
            raise RecipeError(
                f"{path}:{line.number}: cluster {prompt.cluster} is among the validation prompts, too",
                hint="split by `cluster`, never by row",
            )
    if not rows:
        raise UsageError(f"{path} has no prompts", hint="add at least one row")
    return replace(found, rows=rows, marks=tuple(marks))


def _prompt(line: Line, source: Source, row: int) -> Prompt:
    parsed = parse_prompt(parse_row(line.text, source.path, line.number), source.path, row, source.kind)
    return replace(parsed, kind=source.kind, form=source.form)
