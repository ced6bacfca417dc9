"""``llmpatch pack``: a patch as one file."""

from __future__ import annotations

from pathlib import Path

import click

from llmpatch._cli.opening import find_own
from llmpatch._cli.output import say

FILE = click.Path(path_type=Path)


@click.command(name="pack")
@click.argument("patch")
@click.option("--out", "-o", required=True, type=FILE, help="The file to write; its name ends in .lpatch.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def command(patch: str, out: Path, overwrite: bool) -> None:
    """Put a patch and its signature into one .lpatch file.

    PATCH is a folder, or FOLDER/SLUG below ./patches. It is checked first. The same patch gives the same bytes. Everything
    that takes a patch folder takes a .lpatch too.
    """
    from llmpatch.artifact import ARCHIVE_SUFFIX, pack_members, parse_patch, read_contents
    from llmpatch.errors import UsageError
    from llmpatch.files import write_bytes

    if out.suffix != ARCHIVE_SUFFIX or out.is_dir():
        raise UsageError(
            f"{out} does not end in {ARCHIVE_SUFFIX}, or is a folder", hint=f"name a {ARCHIVE_SUFFIX} file"
        )
    path = find_own(patch)
    contents = read_contents(path)
    found = parse_patch(contents.files, path)
    if out.exists() and not overwrite:
        raise UsageError(f"{out} is there already", hint="choose another name, or --overwrite")
    data = pack_members(contents.members)
    write_bytes(out, data)
    signed = "signed" if contents.signature is not None else "not signed"
    say(f"{out}: {found.manifest.name} {found.manifest.version}, {len(data):,} bytes, {signed}")
    say(f"digest {found.digest}")
