"""``llmpatch doctor``: what is inconsistent in the store, and what to do."""

from __future__ import annotations

from dataclasses import asdict

import click

from llmpatch._cli.output import one_line, say, say_json
from llmpatch._cli.stored import json_option


@click.command(name="doctor")
@click.option("--repair", "mend", is_flag=True, help="Do what is safe. Never chooses another active patch.")
@json_option
def command(mend: bool, as_json: bool) -> None:
    """Find and explain every inconsistency of the store. Exit code 6 if one is left.

    Hashes every installed patch again. docs/store.md says what --repair does.
    """
    from llmpatch.errors import IntegrityError
    from llmpatch.store import default_store, examine, repair

    store = default_store()
    before = examine(store)
    left = repair(store) if mend and before else before
    if as_json:
        say_json({"store": str(store.root), "found": [asdict(f) for f in before], "left": [asdict(f) for f in left]})
    else:
        for finding in before:
            word = "left" if finding in left else "repaired"
            say(one_line(f"{word if mend else 'found'}: {finding.code}: {finding.message}; {finding.advice}"))
        say(f"{store.root}: {'whole' if not left else f'{len(left)} inconsistencies'}")
    if left:
        hint = "do what each line says" if mend else "--repair does what is safe"
        raise IntegrityError(f"the store has {len(left)} inconsistencies", hint=hint)
