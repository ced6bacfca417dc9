"""``llmpatch install``: verify a patch, keep it in the store, gate it on your base, make it active."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from llmpatch._cli.installing import install_options, open_verify
from llmpatch._cli.output import note, one_line, say, say_json


@click.command(name="install")
@click.argument("source")
@install_options
def command(
    source: str,
    trust_file: Path | None,
    key_files: tuple[Path, ...],
    allow_unsigned: bool,
    registry: str | None,
    offline: bool,
    no_activate: bool,
    skip_gate: bool,
    reason: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Verify a patch and keep it, run the gate on your base, and make it active there.

    SOURCE is a folder, a .lpatch, or FOLDER/SLUG below ./patches; VENDOR/SLUG or VENDOR/SLUG@RANGE in a registry
    (docs/registry.md); or hf://ORG/REPO@REVISION on the Hugging Face Hub. If the gate does not pass (exit code 3), the patch
    is kept and what was active stays active. docs/store.md explains the store.
    """
    from llmpatch._cli.gating import open_gate
    from llmpatch._cli.stored import active_sets, say_active
    from llmpatch._cli.verify import revoked_keys
    from llmpatch.errors import UsageError
    from llmpatch.registry import install_from
    from llmpatch.store import activate, default_store, load

    gate = open_gate(**options, skip_gate=skip_gate, no_activate=no_activate)
    if gate is None and not (skip_gate or no_activate):
        raise UsageError(
            "the gate needs a base to run on", hint="--base BASE; or --no-activate; or --skip-gate, which is recorded"
        )
    verify = open_verify(trust_file, key_files, allow_unsigned)
    store = default_store()
    entry = install_from(store, source, verify, registry=registry, offline=offline, reason=reason)
    if not as_json:
        signed = f"signed by key {entry.signer[:16]}" if entry.signer else "nobody's signature was checked"
        note(one_line(f"installed {entry.name} {entry.version}, {signed}, in {store.folder(entry.digest)}"))
    done = None
    if not no_activate:
        lost = revoked_keys(trust_file, key_files)
        done = activate(store, entry.digest, gate=gate, skip_gate=skip_gate, revoked_keys=lost, reason=reason)
    state = done.generation.state if done else load(store).state
    why = done.why if done else f"{entry.name} {entry.version} is kept, not active"
    if as_json:
        found = state.entry(entry.digest) or entry
        say_json({"installed": found.model_dump(), "why": why, "active": active_sets(state)})
        return
    say(one_line(why))
    say_active(state)
