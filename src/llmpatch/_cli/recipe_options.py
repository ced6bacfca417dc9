"""Options of the commands that read a recipe, and that recipe with its changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from llmpatch.recipe import Recipe

changes = click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe. Repeatable."
)
made_before = click.option(
    "--pairs", "pairs_from", type=click.Path(path_type=Path), help="A folder that `llmpatch pairs` made of this recipe."
)
less_memory = click.option(
    "--less-memory", is_flag=True, help="Keep one input per layer in a step, and compute the rest again."
)


def changed(recipe: Path, assignments: tuple[str, ...]) -> Recipe:
    """The recipe in a file with what ``--set`` changes (errors as :func:`llmpatch.recipe.load_recipe`)."""
    from llmpatch.recipe import load_recipe, override

    return override(load_recipe(recipe), list(assignments))
