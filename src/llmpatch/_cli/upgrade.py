"""``llmpatch upgrade``: move what is active to the newest installed version that its pin allows."""

from __future__ import annotations

from typing import Any

import click

from llmpatch._cli.gating import gate_options
from llmpatch._cli.output import one_line, say, say_json
from llmpatch._cli.stored import active_sets, json_option, open_head, reason_option, say_active


@click.command(name="upgrade")
@click.argument("names", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only say what would happen. Runs no gate.")
@gate_options
@reason_option
@json_option
def command(names: tuple[str, ...], dry_run: bool, skip_gate: bool, reason: str, as_json: bool, **options: Any) -> None:
    """Activate the newest installed version of every active patch, or only of NAMES, if the gate passes.

    Stays within pins. Does not return to what was rolled back. What is refused stays as it is, with the reason.
    """
    from llmpatch._cli.gating import open_gate
    from llmpatch.store import default_store, load, plan_upgrade, upgrade

    gate = open_gate(**options)
    store = default_store()
    state = open_head(store).state
    if dry_run:
        steps = plan_upgrade(store, state, names)
    else:
        steps = upgrade(store, names=names, gate=gate, skip_gate=skip_gate, reason=reason)
        state = load(store).state
    if as_json:
        found = [
            {"name": s.old.name, "from": s.old.version, "to": s.new.version, "why": s.why, "refused": s.refused,
             "done": s.done}
            for s in steps
        ]  # fmt: skip
        say_json({"dry_run": dry_run, "steps": found, "active": active_sets(state)})
        return
    if not steps:
        say("nothing newer is installed")
    for step in steps:
        word = "refused" if step.refused else "done" if step.done else "would be done" if dry_run else "not done"
        say(one_line(f"{step.old.name} {step.old.version} -> {step.new.version}: {word}: {step.why}"))
    say_active(state)
