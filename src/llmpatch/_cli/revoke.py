"""``llmpatch revoke``: never let a patch be active again."""

from __future__ import annotations

import click

from llmpatch._cli.stored import json_option, open_head, say_done


@click.command(name="revoke")
@click.argument("patch")
@click.option("--reason", required=True, help="Why: an advisory's id, what was found.")
@json_option
def command(patch: str, reason: str, as_json: bool) -> None:
    """Never let a patch be active again. Bases that use it fall back to their last good set, else to none.

    PATCH is VENDOR/SLUG@VERSION or the start of a digest of an installed patch, or a whole digest of any.
    """
    import re

    from llmpatch.store import default_store, pick, revoke

    store = default_store()
    state = open_head(store).state
    whole = re.fullmatch(r"[0-9a-f]{64}", patch) is not None
    say_done(revoke(store, patch if whole else pick(state, patch).digest, reason), as_json)
