"""The password of a private key: from the environment, else asked for without showing it.

    password = ask_password(Path("acme.pem"), confirm=True)

There is no option for it, since other users of a machine can read a command's arguments.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmpatch.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

VARIABLE = "LLMPATCH_KEY_PASSWORD"


def ask_password(path: Path, *, confirm: bool = False) -> bytes:
    """The password for a key.

    Args:
        path: The key, for the question.
        confirm: Ask twice, for a new one.

    Raises:
        UsageError: it is empty, or there is no terminal to ask on.
    """
    found = os.environ.get(VARIABLE)
    if found is None and sys.stdin.isatty():
        found = click.prompt(f"Password of {path}", hide_input=True, confirmation_prompt=confirm, err=True)
    if not found:
        raise UsageError(
            f"no password for {path}", hint=f"set {VARIABLE}, or ask for a key without one (--no-password)"
        )
    return str(found).encode("utf-8")


def open_keys(paths: Iterable[Path]) -> list[ec.EllipticCurvePrivateKey]:
    """Private keys, with their passwords asked for where they have one.

    Raises:
        UsageError: no such file, no private key, no password.
        TrustError: a wrong password.
    """
    from llmpatch.files import read_bytes
    from llmpatch.signing import load_private_key
    from llmpatch.signing.keys import MAX_KEY_BYTES, is_encrypted

    found = []
    for path in paths:
        encrypted = is_encrypted(read_bytes(path, limit=MAX_KEY_BYTES))
        found.append(load_private_key(path, ask_password(path) if encrypted else None))
    return found
