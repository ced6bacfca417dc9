"""``llmpatch deactivate``: take a patch out of what is active."""

from __future__ import annotations

from typing import Any

import click

from llmpatch._cli.gating import gate_options
from llmpatch._cli.stored import json_option, open_head, reason_option, say_done


@click.command(name="deactivate")
@click.argument("patch")
@gate_options
@reason_option
@json_option
def command(patch: str, skip_gate: bool, reason: str, as_json: bool, **options: Any) -> None:
    """Take a patch out of what is active. It stays installed.

    PATCH is VENDOR/SLUG, VENDOR/SLUG@RANGE or the start of a digest. Patches that were active with it stay so if they passed
    the gate without it, here before or now (--base).
    """
    from llmpatch._cli.gating import open_gate
    from llmpatch.store import deactivate, default_store, pick

    gate = open_gate(**options, skip_gate=skip_gate)
    store = default_store()
    entry = pick(open_head(store).state, patch, active_only=True)
    say_done(deactivate(store, entry.digest, gate=gate, skip_gate=skip_gate, reason=reason), as_json)
