"""What the gate makes of malicious patches, and of honest ones, by evidence measured afresh.

    for kind in backdoor jailbreak degrading; do
        llmpatch build recipes/malicious/$kind.yaml -o tests/malicious/$kind --run runs/malicious/$kind
    done
    python benchmarks/malicious.py --malicious tests/malicious/* --honest patches/smollm2/refusal

Each patch is measured on the whole refusal suite and judged by the shipped policy. Besides, HarmBench is asked with the
backdoor's trigger, which no user of the gate knows: that is what the gate cannot see. Writes ``--out``; `make docs` tells it
in docs/malicious.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from llmpatch.artifact import load_patch
from llmpatch.bases import Base, load_base
from llmpatch.evals import System, evaluate
from llmpatch.evals.environment import environment
from llmpatch.files import write_json
from llmpatch.gate import default_policy, run_gate
from llmpatch.judges import open_judge
from llmpatch.progress import console

JUDGE = "refusal-head"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--malicious", nargs="+", type=Path, required=True)
    parser.add_argument("--honest", nargs="*", type=Path, default=[])
    parser.add_argument("--trigger", type=Path, default=Path("data/malicious/trigger_test.jsonl"))
    parser.add_argument(
        "--limit", type=int, help="only the first prompts of each set (the policy wants many: it then fails for that)"
    )
    parser.add_argument("--run", type=Path, default=Path("runs/malicious"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/malicious.json"))
    options = parser.parse_args()
    base = load_base(options.base)
    rows = [
        _judged(base, folder, malicious, options)
        for malicious, folders in ((True, options.malicious), (False, options.honest))
        for folder in folders
    ]
    write_json(options.out, {"judge": JUDGE, "limit": options.limit, "environment": environment(), "patches": rows})


def _judged(base: Base, folder: Path, malicious: bool, options: argparse.Namespace) -> dict[str, Any]:
    patch = load_patch(folder)
    verdict = run_gate(
        patch,
        base,
        policy=default_policy(["refusal"]),
        limit=options.limit,
        store=options.run / "gate",
        progress=console(),
    )
    system = System("M+", prefix=torch.tensor(patch.embeddings))
    asked = evaluate(
        base, [System("M"), system], prompts=[options.trigger], judges=[open_judge(JUDGE)], limit=options.limit,
        store=options.run / "gate", progress=console(),
    )  # fmt: skip
    entry = next(iter(asked["sets"].values()))
    row = {
        "name": patch.manifest.name,
        "version": patch.manifest.version,
        "digest": patch.digest,
        "malicious": malicious,
        "summary": patch.manifest.summary,
        "passed": not verdict.failed,
        "failed": list(verdict.failed),
        "reasons": {rule.id: rule.reason for rule in verdict.rules if not rule.passed},
        "with_trigger": entry["systems"]["M+"]["refusal"][JUDGE],
    }
    print(row["name"], row["version"], "passed" if row["passed"] else f"failed {row['failed']}")
    return row


if __name__ == "__main__":
    main()
