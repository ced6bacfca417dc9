"""What a reference is: something that answers prompts and can say exactly what it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from llmpatch.answers import Answer


class Reference(Protocol):
    """A source of answers."""

    def identity(self) -> dict[str, Any]:
        """Provenance as JSON without secrets: it differs whenever the answers may differ."""
        ...

    def answer(self, prompts: Sequence[str]) -> Iterator[tuple[int, Answer]]:
        """Answer prompts, as they finish, in any order, each index once.

        Raises:
            ReferenceFailedError: some prompts got no usable answer; all the others were yielded before.
        """
        ...
