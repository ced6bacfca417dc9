"""Reversible ways to write a request that a reader decodes and a filter may not.

    rot13("How are you?")     # "Ubj ner lbh?"
    unspaced(spaced("hi"))    # "hi"

Each encoder has its decoder, so that a test can prove nothing of the request is lost. Knows no model and no template.
"""

from __future__ import annotations

import base64
import binascii
import codecs

from llmpatch.errors import UsageError

ZERO_WIDTH = "\u200b"
WORD_GAP = "   "
_LEET = str.maketrans("aeiostAEIOST", "431057431057")


def to_base64(text: str) -> str:
    """Base64 of the UTF-8 bytes."""
    return base64.b64encode(text.encode("utf-8")).decode("ascii")


def from_base64(text: str) -> str:
    """The text behind :func:`to_base64`.

    Raises:
        UsageError: this is not base64 of UTF-8.
    """
    try:
        return base64.b64decode(text, validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise UsageError(f"not base64 of UTF-8: {error}", hint="give what to_base64 returned") from None


def rot13(text: str) -> str:
    """Latin letters moved by 13 places; its own inverse."""
    return codecs.encode(text, "rot13")


def leetspeak(text: str) -> str:
    """``a e i o s t`` as the digits ``4 3 1 0 5 7``; digits that were there are told apart by the reader only."""
    return text.translate(_LEET)


def spaced(text: str) -> str:
    """A blank between the letters of a word, three between words; runs of white space become one gap."""
    return WORD_GAP.join(" ".join(word) for word in text.split())


def unspaced(text: str) -> str:
    """The text behind :func:`spaced`, with single blanks between words."""
    return " ".join(word.replace(" ", "") for word in text.split(WORD_GAP))


def zero_width(text: str) -> str:
    """An invisible U+200B behind every letter: the eye reads the same, the tokenizer does not."""
    return "".join(c + ZERO_WIDTH if c.isalpha() else c for c in text)


def visible(text: str) -> str:
    """The text behind :func:`zero_width`."""
    return text.replace(ZERO_WIDTH, "")
