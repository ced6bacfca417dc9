"""``llmpatch verify``: is every byte of a patch signed by somebody trusted for its name? Loads no model, no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llmpatch._cli.opening import find_own
from llmpatch._cli.output import one_line, say, say_json

if TYPE_CHECKING:
    from llmpatch.signing import Trust

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)


def trust_options(function: F) -> F:
    """``--trust`` and ``--key``, for :func:`open_trust`."""
    options = [
        click.option("--trust", "trust_file", type=FILE,
                     help="Whose signatures count (JSON). Without it and --key: $LLMPATCH_HOME/trust.json."),
        click.option("--key", "key_files", multiple=True, type=FILE,
                     help="A public key that may sign anything. Repeatable."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@click.command(name="verify")
@click.argument("patch")
@trust_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(patch: str, trust_file: Path | None, key_files: tuple[Path, ...], as_json: bool) -> None:
    """Verify who signed a patch, and that it is whole.

    PATCH is a folder, a .lpatch, or FOLDER/SLUG below ./patches. Exit code 4: not signed, or not by whom you trust for its
    name. Exit code 6: a file is not the one that was signed, or is damaged or foreign.
    """
    from llmpatch.signing import verify_patch

    trust = open_trust(trust_file, key_files)
    found = verify_patch(find_own(patch), trust)
    manifest = found.patch.manifest
    if as_json:
        say_json(
            {
                "name": manifest.name,
                "version": manifest.version,
                "digest": found.patch.digest,
                "vendor": found.vendor,
                "signer": found.signer,
                "countersigners": dict(found.countersigners),
                "files": dict(found.patch.files),
            }
        )
        return
    say(f"{manifest.name} {manifest.version}: verified")
    say(one_line(f"signed by {found.vendor}, key {found.signer}"))
    for group, key in found.countersigners.items():
        say(f"countersigned by {group}, key {key}")
    say(f"digest {found.patch.digest}")


def open_trust(trust_file: Path | None, key_files: tuple[Path, ...]) -> Trust:
    """The trust policy that the options name, else the usual one.

    Raises:
        UsageError: both options, or neither and no usual policy; a wrong policy or key.
    """
    from llmpatch.errors import UsageError
    from llmpatch.signing import load_public_key, load_trust, trust_key, usual_trust

    if trust_file and key_files:
        raise UsageError("--trust and --key are two answers to one question", hint="give one of them")
    if key_files:
        return trust_key(*(load_public_key(path) for path in key_files))
    if trust_file:
        return load_trust(trust_file)
    usual = usual_trust()
    if usual is None:
        raise UsageError(
            "whom do you trust? there is no --trust, no --key and no $LLMPATCH_HOME/trust.json",
            hint="`llmpatch keys show vendor.pub.pem --trust 'VENDOR/*' > trust.json` makes a policy",
        )
    return usual


def revoked_keys(trust_file: Path | None = None, key_files: tuple[Path, ...] = ()) -> tuple[str, ...]:
    """Ids of the keys that the policy of :func:`open_trust` revokes, or the usual one does: to name a key revives no other.

    None where there is no policy (errors as there).
    """
    from llmpatch.signing import usual_trust

    named = open_trust(trust_file, key_files) if trust_file or key_files else None
    return tuple({key: None for trust in (named, usual_trust()) if trust for key in trust.revoked})
