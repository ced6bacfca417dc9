"""``llmpatch build``: one recipe to one patch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from llmpatch._cli.output import say, say_json
from llmpatch._cli.recipe_options import changed, changes, less_memory, made_before


@click.command(name="build")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The patch folder to write.")
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    help="Folder for answers, pairs, checkpoints and the report.  [default: runs/NAME-OF-THE-RECIPE]",
)
@changes
@made_before
@less_memory
@click.option("--dry-run", is_flag=True, help="Check the recipe and its files, say what would be done, load no model.")
@click.option("--overwrite", is_flag=True, help="Replace a patch in the folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    recipe: Path,
    out: Path,
    run: Path | None,
    assignments: tuple[str, ...],
    pairs_from: Path | None,
    less_memory: bool,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Build a patch: sample, pair, train, measure, write.

    An interrupted build goes on where it was when the same command runs again. docs/recipes.md lists every key.

    \b
    llmpatch build recipes/smollm2-refusal.yaml -o my-patch
    llmpatch build recipes/demo.yaml -o my-patch --set training.sft.steps=50
    """
    from llmpatch._cli.evidence_view import price_lines, results_table, worse_lines
    from llmpatch.building import build, plan
    from llmpatch.progress import console

    wanted = changed(recipe, assignments)
    if dry_run:
        found = plan(wanted, pairs_from)
        say_json(found) if as_json else say("\n".join(_plan_lines(found)))
        return
    folder = run or Path("runs") / wanted.name.replace("/", "-")
    patch = build(
        wanted, out, run=folder, progress=console(), overwrite=overwrite, pairs_from=pairs_from, recompute=less_memory
    )
    if as_json:
        files = {"patch": str(out), "digest": patch.digest, "report": str(folder / "report.html")}
        say_json({**files, "results": patch.evidence.get("results"), "worse": patch.evidence.get("worse")})
        return
    say(results_table(patch.evidence))
    say("\n".join(["", *price_lines(patch.evidence), *worse_lines(patch.evidence)]))
    say(f"\npatch:  {out}  (sha256 {patch.digest})\nreport: {folder / 'report.html'}")


def _plan_lines(found: dict[str, Any]) -> list[str]:
    from llmpatch.bases import default_dtype

    cost = found["cost"]
    lines = [f"{key}: {value}" for key, value in found.items() if key != "cost"]
    if cost is None:
        return [*lines, "cost: not known before the base is loaded"]
    return [
        *lines,
        f"trains: {cost['parameters']:,} numbers, {100 * cost['share']:.2g} % of about {cost['model_parameters']:,}",
        f"needs: about {(cost['sampling_flops'] + cost['training_flops']) / 1e15:.3g} PFLOP before evaluation, and "
        f"{cost['memory_bytes'] / 2**30:.1f} GiB of memory in {default_dtype()}",
        f"takes: at best {cost['seconds_here'] / 60:,.0f} minutes at the speed just measured on this processor",
    ]
