"""``llmpatch compose``: several patches as one, in a stated or the best order, measured as what they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpatch._cli.opening import check_revision
from llmpatch._cli.output import note, say, say_json, table

if TYPE_CHECKING:
    from llmpatch.artifact import Patch
    from llmpatch.artifact.composition import Record
    from llmpatch.composing import Stack

FILE = click.Path(path_type=Path)


@click.command(name="compose")
@click.argument("patches", metavar="PATCH...", nargs=-1, required=True)
@click.option(
    "-o", "--out", type=FILE, help="The patch folder to write. Without it nothing is written but the run folder."
)
@click.option("--base", help="The base; by default the one the patches name.")
@click.option("--revision", help="Branch, tag or commit, for a base from the Hugging Face hub.")
@click.option("--search", is_flag=True, help="Measure other orders, too: all up to 4 patches, a sample beyond.")
@click.option("--parallel", is_flag=True, help="Side by side: none reads another, and order makes no difference.")
@click.option("--name", default="", help="VENDOR/SLUG of the new patch; by default made of its members' names.")
@click.option("--version", default="1.0.0", show_default=True, help="Its version.")
@click.option("--summary", default="", help="One sentence on it.")
@click.option(
    "--prompts", "files", multiple=True, metavar="RISK=FILE",
    help="Your own prompts of a risk in its suite's place, as for `llmpatch eval`. Repeatable.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="Only the first N prompts of each set: quick, wider intervals.")
@click.option("--samples", type=click.IntRange(1, 1000), help="Continuations per prompt, for texts to be continued.")
@click.option("--allow-loss", is_flag=True, help="Go on although a patch loses its gain. Recorded in the evidence.")
@click.option("--remember", is_flag=True, help="Keep what was measured in the store: it refuses what was seen to lose.")
@click.option("--overwrite", is_flag=True, help="Replace a patch in the folder.")
@click.option("--run", type=FILE, default=Path("runs/compose"), show_default=True,
              help="Folder of kept answers and of all that was measured: repeating costs nothing.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Check the patches against each other, load no model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    patches: tuple[str, ...],
    out: Path | None,
    base: str | None,
    revision: str | None,
    search: bool,
    parallel: bool,
    name: str,
    version: str,
    summary: str,
    files: tuple[str, ...],
    limit: int | None,
    samples: int | None,
    allow_loss: bool,
    remember: bool,
    overwrite: bool,
    run: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put patches one after another in the order given, or side by side, and measure each one's risk on the whole.

    Exit code 3, and no patch, if one of them loses more of its gain than chance explains. The order matters: --search
    measures the others and says whether the difference is more than noise. With --parallel there is none, and each patch
    keeps more; other engines do not read such a patch. docs/composition.md explains it.

    \b
    llmpatch compose acme/refusal acme/toxicity -o both --limit 100
    llmpatch compose acme/refusal acme/toxicity acme/gender-bias --parallel -o three
    llmpatch compose acme/refusal acme/toxicity acme/gender-bias --search
    """
    from llmpatch.composing import Naming, compose, look, make_stack
    from llmpatch.errors import UsageError
    from llmpatch.store import load_patch

    if parallel and (search or remember):
        raise UsageError(
            "side by side there is no order to search for or to remember", hint="leave --search and --remember out"
        )
    check_revision(base, revision)
    naming = Naming(name, version, summary)
    if not out and (naming != Naming() or overwrite):
        raise UsageError(
            "--name, --version, --summary and --overwrite are of a patch to be written", hint="add --out DIR"
        )
    stack = make_stack([load_patch(found) for found in patches], parallel=parallel)
    if dry_run:
        _say_plan(stack, as_json)
        return
    from llmpatch.bases import load_base
    from llmpatch.errors import GateError
    from llmpatch.files import alone_in
    from llmpatch.progress import console

    measuring: dict[str, Any] = {
        "base": load_base(base, revision) if base else None, "search": search, "parallel": parallel,
        "prompts": _by_risk(files), "limit": limit, "samples": samples, "allow_loss": allow_loss, "run": run,
        "progress": console(),
    }  # fmt: skip
    made: Patch | None = None
    with alone_in(run):  # what is said is read from there
        try:
            if out:
                made = compose(stack.patches, out, naming=naming, overwrite=overwrite, **measuring)
            else:
                look(stack.patches, **measuring)
        except GateError:
            _say_measured(run, search, remember, as_json)
            raise
        _say_measured(run, search, remember, as_json, {"patch": str(out), "digest": made.digest} if made else {})
    if made and not as_json:
        say(f"\npatch: {out}  (sha256 {made.digest})")


def _by_risk(texts: tuple[str, ...]) -> dict[str, list[Path]]:
    from llmpatch.errors import UsageError

    found: dict[str, list[Path]] = {}
    for text in texts:
        risk, sign, path = text.partition("=")
        if not sign or not risk or not path:
            raise UsageError(f"--prompts {text[:128]!r} is not RISK=FILE", hint="as --prompts refusal=mine.jsonl")
        found.setdefault(risk, []).append(Path(path))
    return found


def _say_plan(stack: Stack, as_json: bool) -> None:
    rows = [{"name": m.name, "version": m.version, "digest": m.digest, "tokens": m.tokens} for m in stack.members]
    if as_json:
        say_json({"members": rows, "tokens": stack.places, "stack": stack.digest, "parallel": stack.parallel})
        return
    say(table(["patch", "tokens"], [[f"{row['name']} {row['version']}", str(row["tokens"])] for row in rows]))
    how = "side by side" if stack.parallel else "one after another"
    say(f"{how} {stack.places} virtual tokens; nothing was measured")


def _say_measured(run: Path, search: bool, remember: bool, as_json: bool, done: dict[str, Any] | None = None) -> None:
    """What the run folder holds now: the matrix of orders, and what each patch keeps in the order taken."""
    import json

    from llmpatch.artifact.composition import MAX_RECORD_BYTES, parse_record
    from llmpatch.files import read_bytes

    path = run / "composition.json"
    record = parse_record(read_bytes(path, limit=MAX_RECORD_BYTES), where=str(path))
    matrix = json.loads((run / "orders.json").read_text(encoding="utf-8")) if search else None
    if remember:
        from llmpatch.store import default_store, keep_record

        note(f"kept in the store as {keep_record(default_store(), record)[:16]}")
    if as_json:
        found = record.model_dump(mode="json", by_alias=True, exclude_none=True)
        say_json({**(done or {}), "composition": found, **({"orders": matrix} if matrix else {})})
        return
    if matrix:
        from llmpatch.composing import order_table

        say(order_table(matrix) + f"\n\n{matrix['says']}\n")
    say(_table(record))


def _table(record: Record) -> str:
    def share(value: float) -> str:
        return f"{value:.3f}"

    rows = []
    for figure in record.measured[0].figures:
        kept = figure.kept
        rows.append([
            record.title(figure.patch), figure.metric, str(figure.change.n), share(figure.before), share(figure.alone),
            share(figure.together),
            f"{100 * kept.value:.1f} % [{100 * kept.low:.1f}, {100 * kept.high:.1f}]" if kept else "-",
            "LOST" if figure.hurt else "",
        ])  # fmt: skip
    head = ["patch", "measure, more is better", "n", "base", "alone", "together", "gain kept", ""]
    return table(head, rows)
