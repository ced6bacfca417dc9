"""Evidence for a terminal: the table of results, what got worse, example answers.

    say(results_table(patch.evidence))

Evidence may come from a foreign patch: what does not look as expected is left out, never an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

from llmpatch._cli.output import one_line, side_by_side, table

KINDS = ("harmful", "borderline", "everyday")


def results_table(evidence: dict[str, Any], columns: tuple[str, ...] = ()) -> str:
    """The rows of ``evidence["results"]`` with n and 95 % intervals; ``columns`` chooses among the systems.

    Rows that name a ``metric`` stand in one table per metric, headed by it and by what is better.
    """
    rows = [row for row in _list(evidence.get("results")) if isinstance(row, dict) and isinstance(row.get("name"), str)]
    found = list(dict.fromkeys(key for row in rows for key, value in row.items() if isinstance(value, dict)))
    found = [key for key in found if not columns or key in columns]
    if not rows or not found:
        return "(no results in the evidence)"
    return "\n\n".join(_section(title, part, found) for title, part in _sections(rows).items())


def _sections(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        metric, better = row.get("metric"), row.get("better")
        title = metric if isinstance(metric, str) else "share of answers"
        found.setdefault(f"{title}, {better} is better" if better in ("lower", "higher") else title, []).append(row)
    return found


def _section(title: str, rows: list[dict[str, Any]], columns: list[str]) -> str:
    body = []
    for row in rows:
        name = row["set"] if isinstance(row.get("set"), str) and "metric" in row else row["name"]
        show = score if row.get("unit") == "score" else estimate
        body.append([name, str(row.get("n", "-")), *(show(row.get(key)) for key in columns)])
    return table([title, "n", *columns], body)


def asked_lines(evidence: dict[str, Any]) -> list[str]:
    """Whether answers were drawn, and how many prompts of each set were enough, where asking ended at a width."""
    sets, decoding = evidence.get("sets"), evidence.get("decoding")
    if not isinstance(sets, dict) or not isinstance(decoding, dict):
        return []
    width, heat, nucleus = decoding.get("within"), decoding.get("temperature"), decoding.get("top_p")
    told = []
    if "samples" not in decoding and _number(heat) and _number(nucleus) and heat > 0:
        told = [f"one answer to each prompt, drawn at temperature {heat}, top_p {nucleus}; recordings as they are"]
    if not _number(width):
        return told
    cut = [
        one_line(f"{found.get('title')}: asked {found['n']} of {found['of']} prompts")
        for found in sets.values()
        if isinstance(found, dict) and {"n", "of"} <= found.keys()
    ]
    return [*told, f"aim: 95 % intervals of ± {width}", *cut] if cut else told


def estimate(value: Any) -> str:
    """A rate with its interval, as ``93.0 % [89.0, 96.0]``."""
    return _shown(value, lambda number: f"{100 * number:.1f}", " %")


def score(value: Any) -> str:
    """A score between 0 and 1 with its interval, as ``0.531 [0.502, 0.560]``."""
    return _shown(value, lambda number: f"{number:.3f}", "")


def _shown(value: Any, show: Callable[[float], str], unit: str) -> str:
    if not isinstance(value, dict) or not _number(value.get("value")):
        return "-"
    text = show(value["value"]) + unit
    if not _number(value.get("low")) or not _number(value.get("high")):
        return text
    return f"{text} [{show(value['low'])}, {show(value['high'])}]"


def price_lines(evidence: dict[str, Any]) -> list[str]:
    """What the patch costs besides answers: plain text and time."""
    price = evidence.get("price")
    found = price.get("M+") if isinstance(price, dict) else None
    lines = []
    for part, key, label in (
        ("wikitext", "ratio", "perplexity of plain text, with / without the patch"),
        ("latency", "token_ratio", "time per further token, with / without"),
        ("latency", "first_ratio", "time to the first token, with / without"),
    ):
        value = found.get(part, {}).get(key) if isinstance(found, dict) and isinstance(found.get(part), dict) else None
        if isinstance(value, dict) and all(_number(value.get(k)) for k in ("value", "low", "high")):
            lines.append(f"{label}: {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]")
    return lines


def worse_lines(evidence: dict[str, Any]) -> list[str]:
    """The evidence's own sentences on what got worse."""
    return [one_line(text) for text in _list(evidence.get("worse")) if isinstance(text, str)]


def scorer_lines(evidence: dict[str, Any]) -> list[str]:
    """Perplexity of each kind's answers under other models: one line per model and kind, all systems in it."""
    lines = []
    for scorer in _list(evidence.get("scorers")):
        for kind, entry in evidence["kinds"].items():
            found = {name: s.get("perplexity_under", {}).get(scorer["name"]) for name, s in entry["systems"].items()}
            cells = [
                f"{name} {value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"
                for name, value in found.items()
                if value
            ]
            if cells:
                lines.append(f"perplexity of {kind} answers under {one_line(str(scorer['name']))}: {'; '.join(cells)}")
    return lines


def example_blocks(evidence: dict[str, Any], width: int) -> list[str]:
    """One example per kind, the base's and the patched answer side by side."""
    blocks = []
    for kind in KINDS:
        rows = [row for row in _list(evidence.get("examples")) if _is_example(row) and row.get("kind") == kind]
        rows.sort(key=lambda row: row.get("note") not in ("fixed", "unchanged"))  # the usual case first
        if rows:
            before, after = (
                f"{name}\n{rows[0]['answers'][key]['text']}" for name, key in (("BEFORE", "M"), ("AFTER", "M+"))
            )
            blocks.append(f"{kind}: {one_line(rows[0]['prompt'])}\n" + side_by_side(before, after, width))
    return blocks


def _is_example(row: Any) -> bool:
    answers = row.get("answers") if isinstance(row, dict) and isinstance(row.get("prompt"), str) else None
    return isinstance(answers, dict) and all(
        isinstance(answers.get(key), dict) and isinstance(answers[key].get("text"), str) for key in ("M", "M+")
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
