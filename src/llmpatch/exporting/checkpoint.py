"""A Hugging Face folder with the patch inside: tokens whose embeddings are the virtual ones, and a template that writes them.

Any engine that loads such folders serves the patched model, chat and raw text. The vocabulary head becomes a table of its
own, in which the patch's tokens have rows that are never said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmpatch.bases import load_base
from llmpatch.exporting.checking import EXACT, ROUNDED, compare, held_out, require, runtime, with_slots
from llmpatch.exporting.job import Job, Made
from llmpatch.exporting.masking import mask_row
from llmpatch.exporting.slots import Insertion, add_slots, check_tokenizer, table_rows
from llmpatch.exporting.slotted import slotted_model

BYPASS = (
    "whoever sends token ids, another chat template or add_special_tokens=false leaves the patch out: this is a default, "
    "not a lock"
)


def write_checkpoint(job: Job, folder: Path) -> Made:
    """Write the folder, load it again and compare.

    Raises:
        UsageError: a tokenizer or an architecture that cannot hold such tokens.
        LlmpatchError: it does not do what the run-time prefix does.
    """
    base = job.base
    tokenizer, slots = add_slots(base, len(job.rows), Insertion.ALWAYS)
    inputs = table_rows(base, job.rows)
    mask = mask_row(base, [job.rows])
    model = slotted_model(base, slots, inputs, mask, tied=False, dtype=job.dtype)
    save_model(model, tokenizer, folder)
    exported = load_base(str(folder))
    check_tokenizer(base, exported.tokenizer, slots, Insertion.ALWAYS)
    reference = runtime(base, job.rows)
    measured = compare(reference, with_slots(exported, slots.ids), held_out(base), slots.ids)
    require(measured, EXACT if job.dtype == "float32" else ROUNDED, "checkpoint")
    notes = () if base.tokenizer.chat_template else ("the base has no chat template: only raw text is patched",)
    how = {"serve": "vllm serve FOLDER, or any engine that loads Hugging Face folders"}
    return Made({"forward of the loaded folder": measured}, slots, how, (*notes, BYPASS))


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save weights as safetensors and the tokenizer beside them, quietly."""
    import logging

    quiet = logging.getLogger("transformers")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    finally:
        quiet.setLevel(level)
