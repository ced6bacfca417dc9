"""``llmpatch history``: who changed the store, when and why."""

from __future__ import annotations

from itertools import islice

import click

from llmpatch._cli.output import say, say_json, table
from llmpatch._cli.stored import active_sets, json_option, open_head


@click.command(name="history")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, the newest first.")
@json_option
def command(limit: int, as_json: bool) -> None:
    """Show the generations of the store, the newest first."""
    from llmpatch.store import ancestors, default_store

    store = default_store()
    found = [g for g in islice(ancestors(store, open_head(store)), limit) if g.number]
    if as_json:
        kept = {"number", "parent", "time", "actor", "action", "reason", "restores"}
        say_json([g.model_dump(include=kept) | {"active": active_sets(g.state)} for g in found])
        return
    if not found:
        say("nothing has happened yet")
        return
    rows = []
    for generation in found:
        titles = [
            " + ".join(f"{patch['name']} {patch['version']}" for patch in group["patches"])
            + ("" if group["gate"]["result"] == "PASSED" else " (gate skipped)")
            for group in active_sets(generation.state)
        ]
        rows.append(
            [str(generation.number), generation.time, generation.actor, generation.reason, "; ".join(titles) or "-"]
        )
    say(table(["generation", "time", "who", "what", "active after it"], rows))
