"""``llmpatch list``: what is installed, what is active, and what let it be."""

from __future__ import annotations

import click

from llmpatch._cli.output import say, say_json, table
from llmpatch._cli.stored import active_sets, json_option, open_head, say_active


@click.command(name="list")
@json_option
def command(as_json: bool) -> None:
    """List installed patches, and what is active on which base."""
    from llmpatch.store import default_store

    store = default_store()
    head = open_head(store)
    state = head.state
    if as_json:
        say_json(
            {
                "store": str(store.root),
                "generation": head.generation.number,
                "active": active_sets(state),
                "installed": [entry.model_dump() for entry in state.installed],
                "pins": state.pins,
                "high_water": state.high_water,
                "revoked": state.revoked,
                "damage": list(head.damage),
            }
        )
        return
    rows = [
        [e.name, e.version, e.base, e.status, state.pins.get(e.name, "-"), (e.signer or "unsigned")[:16], e.digest[:16]]
        for e in sorted(state.installed, key=lambda e: (e.name, e.installed))
    ]
    if rows:
        say(table(["name", "version", "base", "status", "pin", "signer", "digest"], rows) + "\n")
    say_active(state)
