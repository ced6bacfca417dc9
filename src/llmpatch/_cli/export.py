"""``llmpatch export``: a patch in the form that an engine runs."""

from __future__ import annotations

from pathlib import Path

import click

from llmpatch._cli.opening import base_options
from llmpatch._cli.output import one_line, say, say_json, table, warn

TARGETS = ("peft", "lora", "lora-gguf", "checkpoint", "gguf", "vllm-embeds")


@click.command(name="export")
@click.argument("patches", nargs=-1, required=True)
@base_options
@click.option("--to", required=True, type=click.Choice(TARGETS), help="The form (docs/engines.md).")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True,
              help="Of the weights in checkpoint and lora.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print export.json.")
def command(
    patches: tuple[str, ...], base: str, revision: str | None, to: str, out: Path, dtype: str, as_json: bool
) -> None:
    """Write PATCHES for an engine; several go one after another, as given.

    What was written is loaded again and compared with the patch at run time; OUT appears when that is within its limits,
    and holds export.json with the figures.

    peft is an adapter for PEFT; checkpoint a Hugging Face folder with the patch inside; gguf the same as one file, from a GGUF
    base, of which no other tensor is touched; vllm-embeds prompt embeddings and a helper. lora (for vLLM) and lora-gguf (for
    llama.cpp) are a base with silent tokens and an adapter that makes them the patch, switched per request.
    """
    from llmpatch._cli.opening import open_patched
    from llmpatch.exporting import EXPORT_FILE, export, read_description
    from llmpatch.exporting.folder import check_new

    check_new(out)  # before the base, which takes longer to fail
    opened = open_patched(base, revision, patches)
    made = export(opened.base, opened.patches, to, out, dtype=dtype)
    if as_json:
        say_json(read_description(out).model_dump(mode="json", by_alias=True))
        return
    rows = [
        [name, str(m.positions), f"{m.max_delta_logit:.2g}", f"{m.max_kl:.2g}", f"{m.max_patch_probability:.2g}"]
        for name, m in made.checks.items()
    ]
    say(
        table(["compared with the run-time prefix", "positions", "max |d logit|", "max KL", "max P(patch token)"], rows)
    )
    say(one_line(f"written: {out} ({to}); figures in {EXPORT_FILE}"))
    if serve := made.how.get("serve"):
        say(one_line(f"next, in that folder: {serve}"))
    for note in made.notes:
        warn(note)
