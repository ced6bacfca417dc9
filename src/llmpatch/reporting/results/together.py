"""The section of the results page about patches together: stacks, and one cumulative patch in their place.

together(Shelf(Path(".")))      # a Section, or None where nothing was measured
"""

from __future__ import annotations

from collections.abc import Sequence

from llmpatch.reporting.numbers import decimals
from llmpatch.reporting.page import Row
from llmpatch.reporting.results.blocks import Block, Grid, Json, Section, Shelf, shown

FILE = "benchmarks/results/composition.json"
PRICES = {
    "perplexity of WikiText-2 over the base's": ("wikitext", "ratio"),
    "time per further token over the base's": ("latency", "token_ratio"),
}
HEAD = ("n", "base", "patch alone", "together", "gain kept")
ADDED_HEAD = ("n", "base", "without it", "with it", "change")
LEAD = (
    "Each patch's gain by itself, and what is left of it where others stand beside it. Stacks: the worst of all orders and "
    "subsets of that size. docs/composition.md has every figure. Brackets hold 95 % intervals. GAS and GLD "
    "are here of one greedy continuation of each prompt, not of several that are drawn, as in the section on gender bias: "
    "compare within a section."
)


def together(shelf: Shelf) -> Section | None:
    """What stacks and a cumulative patch keep of each patch's gain, by benchmarks/composition.py."""
    found = shelf.load(FILE)
    if found is None:
        return None
    blocks: list[Block] = [
        _grid(rows, f"{size} {_form(name)} patches")
        for name, survey in found["sets"].items()
        for size, rows in survey["sizes"].items()
    ]
    if one := found.get("cumulative"):
        blocks.append(_grid(one["figures"], f"One cumulative patch, {one['tokens']} tokens"))
    for key, where in (("added", "behind the stack of three"), ("added-parallel", "side by side with three")):
        if added := found.get(key):
            blocks.append(_grid(added["figures"], f"A fourth patch {where}: {added['name']}", ADDED_HEAD, "change"))
            blocks.append(_grid(added["own"], f"{added['name']} there: its own gain"))
    prices = tuple(
        Row(
            f"{name}, {price['tokens']} tokens",
            tuple(shown(shelf.look(FILE, ["price", name, *place]), "ratio") for place in PRICES.values()),
        )
        for name, price in found["price"].items()
    )
    blocks.append(Grid(tuple(PRICES), prices, "The price"))
    return Section("Patches together", LEAD, tuple(blocks))


def _form(name: str) -> str:
    """How the patches of a set stand, and which they are."""
    kind = name.removesuffix("-parallel")
    return f"{'in a stack' if kind == name else 'side by side'}: {'official' if kind == 'patches' else kind}"


def _grid(figures: Sequence[Json], title: str, head: tuple[str, ...] = HEAD, last: str = "kept") -> Grid:
    rows = tuple(
        Row(
            f"{row['name']}: {row['metric']}",
            (
                str(row["n"]),
                *(decimals(row[key]) for key in ("before", "alone", "together")),
                shown(row[last], "points" if last == "change" else "share") if row[last] else "no gain to keep",
            ),
        )
        for row in figures
    )
    return Grid(head, rows, title)
