"""The generated files of a patch: ``adapter_config.json`` for PEFT and ``README.md``, the model card.

    adapter_config(manifest)          # a dict, compared field by field on reading
    model_card(manifest, evidence)    # Markdown with the metadata of the Hugging Face hub

Knows the manifest and one convention of the evidence: ``evidence["results"]`` may hold rows such as
``{"name": "HarmBench refusals", "n": 200, "base": {"value": 0.04, "low": 0.02, "high": 0.08}, "patched": {...}}``;
every part that has a ``value`` becomes a column. Without such rows the table shows the manifest's ``fixes``.
"""

from __future__ import annotations

import json
import re
from typing import Any

from llmpatch.artifact.manifest import Manifest

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_HUB_PURL = re.compile(r"pkg:huggingface/([^@?#]+)")
# Licences the hub names as SPDX does, in lower case; others need `license: other` and a name.
_HUB_LICENSES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "mpl-2.0", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0",
    "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "unlicense",
}  # fmt: skip


def adapter_config(manifest: Manifest) -> dict[str, Any]:
    """The only ``adapter_config.json`` a patch may carry: no code, no tokenizer, no file names but the base's.

    PEFT puts all rows one after another, so patches side by side have a type that it refuses by name.
    """
    return {
        "base_model_name_or_path": base_id(manifest),
        "inference_mode": True,
        "num_virtual_tokens": manifest.prefix.tokens,
        "peft_type": "PROMPT_TUNING" if manifest.arrangement is None else "LLMPATCH_PARALLEL",
        "prompt_tuning_init": "RANDOM",
        "revision": manifest.base.revision,
        "task_type": "CAUSAL_LM",
        "token_dim": manifest.prefix.dim,
    }


def base_id(manifest: Manifest) -> str:
    """The hub id of the base where its purl gives one, else its name."""
    match = _HUB_PURL.match(manifest.base.purl or "")
    return match[1] if match and _HUB_ID.fullmatch(match[1]) else manifest.base.name


def model_card(manifest: Manifest, evidence: dict[str, Any]) -> str:
    """The README of a patch. Depends on nothing but its arguments; ``files`` and ``checksum`` are not read."""
    parts = [
        _metadata(manifest), f"# {manifest.name} {manifest.version}", _plain(manifest.summary), _facts(manifest),
        "## Results", _results(manifest, evidence), _usage(manifest), _limitations(manifest),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _metadata(manifest: Manifest) -> str:
    """YAML front matter; every foreign string is a JSON string, which YAML reads as it is."""
    name = manifest.license.lower()
    lines = ["library_name: peft"]
    if _HUB_ID.fullmatch(base_id(manifest)):
        lines += [f"base_model: {json.dumps(base_id(manifest))}", "base_model_relation: adapter"]
    if name in _HUB_LICENSES:
        lines.append(f"license: {name}")
    else:
        lines += ["license: other", f"license_name: {json.dumps(name)}"]
    lines += ["pipeline_tag: text-generation", "tags:", "- prompt-tuning", "- safety-patch", "- llmpatch"]
    return "\n".join(["---", *lines, "---"])


def _facts(manifest: Manifest) -> str:
    base, prefix = manifest.base, manifest.prefix
    revision = f", revision {_plain(base.revision)}" if base.revision else ""
    lines = [
        f"A safety patch: {prefix.tokens} learned virtual tokens of {prefix.dim} numbers, put before everything the",
        "model reads. The model's weights stay as they are.",
        "",
        f"- **Base model**: {_plain(base_id(manifest))} ({_plain(base.model_type)}{revision}).",
        "  llmpatch refuses any other.",
        f"- **Quantisation it was made on**: {_plain(base.fingerprint.quantisation)}",
        *([f"- **Also measured on**: {', '.join(_plain(name) for name in base.tested_on)}"] if base.tested_on else []),
        f"- **Released**: {manifest.released}",
        *([f"- **Expires**: {manifest.expires}"] if manifest.expires else []),
        f"- **Method**: {_plain(manifest.build.method)}",
        *([f"- **Composed of, {_order(manifest)}**: {_members(manifest)}"] if manifest.members else []),
        f"- **Made by**: {_plain(manifest.build.tool)} {_plain(manifest.build.tool_version)},"
        f" seed {manifest.build.seed}, recipe sha256 {manifest.build.recipe_digest}",
        *([f"- **Contact**: {_plain(manifest.contact)}"] if manifest.contact else []),
    ]
    return "\n".join(lines)


def _places(manifest: Manifest) -> int:
    """Side by side the members' first rows share a place."""
    return manifest.prefix.tokens - (len(manifest.members or ()) - 1 if manifest.arrangement else 0)


def _order(manifest: Manifest) -> str:
    return "side by side" if manifest.arrangement else "in this order"


def _members(manifest: Manifest) -> str:
    return ", ".join(f"{m.name} {m.version} ({m.tokens} tokens)" for m in manifest.members or ())


def _results(manifest: Manifest, evidence: dict[str, Any]) -> str:
    rows = evidence.get("results")
    rows = [row for row in rows if isinstance(row, dict) and "name" in row] if isinstance(rows, list) else []
    if not rows:
        body = [
            [f"{_plain(fix.risk)}: {_plain(fix.metric)}", _count(fix.n), _number(fix.before), _number(fix.after)]
            for fix in manifest.fixes
        ]
        return _table(["metric", "n", "base", "patched"], body)
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if _is_estimate(value)))
    body = [
        [_plain(str(row["name"])), _count(row.get("n")), *(_estimate(row.get(column)) for column in columns)]
        for row in rows
    ]
    note = "Square brackets hold 95 % intervals. evidence.json has all that was measured."
    return _table(["metric", "n", *(_plain(column) for column in columns)], body) + "\n\n" + note


def _table(head: list[str], body: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _is_estimate(value: Any) -> bool:
    return isinstance(value, dict) and _is_number(value.get("value"))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _estimate(value: Any) -> str:
    if not _is_estimate(value):
        return "–"
    low, high = value.get("low"), value.get("high")
    interval = f" [{_number(low)}, {_number(high)}]" if _is_number(low) and _is_number(high) else ""
    return _number(value["value"]) + interval


def _number(value: float) -> str:
    return f"{value:.4g}"


def _count(value: Any) -> str:
    return f"{value:,}" if _is_number(value) else "–"


def _usage(manifest: Manifest) -> str:
    return f"""## Use it

With llmpatch, which checks that the base is the right one:

```python
import llmpatch

base = llmpatch.load_base({json.dumps(manifest.base.name)})
model = llmpatch.load_patch("path/to/this/folder").apply(base)
```

With PEFT, `PeftModel.from_pretrained(model, "path/to/this/folder")` loads the same virtual tokens and its `forward`
gives the same numbers on prompts without padding. PEFT does not check the base, and **its `generate` is silently wrong
on transformers 5.24** (PEFT 0.21 puts the virtual tokens in again at every step): generate with llmpatch."""


def _limitations(manifest: Manifest) -> str:
    return f"""## Limitations

- It lowers the measured risks on the measured prompts. It is no guarantee, and it is not a filter: pair it with one.
- It costs {_places(manifest)} tokens of context. It may make the model decline or change some harmless answers.
- On another quantisation or a fine-tuned copy of the base the figures above do not hold: measure again.
- Whoever holds the weights can leave the patch out, and whoever can query a patched model can imitate it."""


def _plain(text: str) -> str:
    """Foreign text as plain Markdown: one line, no markup, no links, no HTML, no table cells."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return re.sub(r"([\\`*_\[\]<>|#~!&$])", r"\\\1", line)
