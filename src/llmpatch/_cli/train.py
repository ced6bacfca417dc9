"""``llmpatch train``: the training of a recipe by itself, on many processes if torchrun starts them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from llmpatch._cli.output import say, say_json
from llmpatch._cli.recipe_options import changed, changes, less_memory, made_before


@click.command(name="train")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--run", required=True, type=click.Path(path_type=Path), help="Folder of answers, pairs and the checkpoint."
)
@made_before
@less_memory
@click.option("--shard", is_flag=True, help="Spread the layers of the base over the processes (FSDP2).")
@changes
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    recipe: Path,
    run: Path,
    pairs_from: Path | None,
    less_memory: bool,
    shard: bool,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a recipe's prefix into a run folder, and stop there.

    Started by torchrun, the processes share each step; they need the recipe's files and the run folder at the same paths.
    `llmpatch build` with the same recipe and --run finds the trained rows, measures them and writes the patch.

    \b
    torchrun --nproc-per-node 8 -m llmpatch train my-recipe.yaml \\
        --run runs/mine --pairs pairs --shard
    llmpatch build my-recipe.yaml --run runs/mine --pairs pairs -o my-patch
    """
    from llmpatch.bases import load_base
    from llmpatch.distributed import joined
    from llmpatch.errors import UsageError
    from llmpatch.files import alone_in
    from llmpatch.learning import gather, learn
    from llmpatch.progress import Silent, console

    if shard and less_memory:
        raise UsageError(
            "--shard gathers layers that --less-memory would compute again", hint="leave one of the two out"
        )
    wanted = changed(recipe, assignments)
    with joined(shard=shard) as split:
        material = gather(wanted, pairs_from)
        base = load_base(wanted.base.name, wanted.base.revision)
        shown = Silent() if split.rank else console()
        with nullcontext() if split.rank else alone_in(run):  # the others work where the first one may
            result, _ = learn(material, base, run, shown, split=split, recompute=less_memory)
        if split.rank:
            return
    if as_json:
        say_json(
            {"run": str(run), "best_at": result.best_at, "seconds": round(result.seconds, 1), "processes": split.count}
        )
        return
    shared = f"{split.count} process{'es' if split.count > 1 else ''}"
    say(f"trained: {run}, best at {result.best_at or 'the end'}, {result.seconds:,.0f} s of steps on {shared}")
