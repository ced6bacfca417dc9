"""``llmpatch pin``: keep a patch within a range of versions."""

from __future__ import annotations

import click

from llmpatch._cli.output import one_line, say, say_json
from llmpatch._cli.stored import json_option, open_head, reason_option


@click.command(name="pin")
@click.argument("name", required=False)
@click.argument("versions", required=False)
@click.option("--remove", is_flag=True, help="Take the pin of NAME away.")
@reason_option
@json_option
def command(name: str | None, versions: str | None, remove: bool, reason: str, as_json: bool) -> None:
    """Keep upgrades of NAME within VERSIONS, as '>=1.2,<2', and its patches from `gc`. Without arguments, list pins."""
    from llmpatch.errors import UsageError
    from llmpatch.store import default_store, pin
    from llmpatch.versions import parse_request

    store = default_store()
    if name is None and (remove or reason):
        raise UsageError(
            "--remove and --reason are of a pin, and none is named", hint="llmpatch pin VENDOR/SLUG --remove"
        )
    if name is not None:
        if remove == (versions is not None):
            raise UsageError("give a range, or --remove", hint="llmpatch pin VENDOR/SLUG '>=1.2,<2'")
        request = parse_request(name)
        if request.range is not None:
            raise UsageError(
                f"{name} names a range already", hint=f"llmpatch pin {request.name} '{request.range.text}'"
            )
        pin(store, request.name, versions, reason=reason)
    pins = open_head(store).state.pins
    if as_json:
        say_json({"pins": pins})
        return
    for key, value in sorted(pins.items()):
        say(one_line(f"{key} {value}"))
    if not pins:
        say("nothing is pinned")
