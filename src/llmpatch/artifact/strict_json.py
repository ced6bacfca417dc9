"""Strict JSON: one reading of a document or none.

    value = parse_object(b'{"a": 1}', where="patch.json")

Refuses what JSON readers disagree about: duplicate keys, NaN and Infinity, numbers beyond 64 bits, lone surrogates, a
byte order mark, deep nesting. Knows nothing about patches. The caller bounds the size.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from llmpatch.errors import IntegrityError

MAX_DEPTH = 16
_DAMAGED = "the file is damaged or was not written by llmpatch; fetch it again"


def parse_object(data: bytes, *, where: str) -> dict[str, Any]:
    """Read one JSON object.

    Args:
        data: The document, UTF-8.
        where: What to call it in an error.

    Raises:
        IntegrityError: not UTF-8, not JSON, not an object, or anything the module docstring names.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        _check(value)
    except RecursionError:
        raise IntegrityError(f"{where}: nested too deeply", hint=_DAMAGED) from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise IntegrityError(f"{where}: {shown(str(error), 200)}", hint=_DAMAGED) from None
    return value


def shown(text: str, limit: int = 80) -> str:
    """Foreign text made safe to print: control and invisible characters escaped, cut to ``limit``."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: limit + 1])
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()  # not by counting: a hostile object has many keys
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {twice!r}")
    return mapping


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _check(value: Any) -> None:
    """Bound depth, numbers and text, level by level: the depth is not known yet, and evidence has many leaves."""
    level = [value]
    for _ in range(MAX_DEPTH):
        children = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
        texts = [child for child in children if isinstance(child, str)]
        texts += [key for item in level if isinstance(item, dict) for key in item]
        "".join(texts).encode("utf-8")  # a lone surrogate raises UnicodeEncodeError, a ValueError
        floats = [child for child in children if isinstance(child, float)]
        if floats and not -math.inf < min(floats) <= max(floats) < math.inf:
            raise ValueError("a number is too large")
        integers = [child for child in children if isinstance(child, int)]
        if integers and not -(1 << 63) <= min(integers) <= max(integers) < 1 << 63:
            raise ValueError("an integer does not fit in 64 bits")
        level = [child for child in children if isinstance(child, (dict, list))]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
