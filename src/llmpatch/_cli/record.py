"""``llmpatch record``: what the safer model says, in a file."""

from __future__ import annotations

from pathlib import Path

import click

from llmpatch._cli.output import say, say_json
from llmpatch._cli.recipe_options import changed, changes


@click.command(name="record")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--prompts", "files", multiple=True, required=True, type=click.Path(path_type=Path),
              help="JSON Lines with `prompt`. Repeatable.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The JSON Lines to write.")
@changes
@click.option("--samples", type=click.IntRange(1, 1024), default=1, show_default=True, help="Answers per prompt.")
@click.option("--run", type=click.Path(path_type=Path), default=Path("runs/record"), show_default=True,
              help="Folder of kept answers: repeating or continuing costs nothing.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the provenance as JSON.")
def command(
    recipe: Path,
    files: tuple[Path, ...],
    out: Path,
    assignments: tuple[str, ...],
    samples: int,
    run: Path,
    as_json: bool,
) -> None:
    """Ask the reference of a recipe, and keep its answers in a file.

    With the file (`reference: {kind: recorded, path: FILE}`) a recipe needs neither the model nor the endpoint. Its
    provenance is written beside it.

    \b
    llmpatch record recipes/smollm2-refusal.yaml --prompts mine.jsonl --out said.jsonl \\
        --set 'reference={kind: gguf, model: qwen2.5-coder-1.5b}' --set decoding.max_new_tokens=48
    """
    from llmpatch._cli.answer_file import check_out
    from llmpatch.errors import UsageError
    from llmpatch.progress import console
    from llmpatch.prompts import load_prompts
    from llmpatch.references import open_reference
    from llmpatch.references.recording import record

    wanted = changed(recipe, assignments)
    if samples > 1 and wanted.decoding.temperature == 0:
        raise UsageError("greedy samples are all the same", hint="add --set decoding.temperature=1.0")
    check_out(out, recipe, wanted.reference.path, *files)
    provenance = record(
        lambda decoding: open_reference(wanted.reference, decoding),
        wanted.decoding,
        [prompt for path in files for prompt in load_prompts(path, "harmful")],
        out,
        sources=files,
        store=run,
        samples=samples,
        progress=console(),
    )
    say_json(provenance) if as_json else say(
        f"{provenance['rows']:,} answers in {out}  (sha256 {provenance['sha256']})"
    )
