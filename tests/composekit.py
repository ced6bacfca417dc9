"""Patches for one tiny base that says its fingerprint, and a folder with the suites' data, small."""

from __future__ import annotations

import numpy as np

from llmpatch.artifact import Patch, describe_base, input_norm_p999, parse_patch, render_patch
from llmpatch.evals import SUITES
from llmpatch.files import write_jsonl
from patchkit import FIELDS


def rows(base, tokens=3, seed=0):
    return np.random.default_rng(seed).normal(0, 0.2, (tokens, base.hidden_size)).astype(np.float32)


def make_patch(base, name="acme/refusal", risk="refusal", *, tokens=3, seed=0, path="made", **changes) -> Patch:
    fix = {"risk": risk, "metric": f"measure of {risk}", "before": 0.1, "after": 0.9, "n": 10}
    fields = {
        **FIELDS, "name": name, "version": "1.0.0", "base": describe_base(base), "fixes": [fix], "supersedes": [],
        "cumulative": False, **changes,
    }  # fmt: skip
    from pathlib import Path

    files = render_patch(fields, rows(base, tokens, seed), {"suite": risk}, base_p999=input_norm_p999(base))
    return parse_patch(files, Path(path))


def write_data(folder, count=4):
    """The files of the refusal, toxicity and gender-bias suites, with a few prompts each."""
    for suite in ("refusal", "toxicity", "gender-bias"):
        for file in SUITES[suite]:
            path = folder / "data" / file.path
            old = path.read_text(encoding="utf-8") if path.exists() else ""
            write_jsonl(
                path,
                [
                    {"id": f"{file.name}{i}", "prompt": f"{file.name} {i}", "kind": file.kind,
                     **({"category": file.category} if file.category else {})}
                    for i in range(count)
                ],
            )  # fmt: skip
            path.write_text(old + path.read_text(encoding="utf-8"), encoding="utf-8")
