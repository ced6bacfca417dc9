"""``llmpatch chat``: ask a base, patched or not, line by line."""

from __future__ import annotations

import sys

import click

from llmpatch._cli.opening import answer_options, base_options
from llmpatch._cli.output import note, safe, say


@click.command(name="chat")
@base_options
@answer_options(max_new_tokens=256)
def command(
    base: str,
    revision: str | None,
    patches: tuple[str, ...],
    parallel: bool,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    system: str | None,
) -> None:
    """Ask questions, one per line. Ctrl-D leaves.

    Each line is a conversation of its own: the model does not see the lines before. That is what patches are measured
    on. Without a terminal, questions are read from standard input.
    """
    from llmpatch._cli.opening import open_patched
    from llmpatch.errors import UsageError
    from llmpatch.patched import answer_all
    from llmpatch.recipe import DecodingSection

    opened = open_patched(base, revision, patches, parallel=parallel)
    decoding = DecodingSection(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    talking = sys.stdin.isatty()
    if talking:
        note("One question per line; each is answered on its own. Ctrl-D leaves.")
    while (text := _next_line(talking)) is not None:
        if not text.strip():
            continue
        try:
            say(safe(answer_all(opened.base, [text], decoding, prefix=opened.prefix, system=system)[0][0]))
        except UsageError as error:
            if not talking:
                raise
            note(f"error: {error.message}")  # too long a question does not end a conversation


def _next_line(talking: bool) -> str | None:
    """The next question, or ``None`` at the end."""
    if not talking:
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    try:
        return input("> ")
    except EOFError:
        say()
        return None
