"""Try mutants of a signed patch, in a folder and in a .lpatch, until one is accepted that should not be.

python scripts/fuzz_artifacts.py --count 24000 --out benchmarks/results/fuzz_artifacts.json

A mutant passes if it is refused with one of our errors, or says byte for byte what was signed, in less than 50 ms of
processor time; and the process may not grow by 64 MB over all of them. The first that fails is printed with its seed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from llmpatch.files import write_json  # noqa: E402
from mutantkit import MAKERS, judge  # noqa: E402

GROWTH_LIMIT = 64 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=24_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    slowest, before = 0.0, peak()
    for number in range(options.count):
        maker = MAKERS[number % len(MAKERS)]
        mutant = maker(random.Random(f"{options.seed}:{number}"))
        start = time.process_time()
        try:
            outcomes[maker.__name__][judge(mutant)] += 1
        except BaseException:
            print(f"seed {options.seed}, mutant {number}: {maker.__name__}: {mutant.how}", file=sys.stderr)
            raise
        slowest = max(slowest, time.process_time() - start)
    growth = peak() - before
    if growth >= GROWTH_LIMIT:
        sys.exit(f"the process grew by {growth / 2**20:.1f} MB")
    total: Counter[str] = sum(outcomes.values(), Counter())
    report = {
        "mutants": options.count,
        "seed": options.seed,
        "accepted_with_other_content": 0,
        "outcomes": dict(sorted(total.items())),
        "by_kind": {name: dict(sorted(found.items())) for name, found in sorted(outcomes.items())},
        "slowest_ms": round(slowest * 1000, 2),
        "peak_growth_mb": round(growth / 2**20, 1),
    }
    print(json.dumps(report, indent=1))
    if options.out:
        write_json(options.out, report)


def peak() -> int:
    """The most memory this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
