"""Which tokens of a base's vocabulary are words of some sort.

    word_tokens(base, ["he", "she"])              # these words, where each is one token

Knows the two marks of a word's beginning that tokenizers use (GPT-2's and SentencePiece's), and words of Latin letters only.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from llmpatch.bases import Base

_BEGUN = re.compile(r"[\u0120\u2581]([A-Za-z]+)")


def word_tokens(base: Base, words: Collection[str]) -> tuple[int, ...]:
    """Tokens that are one of the words, in any case, at a word's beginning, ascending."""
    wanted = {word.lower() for word in words}
    pieces = base.tokenizer.convert_ids_to_tokens(list(range(len(base.tokenizer))))
    found = (_BEGUN.fullmatch(piece or "") for piece in pieces)
    return tuple(number for number, match in enumerate(found) if match and match[1].lower() in wanted)
