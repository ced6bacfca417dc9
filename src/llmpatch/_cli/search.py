"""``llmpatch search``: what the configured registries offer."""

from __future__ import annotations

import click

from llmpatch._cli.output import say, say_json, table, warn
from llmpatch._cli.stored import json_option, offline_option, registry_option


@click.command(name="search")
@click.argument("term", default="")
@registry_option
@offline_option
@json_option
def command(term: str, registry: str | None, offline: bool, as_json: bool) -> None:
    """List patches whose name, summary, base or advisories contain TERM; all without it."""
    from llmpatch.registry import search

    choices, notes = search(term, registry=registry, offline=offline)
    for text in notes:
        warn(text)
    if as_json:
        found = [
            {**choice.offer.model_dump(mode="json", exclude={"schema_"}), "registry": choice.found.registry.name}
            for choice in choices
        ]
        say_json({"patches": found, "left_out": notes})
        return
    rows = [
        [c.offer.name, c.offer.version, c.offer.base, ", ".join(c.offer.fixes), c.found.registry.name, c.offer.summary]
        for c in choices
    ]
    say(table(["name", "version", "base", "fixes", "registry", "summary"], rows) if rows else "nothing found")
