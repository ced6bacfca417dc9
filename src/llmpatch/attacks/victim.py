"""The model under attack, as an attacker sees it: it answers, and with its weights at hand it gives gradients.

    victim = Victim(base, prefix=rows)
    victim.answers(["Hello!"])[0].text

The prefix is part of it: an adaptive attack is made against the patched model, not against the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpatch.answers import Answer
from llmpatch.bases import Base
from llmpatch.prefix import Rows, prefix_digest
from llmpatch.recipe import DecodingSection
from llmpatch.references.local import TransformersReference


@dataclass(frozen=True, eq=False)
class Victim:
    """A system that an adaptive attack may use.

    Attributes:
        base: The model.
        prefix: The patch's rows [n, hidden_size], or ``None``.
        system: A system message instead of the template's own.
        decoding: How it is sampled when it is asked.
    """

    base: Base
    prefix: Rows | None = None
    system: str | None = None
    decoding: DecodingSection = field(default_factory=DecodingSection)

    def identity(self) -> dict[str, Any]:
        """Everything its answers and gradients depend on."""
        digest = None if self.prefix is None else prefix_digest(self.prefix)
        return TransformersReference(self.base, self.decoding, self.system).identity() | {"prefix": digest}

    def answers(self, prompts: Sequence[str]) -> list[Answer]:
        """One answer per prompt, in order.

        Raises:
            UsageError: a prompt that does not fit the context.
        """
        from llmpatch.generation import generate

        options: dict[str, Any] = {"decoding": self.decoding, "prefix": self.prefix, "system": self.system}
        found = dict(generate(self.base, prompts, **options)) if prompts else {}
        return [found[index][0] for index in range(len(prompts))]
