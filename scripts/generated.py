"""Documents that a script writes: keep them current, or say which are not.

main(lambda: {"docs/cli.md": "..."}, __doc__, "scripts/make_docs.py")
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from llmpatch.files import write_text

ROOT = Path(__file__).parent.parent


def between(name: str, start: str, end: str, found: str) -> str:
    """The document ``name`` with ``found`` between two marks, which it must have."""
    return put_between((ROOT / name).read_text(encoding="utf-8"), start, end, found, name)


def put_between(text: str, start: str, end: str, found: str, name: str) -> str:
    """A text with ``found`` between two marks, which it must have; ``name`` is what to call it where it has not."""
    before, _, rest = text.partition(start)
    _, mark, after = rest.partition(end)
    if not mark:
        sys.exit(f"{name} has no {start} ... {end}")
    return f"{before}{start}\n{found}\n{end}{after}"


def main(pages: Callable[[], Mapping[str, str]], description: str | None, script: str) -> None:
    """Write the pages that differ; with ``--check`` name them and exit with 1 instead.

    Args:
        pages: Makes the content by path, relative to the repository.
        description: For ``--help``.
        script: What writes them, for the message.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, text in pages().items():
        path = ROOT / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            write_text(path, text)
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run python {script}", file=sys.stderr)
        sys.exit(1)
