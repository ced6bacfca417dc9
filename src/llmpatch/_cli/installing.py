"""What ``llmpatch install`` and ``llmpatch lock install`` share: their options, and whose signature is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llmpatch._cli.gating import gate_options
from llmpatch._cli.stored import json_option, offline_option, reason_option, registry_option
from llmpatch._cli.verify import trust_options

if TYPE_CHECKING:
    from llmpatch.store import Verify

F = TypeVar("F", bound=Callable[..., Any])


def install_options(function: F) -> F:
    """Trust, registry, gate, and whether to activate at all."""
    options = [
        trust_options,
        click.option("--allow-unsigned", is_flag=True, help="Take what nobody signed, such as your own. Recorded."),
        registry_option,
        offline_option,
        click.option("--no-activate", is_flag=True, help="Only keep what is installed, to be activated later."),
        gate_options,
        reason_option,
        json_option,
    ]
    for option in reversed(options):
        function = option(function)
    return function


def open_verify(trust_file: Path | None, key_files: tuple[Path, ...], allow_unsigned: bool) -> Verify:
    """How a patch is verified before the store keeps it.

    Raises:
        UsageError: trust that cannot be read, or trust together with ``--allow-unsigned``.
    """
    from llmpatch._cli.verify import open_trust
    from llmpatch.errors import UsageError
    from llmpatch.store import signed_by, unsigned

    if not allow_unsigned:
        return signed_by(open_trust(trust_file, key_files))
    if trust_file or key_files:
        raise UsageError("--allow-unsigned looks at no signature", hint="leave --trust and --key out, or it")
    return unsigned
