"""What reaches the terminal: text with control characters escaped, plain tables, JSON.

    say(table(["metric", "n"], [["declined", "146"]]))

Answers and names come from files and models, so nothing of theirs may move a cursor or hide text.
"""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any

import click

_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_KEPT = "\n\t\u200c\u200d"  # line structure, and the joiners that several scripts and emoji need


def safe(text: str) -> str:
    """Text with control and invisible characters escaped; new lines and tabs stay."""
    return "".join(
        c.encode("unicode_escape").decode("ascii") if unicodedata.category(c) in _INVISIBLE and c not in _KEPT else c
        for c in text
    )


def one_line(text: str) -> str:
    """:func:`safe`, on one line."""
    return " ".join(safe(text).split())


def _echo(text: str, *, err: bool = False) -> None:
    """Print; where the reader has left, go on in silence: what a verb does and its exit code do not depend on who watches."""
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        stream = sys.stderr if err else sys.stdout
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def say(text: str = "") -> None:
    """Print to standard output."""
    _echo(text)


def say_json(value: Any) -> None:
    """Print a JSON value to standard output. ASCII only, so that no string can act on a terminal."""
    import json

    _echo(json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False))


def note(text: str) -> None:
    """Print to standard error."""
    _echo(text, err=True)


def warn(text: str) -> None:
    """Print one ``warning:`` line to standard error."""
    note(f"warning: {one_line(text)}")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns: numbers to the right, words to the left."""
    lines = [[one_line(cell) for cell in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numbers = [all(cell[:1].isdigit() or cell == "-" for cell in column[1:]) for column in zip(*lines, strict=True)]

    def aligned(line: Sequence[str]) -> str:
        cells = zip(line, widths, numbers, strict=True)
        return "  ".join(c.rjust(width) if number else c.ljust(width) for c, width, number in cells).rstrip()

    return "\n".join([aligned(lines[0]), "  ".join("-" * width for width in widths), *map(aligned, lines[1:])])


def side_by_side(left: str, right: str, width: int) -> str:
    """Two texts in two columns of together ``width`` characters."""
    half = max(1, (width - 3) // 2)
    columns = [
        [row for line in safe(text).splitlines() or [""] for row in textwrap.wrap(line, half) or [""]]
        for text in (left, right)
    ]
    height = max(map(len, columns))
    a, b = ([*column, *[""] * (height - len(column))] for column in columns)
    return "\n".join(f"{x.ljust(half)} | {y}".rstrip() for x, y in zip(a, b, strict=True))
