"""Text as the judges see it: cut, lower case, straight quotes, single spaces; words; hashed word n-grams.

    ngrams(words(normalise("I can’t help.", 220)), 3)   # bucket numbers below BUCKETS

The one place that training and judging share, so that they cannot drift apart.
"""

from __future__ import annotations

import re
from zlib import crc32

BUCKETS = 1 << 16

_STRAIGHT = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "´": "'", "“": '"', "”": '"', "\u00a0": " "})
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+|[.!?:\"]")


def normalise(text: str, limit: int) -> str:
    """The first ``limit`` characters in lower case, with straight quotes and single spaces.

    Time is bounded by ``limit``, however long the text.
    """
    # Leading blanks must not push the answer out of view, and a megabyte must not be touched whole.
    head = text[: 4 * limit].translate(_STRAIGHT).lower()
    return " ".join(head.split())[:limit]


def words(text: str) -> list[str]:
    """Words, numbers and sentence marks of normalised text."""
    return _WORD.findall(text)


def ngrams(tokens: list[str], longest: int, prefix: str = "") -> list[int]:
    """Distinct buckets of the word n-grams of length 1 to ``longest``, sorted."""
    found: set[int] = set()
    for n in range(1, longest + 1):
        runs = tokens if n == 1 else map(" ".join, zip(*(tokens[i:] for i in range(n)), strict=False))
        found.update([crc32((prefix + run).encode()) % BUCKETS for run in runs])
    return sorted(found)
