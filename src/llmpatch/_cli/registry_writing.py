"""The half of ``llmpatch registry`` for those who run a registry or publish in one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llmpatch._cli.output import note, one_line, say, say_json
from llmpatch._cli.stored import json_option

if TYPE_CHECKING:
    from llmpatch.registry import Outcome

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)


def key_option(function: F) -> F:
    """``--key``."""
    text = "A private key. Repeatable: each signs what it may sign. The online key makes changes visible."
    return click.option("--key", "keys", multiple=True, type=FILE, help=text)(function)


@click.command(name="init")
@click.argument("folder", type=FILE)
@click.option("--root-key", "root_keys", multiple=True, required=True, type=FILE,
              help="A public key that decides who may do what. Repeatable. Keep the private one offline.")  # fmt: skip
@click.option("--online-key", required=True, type=FILE,
              help="The public key that says every few days that nothing newer is there.")  # fmt: skip
@click.option("--threshold", type=click.IntRange(1, 16), default=1, show_default=True,
              help="How many root keys must sign.")  # fmt: skip
@key_option
@json_option
def init(
    folder: Path, root_keys: tuple[Path, ...], online_key: Path, threshold: int, keys: tuple[Path, ...], as_json: bool
) -> None:
    """Make a registry in a new FOLDER, for any web server to serve.

    Give FOLDER/metadata/1.root.json to customers another way than by that server.
    """
    from llmpatch._cli.password import open_keys
    from llmpatch.registry import create
    from llmpatch.signing import load_public_key

    public = [load_public_key(path) for path in root_keys]
    made = create(
        folder, root_keys=public, online_key=load_public_key(online_key), threshold=threshold, keys=open_keys(keys)
    )
    say_outcome(folder, made, as_json)


@click.command(name="add-vendor")
@click.argument("folder", type=FILE)
@click.argument("vendor")
@click.option("--vendor-key", "vendor_keys", multiple=True, required=True, type=FILE,
              help="A public key of the vendor, any one of which signs. Repeatable.")  # fmt: skip
@key_option
@json_option
def add_vendor_(
    folder: Path, vendor: str, vendor_keys: tuple[Path, ...], keys: tuple[Path, ...], as_json: bool
) -> None:
    """Let VENDOR publish VENDOR/* in a registry, and nothing else. Takes root keys."""
    from llmpatch._cli.password import open_keys
    from llmpatch.registry import add_vendor
    from llmpatch.signing import load_public_key

    public = [load_public_key(path) for path in vendor_keys]
    say_outcome(folder, add_vendor(folder, vendor, public, keys=open_keys(keys)), as_json)


@click.command(name="publish")
@click.argument("registry", metavar="FOLDER|hf://ORG/REPO")
@click.argument("sources", nargs=-1, type=FILE)
@key_option
@click.option("--private", is_flag=True, help="On the Hugging Face Hub: make a private repository if there is none.")
@json_option
def publish_(registry: str, sources: tuple[Path, ...], keys: tuple[Path, ...], private: bool, as_json: bool) -> None:
    """Publish signed patches (folders or .lpatch) and advisories (ID.json) of one vendor.

    Takes the vendor's key. Nothing is visible before the online key has signed: give it too, or `registry refresh` later.
    Without SOURCES the vendor signs anew what it has published, as after its key was replaced.

    hf://ORG/REPO uploads one patch to the Hugging Face Hub (HF_TOKEN); that needs no key and knows no freshness.
    """
    if registry.startswith("hf://"):
        from llmpatch.registry.hub import push_one

        address = push_one(sources, registry, keys=bool(keys), private=private)
        say_json({"address": address}) if as_json else say(address)
        return
    from llmpatch._cli.password import open_keys
    from llmpatch.registry import publish

    say_outcome(Path(registry), publish(Path(registry), sources, keys=open_keys(keys)), as_json)


@click.command(name="withdraw")
@click.argument("folder", type=FILE)
@click.argument("target")
@key_option
@json_option
def withdraw_(folder: Path, target: str, keys: tuple[Path, ...], as_json: bool) -> None:
    """Offer a patch no longer. Takes the vendor's key.

    TARGET is VENDOR/SLUG@VERSION, or a path such as advisories/VENDOR/ID.json. What is installed stays: an advisory revokes.
    """
    from llmpatch._cli.password import open_keys
    from llmpatch.registry import withdraw

    say_outcome(folder, withdraw(folder, target, keys=open_keys(keys)), as_json)


@click.command(name="rotate")
@click.argument("folder", type=FILE)
@click.argument("role", metavar="root|online|VENDOR")
@click.option("--add", "add", multiple=True, type=FILE, help="A new public key. Repeatable.")
@click.option("--remove", "remove", multiple=True, type=FILE, help="A public key that counts no longer. Repeatable.")
@click.option("--threshold", type=click.IntRange(1, 16), help="For root: how many keys must sign from now on.")
@key_option
@json_option
def rotate_(
    folder: Path,
    role: str,
    add: tuple[Path, ...],
    remove: tuple[Path, ...],
    threshold: int | None,
    keys: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Replace keys. Takes root keys, and the online key (for `online` the new one) to make it visible.

    For a vendor give its new private key too, or let it publish anew. Clients follow by themselves.
    """
    from llmpatch._cli.password import open_keys
    from llmpatch.registry import rotate
    from llmpatch.signing import load_public_key

    new, old = [load_public_key(path) for path in add], [load_public_key(path).id for path in remove]
    made = rotate(folder, role, add=new, remove=old, threshold=threshold, keys=open_keys(keys))
    say_outcome(folder, made, as_json)


@click.command(name="refresh")
@click.argument("folder", type=FILE)
@click.option("--days", type=click.IntRange(1, 90), default=7, show_default=True,
              help="How long it holds; longer for mirrors that are carried.")  # fmt: skip
@key_option
@json_option
def refresh_(folder: Path, days: int, keys: tuple[Path, ...], as_json: bool) -> None:
    """Make visible what was published, and sign anew that it is the newest. Takes the online key.

    Run it every day. Roles that the other keys given may sign are signed anew once half of their year is over.
    """
    from llmpatch._cli.password import open_keys
    from llmpatch.registry import refresh

    say_outcome(folder, refresh(folder, keys=open_keys(keys), life=timedelta(days=days)), as_json)


@click.command(name="sign")
@click.argument("folder", type=FILE)
@key_option
@click.option("--dry-run", is_flag=True, help="Only say what the change is. Needs no key.")
@click.option("--seen", metavar="DIGEST", help="Sign only the draft of this digest, which --dry-run shows.")
@json_option
def sign_(folder: Path, keys: tuple[Path, ...], dry_run: bool, seen: str | None, as_json: bool) -> None:
    """Add your signature to a change that waits for more, on a copy of FOLDER where your key is.

    Look at what it changes first (--dry-run), and sign that (--seen): with your signature it counts, whatever it is.
    """
    from llmpatch._cli.password import open_keys
    from llmpatch.errors import IntegrityError
    from llmpatch.registry import cosign, drafted

    draft = drafted(folder)
    if dry_run and seen not in (None, draft.digest):
        raise IntegrityError(f"the draft is {draft.digest}, not {seen}", hint="look at it again: --dry-run")
    if dry_run and as_json:
        say_json({"changes": list(draft.changes), "digest": draft.digest})
        return
    for text in (*draft.changes, f"digest {draft.digest}"):
        say(one_line(text)) if dry_run else note(one_line(text))
    if dry_run:
        return
    # Without --seen what was just shown, which a password may have taken a while to be typed since.
    say_outcome(folder, cosign(folder, keys=open_keys(keys), seen=seen or draft.digest), as_json)


WRITING = (init, add_vendor_, publish_, withdraw_, rotate_, refresh_, sign_)


def say_outcome(folder: Path, made: Outcome, as_json: bool) -> None:
    """What was written, what waits, and whether clients see it."""
    expires = f"{made.expires:%Y-%m-%dT%H:%M:%SZ}" if made.expires else None
    if as_json:
        say_json(
            {"written": list(made.written), "waiting": list(made.waiting), "visible": made.visible, "expires": expires,
             "notes": list(made.notes)}
        )  # fmt: skip
        return
    say(one_line(f"{folder}: wrote {', '.join(made.written) or 'no new role'}"))
    for text in made.waiting:
        say(one_line(f"waiting: {text}"))
    say(f"visible, holds until {expires}" if made.visible else "not visible yet")
    for text in made.notes:
        note(one_line(f"note: {text}"))
    if made.waiting:
        note("note: llmpatch registry sign FOLDER --key KEY completes it")
    elif not made.visible:
        note("note: llmpatch registry refresh FOLDER --key ONLINE.pem makes it visible")
