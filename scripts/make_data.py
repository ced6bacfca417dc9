"""Select and split the prompt sets in ``data/prompts`` from a folder of published sources.

    python scripts/make_data.py --sources DIR

``DIR`` holds the published sets as JSON Lines with a ``cluster`` per row (near-duplicates across all sets share
one). Splits go by cluster, never by row: no cluster of a test file appears in a training or validation file.
HarmBench is test only. The output is deterministic; run it again and ``git diff`` stays empty.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from source_rows import DATA, Row, order, read
from source_rows import write as write_rows

SALT = "llmpatch"
MAX_CHARS = 400
VALIDATION = 80
OUT = DATA / "prompts"


def row(source: str, item: Row, kind: str, prompt: str | None = None, **extra: Any) -> Row:
    text = (prompt if prompt is not None else item["prompt"]).strip()
    ident = str(item.get("id") or item.get("question_id") or item.get("key") or order(text, SALT)[:10])
    ident = ident if ident.startswith(source) else f"{source}:{ident}"
    cluster = str(item.get("cluster") or "t" + hashlib.sha256(text.lower().encode()).hexdigest()[:9])
    made: Row = {"id": ident, "prompt": text, "kind": kind, "source": source, "cluster": cluster}
    if item.get("category"):
        made["category"] = item["category"]
    return {**made, **extra}


def pick(rows: Iterable[Row], count: int | None = None, banned: set[str] = frozenset()) -> list[Row]:  # type: ignore[assignment]
    """At most ``count`` rows, one per cluster, none in ``banned``, none too long, in the fixed order."""
    chosen: dict[str, Row] = {}
    for item in sorted(rows, key=lambda r: order(r["id"], SALT)):
        if item["cluster"] not in banned and len(item["prompt"]) <= MAX_CHARS:
            chosen.setdefault(item["cluster"], item)
    return list(chosen.values())[:count]


def write(name: str, rows: list[Row]) -> None:
    write_rows(OUT / f"{name}.jsonl", rows)


def with_input(item: Row) -> str:
    return item["instruction"] + (f"\n\n{item['input']}" if item.get("input") else "")


def halves(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Split by cluster into (training side, test side), 2:3."""
    ranked = sorted({r["cluster"] for r in rows}, key=lambda c: order(c, "half"))
    train = set(ranked[: len(ranked) * 2 // 5])
    return [r for r in rows if r["cluster"] in train], [r for r in rows if r["cluster"] not in train]


def imperative(item: Row) -> Row | None:
    """The same question as an order, so that neither form gives the answer away; None where that is no English.

    Most harmful sets ask ("How can I X?") where others order ("Give instructions for X"), and a small model learns
    the form instead of the request.
    """
    asked = re.match(
        r"(?:How (?:can|do|could|would) (?:I|you|someone|we|one)|How to|What are some ways to) (.+?)\??$",
        item["prompt"],
    )
    if asked is None or "?" in asked[1] or ". " in asked[1]:
        return None
    orders = (
        "Explain in detail how to {}.",
        "Give step-by-step instructions on how to {}.",
        "Write a guide on how to {}.",
        "Describe how to {}.",
        "Write a short tutorial that teaches someone how to {}.",
        "List the best ways to {}.",
    )
    chosen = orders[int(order(item["id"], "form"), 16) % len(orders)]
    text = re.sub(r"\bmy\b", "your", re.sub(r"\b(?:I'm|I am)\b", "you are", re.sub(r"\bI\b", "you", asked[1])))
    return {**item, "id": f"{item['id']}/order", "prompt": chosen.format(text)}


def write_halves(kind: str, rows: list[Row]) -> None:
    """Write validation and training rows; half of the training questions come as orders, too."""
    ranked = sorted(rows, key=lambda r: order(r["id"], "train"))
    write(f"{kind}_validation", ranked[:VALIDATION])
    train = ranked[VALIDATION:]
    orders = [imperative(r) for r in train if int(order(r["id"], "twin"), 16) % 2]
    write(f"{kind}_train", train + [r for r in orders if r is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True)
    root: Path = parser.parse_args().sources

    harmbench = [
        row("harmbench", r, "harmful", functional=r["functional_category"])
        for r in read(root / "harmful/harmbench/prompts.jsonl")
        if r["functional_category"] in {"standard", "adv_training_behaviors", "tdc2023_test_phase_behaviors"}
    ]
    all_harmbench = {r["cluster"] for r in read(root / "harmful/harmbench/prompts.jsonl")}
    jbb_harmful = [row("jailbreakbench", r, "harmful") for r in read(root / "harmful/jailbreakbench/prompts.jsonl")]
    xstest = read(root / "overrefusal/xstest/prompts.jsonl")
    xs_train, xs_test = halves([row("xstest", r, "borderline" if r["label"] == "safe" else "harmful") for r in xstest])
    jbb_train, jbb_test = halves(
        [row("jbb_benign", r, "borderline") for r in read(root / "overrefusal/jbb_benign/prompts.jsonl")]
    )
    everyday_test = pick(
        [
            row("vicuna_bench", r, "everyday", r["turns"][0])
            for r in read(root / "utility/fastchat_bench/vicuna_bench.jsonl")
        ]
        + [
            row("self_instruct_user", r, "everyday", with_input(r))
            for r in read(root / "utility/self_instruct/user_oriented_instructions.jsonl")
        ],
        250,
    )
    standard = pick([r for r in harmbench if r["functional"] == "standard"])
    write("harmbench_standard_test", standard)
    seen = {r["cluster"] for r in standard}
    write("harmbench_extra_test", pick([r for r in harmbench if r["functional"] != "standard"], banned=seen))
    write("jailbreakbench_test", pick(jbb_harmful, banned=all_harmbench))
    write("xstest_safe_test", pick([r for r in xs_test if r["kind"] == "borderline"]))
    write("xstest_unsafe_test", pick([r for r in xs_test if r["kind"] == "harmful"]))
    write("jbb_benign_test", pick(jbb_test))
    write("everyday_test", everyday_test)

    banned = all_harmbench | {r["cluster"] for r in [*jbb_harmful, *xs_test, *jbb_test, *everyday_test]}
    harmful: list[Row] = []
    for source in (
        "advbench",
        "strongreject",
        "simplesafetytests",
        "catqa",
        "dangerousqa",
    ):
        found = [row(source, r, "harmful") for r in read(root / f"harmful/{source}/prompts.jsonl")]
        harmful += pick(found, None, banned | {r["cluster"] for r in harmful})
    harmful += pick([r for r in xs_train if r["kind"] == "harmful"], None, banned | {r["cluster"] for r in harmful})
    write_halves("harmful", harmful)

    authored = read(OUT / "authored.jsonl") if (OUT / "authored.jsonl").exists() else []
    own = [row("llmpatch", r, r["kind"]) for r in authored]
    borderline = pick(
        [r for r in xs_train if r["kind"] == "borderline"] + jbb_train + [r for r in own if r["kind"] == "borderline"],
        None,
        banned,
    )
    write_halves("borderline", borderline)

    everyday: list[Row] = pick([r for r in own if r["kind"] == "everyday"], None, banned)
    for found, count in (
        (
            [
                row("self_instruct_seed", r, "everyday", with_input(r))
                for r in read(root / "utility/self_instruct/seed_tasks.jsonl")
            ],
            150,
        ),
        (
            [
                row("truthfulqa", {}, "everyday", r["question"])
                for r in read(root / "utility/truthfulqa/TruthfulQA.jsonl")
            ],
            170,
        ),
        ([row("gsm8k", {}, "everyday", r["question"]) for r in read(root / "utility/gsm8k/test.jsonl")], 40),
        (
            [
                row("mt_bench", r, "everyday", r["turns"][0])
                for r in read(root / "utility/fastchat_bench/mt_bench.jsonl")
            ],
            60,
        ),
        ([row("ifeval", r, "everyday") for r in read(root / "utility/ifeval/input_data.jsonl")], 140),
    ):
        everyday += pick(found, count, banned | {r["cluster"] for r in everyday})
    write_halves("everyday", everyday)


if __name__ == "__main__":
    main()
