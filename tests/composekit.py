"""Patches for one tiny base that says its fingerprint, and a folder with the suites' data, small."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from llmpatch.artifact import (
    Patch,
    describe_base,
    input_norm_p999,
    parse_patch,
    read_patch,
    render_patch,
    write_members,
)
from llmpatch.evals import SUITES
from llmpatch.files import write_jsonl
from patchkit import FIELDS


def rows(base, tokens=3, seed=0):
    return np.random.default_rng(seed).normal(0, 0.2, (tokens, base.hidden_size)).astype(np.float32)


def make_patch(base, name="acme/refusal", risk="refusal", *, tokens=3, seed=0, **changes) -> Patch:
    fix = {"risk": risk, "metric": f"measure of {risk}", "before": 0.1, "after": 0.9, "n": 10}
    fields = {
        **FIELDS, "name": name, "version": "1.0.0", "base": describe_base(base), "fixes": [fix], "supersedes": [],
        "cumulative": False, **changes,
    }  # fmt: skip
    files = render_patch(fields, rows(base, tokens, seed), {"suite": risk}, base_p999=input_norm_p999(base))
    return parse_patch(files, Path("made"))


def save(folder, patch) -> Path:
    """The same patch as a folder."""
    unwanted = {"schema_", "prefix", "files", "checksum"}
    fields = patch.manifest.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=unwanted)
    norms = patch.manifest.prefix.norm
    write_members(folder, render_patch(fields, patch.embeddings, patch.evidence, base_p999=norms.base_p999))
    assert read_patch(folder).digest == patch.digest
    return folder


def write_data(folder, count=4):
    """The files of the refusal, toxicity and gender-bias suites, with a few prompts of each set."""
    found = {}
    for file in (file for suite in ("refusal", "toxicity", "gender-bias") for file in SUITES[suite]):
        rows = [{"id": f"{file.name}{i}", "prompt": f"{file.name} {i}", "kind": file.kind} for i in range(count)]
        about = {"category": file.category} if file.category else {}
        found.setdefault(folder / "data" / file.path, []).extend(row | about for row in rows)
    for path, rows in found.items():
        write_jsonl(path, rows)
