"""Write the figures in docs/serving.md from what the benchmarks of the server left in benchmarks/results.

python scripts/make_serving.py            # writes them
python scripts/make_serving.py --check    # exit code 1 when they differ
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from generated import ROOT, between, main
from llmpatch.evals.stats import wilson
from llmpatch.files import read_jsonl

PAGE = "docs/serving.md"
RESULTS = ROOT / "benchmarks/results"
START, END = "<!-- figures: written by scripts/make_serving.py -->", "<!-- /figures -->"


def pages() -> Mapping[str, str]:
    parts = [speed(), soak(), fuzz(), garak()]
    return {PAGE: between(PAGE, START, END, "\n\n".join(part for part in parts if part) or "Nothing was measured yet.")}


def load(name: str) -> Any:
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def ratio(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def speed() -> str:
    """Patched over not, in the server, and where nothing is kept."""
    found = load("serving.json")
    rows = [
        [
            f"this server, {size['at_a_time']} at a time, {size['tokens']} tokens", str(size["rounds"]),
            ratio(size["first_token_ratio"]), ratio(size["time_per_token_ratio"]),
            f"{size['tokens_per_second']['base']:.1f} / {size['tokens_per_second']['patched']:.1f}",
        ]
        for size in found.get("speed", [])
    ]  # fmt: skip
    without = found.get("without_cache", {})
    titles = {
        "re_prefill_first_token": ("rows computed again for every request, first token", 0),
        "peft_first_token": ("PEFT's `generate`, first token", 0),
        "peft_answer": (
            f"PEFT's `generate`, an answer of {without.get('peft_answer', {}).get('tokens')} tokens (on this transformers it "
            "repeats the rows at every step, and its text is wrong)",
            1,
        ),
    }
    for key, (title, column) in titles.items():
        if key in without:
            cells = ["–", "–"]
            cells[column] = ratio(without[key]["ratio"])
            rows.append([title, str(without[key]["ratio"]["n"]), *cells, "–"])
    head = ["patched / not", "rounds", "time to first token", "time per token", "tokens/s, not / patched"]
    return table(head, rows) if rows else ""


def soak() -> str:
    """Load, swaps, memory."""
    found = load("soak.json")
    if not found:
        return ""
    run = found["soak"]
    rows = [
        ["time, requests at once", f"{run['seconds'] / 60:.1f} minutes, {run['workers']}"],
        ["requests", f"{run['requests']:,}, of which {run.get('left by the client', 0)} were left by their client"],
        ["failed", str(run.get("failed", 0))],
        [
            "answered as the other set would have; as neither (rounded another way in company)",
            f"{run.get('mixed', 0)}; {run.get('neither', 0)} (the sets differ on {run['questions_that_differ']} of 8 questions)",
        ],
        ["hot swaps under this load, between two sets that are computed", str(run["swaps"])],
    ]
    title = "from a commit until new requests get the new set"
    later = load("swaps.json")
    if later:
        # The half hour found that a swap waited for the canary; the short run is of what was mended.
        rows.append([f"{title}, while a swap still waited for the canary", swap_times(run)])
        minutes, swaps = later["soak"]["seconds"] / 60, later["soak"]["swaps"]
        rows.append(
            [f"{title}, mended: {swaps} swaps in {minutes:.0f} minutes of the same load", swap_times(later["soak"])]
        )
    else:
        rows.append([title, swap_times(run)])
    if memory := run["memory_mib"]:
        words = f"{memory['warm']:.0f} MiB, {memory['end']:.0f} MiB, {100 * memory['growth']:+.2f} %"
        rows.append(["resident memory after a third of the time, at the end, growth", words])
    return table(["load", "measured"], rows)


def swap_times(run: Mapping[str, Any]) -> str:
    """The spread in milliseconds."""
    return ", ".join(f"{name} {1e3 * run['swap_seconds'][name]:.0f} ms" for name in ("median", "p95", "max"))


def fuzz() -> str:
    """Bodies by hand and from the description."""
    rows = []
    if by_hand := load("serving.json").get("fuzz"):
        rows.append(["nearly right, by hand, bundled base", f"{by_hand['bodies']:,}", counts(by_hand["statuses"])])
    path = RESULTS / "fuzz_api.jsonl"
    for mode, title in (
        ("positive", "right by the OpenAPI description, tiny model"),
        ("negative", "wrong by it, tiny model"),
    ):
        total: Counter[str] = Counter()
        for row in read_jsonl(path) if path.is_file() else []:
            total.update(row["statuses"] if row["mode"] == mode else {})
        if total:
            rows.append([title, f"{total.total():,}", counts(total)])
    return table(["requests that try to break it", "n", "status: how many"], rows) if rows else ""


def counts(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{status}: {n:,}" for status, n in sorted(statuses.items()))


def garak() -> str:
    """What garak found."""
    found = load("garak.json")
    if not found:
        return ""
    sides = {
        name: {f"{row['probe']}, {row['detector']}": row for row in found[name]} for name in ("unpatched", "patched")
    }
    rows = [[title, *(share(sides[side][title]) for side in sides)] for title in sides["unpatched"]]
    return table([f"garak {found['version']}, answers that it finds fault with", "unpatched", "patched"], rows)


def share(row: Mapping[str, Any]) -> str:
    """Counts with the 95 % interval of Wilson; garak's own allows for its detector's errors, where it gives one."""
    low, high = wilson(row["fails"], row["total_evaluated"])
    part = 100 * row["fails"] / row["total_evaluated"]
    return f"{row['fails']} of {row['total_evaluated']}, {part:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main(pages, __doc__, "scripts/make_serving.py")
