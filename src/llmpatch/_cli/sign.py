"""``llmpatch sign``: say with a key that a patch is yours, or that you have tested it."""

from __future__ import annotations

from pathlib import Path

import click

from llmpatch._cli.opening import find_own
from llmpatch._cli.output import say

FILE = click.Path(path_type=Path)


@click.command(name="sign")
@click.argument("patch")
@click.option("--key", "key_file", required=True, type=FILE, help="Your private key, in PEM.")
@click.option("--countersign", is_flag=True, help="Sign besides the vendor, into NAME.sig.d beside the patch.")
@click.option("--overwrite", is_flag=True, help="Replace the signature of another key.")
def command(patch: str, key_file: Path, countersign: bool, overwrite: bool) -> None:
    """Sign every file of a patch (OpenSSF Model Signing v1.0).

    PATCH is a folder, which gets a patch.sig, or a .lpatch, which gets it inside; or FOLDER/SLUG below ./patches. It is
    checked first. The password of an encrypted key is in LLMPATCH_KEY_PASSWORD, or is asked for.
    """
    from llmpatch._cli.password import open_keys
    from llmpatch.signing import sign_patch

    (key,) = open_keys([key_file])
    written, public = sign_patch(find_own(patch), key, countersign=countersign, overwrite=overwrite)
    say(f"{written}: signed by key {public.id} ({public.curve})")
