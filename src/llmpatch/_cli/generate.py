"""``llmpatch generate``: answer a file of prompts with a base and any number of patches."""

from __future__ import annotations

from pathlib import Path

import click

from llmpatch._cli.opening import answer_options, base_options


@click.command(name="generate")
@base_options
@answer_options(max_new_tokens=128)
@click.option("--prompts", required=True, type=click.Path(path_type=Path), help="JSON Lines, each row with a `prompt`.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The same rows plus `completions`.")
@click.option("--raw", is_flag=True, help="Continue the text as it stands instead of using the chat template.")
@click.option("--samples", type=click.IntRange(1, 1024), default=1, show_default=True, help="Answers per prompt.")
def command(
    base: str,
    revision: str | None,
    patches: tuple[str, ...],
    parallel: bool,
    prompts: Path,
    out: Path,
    raw: bool,
    samples: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    system: str | None,
) -> None:
    """Answer every prompt of a file. Without --patch, the base answers.

    Finished answers are kept beside OUT; an interrupted command goes on where it was when it runs again. OUT appears
    whole at the end.
    """
    from llmpatch._cli.answer_file import Settings, answer_file, check_out, read_rows
    from llmpatch._cli.opening import open_patched
    from llmpatch.errors import UsageError
    from llmpatch.progress import console
    from llmpatch.recipe import DecodingSection

    if raw and system:
        raise UsageError("--raw uses no chat template, so --system has no place", hint="drop one of them")
    check_out(out, prompts, base, *patches)
    rows = read_rows(prompts)
    opened = open_patched(base, revision, patches, parallel=parallel)
    decoding = DecodingSection(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    settings = Settings(decoding, samples, raw, system)
    answer_file(opened.base, rows, out, prefix=opened.prefix, settings=settings, progress=console())
