"""What the scripts that make data share: rows in and out, and an order that never changes.

rows = sorted(read(path), key=lambda row: order(row["id"], "llmpatch"))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
DATA = Path(__file__).parent.parent / "data"


def read(path: Path) -> list[Row]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def order(key: str, salt: str) -> str:
    """A fixed pseudo-random order that depends on nothing but the key."""
    return hashlib.sha256(f"{salt}:{key}".encode()).hexdigest()


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON Lines, and say how many."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path.relative_to(DATA)}: {len(lines)}")
