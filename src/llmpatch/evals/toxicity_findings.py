"""What to tell people about toxicity: rows for the model card, changes, continuations side by side, what got worse.

    worse(evidence)    # ["RTP non-toxic: expected max toxicity by profanity-check 0.171, the base 0.160 (...)."]

Sentences are computed from the evidence, never written by hand. No text here is longer than 120 characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmpatch.evals.findings import COLUMNS, HARM_CHARS, MAX_EXAMPLES, deal, less_fluent, worse_price
from llmpatch.evals.scoring import THRESHOLD
from llmpatch.evals.toxicity_scoring import MAX, METRICS, RATE, SAFETY, Item, Items, looping

if TYPE_CHECKING:
    from llmpatch.evals.prompt_sets import PromptSet

TITLES = {
    MAX: "expected max toxicity",
    RATE: "prompts with a toxic continuation",
    SAFETY: "continuations that are not toxic",
}
BETTER = {MAX: "lower", RATE: "lower", SAFETY: "higher"}
_KINDS = {"harmful": "all that draw toxicity", "borderline": "all that do not", "everyday": "all everyday"}
_NOTES = ("newly toxic", "still toxic", "loops", "fixed", "unchanged")
_LOOPING = 0.5


def card_rows(evidence: dict[str, Any]) -> list[dict[str, Any]]:
    """The main figures as rows of ``{"name", "metric", "set", "better", "unit", "kind", "n", "base": interval, ...}``.

    All measures of the leading judge, and expected max toxicity of the others.
    """
    rows: list[dict[str, Any]] = []
    for metric in METRICS:
        for number, judge in enumerate(judge["name"] for judge in evidence["judges"]):
            if number and metric != MAX:
                continue
            for title, entry in _entries(evidence):
                cells = {COLUMNS.get(n, n): scores[metric][judge] for n, scores in entry["systems"].items()}
                rows.append(
                    {
                        "name": f"{title}: {TITLES[metric]} ({judge})",
                        "metric": f"{TITLES[metric]} ({judge})",
                        "set": title,
                        "better": BETTER[metric],
                        "unit": "score" if metric == MAX else "share",
                        "kind": entry["kind"],
                        "n": entry["n"],
                        **cells,
                    }
                )
    return rows


def _entries(evidence: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Sets with their titles, and a kind of several sets behind them."""
    found = [(entry["title"], entry) for entry in evidence["sets"].values()]
    kinds = [entry["kind"] for entry in evidence["sets"].values()]
    pooled = [(_KINDS[k], entry) for k, entry in evidence["kinds"].items() if kinds.count(k) > 1 and entry["systems"]]
    return pooled + found


def changes(evidence: dict[str, Any], name: str = "M+") -> list[dict[str, Any]]:
    """What changed from ``M`` to ``M+``: ``{"name", "n", "unit", "base", "patched", "difference", "relative"?}``."""
    rows: list[dict[str, Any]] = []
    for title, entry in _entries(evidence):
        for metric in METRICS if name in entry["systems"] else ():
            for judge, moved in entry["paired"][name].get(metric, {}).items():
                row = {
                    "name": f"{title}: {TITLES[metric]} ({judge})",
                    "n": moved["n"],
                    "unit": "score" if metric == MAX else "share",
                    "base": entry["systems"]["M"][metric][judge],
                    "patched": entry["systems"][name][metric][judge],
                    "difference": moved,
                }
                fell = entry["paired"][name]["relative"].get(metric, {}).get(judge)
                rows.append(row | ({"relative": fell} if fell else {}))
    return rows


def worse(evidence: dict[str, Any], name: str = "M+") -> list[str]:
    """One sentence per measure in which the patched model is worse than the base."""
    found: list[str] = []
    for entry in evidence["sets"].values():
        if name in entry["systems"]:
            found += _worse_set(entry, name)
    return found + worse_price(evidence["price"].get(name, {}))


def _worse_set(entry: dict[str, Any], name: str) -> list[str]:
    base, new, change = entry["systems"]["M"], entry["systems"][name], entry["paired"][name]
    title, found = entry["title"], []
    for metric, sign in ((MAX, 1), (RATE, 1), (SAFETY, -1)):
        for judge, moved in change.get(metric, {}).items():
            if sign * moved["value"] > 0:
                before, after = base[metric][judge], new[metric][judge]
                found.append(f"{title}: {TITLES[metric]} by {judge} {_moved(before, after, moved)}")
    for key, what, sign in (
        ("empty", "share of empty continuations", 1),
        ("loops", "share of continuations that turn in circles", 1),
        ("distinct_3", "share of distinct trigrams", -1),
    ):
        if key in change and sign * change[key]["value"] > 0:
            found.append(f"{title}: {what} {_moved(base[key], new[key], change[key])}")
    return found + less_fluent(f"{title}: continuations", base, new)


def _moved(before: dict[str, Any], after: dict[str, Any], change: dict[str, Any]) -> str:
    certain = "" if change["low"] > 0 or change["high"] < 0 else ", within chance"
    return (
        f"{after['value']:.3f}, the base {before['value']:.3f} (paired change {change['value']:+.3f} "
        f"[{change['low']:+.3f}, {change['high']:+.3f}], n = {change['n']}{certain})."
    )


def examples(sets: Sequence[PromptSet], table: dict[str, dict[str, Items]], lead: str) -> list[dict[str, Any]]:
    """Up to 60 prompts with every system's most toxic continuation, spread over the sets, the telling ones first."""
    share = max(1, MAX_EXAMPLES // max(1, len(sets)))
    found: list[dict[str, Any]] = []
    for prompt_set in sets:
        pool: dict[str, list[dict[str, Any]]] = {note: [] for note in _NOTES}
        systems = table[prompt_set.name]
        for prompt in prompt_set.prompts:
            items = {name: items[prompt.id] for name, items in systems.items() if prompt.id in items}
            note = _note(items, lead)
            pool[note].append(
                {
                    "set": prompt_set.name,
                    "kind": prompt_set.kind,
                    "id": prompt.id,
                    "prompt": prompt.text[:HARM_CHARS],
                    "note": note,
                    "answers": {name: _shown(item, lead) for name, item in items.items()},
                }
            )
        found += deal(pool, share)
    return found[:MAX_EXAMPLES]


def _shown(item: Item, lead: str) -> dict[str, Any]:
    """The most toxic continuation by the leading judge; what is toxic is hidden from no one, but is short."""
    number = item.worst(lead)
    text = item.answers[number].text.strip()
    return {
        "text": text[:HARM_CHARS],
        "shortened": len(text) > HARM_CHARS,
        "finish": item.answers[number].finish,
        "toxicity": round(item.judged[lead][number], 4),
    }


def _note(items: dict[str, Item], lead: str) -> str:
    if "M+" not in items:
        return "unchanged"
    before, after = (items[name].value(MAX, lead) >= THRESHOLD for name in ("M", "M+"))
    if after:
        return "still toxic" if before else "newly toxic"
    if looping(items["M+"]) >= _LOOPING > looping(items["M"]):
        return "loops"
    return "fixed" if before else "unchanged"
