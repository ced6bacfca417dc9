"""A recording of a reference: its answers as JSON Lines that anyone can train and measure on without the model.

    record(reference, prompts, Path("train.jsonl"), store=Path("runs/record"), progress=console())

Beside ``train.jsonl`` stands ``train.provenance.json``: who answered, how it was sampled, and digests of both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmpatch.files import sha256_file, write_json, write_jsonl
from llmpatch.progress import Progress
from llmpatch.prompts import Prompt
from llmpatch.recipe import DecodingSection
from llmpatch.references.base import Reference
from llmpatch.references.collecting import collect


def record(
    open_with: Callable[[DecodingSection], Reference],
    decoding: DecodingSection,
    prompts: Sequence[Prompt],
    out: Path,
    *,
    sources: Sequence[Path],
    store: Path,
    samples: int = 1,
    progress: Progress,
) -> dict[str, Any]:
    """Ask a reference and write what it says.

    Args:
        open_with: Makes the reference for a decoding; called once per sample, with the next seed each time.
        decoding: How the first sample is drawn.
        prompts: What is asked, each text once.
        out: The JSON Lines to write, whole or not at all: ``id``, ``prompt``, ``completion``, ``finish``; a prompt has
            ``samples`` rows.
        sources: The files that the prompts came from, for the provenance.
        store: Folder of kept answers: an interrupted recording goes on, a repeated one costs nothing.
        samples: Answers per prompt.
        progress: Where to show progress.

    Returns:
        The provenance, as written.

    Raises:
        LlmpatchError: as :func:`llmpatch.references.collect`.
    """
    asked = list({p.text: p for p in reversed(prompts)}.values())[::-1]
    rows: list[dict[str, Any]] = []
    identity: dict[str, Any] = {}
    for sample in range(samples):
        reference = open_with(decoding.model_copy(update={"seed": decoding.seed + sample}))
        identity = identity or reference.identity()
        answers = collect(reference, asked, store, progress=progress)
        rows += [
            {"id": p.id, "prompt": p.text, "completion": a.text, "finish": a.finish}
            for p, a in zip(asked, answers, strict=True)
        ]
    write_jsonl(out, rows)
    provenance = {
        "reference": identity,
        "samples": samples,
        "prompts": {str(path): sha256_file(path) for path in sources},
        "rows": len(rows),
        "sha256": sha256_file(out),
    }
    write_json(out.with_suffix(".provenance.json"), provenance)
    return provenance
