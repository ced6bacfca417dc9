"""``llmpatch unpack``: a ``.lpatch`` as a folder, which PEFT loads too."""

from __future__ import annotations

from pathlib import Path

import click

from llmpatch._cli.output import say

FILE = click.Path(path_type=Path)


@click.command(name="unpack")
@click.argument("patch")
@click.option(
    "--out", "-o", required=True, type=FILE, help="The folder to write: new, empty, or a patch to --overwrite."
)
@click.option("--overwrite", is_flag=True, help="Replace a patch that is there.")
def command(patch: str, out: Path, overwrite: bool) -> None:
    """Write a .lpatch as a folder: its files and its signature, all of them or nothing.

    It is checked first. The folder is a PEFT prompt-tuning adapter, unless its members stand side by side.
    """
    from llmpatch.artifact import find_patch, parse_patch, read_contents, write_members

    path = find_patch(patch)
    contents = read_contents(path)
    found = parse_patch(contents.files, path)
    write_members(out, contents.members, overwrite=overwrite)
    say(f"{out}: {found.manifest.name} {found.manifest.version}, digest {found.digest}")
