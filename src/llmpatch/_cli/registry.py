"""``llmpatch registry``: which registries are asked for patches; and, for those who run one, how it is written."""

from __future__ import annotations

from pathlib import Path

import click

from llmpatch._cli.output import note, one_line, say, say_json, table, warn
from llmpatch._cli.registry_writing import WRITING
from llmpatch._cli.stored import json_option, offline_option, registry_option

FILE = click.Path(path_type=Path)


@click.group(name="registry")
def command() -> None:
    """Get patches from registries, or run one: a static folder for any web server (docs/registry.md)."""


for written in WRITING:
    command.add_command(written)


@command.command(name="add")
@click.argument("name")
@click.argument("url")
@click.option("--root", required=True, type=FILE,
              help="A root metadata file (N.root.json) that did not come from URL itself: all trust begins there.")  # fmt: skip
def add(name: str, url: str, root: Path) -> None:
    """Ask a registry for patches from now on.

    URL is http://, https:// or file://, or a folder such as a mirror. Nothing is fetched yet. The keys of your trust policy
    still decide whose patches are installed.
    """
    import hashlib

    from llmpatch.registry import add_registry

    made = add_registry(name, url, root)
    say(one_line(f"registry {made.name}: {made.url}"))
    say(f"root sha256 {hashlib.sha256(made.root).hexdigest()}")
    note("note: compare it with what the registry's owner says over another channel; then: llmpatch search")


@command.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the registries that are asked."""
    from llmpatch.registry import load_registries

    found = load_registries()
    if as_json:
        say_json([{"name": each.name, "url": each.url, "folder": str(each.folder)} for each in found])
    elif found:
        say(table(["name", "url"], [[each.name, each.url] for each in found]))
    else:
        say("no registry is configured")


@command.command(name="remove")
@click.argument("name")
def remove(name: str) -> None:
    """Ask a registry no longer, and forget its root and what was seen there. Installed patches stay."""
    from llmpatch.registry import remove_registry

    remove_registry(name)
    say(f"registry {name} is removed")


@command.command(name="fetch")
@click.argument("request", metavar="NAME[@RANGE]")
@click.option("--out", "-o", required=True, type=FILE, help="The file to write; its name ends in .lpatch.")
@registry_option
@offline_option
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
def fetch(request: str, out: Path, registry: str | None, offline: bool, overwrite: bool) -> None:
    """Download a patch without installing it, such as to test and countersign it first."""
    from llmpatch._cli.answer_file import check_out
    from llmpatch.errors import UsageError
    from llmpatch.registry import choose, save_offered

    check_out(out)
    if out.exists() and not overwrite:
        raise UsageError(f"{out} is there already", hint="another file, or --overwrite")
    choice = choose(request, registry=registry, offline=offline)
    save_offered(choice, out)
    say(one_line(f"{out}: {choice.offer.name} {choice.offer.version}, from {choice.origin}"))
    note("note: its signature was not looked at: llmpatch verify")


@command.command(name="advisories")
@click.option("--out", "-o", required=True, type=FILE, help="The folder to bring up to date.")
@registry_option
@offline_option
@json_option
def advisories(out: Path, registry: str | None, offline: bool, as_json: bool) -> None:
    """Bring a folder of advisories up to date, for `llmpatch audit --advisories`.

    Exit code 3: some could not be had, so an audit of the folder does not know them.
    """
    from llmpatch.errors import AuditError
    from llmpatch.registry import fetch_advisories

    fetched = fetch_advisories(out, registry=registry, offline=offline)
    for text in (*fetched.left_out, *fetched.strange):
        warn(text)
    if as_json:
        files = [str(path) for path in fetched.files]
        say_json({"files": files, "left_out": list(fetched.left_out), "strange": list(fetched.strange)})
    else:
        say(f"{out}: {len(fetched.files)} advisories")
    if fetched.left_out:
        raise AuditError(
            f"{out} is not whole: {len(fetched.left_out)} warnings say what was left out",
            hint="tell the registry or the vendor that they name; the other advisories are there",
        )


@command.command(name="mirror")
@click.argument("name")
@click.argument("folder", type=FILE)
def mirror_(name: str, folder: Path) -> None:
    """Copy the registry NAME into FOLDER, everything checked, for a site that cannot reach it.

    There: `llmpatch registry add NAME FOLDER --root ROOT.json`. Whoever carries the copy can change nothing. It holds until
    the date that is printed; then carry a newer one.
    """
    from llmpatch.registry import load_registry, mirror

    found = mirror(load_registry(name), folder)
    say(one_line(f"{folder}: {len(found.targets)} files of {len(found.vendors)} vendors"))
    say(f"holds until {found.expires:%Y-%m-%dT%H:%M:%SZ}")
