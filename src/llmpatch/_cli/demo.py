"""``llmpatch demo``: the main job from end to end, small."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from llmpatch._cli.output import note, say, warn

RECIPE = Path("recipes/demo.yaml")
RUN = Path("runs/demo")
OFFICIAL = Path("patches/smollm2/refusal")


@click.command(name="demo")
def command() -> None:
    """Build a small real patch and show what changed.

    Runs recipes/demo.yaml in the current folder (the repository) into runs/demo. Interrupted, it goes on where it was.
    """
    from llmpatch._cli.evidence_view import example_blocks, price_lines, results_table, worse_lines
    from llmpatch.building import build
    from llmpatch.errors import UsageError
    from llmpatch.progress import console
    from llmpatch.recipe import load_recipe

    if not RECIPE.is_file():
        raise UsageError(f"no {RECIPE} here", hint="run the demo in the llmpatch repository")
    recipe = load_recipe(RECIPE)
    note(f"Building {recipe.name} for {recipe.base.name} from {RECIPE} (a few minutes; Ctrl-C keeps what is done) ...")
    patch = build(recipe, RUN / "patch", run=RUN, progress=console(), overwrite=True)
    say("Before and after, with 95 % intervals:\n\n" + results_table(patch.evidence) + "\n")
    say("\n".join([*price_lines(patch.evidence), *worse_lines(patch.evidence)]))
    width = min(120, shutil.get_terminal_size().columns)
    for block in example_blocks(patch.evidence, width):
        say("\n" + block)
    say(f"\npatch:  {patch.path}\nreport: {RUN / 'report.html'}")
    say(f"try it: llmpatch chat --base {recipe.base.name} --patch {patch.path}")
    _compare_official()


def _compare_official() -> None:
    """Say that this patch is smaller than the official one, and what that one reaches."""
    from llmpatch._cli.evidence_view import results_table
    from llmpatch.artifact import read_patch
    from llmpatch.errors import LlmpatchError

    say("\nThis was a small training: fewer prompts and steps, and fewer test prompts, than the official patch.")
    if not OFFICIAL.is_dir():
        say(f"The official patch ({OFFICIAL}) is not in this folder.")
        return
    try:
        official = read_patch(OFFICIAL)
    except LlmpatchError as error:
        warn(f"the official patch cannot be read: {error.message}")
        return
    say(f"The official one, {official.path}, reaches:\n\n" + results_table(official.evidence, ("base", "patched")))
