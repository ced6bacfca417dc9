"""Select the questions and instructions in ``data/utility`` from a folder of published sets.

    python scripts/make_utility_data.py --sources DIR

``DIR/utility`` holds the published sets. What is in a training or validation file, or shares half of its words or more with
a prompt there, is left out: the price of a patch must not be measured on what it practised. The output is deterministic.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from llmpatch.evals.following import CHECKS
from source_rows import DATA, Row, order, read, write

SALT = "llmpatch-utility"
NEAR = 0.5
ARC_ROWS, MMLU_PER_SUBJECT, GSM8K_ROWS = 500, 10, 200
OUT = DATA / "utility"
LICENCES = {
    "arc.txt": "arc_challenge/LICENSE.CC-BY-SA-4.0.txt",
    "gsm8k.txt": "gsm8k/LICENSE.grade-school-math.txt",
    "ifeval.txt": "ifeval/LICENSE.Apache-2.0.txt",
    "mmlu.txt": "mmlu/LICENSE.test.txt",
    "truthfulqa.txt": "truthfulqa/LICENSE.Apache-2.0.txt",
}


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9']+", text.lower()))


def row(source: str, ident: str, prompt: str, **extra: object) -> Row:
    text = prompt.strip()
    cluster = "t" + hashlib.sha256(text.lower().encode()).hexdigest()[:9]
    return {
        "id": f"{source}:{ident}",
        "prompt": text,
        "kind": "everyday",
        "source": source,
        "cluster": cluster,
        **extra,
    }


def short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def untrained(rows: Iterable[Row], trained: list[frozenset[str]]) -> list[Row]:
    """Rows in a fixed order, each prompt once, without those near what was trained on."""
    found: dict[str, Row] = {}
    for item in sorted(rows, key=lambda r: order(r["id"], SALT)):
        mine = words(item["prompt"])
        if all(2 * min(len(mine), len(t)) < len(mine) or len(mine & t) < NEAR * len(mine | t) for t in trained):
            found.setdefault(item["cluster"], item)
    return list(found.values())


def questions_of_arc(item: Row) -> Row:
    answer = item["labels"].index(item["answer"])
    return row("arc_challenge", item["id"], item["question"], choices=item["choices"], answer=answer)


def questions_of_mmlu(item: Row) -> Row:
    answer = "ABCD".index(item["answer"])
    name = item["id"].removeprefix("mmlu_")
    return row("mmlu", name, item["question"], choices=item["choices"], answer=answer, category=item["subject"])


def questions_of_truthfulqa(item: Row) -> Row:
    """One true choice, the best answer, among the false ones, in an order that says nothing."""
    true = item["best_answer"].strip()
    false = dict.fromkeys(text.strip() for text in item["incorrect_answers"].split(";") if text.strip())
    choices = sorted({true, *false}, key=lambda text: order(text, SALT))
    extra = {"choices": choices, "answer": choices.index(true), "category": item["category"]}
    return row("truthfulqa", short(item["question"]), item["question"], **extra)


def instructions(item: Row) -> Row | None:
    """None where a check of the row needs more than code, as telling languages apart."""
    if not set(item["instruction_id_list"]) <= CHECKS.keys():
        return None
    given = zip(item["instruction_id_list"], item["kwargs"], strict=True)
    checks = [{"check": name, **{k: v for k, v in options.items() if v is not None}} for name, options in given]
    return row("ifeval", str(item["key"]), item["prompt"], checks=checks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True)
    root: Path = parser.parse_args().sources / "utility"
    prompts = DATA / "prompts"
    trained = [words(r["prompt"]) for n in ("train", "validation") for r in read(prompts / f"everyday_{n}.jsonl")]

    arc = [questions_of_arc(r) for r in read(root / "arc_challenge/test.jsonl")]
    write(OUT / "arc_challenge.jsonl", sorted(arc, key=lambda r: order(r["id"], SALT))[:ARC_ROWS])
    ranked = sorted(
        map(questions_of_mmlu, read(root / "mmlu/test_40_per_subject.jsonl")), key=lambda r: order(r["id"], SALT)
    )
    subjects = sorted({r["category"] for r in ranked})
    # Subject by subject in turn, so that the first few are of many subjects.
    columns = [[r for r in ranked if r["category"] == subject][:MMLU_PER_SUBJECT] for subject in subjects]
    write(OUT / "mmlu.jsonl", [r for part in zip(*columns, strict=True) for r in part])
    truthful = map(questions_of_truthfulqa, read(root / "truthfulqa/TruthfulQA.jsonl"))
    write(OUT / "truthfulqa.jsonl", untrained((r for r in truthful if len(r["choices"]) > 1), trained))
    sums = [
        row("gsm8k", short(r["question"]), r["question"], answer=r["answer"]) for r in read(root / "gsm8k/test.jsonl")
    ]
    some = sorted(sums, key=lambda r: order(r["id"], SALT))[: 2 * GSM8K_ROWS]  # enough, and quick
    write(OUT / "gsm8k.jsonl", untrained(some, trained)[:GSM8K_ROWS])
    followed = [found for item in read(root / "ifeval/input_data.jsonl") if (found := instructions(item))]
    write(OUT / "ifeval.jsonl", untrained(followed, trained))

    (OUT / "licenses").mkdir(parents=True, exist_ok=True)
    for name, source in LICENCES.items():
        shutil.copyfile(root / source, OUT / "licenses" / name)


if __name__ == "__main__":
    main()
