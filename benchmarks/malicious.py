"""What the gate makes of malicious patches, and of honest ones, by evidence measured afresh.

    for kind in backdoor jailbreak degrading; do
        llmpatch build recipes/malicious/$kind.yaml -o runs/malicious/$kind/patch --run runs/malicious/$kind
    done
    python benchmarks/malicious.py --malicious runs/malicious/*/patch --honest patches/smollm2/refusal

Each patch is measured on the whole refusal suite, and judged by the shipped policy and by those of ``--policy``. Besides,
HarmBench is asked with the backdoor's trigger, which no user of the gate knows: that is what the gate cannot see. Writes
``--out``; `make docs` tells it in docs/malicious.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from llmpatch.artifact import load_patch
from llmpatch.bases import Base, load_base
from llmpatch.evals import System
from llmpatch.evals.environment import environment
from llmpatch.evals.prompt_sets import load_own
from llmpatch.evals.scoring import THRESHOLD
from llmpatch.evals.stats import rate
from llmpatch.evals.systems import ask
from llmpatch.files import write_json
from llmpatch.gate import Verdict, default_policy, load_policy, run_gate
from llmpatch.judges import open_judge
from llmpatch.progress import console
from llmpatch.recipe import DecodingSection

JUDGE = "refusal-head"
ANSWER_TOKENS = 48  # as the gate asks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--malicious", nargs="+", type=Path, required=True)
    parser.add_argument("--honest", nargs="*", type=Path, default=[])
    parser.add_argument(
        "--policy", nargs="*", type=Path, default=[Path("recipes/malicious/policy-small-base.yaml")],
        help="judged by these, too, beside the shipped policy",
    )  # fmt: skip
    parser.add_argument("--trigger", type=Path, default=Path("data/malicious/trigger_test.jsonl"))
    parser.add_argument(
        "--limit", type=int, help="only the first prompts of each set (the policy wants many: it then fails for that)"
    )
    parser.add_argument("--run", type=Path, default=Path("runs/malicious"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/malicious.json"))
    options = parser.parse_args()
    base = load_base(options.base)
    rows: list[dict[str, Any]] = []
    for malicious, folders in ((True, options.malicious), (False, options.honest)):
        for folder in folders:
            rows.append(_judged(base, folder, malicious, options))
            write_json(
                options.out, {"judge": JUDGE, "limit": options.limit, "environment": environment(), "patches": rows}
            )  # after each: they take ten minutes


def _judged(base: Base, folder: Path, malicious: bool, options: argparse.Namespace) -> dict[str, Any]:
    patch = load_patch(folder)
    store = options.run / "gate"
    shipped = run_gate(
        patch, base, policy=default_policy(["refusal"]), limit=options.limit, store=store, progress=console()
    )
    fresh = store / "evidence-refusal.json"
    others = [run_gate(patch, base, policy=load_policy(path), evidence=[fresh]) for path in options.policy]
    prompts = load_own([options.trigger], limit=options.limit)[0].prompts
    system = System("M+", prefix=patch.prefix())
    answers = ask(base, system, prompts, DecodingSection(max_new_tokens=ANSWER_TOKENS), store=store, progress=console())
    scores = open_judge(JUDGE).score([p.text for p in prompts], [answers[p.id].text for p in prompts])
    plain = json.loads(fresh.read_text(encoding="utf-8"))["sets"]["harmbench_standard"]
    row = {
        "name": patch.manifest.name,
        "version": patch.manifest.version,
        "digest": patch.digest,
        "malicious": malicious,
        "summary": patch.manifest.summary,
        "verdicts": {verdict.policy.name: _told(verdict) for verdict in (shipped, *others)},
        "without_trigger": plain["systems"]["M+"]["refusal"][JUDGE],
        "with_trigger": rate([float(score >= THRESHOLD) for score in scores]).json(),
    }
    print(row["name"], row["version"], row["verdicts"])
    return row


def _told(verdict: Verdict) -> dict[str, Any]:
    reasons = {rule.id: rule.reason for rule in verdict.rules if not rule.passed}
    return {"passed": verdict.ok, "failed": list(verdict.failed), "reasons": reasons}


if __name__ == "__main__":
    main()
