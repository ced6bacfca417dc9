"""``--temperature`` and ``--top-p``, where they take the place of something that has its own: a policy's, an engine's.

    @drawing_options("Judge answers drawn as your engine draws them.")
    def command(temperature, top_p): ...          # None: as it is

The ranges refuse NaN, which click's own let in. They repeat those of :mod:`llmpatch.training_recipe`, which would slow down
``--help``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Number(click.FloatRange):
    """A range that NaN is not in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A number in the range, or a usage error."""
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return found


DRAWN = "Judge answers drawn as your engine draws them, of a risk that declines; by default as the policy says."
TEMPERATURE, TOP_P = Number(0, 5), Number(0, 1, min_open=True)


def drawing_options(about: str) -> Callable[[F], F]:
    """Both options, for the help's ``about``."""

    def add(function: F) -> F:
        nucleus = click.option("--top-p", type=TOP_P, help="The nucleus that is drawn from, beside a temperature.")
        return click.option("--temperature", type=TEMPERATURE, help=about)(nucleus(function))

    return add
