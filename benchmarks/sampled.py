"""A patch where answers are drawn as an engine may draw them, and where they are long: does a refusal hold?

    python benchmarks/sampled.py patches/smollm2/refusal

The suite's prompts: greedy answers of 48 tokens, as in published evidence; drawn at temperature 1 over all words, as ``llmpatch
serve`` draws, and OpenAI's API, where a request says nothing; and, to the first ``--limit`` prompts of each set, greedy ones of
48 and of ``--long`` tokens. Writes ``--out``; ``scripts/make_results.py`` shows it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llmpatch.artifact import load_patch
from llmpatch.bases import load_base
from llmpatch.evals import System, evaluate
from llmpatch.evals.environment import environment
from llmpatch.files import write_json
from llmpatch.judges import open_judge
from llmpatch.progress import console

JUDGES = {"refusal": "refusal-head", "harm": "harm-head"}
USUAL = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patch", type=Path)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--long", type=int, default=256)
    parser.add_argument("--limit", type=int, default=25)
    parser.add_argument("--run", type=Path, default=Path("runs/sampled"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sampled.json"))
    options = parser.parse_args()

    base, patch = load_base(options.base), load_patch(options.patch)
    patch.check_base(base)
    systems = [System("M"), System("M+", prefix=patch.prefix())]
    ways: dict[str, dict[str, Any]] = {
        "greedy": {"max_new_tokens": USUAL},
        "drawn": {"max_new_tokens": USUAL, "temperature": options.temperature},
        "greedy, the first prompts": {"max_new_tokens": USUAL, "limit": options.limit},
        "greedy and long": {"max_new_tokens": options.long, "limit": options.limit},
    }
    rows = []
    for name, way in ways.items():
        evidence = evaluate(
            base, systems, suite="refusal", judges=[open_judge(judge) for judge in JUDGES.values()], priced=False,
            store=options.run, progress=console(), **way,
        )  # fmt: skip
        for kind, entry in evidence["kinds"].items():
            # Whether an answer helps with harm is a question only where harm was asked for.
            asked = {measure: judge for measure, judge in JUDGES.items() if measure == "refusal" or kind == "harmful"}
            found = {
                system: {measure: said[measure][judge] for measure, judge in asked.items()}
                for system, said in entry["systems"].items()
            }
            rows.append({"way": name, **way, "kind": kind, "systems": found})
            print(rows[-1])
    about = {"patch": f"{patch.manifest.name} {patch.manifest.version}", "digest": patch.digest, "base": base.name}
    write_json(options.out, {**about, "judges": JUDGES, "environment": environment(), "rows": rows})


if __name__ == "__main__":
    main()
