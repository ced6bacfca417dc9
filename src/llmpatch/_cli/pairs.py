"""``llmpatch pairs``: the pairs of a recipe by themselves, for more prompts than one process or one machine should take."""

from __future__ import annotations

from pathlib import Path

import click

from llmpatch._cli.output import say, say_json
from llmpatch._cli.recipe_options import changed, changes


@click.command(name="pairs")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder for pairs and answers.")
@click.option("--workers", default=1, type=click.IntRange(1, 4096), help="Processes side by side.  [default: 1]")
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Run the workers on a Ray cluster that sees the same files: auto, ray://HOST:10001, or local to start one here.",
)
@click.option("--chunk", default=512, type=click.IntRange(1), help="Prompts in memory at once.  [default: 512]")
@changes
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    recipe: Path,
    out: Path,
    workers: int,
    ray: str | None,
    chunk: int,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Ask, score and pair all prompts of a recipe, in chunks, and stop there.

    Memory does not grow with the prompts. An interrupted run goes on where it was when the same command runs again.

    \b
    llmpatch pairs recipes/smollm2-refusal.yaml -o pairs --workers 2
    llmpatch build recipes/smollm2-refusal.yaml -o my-patch --pairs pairs
    """
    from llmpatch.pair_workers import make_pair_shards
    from llmpatch.progress import console

    wanted = changed(recipe, assignments)
    shards = make_pair_shards(wanted, out, size=chunk, workers=workers, ray=ray, progress=console())
    counts = shards.counts()
    if as_json:
        say_json({"pairs": str(out), "chunks": shards.chunks, "counts": counts})
        return
    for kind, found in counts.items():
        say(f"{kind}: {found['kept']:,} pairs, {found['dropped']:,} prompts dropped")
    say(f"pairs: {out}, {shards.chunks:,} chunks")
