"""``llmpatch gc``: take away patches that nothing needs any more."""

from __future__ import annotations

import click

from llmpatch._cli.output import one_line, say, say_json
from llmpatch._cli.stored import json_option, reason_option


@click.command(name="gc")
@click.option("--keep", type=click.IntRange(1), default=3, show_default=True,
              help="How many different active sets stay ready for a rollback, the present one counted.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@reason_option
@json_option
def command(keep: int, dry_run: bool, reason: str, as_json: bool) -> None:
    """Delete patches that are neither active, nor needed to roll back, nor pinned, and leftovers of interrupted work."""
    from llmpatch.store import collect, default_store

    found = collect(default_store(), keep=keep, dry_run=dry_run, reason=reason)
    if as_json:
        patches = [{"name": e.name, "version": e.version, "digest": e.digest} for e in found.patches]
        say_json({"dry_run": dry_run, "patches": patches, "leftovers": [str(p) for p in found.leftovers],
                  "bytes": found.size})  # fmt: skip
        return
    word = "would go" if dry_run else "gone"
    for entry in found.patches:
        say(one_line(f"{word}: {entry.name} {entry.version}, {entry.status}, {entry.digest[:16]}"))
    for path in found.leftovers:
        say(one_line(f"{word}: {path}"))
    say(f"{found.size:,} bytes {word}" if found.patches or found.leftovers else "everything here is needed")
