"""``llmpatch rollback``: go back to what was active before."""

from __future__ import annotations

import click

from llmpatch._cli.stored import json_option, reason_option, say_done


@click.command(name="rollback")
@click.option("--to", type=click.IntRange(0), help="A generation's number (`llmpatch history`).")
@reason_option
@json_option
def command(to: int | None, reason: str, as_json: bool) -> None:
    """Undo the last change of what is active; again, the one before. No gate is run, no model is loaded.

    Never goes back to a revoked patch. Pins and revocations stay as they are.
    """
    from llmpatch.store import default_store, rollback

    say_done(rollback(default_store(), to=to, reason=reason), as_json)
