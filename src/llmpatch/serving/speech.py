"""Text out of tokens as they come, held back where more tokens could change it or complete a stop text.

    speech = Speech(base, ["END"])
    speech.hear(Token(17))       # what can be said now, and the tokens it consists of
    speech.ended                 # a stop text was said
    speech.rest()                # what was held back

Pieces joined are what ``base.decode`` makes of all tokens, cut before the first stop text; of a text that is continued
(``behind``) what it adds to that.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmpatch.bases import Base
from llmpatch.serving.sampling import Token

_UNFINISHED = "\ufffd"  # what a tokenizer makes of the first bytes of a character


class Speech:
    """The text of one answer.

    Args:
        base: For its tokenizer.
        stops: Texts that end it.
        behind: Ids that it continues: a tokenizer may hide the space before a text that stands alone.

    Attributes:
        ended: Whether a stop text was said; nothing more is to be heard.
    """

    def __init__(self, base: Base, stops: Sequence[str] = (), behind: Sequence[int] = ()) -> None:
        self._base, self._stops = base, tuple(stops)
        self._ids = list(behind)
        self._before, self._read = (
            0,
            len(self._ids),
        )  # ids in front of _before no longer change how later ones are decoded
        self._held = ""
        self._tokens: list[Token] = []
        self.ended = False

    def hear(self, token: Token) -> tuple[str, list[Token]]:
        """One more token. Returns what can be said now."""
        self._ids.append(token.id)
        self._tokens.append(token)
        said = self._base.decode(self._ids[self._before : self._read])
        text = self._base.decode(self._ids[self._before :])
        if len(text) <= len(said) or text.endswith(_UNFINISHED):
            return "", []
        self._before, self._read = self._read, len(self._ids)
        return self._release(text[len(said) :])

    def rest(self) -> tuple[str, list[Token]]:
        """What was held back, at the end of an answer."""
        if self.ended:
            return "", []
        said = self._base.decode(self._ids[self._before : self._read])
        text, tokens = self._release(self._base.decode(self._ids[self._before :])[len(said) :])
        return (text, tokens) if self.ended else (text + self._held, tokens + self._take())

    def _release(self, more: str) -> tuple[str, list[Token]]:
        text = self._held + more
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.ended = True
            self._held = ""
            return text[: min(found)], self._take()
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return (text[: len(text) - keep], []) if keep else (text, self._take())

    def _take(self) -> list[Token]:
        tokens, self._tokens = self._tokens, []
        return tokens


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a start of ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
