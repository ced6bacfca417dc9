"""Ask no more of a set than its interval needs: prompts in random order, until each system's leading figure is narrow enough.

    sets = narrowed(sets, 0.05, lambda some: [summarise(scores)["refusal"]["refusal-head"] for scores in ...])

What is looked at is the width alone, never which system is ahead, so that stopping favours none. Knows nothing about any risk.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmpatch.errors import UsageError

if TYPE_CHECKING:
    from llmpatch.evals.prompt_sets import PromptSet
    from llmpatch.evals.systems import System

FIRST = 64  # prompts before the first look: fewer, and an interval around 0 or 1 is narrow by luck
_BLOCK = 32  # answers are kept in blocks of so many prompts: a look that ends within one would ask some of them twice
Figures = Callable[["PromptSet"], Sequence[Mapping[str, Any]]]


def narrowed(sets: Sequence[PromptSet], within: float, figures: Figures, *, first: int = FIRST) -> list[PromptSet]:
    """The sets, each cut to as many of its prompts, in a random order that never changes, as are needed.

    Args:
        sets: What could be asked.
        within: Half the width of a 95 % interval that is narrow enough, in (0, 0.5).
        figures: Asks a cut set and gives the leading figure of each system as ``{"low", "high"}``. It is asked again with more
            prompts of the same beginning, so what it asks for should be kept.
        first: Prompts of the first look.

    Raises:
        UsageError: ``within`` is no width, or whatever ``figures`` raises.
    """
    check_within(within)
    return [_cut(prompt_set, within, figures, first) for prompt_set in sets]


def check_within(within: float) -> None:
    """Refuse what is no half width of an interval between 0 and 1.

    Raises:
        UsageError: it is not.
    """
    if not 0 < within < 0.5:
        raise UsageError(f"{within} is no half width of an interval of rates", hint="say 0.05 for ± 5 points")


def check_recordings(sets: Sequence[PromptSet], systems: Sequence[System]) -> None:
    """Refuse a recording that lacks prompts: those that are drawn could be the ones it lacks.

    Raises:
        UsageError: says which recording, and how many it has.
    """
    prompts = [prompt for prompt_set in sets for prompt in prompt_set.prompts]
    for system in systems:
        said = system.recorded or system.samples or {}
        known = sum(prompt.id in said or prompt.text in said for prompt in prompts)
        if not system.live and known < len(prompts):
            raise UsageError(
                f"the recording {system.name} answers {known} of {len(prompts)} prompts, and which are asked is left to chance",
                hint="record them all, leave the recording out, or ask all prompts",
            )


def live_ones(systems: Sequence[System]) -> list[System]:
    """Those that cost something to ask: a recording says what it says, and may lack the prompts of a first look."""
    return [system for system in systems if system.live]


def _cut(prompt_set: PromptSet, within: float, figures: Figures, first: int) -> PromptSet:
    prompts = sorted(prompt_set.prompts, key=lambda p: hashlib.sha256(p.id.encode()).digest())
    count = min(first, len(prompts))
    while True:
        some = replace(prompt_set, prompts=tuple(prompts[:count]))
        widest = max(((f["high"] - f["low"]) / 2 for f in figures(some)), default=0.0)
        if widest <= within or count == len(prompts):
            return some
        needed = math.ceil(count * (widest / within) ** 2)  # a width falls as the root of the number
        count = min(len(prompts), _BLOCK * math.ceil(max(count + 1, min(needed, 2 * count)) / _BLOCK))
