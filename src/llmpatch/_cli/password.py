"""The password of a private key: from the environment, else asked for without showing it.

    password = ask_password(Path("acme.pem"), confirm=True)

There is no option for it, since other users of a machine can read a command's arguments.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from llmpatch.errors import UsageError

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
