"""A model that runs here through transformers. ``M`` itself is sampled through this class, too.

TransformersReference(load_base("smollm2"), DecodingSection())
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any
from zlib import crc32

from llmpatch.answers import Answer
from llmpatch.bases import Base
from llmpatch.prefix import Rows, prefix_digest
from llmpatch.recipe import DecodingSection
from llmpatch.weights import weights_digest

BATCH_SIZE = 64  # samples are short and share their prompts


@dataclass(frozen=True)
class TransformersReference:
    """A loaded base that answers.

    Attributes:
        base: The model.
        decoding: How it is sampled.
        system: A system message instead of the template's own.
        raw: Continue the prompts as they stand instead of answering through the chat template.
        prefix: Virtual tokens in front of it.
    """

    base: Base
    decoding: DecodingSection
    system: str | None = None
    raw: bool = False
    prefix: Rows | None = None

    @cached_property
    def weights(self) -> str:
        """See :func:`llmpatch.weights.weights_digest`."""
        return weights_digest(self.base)

    def identity(self) -> dict[str, Any]:
        """Model, weights, engine and decoding."""
        import torch
        import transformers

        narrow = f", {name}" if (name := self.base.narrow_dtype) else ""
        return {
            "kind": "transformers",
            "model": self.base.name,
            "fingerprint": asdict(self.base.fingerprint),
            "weights": self.weights,
            "engine": f"transformers {transformers.__version__}, torch {torch.__version__}, {self.base.device.type}{narrow}",
            "decoding": self.decoding.model_dump(mode="json"),
            "system": self.system,
            **({"raw": True} if self.raw else {}),
            **({"drawn": "by prompt"} if self.decoding.temperature else {}),
            **({"spaces": "kept"} if self.raw and self.base.hides_spaces else {}),
            **({"window": "by position"} if any(self.base.windows) else {}),
            # What ends an answer, where it is more than the tokenizer says, which the fingerprint holds.
            **({"ends": ends} if (ends := self.base.eos_ids) != [self.base.tokenizer.eos_token_id] else {}),
            **({} if self.prefix is None else {"prefix": prefix_digest(self.prefix)}),
        }

    def answer(self, prompts: Sequence[str]) -> Generator[tuple[int, Answer], None, None]:
        """See :class:`llmpatch.references.Reference`. What is drawn depends on the prompt alone, not on what else is asked.

        Raises:
            UsageError: a prompt that does not fit the model's context.
        """
        from llmpatch.generation import generate

        found = generate(
            self.base, prompts, decoding=self.decoding, prefix=self.prefix, system=self.system, raw=self.raw,
            keys=[crc32(prompt.encode()) for prompt in prompts],
        )  # fmt: skip
        for index, answers in found:
            yield index, answers[0]


def answer_samples(
    model: TransformersReference, asked: Sequence[tuple[int, str]], *, prefix: Rows | None = None
) -> Generator[tuple[int, Answer], None, None]:
    """Answers of a model to (number of the sample, text), as they finish; for ``collect_samples``.

    A sample's random numbers depend on the decoding seed, its text and its number only. Raw text takes a system message as
    a paragraph before it, since there is no chat template to put it in.

    Args:
        model: Who answers.
        asked: Which sample of what; samples of one text share the reading of it.
        prefix: Virtual tokens [n, hidden_size] in front.

    Raises:
        UsageError: a prompt that does not fit the model's context.
    """
    from llmpatch.generation import generate

    opening = f"{model.system}\n\n" if model.raw and model.system else ""
    found = generate(
        model.base,
        [opening + text for _, text in asked],
        decoding=model.decoding,
        prefix=prefix,
        system=model.system,
        raw=model.raw,
        batch_size=BATCH_SIZE,
        keys=[crc32(f"{number}:{text}".encode()) for number, text in asked],
    )
    for index, answers in found:
        yield index, answers[0]
