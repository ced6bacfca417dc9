"""``llmpatch keys``: make a key to sign with; see what a key is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmpatch._cli.output import note, say, say_json, table

if TYPE_CHECKING:
    from llmpatch.signing import PublicKey

FILE = click.Path(path_type=Path)


@click.group(name="keys")
def command() -> None:
    """Make keys to sign patches with, and see what they are called."""


@command.command(name="generate")
@click.option("--out", "-o", required=True, type=FILE, help="The private key. Its public half becomes NAME.pub.pem.")
@click.option("--curve", type=click.Choice(["P-256", "P-384", "P-521"]), default="P-256", show_default=True)
@click.option("--no-password", is_flag=True, help="Do not encrypt it: only file mode 0600 protects it.")
def generate(out: Path, curve: str, no_password: bool) -> None:
    """Make a key pair.

    The private key is encrypted with the password in LLMPATCH_KEY_PASSWORD, else one that is asked for. A file that is
    there is never overwritten. Keep the private key offline; give the public one away.
    """
    from llmpatch._cli.password import ask_password
    from llmpatch.signing import generate_key, write_key

    password = None if no_password else ask_password(out, confirm=True)
    public_path, public = write_key(out, generate_key(curve), password)
    say(f"private key: {out} ({'not encrypted' if password is None else 'encrypted'}, mode 0600)")
    say(f"public key:  {public_path}")
    say(f"id:          {public.id} ({public.curve})")


@command.command(name="show")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option(
    "--trust",
    "patterns",
    multiple=True,
    help="Print a trust policy in which these keys may publish this name, as 'acme/*'. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(files: tuple[Path, ...], patterns: tuple[str, ...], as_json: bool) -> None:
    """Show the id and the curve of public keys.

    The id is the sha256 of the key in PEM: compare it with what the vendor publishes elsewhere before you trust it.
    """
    from llmpatch.signing import load_public_key, make_trust

    keys = [load_public_key(path) for path in files]
    if patterns:
        vendor = {"name": patterns[0].partition("/")[0] or "vendor", "patches": list(patterns), "keys": _pems(keys)}
        policy = {"schema": "llmpatch/trust/v1", "vendors": [vendor]}
        make_trust(policy, where="--trust")
        say_json(policy)
    elif as_json:
        say_json([{"id": key.id, "curve": key.curve, "pem": key.pem} for key in keys])
    else:
        say(
            table(
                ["id", "curve", "file"], [[key.id, key.curve, str(path)] for key, path in zip(keys, files, strict=True)]
            )
        )
        note("note: compare the id with what the vendor says over another channel")


def _pems(keys: list[PublicKey]) -> list[str]:
    return [key.pem for key in keys]
