"""``llmpatch advisory``: draft an advisory from a patch's evidence; check advisories before they are published."""

from __future__ import annotations

from pathlib import Path

import click

from llmpatch._cli.output import note, one_line, say, say_json, table

FILE = click.Path(path_type=Path)


@click.group(name="advisory")
def command() -> None:
    """Draft and check advisories: OSV 1.7 records about gaps in bases and defects in patches."""


@command.command(name="new")
@click.argument("patch")
@click.option("--id", "ident", required=True, help="x_VENDOR-YYYY-NNNN, with the vendor of the patch in capitals.")
@click.option(
    "--defect", is_flag=True, help="About a defect of the patch, not about the gap in its base that it closes."
)
@click.option("--fixed", default="", metavar="VERSION", help="With --defect: the first version without it.")
@click.option("--revoke", is_flag=True, help="With --defect: ask that the patch never be active again.")
@click.option("--summary", default="", help="One sentence, instead of the one made from the evidence.")
@click.option("--out", "-o", type=FILE, help="A folder, which gets ID.json, or ID.json. By default it is printed.")
def new(patch: str, ident: str, defect: bool, fixed: str, revoke: bool, summary: str, out: Path | None) -> None:
    """Draft an advisory from a patch: its numbers and intervals are those of the patch's evidence.

    PATCH is a folder, a .lpatch, or a name. Read the draft, and add references and credits, before you publish it.
    """
    from llmpatch.advisories import draft_defect, draft_gap, render_advisory
    from llmpatch.errors import UsageError
    from llmpatch.files import write_bytes
    from llmpatch.store import load_patch

    if (fixed or revoke) and not defect:
        raise UsageError("--fixed and --revoke are about a defect of the patch", hint="add --defect")
    found = load_patch(patch)
    if defect:
        draft = draft_defect(found, ident, fixed=fixed, revoke=revoke, summary=summary)
    else:
        draft = draft_gap(found, ident, summary=summary)
    if out is None:
        say(render_advisory(draft).decode("utf-8").rstrip())
        return
    path = out if out.suffix == ".json" and not out.is_dir() else out / f"{draft.id}.json"
    if path.name != f"{draft.id}.json":
        raise UsageError(f"{path} would hold {draft.id}", hint=f"an advisory is named by its id: {draft.id}.json")
    if path.exists():
        raise UsageError(f"{path} is there already", hint="choose another id or folder: ids are used once")
    write_bytes(path, render_advisory(draft))
    note(one_line(f"{path}: {draft.summary}"))


@command.command(name="check")
@click.argument("path", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(path: Path, as_json: bool) -> None:
    """Check an advisory, or a folder of them, and say what they are about. Exit code 6: one is none."""
    from llmpatch.advisories import load_advisories, load_advisory

    found = load_advisories(path) if path.is_dir() else (load_advisory(path),)
    rows = [
        [
            advisory.id,
            "withdrawn" if advisory.withdrawn else advisory.modified,
            ", ".join(
                [
                    *(entry.database_specific.base.name for entry in advisory.gaps),
                    *(entry.database_specific.patch for entry in advisory.defects),
                ]
            ),
            "gap"
            if advisory.gaps
            else "revokes"
            if any(e.database_specific.revoke for e in advisory.defects)
            else "defect",
            advisory.summary,
        ]
        for advisory in found
    ]
    head = ["id", "modified", "about", "kind", "summary"]
    if as_json:
        say_json([dict(zip(head, row, strict=True)) for row in rows])
        return
    say(table(head, rows) if rows else "no advisories")
