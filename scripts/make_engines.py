"""Write the table of figures in docs/engines.md from benchmarks/results/engines.jsonl, which the engine tests write.

python scripts/make_engines.py                 # writes it
python scripts/make_engines.py --check         # exit code 1 when it differs
python scripts/make_engines.py --add FILE      # takes new figures in first; `make test-engines`, `make test-vllm`
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from generated import ROOT, between, main
from llmpatch.files import read_jsonl, write_jsonl

PAGE = "docs/engines.md"
FIGURES = ROOT / "benchmarks/results/engines.jsonl"
START, END = "<!-- figures: written by scripts/make_engines.py -->", "<!-- /figures -->"
KEY = ("engine", "base", "way")


def take_in(path: Path) -> None:
    """Figures of a run replace those of the same engine, base and way."""
    kept = {tuple(row.get(k) for k in KEY): row for row in (read_jsonl(FIGURES) if FIGURES.is_file() else [])}
    for row in read_jsonl(path):
        kept[tuple(row.get(k) for k in KEY)] = row | {"transformers": version("transformers")}
    write_jsonl(FIGURES, [kept[key] for key in sorted(kept, key=str)])
    path.unlink()


def page() -> dict[str, str]:
    rows = read_jsonl(FIGURES) if FIGURES.is_file() else []
    return {PAGE: between(PAGE, START, END, table(rows))}


def table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "No engine was measured on this version yet."
    lines = ["| engine | base | what | largest difference |", "|---|---|---|---|"]
    for row in rows:
        head = f"| {row['engine']} {row.get('version', '')} | {row['base']} |"
        if row["engine"] == "vllm":
            cached = f"; {min(row['cached'])} prompt tokens from its cache"
            lines.append(f"{head} {row['way']} | {row['max_delta_logprob']:.2g}{cached} |")
            continue
        lines += [f"{head} {what} | {row[what]:.2g} |" for what in ("unpatched", "baked", "lora", "lora, unpatched")]
        lines.append(f"{head} what the patch itself changes | {row['patch']:.2g} |")
        for to, checks in row["exports"].items():
            for name, check in checks.items():
                figures = (
                    f"{check['max_delta_logit']:.2g} (KL {check['max_kl']:.1g}, P {check['max_patch_probability']:.1g})"
                )
                lines.append(f"| check of `--to {to}` | {row['base']} | {name} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if "--add" in sys.argv[1:2]:
        take_in(Path(sys.argv[2]))
        del sys.argv[1:3]
    main(page, __doc__, "scripts/make_engines.py")
