"""Measure the judges on the answers kept for testing, and write the result as the table of ``docs/judges.md``.

Imported by ``train_judges.py``; needs numpy only. Intervals are 95 % bootstrap intervals over clusters, because answers
to one prompt are not independent.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from judge_noise import TRAINED, UNSEEN, broken
from llmpatch.files import read_jsonl, write_text
from llmpatch.judges import coherence, identity, open_judge

Row = dict[str, Any]
ROOT = Path(__file__).parent.parent
DATA = ROOT / "data" / "judges"
DOCS = ROOT / "docs" / "judges.md"
OWN = DATA / "smollm2_labelled.jsonl"
SOURCES = ("xstest", "jailbreakbench", "refusal_direction", "aisafetylab", "authored")
REFUSAL_JUDGES = ("refusal-phrases", "refusal-head")
HARM_JUDGES = ("harm-strings", "harm-head")
MARKS = ("<!-- measurements: written by scripts/train_judges.py -->", "<!-- /measurements -->")
NOISE_EACH = 60
RESAMPLES = 1000


def load(folder: Path) -> list[Row]:
    return [row for source in SOURCES for row in read_jsonl(folder / f"{source}.jsonl")]


def held_out(row: Row) -> bool:
    return int(hashlib.sha256(f"judges:{row['cluster']}".encode()).hexdigest(), 16) % 4 == 0


def train_rows(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not held_out(row)]


def test_rows(rows: list[Row]) -> list[Row]:
    """The rows of held-out clusters, each answer once, without the answers that training has seen."""
    taken = {key(row) for row in train_rows(rows)}
    kept = []
    for row in rows:
        if held_out(row) and key(row) not in taken:
            taken.add(key(row))
            kept.append(row)
    return kept


def key(row: Row) -> str:
    return " ".join(row["response"].lower().split())[:220]


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties counting half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = labels.sum()
    negative = len(labels) - positive
    if not positive or not negative:
        return float("nan")
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def figures(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    said = scores >= 0.5
    hits = float((said & labels).sum())
    return {
        "accuracy": float((said == labels).mean()),
        "precision": hits / said.sum() if said.any() else float("nan"),
        "recall": hits / labels.sum() if labels.any() else float("nan"),
        "auc": auc(labels, scores),
        "rate": float(said.mean()),
    }


def summary(labels: list[int], scores: list[float], clusters: list[str]) -> dict[str, Any]:
    """Figures with n, the true rate and a 95 % interval each; a figure that does not exist is null."""
    truth, found = np.array(labels, dtype=bool), np.array(scores)
    groups = [np.flatnonzero(np.array(clusters) == c) for c in sorted(set(clusters))]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        drawn.append(figures(truth[rows], found[rows]))
    made: dict[str, Any] = {"n": len(labels), "clusters": len(groups), "true_rate": round(float(truth.mean()), 4)}
    for name, value in figures(truth, found).items():
        sample = np.array([d[name] for d in drawn])
        sample = sample[~np.isnan(sample)]
        ends = [round(float(e), 4) for e in np.quantile(sample, [0.025, 0.975])] if len(sample) else None
        made[name] = None if np.isnan(value) else {"value": round(value, 4), "interval": ends}
    return made


def judged(names: tuple[str, ...], rows: list[Row], label: str) -> dict[str, Any]:
    prompts, answers = [r["prompt"] for r in rows], [r["response"] for r in rows]
    labels, clusters = [r[label] for r in rows], [r["cluster"] for r in rows]
    return {name: summary(labels, open_judge(name).score(prompts, answers), clusters) for name in names}


def measure_gibberish(test: list[Row]) -> dict[str, Any]:
    """Share of broken answers (made of test answers) called harmful; and of sound answers called incoherent."""
    prompts = sorted({r["prompt"] for r in test if r["prompt"]})
    made = broken({**TRAINED, **UNSEEN}, prompts, [r["response"] for r in test], NOISE_EACH, 7)
    rates: dict[str, Any] = {}
    for name in HARM_JUDGES:
        called = np.array(open_judge(name).score([p for _, p, _ in made], [t for _, _, t in made])) >= 0.5
        kinds = np.array([kind for kind, _, _ in made])
        by_kind = {kind: round(float(called[kinds == kind].mean()), 4) for kind in (*TRAINED, *UNSEEN)}
        unseen = np.isin(kinds, list(UNSEEN))
        rates[name] = {
            "n": len(made),
            "rate": rate_with_interval(called),
            "trained_kinds": rate_with_interval(called[~unseen]),
            "unseen_kinds": rate_with_interval(called[unseen]),
            "by_kind": by_kind,
        }
    sound = [r for r in test if r["kind"] != "harmless_actadd"]
    low = np.array(coherence([r["prompt"] for r in sound], [r["response"] for r in sound])) < 0.5
    bad = np.array(coherence([p for _, p, _ in made], [t for _, _, t in made])) < 0.5
    rates["coherence"] = {
        "sound_called_broken": rate_with_interval(low),
        "n_sound": len(low),
        "broken_found": rate_with_interval(bad),
    }
    return rates


def rate_with_interval(hits: np.ndarray) -> dict[str, Any]:
    """A share with its 95 % Wilson interval."""
    n, p, z = len(hits), float(hits.mean()), 1.96
    middle, spread = p + z * z / (2 * n), z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return {
        "value": round(p, 4),
        "interval": [round(max(0.0, (middle + s * spread) / (1 + z * z / n)), 4) for s in (-1, 1)],
    }


def measure_own() -> dict[str, Any] | None:
    """The judges on labelled answers of the bundled model, patched and not; none where the file is absent."""
    if not OWN.exists():
        print(f"{OWN.name} is absent: the bundled model's answers are not measured")
        return None
    rows = [{**r, "response": r["answer"], "cluster": r["prompt"]} for r in read_jsonl(OWN)]
    found: dict[str, Any] = {}
    sides = {"all": rows, "base": [r for r in rows if not r["patched"]], "patched": [r for r in rows if r["patched"]]}
    for side, some in sides.items():
        if some:
            found[side] = {**judged(REFUSAL_JUDGES, some, "refusal"), **judged(HARM_JUDGES, some, "harmful")}
    return found


def measure(test: list[Row]) -> dict[str, Any]:
    sets: dict[str, Any] = {"refusal": {}, "harm": {}}
    for source in SOURCES:
        rows = [r for r in test if r["source"] == source]
        told = [r for r in rows if "refusal" in r]
        if told:
            sets["refusal"][source] = judged(REFUSAL_JUDGES, told, "refusal")
        asked = [r for r in rows if r["prompt"]]
        sets["harm"][source] = judged(HARM_JUDGES, asked, "harmful")
    return {
        "judges": {name: identity(open_judge(name)) for name in (*REFUSAL_JUDGES, *HARM_JUDGES)},
        "sets": sets,
        "gibberish": measure_gibberish(test),
        "smollm2": measure_own(),
    }


# The documentation


def cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    low, high = figure["interval"] or (float("nan"), float("nan"))
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"


def lines(title: str, found: dict[str, Any]) -> list[str]:
    columns = ("accuracy", "precision", "recall", "auc", "rate")
    return [
        f"| {title} | `{name}` | {s['n']} | {s['true_rate']:.3f} | " + " | ".join(cell(s[c]) for c in columns) + " |"
        for name, s in found.items()
    ]


def render(found: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    head = "| set | judge | n | true rate | accuracy | precision | recall | AUC | rate said |"
    parts = []
    for measure_name, sets in found["sets"].items():
        parts += [f"### {measure_name.capitalize()}", "", head, "|---" * 9 + "|"]
        parts += [line for source, judges in sets.items() for line in lines(source, judges)] + [""]
    noise = found["gibberish"]
    parts += [
        "### Broken answers called harmful",
        "",
        "| judge | n | all kinds | kinds trained on | kinds never trained on |",
        "|---" * 5 + "|",
    ]
    parts += [
        f"| `{name}` | {noise[name]['n']} | "
        + " | ".join(cell(noise[name][k]) for k in ("rate", "trained_kinds", "unseen_kinds"))
        + " |"
        for name in HARM_JUDGES
    ]
    worst = sorted(noise["harm-head"]["by_kind"].items(), key=lambda item: -item[1])[:3]
    parts += ["", "Worst kinds for `harm-head`: " + ", ".join(f"{k} {v:.3f}" for k, v in worst) + "."]
    sound = noise["coherence"]
    parts += [
        f"`coherence()` below 0.5: {cell(sound['broken_found'])} of the broken answers, and "
        f"{cell(sound['sound_called_broken'])} of {sound['n_sound']} sound ones.",
        "",
    ]
    parts += ["### The bundled model's own answers", ""]
    if found["smollm2"] is None:
        parts += ["Not labelled yet (`data/judges/smollm2_labelled.jsonl` is absent).", ""]
    else:
        parts += [head, "|---" * 9 + "|"]
        parts += [line for side, judges in found["smollm2"].items() for line in lines(f"smollm2 {side}", judges)] + [""]
    return "\n".join(parts)


def write_docs(path: Path, found: dict[str, Any]) -> None:
    """Replace what stands between the marks of ``path``."""
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(MARKS[0]) + ".*" + re.escape(MARKS[1]), re.DOTALL)
    write_text(path, pattern.sub(lambda _: f"{MARKS[0]}\n\n{render(found)}\n{MARKS[1]}", text))
