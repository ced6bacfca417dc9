"""``llmpatch rollback``: go back to what was active before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llmpatch._cli.output import one_line, warn
from llmpatch._cli.stored import json_option, reason_option, say_done

if TYPE_CHECKING:
    from llmpatch.store import State


@click.command(name="rollback")
@click.option("--to", type=click.IntRange(0), help="A generation's number (`llmpatch history`).")
@reason_option
@json_option
def command(to: int | None, reason: str, as_json: bool) -> None:
    """Undo the last change of what is active; again, the one before. No gate is run, no model is loaded.

    Never goes back to a revoked patch. Pins and revocations stay as they are. Looks at no signature, so that there is always a
    way back; of what was signed by a key that $LLMPATCH_HOME/trust.json revokes it warns.
    """
    from llmpatch.store import default_store, rollback

    done = rollback(default_store(), to=to, reason=reason)
    for text in _doubts(done.generation.state):
        warn(one_line(text))
    say_done(done, as_json)


def _doubts(state: State) -> list[str]:
    """What is active though its key is revoked. A policy that cannot be read is no reason to stay with what is wrong."""
    from llmpatch._cli.verify import revoked_keys
    from llmpatch.errors import LlmpatchError
    from llmpatch.store import distrusted

    try:
        return [f"{text}; replace it or deactivate it" for text in distrusted(state, revoked_keys())]
    except LlmpatchError as error:
        return [f"nobody knows whose keys still count: {error.message}"]
