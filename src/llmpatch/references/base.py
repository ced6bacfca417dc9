"""What a reference is: something that answers prompts and can say exactly what it is."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol

from llmpatch.answers import Answer


class Reference(Protocol):
    """A source of answers."""

    def identity(self) -> dict[str, Any]:
        """Provenance as JSON without secrets: it differs whenever the answers may differ."""
        ...

    def answer(self, prompts: Sequence[str]) -> Generator[tuple[int, Answer], None, None]:
        """Answer prompts, as they finish, in any order, each index once; closing the generator stops the work.

        Raises:
            ReferenceFailedError: some prompts got no usable answer; all the others were yielded before.
        """
        ...
