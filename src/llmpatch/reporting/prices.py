"""What a patch costs, as rows and tiles: perplexity of plain text and of answers, time, repetition.

price_rows(evidence, systems)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmpatch.reporting.numbers import Estimate, decimals, factor, percent, plain
from llmpatch.reporting.page import Json, Row, System, Tile


def price_tiles(evidence: Json) -> list[Tile]:
    """Plain text and time, with the patch and without."""
    tiles = []
    price = evidence.get("price", {}).get("M+", {})
    if text := price.get("wikitext"):
        ratio = Estimate.of(text["ratio"])
        tiles.append(
            Tile(
                "Perplexity of plain text",
                plain(text["base"]),
                plain(text["patched"]),
                f"{factor(ratio.value)} [{ratio.span(decimals)}]",
            )
        )
    if time := price.get("latency"):
        ratio = Estimate.of(time["token_ratio"])
        before, after_ms = time["token_ms"]["base"], time["token_ms"]["patched"]
        tiles.append(
            Tile(
                "Time per token, ms", plain(before), plain(after_ms), f"{factor(ratio.value)} [{ratio.span(decimals)}]"
            )
        )
    return tiles


def price_rows(evidence: Json, systems: Sequence[System]) -> list[Row]:
    """What each system costs, a column per system."""
    price, kinds = evidence.get("price", {}), evidence.get("kinds", {})
    rows = [
        Row("Perplexity of plain text (WikiText-2)", tuple(_priced(price, s, _wikitext) for s in systems)),
        Row("Time to the first token", tuple(_priced(price, s, _first_token) for s in systems)),
        Row("Time per further token", tuple(_priced(price, s, _token) for s in systems)),
    ]
    measures: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("perplexity", "perplexity", plain),
        ("trigram_overlap", "repeated trigrams", percent),
        ("distinct_1", "distinct words", percent),
        ("distinct_2", "distinct word pairs", percent),
        ("distinct_3", "distinct trigrams", percent),
        ("empty", "empty", percent),
        ("loops", "turns in circles", percent),
        ("incoherent", "does not make sense", percent),
        ("cut_off", "cut at the length limit", percent),
    )
    for kind, found in kinds.items():
        group = [
            Row(what, tuple(cell_text(found["systems"].get(s.key, {}).get(key), show) for s in systems))
            for key, what, show in measures
        ]
        rows += [Row(f"{kind.capitalize()} answers", ()), *group, *_scored(evidence, found, systems)]
    return [row for row in rows if not row.cells or any(cell != "–" for cell in row.cells)]


def _scored(evidence: Json, found: Json, systems: Sequence[System]) -> list[Row]:
    """Perplexity of a kind's answers under other models."""
    names = [str(scorer["name"]) for scorer in evidence.get("scorers", [])]
    under = {s.key: found["systems"].get(s.key, {}).get("perplexity_under", {}) for s in systems}
    return [
        Row(f"perplexity under {name}", tuple(cell_text(under[s.key].get(name), plain) for s in systems))
        for name in names
    ]


def _priced(price: Json, system: System, read: Callable[[Json], tuple[float, float, Estimate, str] | None]) -> str:
    """A cell of the base's own value, or of another's with its ratio."""
    if system.key == "M":
        for found in price.values():
            if values := read(found):
                return f"{plain(values[0])}{values[3]}"
        return "–"
    values = read(price[system.key]) if system.key in price else None
    if values is None:
        return "–"
    return f"{plain(values[1])}{values[3]} {factor(values[2].value)} [{values[2].span(decimals)}]"


def _wikitext(found: Json) -> tuple[float, float, Estimate, str] | None:
    text = found.get("wikitext")
    return (text["base"], text["patched"], Estimate.of(text["ratio"]), "") if text else None


def _first_token(found: Json) -> tuple[float, float, Estimate, str] | None:
    return _time(found, "first_ms", "first_ratio")


def _token(found: Json) -> tuple[float, float, Estimate, str] | None:
    return _time(found, "token_ms", "token_ratio")


def _time(found: Json, times: str, ratio: str) -> tuple[float, float, Estimate, str] | None:
    time = found.get("latency")
    return (time[times]["base"], time[times]["patched"], Estimate.of(time[ratio]), " ms") if time else None


def cell_text(found: Json | None, show: Callable[[float], str]) -> str:
    """A value with its interval, or a dash."""
    if not found:
        return "–"
    estimate = Estimate.of(found)
    return f"{show(estimate.value)} [{estimate.span(show)}]"
