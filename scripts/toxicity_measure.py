"""Measure the offline toxicity judges on the texts kept for testing, and write the result into ``docs/judges.md``.

Imported by ``train_toxicity.py``; needs numpy only. Intervals are 95 % bootstrap intervals over clusters (over texts
where there are fewer than ten, Wilson for false positives).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from judge_measure import cell, rate_with_interval
from llmpatch.files import read_jsonl, write_text
from llmpatch.judges import identity, open_judge

Row = dict[str, Any]
ROOT = Path(__file__).parent.parent
DATA = ROOT / "data" / "judges" / "toxicity"
DOCS = ROOT / "docs" / "judges.md"
JUDGES = ("profanity-check", "toxicity-head")
MARKS = ("<!-- toxicity: written by scripts/train_toxicity.py -->", "<!-- /toxicity -->")
SOURCES = (
    "rtp", "rtp_selection", "davidson", "hatecheck", "surge", "toxigen", "civil", "madlibs", "stormfront", "wiki_detox",
    "wiki_context", "authored",
)  # fmt: skip
NEVER = {"stormfront", "wiki_detox", "wiki_context"}  # sources no training split holds
DRAWS = 2000
FEW = 10


def load(folder: Path) -> tuple[list[Row], list[Row]]:
    """All labelled texts, and the lexicon."""
    return [r for s in SOURCES for r in read_jsonl(folder / f"{s}.jsonl")], read_jsonl(folder / "lexicon.jsonl")


def same(text: str) -> str:
    """What two copies of one text have in common."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def figures(truth: np.ndarray, scores: np.ndarray, places: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """AUC, accuracy and rate at 0.5 of weighted texts; ``places`` ranks the scores, equal scores sharing one."""
    positive = np.bincount(places, weights * truth)
    negative = np.bincount(places, weights * ~truth)
    pairs = positive.sum() * negative.sum()
    area = float((positive * (negative.cumsum() - negative / 2)).sum() / pairs) if pairs else float("nan")
    said = scores >= 0.5
    total = weights.sum()
    return {
        "auc": area,
        "accuracy": float(weights[said == truth].sum() / total),
        "rate": float(weights[said].sum() / total),
    }


def summary(rows: list[Row], scores: np.ndarray) -> dict[str, Any]:
    """Figures with n, the true rate and a 95 % interval each; a figure that does not exist is null."""
    truth = np.array([row["toxic"] for row in rows], dtype=bool)
    _, places = np.unique(scores, return_inverse=True)
    _, groups = np.unique([row["cluster"] for row in rows], return_inverse=True)
    count = int(groups.max()) + 1
    if count < FEW:  # resampling one or two templates would say nothing
        groups, count = np.arange(len(rows)), len(rows)
    rng = np.random.default_rng(0)
    drawn = [
        figures(truth, scores, places, rng.multinomial(count, np.full(count, 1 / count))[groups].astype(float))
        for _ in range(DRAWS)
    ]
    made: dict[str, Any] = {"n": len(rows), "clusters": count, "true_rate": round(float(truth.mean()), 4)}
    for name, value in figures(truth, scores, places, np.ones(len(rows))).items():
        sample = np.array([d[name] for d in drawn])
        ends = np.nanquantile(sample, [0.025, 0.975]) if not np.isnan(value) else None
        known = {"value": round(value, 4), "interval": [round(float(e), 4) for e in ends]} if ends is not None else None
        made[name] = known
    if all("score" in row for row in rows):
        made["rho"] = round(spearman(np.array([row["score"] for row in rows]), scores), 4)
    return made


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation, ties sharing their middle rank."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])

    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def parts(test: list[Row]) -> dict[str, list[Row]]:
    """Test rows by set; RealToxicityPrompts' prompts and continuations apart."""
    found: dict[str, list[Row]] = {}
    for row in test:
        if row["source"] != "authored":
            part = f" {row['part']}s" if "part" in row else ""
            found.setdefault(f"{row['source']}{part}", []).append(row)
    return found


def measure(test: list[Row]) -> dict[str, Any]:
    judges = {name: open_judge(name) for name in JUDGES}
    sets: dict[str, Any] = {}
    for title, rows in parts(test).items():
        texts = [row["text"] for row in rows]
        sets[title] = {n: summary(rows, np.array(j.score([""] * len(texts), texts))) for n, j in judges.items()}
    harmless: dict[str, Any] = {}
    for part in ("identity", "ambiguous"):
        texts = [row["text"] for row in test if row["source"] == "authored" and row["part"] == part]
        harmless[part] = {"n": len(texts)} | {
            name: rate_with_interval(np.array(judge.score([""] * len(texts), texts)) >= 0.5)
            for name, judge in judges.items()
        }
    return {"judges": {name: identity(judge) for name, judge in judges.items()}, "sets": sets, "harmless": harmless}


# The documentation


def render(found: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    head = "| set | judge | n | true rate | AUC | accuracy | rate said | rho |"
    lines = [head, "|---" * 8 + "|"]
    for title, judges in found["sets"].items():
        mark = " †" if title.split()[0] in NEVER else ""
        for name, s in judges.items():
            figure = " | ".join(cell(s[key]) for key in ("auc", "accuracy", "rate"))
            rho = f"{s['rho']:.3f}" if "rho" in s else "-"
            lines.append(f"| {title}{mark} | `{name}` | {s['n']} | {s['true_rate']:.3f} | {figure} | {rho} |")
    titles = {"identity": "people named by who they are", "ambiguous": "words with a harmless second meaning"}
    lines += ["", "† no text of this source was in training.", "", "Harmless sentences called toxic:", ""]
    lines += [
        "| sentences | n | " + " | ".join(f"`{name}`" for name in JUDGES) + " |",
        "|---" * (2 + len(JUDGES)) + "|",
    ]
    for part, rates in found["harmless"].items():
        lines.append(f"| {titles[part]} | {rates['n']} | " + " | ".join(cell(rates[n]) for n in JUDGES) + " |")
    return "\n".join(lines)


def write_docs(found: dict[str, Any], path: Path = DOCS) -> None:
    """Replace what stands between the marks of ``path``."""
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(MARKS[0]) + ".*" + re.escape(MARKS[1]), re.DOTALL)
    write_text(path, pattern.sub(lambda _: f"{MARKS[0]}\n\n{render(found)}\n\n{MARKS[1]}", text))
