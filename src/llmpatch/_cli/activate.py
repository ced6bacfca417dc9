"""``llmpatch activate``: put an installed patch in front of everything its base reads."""

from __future__ import annotations

from typing import Any

import click

from llmpatch._cli.gating import gate_options
from llmpatch._cli.stored import json_option, open_head, reason_option, say_done


@click.command(name="activate")
@click.argument("patch")
@gate_options
@click.option("--downgrade", is_flag=True, help="Allow a version below the highest that was ever active.")
@reason_option
@json_option
def command(patch: str, skip_gate: bool, downgrade: bool, reason: str, as_json: bool, **options: Any) -> None:
    """Make an installed patch active on its base, if the gate passes.

    PATCH is VENDOR/SLUG, VENDOR/SLUG@RANGE or the start of a digest. A set that passed here before needs no --base.
    What a key signed that $LLMPATCH_HOME/trust.json revokes is refused (exit code 4).
    """
    from llmpatch._cli.gating import open_gate
    from llmpatch._cli.verify import revoked_keys
    from llmpatch.store import activate, default_store, pick

    gate = open_gate(**options, skip_gate=skip_gate)
    store = default_store()
    entry = pick(open_head(store).state, patch)
    done = activate(
        store, entry.digest, gate=gate, skip_gate=skip_gate, downgrade=downgrade, revoked_keys=revoked_keys(),
        reason=reason,
    )  # fmt: skip
    say_done(done, as_json)
