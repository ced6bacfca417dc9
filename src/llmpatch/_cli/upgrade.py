"""``llmpatch upgrade``: move what is active to the newest version, here or in a registry, that its pin allows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpatch._cli.gating import gate_options
from llmpatch._cli.output import note, one_line, say, say_json, warn
from llmpatch._cli.stored import active_sets, json_option, open_head, reason_option, registry_option, say_active
from llmpatch._cli.verify import trust_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmpatch.errors import LlmpatchError
    from llmpatch.registry import Choice


@click.command(name="upgrade")
@click.argument("names", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only say what would happen. Runs no gate.")
@trust_options
@registry_option
@click.option("--offline", is_flag=True, help="Ask no registry: only what is installed already.")
@gate_options
@reason_option
@json_option
def command(
    names: tuple[str, ...],
    dry_run: bool,
    trust_file: Path | None,
    key_files: tuple[Path, ...],
    registry: str | None,
    offline: bool,
    skip_gate: bool,
    reason: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Fetch newer versions of what is active, or only of NAMES, and activate them if the gate passes.

    The configured registries are asked, and your trust policy decides; what a key signed that it revokes is refused.
    Stays within pins. Does not return to what was rolled back. What is refused stays as it is, with the reason; what cannot be
    fetched, is not trusted, does not pass the gate or is for another base than --base keeps no other away, and ends the command
    with its exit code.
    """
    from llmpatch._cli.gating import open_gate
    from llmpatch._cli.verify import open_trust, revoked_keys
    from llmpatch.errors import LlmpatchError, UsageError
    from llmpatch.registry import load_registries
    from llmpatch.store import default_store, load, plan_upgrade, signed_by, upgrade

    if offline and registry:
        raise UsageError(f"--offline asks no registry, and --registry {registry} one", hint="leave one of them out")
    gate = open_gate(**options, skip_gate=skip_gate)
    store = default_store()
    lost = revoked_keys(trust_file, key_files)
    state = open_head(store).state
    active = [entry.name for entry in state.installed if entry.digest in state.active_digests]
    if strangers := [name for name in names if name not in active]:
        raise UsageError(
            f"{strangers[0]} is not active; active: {', '.join(active) or 'none'}",
            hint="name patches as VENDOR/SLUG, without a version",
        )
    offered: list[Choice] = []
    failed: list[LlmpatchError] = []
    if not offline and (registry or load_registries()):
        from llmpatch.registry import newer, take

        offered, notes = newer(state, names, registry=registry)
        for left_out in notes:
            warn(one_line(left_out))
        if offered and not dry_run:
            verify = signed_by(open_trust(trust_file, key_files))
            for choice in offered:
                try:
                    entry = take(store, choice, verify, reason=reason)
                except LlmpatchError as error:  # one vendor's trouble keeps no other's mend away
                    failed.append(error)
                    warn(one_line(f"{choice.offer.name} {choice.offer.version} of {choice.origin}: {error.message}"))
                    continue
                note(one_line(f"fetched {entry.name} {entry.version} from {choice.origin}"))
    if dry_run:
        steps = plan_upgrade(store, state, names, revoked_keys=lost)
    else:
        steps = upgrade(store, names=names, gate=gate, skip_gate=skip_gate, revoked_keys=lost, reason=reason)
        state = load(store).state
        failed += [step.error for step in steps if step.error]
    if as_json:
        found = [
            {"name": s.old.name, "from": s.old.version, "to": s.new.version, "why": s.why, "refused": s.refused,
             "done": s.done}
            for s in steps
        ]  # fmt: skip
        fetched = [{"name": c.offer.name, "version": c.offer.version, "from": c.origin} for c in offered]
        say_json({"dry_run": dry_run, "offered": fetched, "steps": found, "active": active_sets(state)})
        _end(failed)
        return
    for choice in offered if dry_run else ():
        say(one_line(f"{choice.offer.name} {choice.offer.version}: would be fetched from {choice.origin}"))
    if not steps and not (offered and dry_run):
        say("nothing newer is installed")
    for step in steps:
        word = "refused" if step.refused else "done" if step.done else "would be done" if dry_run else "not done"
        say(one_line(f"{step.old.name} {step.old.version} -> {step.new.version}: {word}: {step.why}"))
    say_active(state)
    _end(failed)


def _end(failed: Sequence[LlmpatchError]) -> None:
    """Fail for what could not be fetched or did not pass, after everything else was done."""
    if failed:
        raise failed[0]
