"""What the verbs of the store share: options, and how they say what holds now.

@reason_option
@json_option
def command(...): say_done(done, as_json)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llmpatch._cli.output import one_line, say, say_json, warn

if TYPE_CHECKING:
    from llmpatch.store import Done, Head, State, Store

F = TypeVar("F", bound=Callable[..., Any])


def reason_option(function: F) -> F:
    """``--reason``, for the history."""
    return click.option("--reason", default="", help="Why, for the history.")(function)


def json_option(function: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def registry_option(function: F) -> F:
    """``--registry``."""
    return click.option("--registry", help="Ask only this registry, by its configured name.")(function)


def offline_option(function: F) -> F:
    """``--offline``."""
    text = "Stay off the network: use what was fetched before, if it still holds."
    return click.option("--offline", is_flag=True, help=text)(function)


def open_head(store: Store) -> Head:
    """What the store holds; damage becomes a warning.

    Raises:
        IntegrityError: nothing in it is whole.
    """
    from llmpatch.store import load

    head = load(store)
    for text in head.damage:
        warn(f"{text}; `llmpatch doctor` explains")
    return head


def active_sets(state: State) -> list[dict[str, Any]]:
    """What is active, for JSON."""
    entries = {entry.digest: entry for entry in state.installed}
    return [
        {
            "base": group.base,
            "fingerprint": group.fingerprint.model_dump(),
            "patches": [{"name": entries[d].name, "version": entries[d].version, "digest": d} for d in group.patches],
            "gate": group.gate.model_dump(exclude_none=True),
        }
        for group in state.active
    ]


def say_active(state: State) -> None:
    """What is active, a line a base."""
    if not state.active:
        say("nothing is active")
    for group in active_sets(state):
        titles = ", then ".join(f"{patch['name']} {patch['version']}" for patch in group["patches"])
        gate = group["gate"]
        how = f"gate {gate['policy']} passed" if gate["result"] == "PASSED" else "gate SKIPPED"
        say(one_line(f"active on {group['base']}: {titles} ({how}, {gate['time']})"))


def say_done(done: Done, as_json: bool) -> None:
    """What an operation did and what is active now."""
    state = done.generation.state
    if as_json:
        head = {"changed": done.changed, "why": done.why, "generation": done.generation.number}
        say_json({**head, "active": active_sets(state)})
        return
    say(one_line(done.why if done.changed else f"nothing changed: {done.why}"))
    say_active(state)
