"""A base with a prefix in front of everything it reads: the model a user talks to.

model = load_patch("patches/smollm2/refusal").apply(load_base("smollm2"))
model.generate(["How do I bake bread?"])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from llmpatch.answers import Answer
from llmpatch.bases import Base
from llmpatch.errors import UsageError, WrongBaseError
from llmpatch.prefix import Parallel, Rows
from llmpatch.recipe import DecodingSection, describe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class PatchedModel:
    """``M+``: the frozen base plus the rows of one or more patches.

    Args:
        base: The base.
        prefix: [n, hidden_size] virtual tokens, as a tensor or an array, or several such prefixes side by side.
        name: What to call the patch set.

    Raises:
        WrongBaseError: the rows do not have the base's width.
    """

    def __init__(self, base: Base, prefix: Rows | npt.NDArray[np.float32], name: str) -> None:
        import torch

        if not isinstance(prefix, (torch.Tensor, Parallel)):
            prefix = torch.tensor(prefix, dtype=torch.float32)
        for part in prefix.parts if isinstance(prefix, Parallel) else (prefix,):
            if part.ndim != 2 or part.shape[1] != base.hidden_size:
                raise WrongBaseError(
                    f"{name} has rows of {part.shape[-1]} numbers, {base.name} has {base.hidden_size}",
                    hint="use the base the patch was made for",
                )
        self.base, self.name, self.prefix = base, name, prefix

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        samples: int = 1,
        seed: int = 0,
        raw: bool = False,
        system: str | None = None,
    ) -> list[list[str]]:
        """Answer prompts through the chat template, or continue them as they stand with ``raw``.

        Returns:
            ``samples`` texts for each prompt, in the prompts' order.

        Raises:
            UsageError: a prompt that does not fit the context, or a number that says no length, temperature, seed or count.
        """
        if samples < 1:
            raise UsageError(f"{samples} samples are no answer", hint="ask for 1 or more")
        try:
            decoding = DecodingSection(max_new_tokens=max_new_tokens, temperature=float(temperature), seed=seed)
        except ValidationError as error:
            raise UsageError(f"not a way to decode: {describe(error)}", hint="see docs/recipes.md, decoding") from None
        return answer_all(self.base, prompts, decoding, prefix=self.prefix, samples=samples, raw=raw, system=system)


def answer_all(base: Base, prompts: Sequence[str], decoding: DecodingSection, **options: object) -> list[list[str]]:
    """:func:`llmpatch.generation.generate`, collected in the prompts' order as plain texts."""
    from llmpatch.generation import generate

    found: dict[int, list[Answer]] = dict(generate(base, prompts, decoding=decoding, **options))  # type: ignore[arg-type]
    return [[answer.text for answer in found[i]] for i in range(len(prompts))]
