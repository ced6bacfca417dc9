"""The sections of the results page that the scripts in ``benchmarks/`` measured: baselines, ablations, formats.

baselines(Shelf(Path(".")))      # a Section, or None where nothing was measured
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmpatch.recipe import DECLINING
from llmpatch.reporting.numbers import Estimate, decimals, percent, plain
from llmpatch.reporting.page import LABELS, Point, Row
from llmpatch.reporting.results.blocks import MISSING, Block, Grid, Json, Plot, Section, Shelf, paper, shown
from llmpatch.reporting.svg import Seeds, plot_frontier, plot_seeds


class Ablation(NamedTuple):
    """What is varied: in words, and as overrides, ``KEY=V1,V2``."""

    title: str
    varied: tuple[str, ...]


ABLATIONS = {
    "beta": Ablation("DPO's beta", ("training.dpo.beta=0.03,0.1,0.3,1",)),
    "tokens": Ablation("number of virtual tokens", ("prefix.tokens=1,5,10,20,50,100",)),
    "init": Ablation("start of the virtual tokens", ("prefix.init=text,vocabulary,random",)),
    "data": Ablation("harmful prompts to train on", ("prompts.harmful.limit=50,100,200,400,800",)),
    "dpo-reference": Ablation("DPO's reference policy", ("training.dpo.reference=none,base,sft",)),
    "kl": Ablation("weight of KL to the base on benign prompts", ("training.kl_weight=0,0.3,1,3,10",)),
    "optimizer": Ablation("the optimiser", ("training.optimizer=adamw,muon",)),
    "stages": Ablation("SFT and DPO, or SFT alone", ("stages=both,sft,sft-long",)),
    "noise": Ablation(
        "share of the teacher's answers flipped, with and without the filter", ("noise=0,0.1,0.3", "filter=on,off")
    ),
}
_SCORE = "Validation score: harmful prompts handled right, less the weighted share of benign prompts handled wrong."


def baselines(shelf: Shelf) -> Section | None:
    """Every baseline's row, and the paper's figures of its own."""
    found = shelf.load("benchmarks/results/baselines.json")
    frontier = shelf.load("benchmarks/results/frontier.json")
    blocks: list[Block] = []
    if found is not None:
        blocks += _baseline_blocks(found)
        if beside := paper(shelf, "baselines"):
            blocks.append(beside)
    if frontier is not None:
        blocks += _frontier(frontier)
    if not blocks:
        return None
    lead = (
        "What each gains, costs and took: the same pairs, steps, rows per step and answer lengths for all; validation keeps the "
        "best checkpoint of each."
    )
    if found is not None:
        lead += f" Recipe {found['recipe']}, {found['pairs']:,} pairs. Answers: {_counts(found)}."
        lead += " The checkpoints of the official recipe below are another training." if frontier is not None else ""
    else:
        lead = "The same pairs and rows per step for all; how many steps a LoRA was trained for stands beside its name."
    return Section("Baselines side by side", lead, tuple(blocks))


def _baseline_blocks(found: Json) -> list[Block]:
    columns = found["columns"]
    figures = Grid(
        tuple(str(c["title"]) + (f" ({c['better']} is better)" if c["group"] != "latency" else "") for c in columns),
        tuple(
            Row(LABELS.get(name, name), tuple(_cell(row["figures"].get(c["key"]), c["unit"]) for c in columns))
            for name, row in found["rows"].items()
        ),
        f"What each gains and costs, judge {found['judge']}" if found["judge"] else "What each gains and costs",
    )
    made = [(name, row["about"]) for name, row in found["rows"].items() if row["about"]]
    costs = Grid(
        ("numbers trained", "bytes", "training FLOPs", "training minutes", "steps, SFT + DPO", "kept"),
        tuple(Row(LABELS.get(name, name), _cost(about)) for name, about in made),
        "What each took",
    )
    points = _points(found)
    plots = [_frontier_plot(points, f"{found['recipe']}: safety against over-refusal")] if len(points) > 1 else []
    return [*plots, figures, costs]


def _counts(found: Json) -> str:
    """How many answers each column is of."""
    figures = next(iter(found["rows"].values()))["figures"]
    told = [(column["title"], figures[column["key"]]["n"]) for column in found["columns"] if column["key"] in figures]
    return ", ".join(f"{n} ({title})" for title, n in told)


def _cell(value: Any, unit: str) -> str:
    return "–" if value is None else shown(value, unit)


def _cost(about: Json) -> tuple[str, ...]:
    training = about.get("training") or {}
    seconds, flops, steps = training.get("seconds"), training.get("flops"), training.get("steps")
    return (
        _cell(about.get("parameters"), "count"),
        _cell(about.get("bytes"), "count"),
        "–" if flops is None else f"{flops:.2e}",
        "–" if seconds is None else plain(seconds / 60),
        "–" if steps is None else " + ".join(map(str, steps)),
        str(about.get("best_at", "–")),
    )


def _points(found: Json) -> list[Point]:
    if found["risk"] not in DECLINING:
        return []
    rows = [(name, row["figures"]) for name, row in found["rows"].items()]
    rows = [(name, figures) for name, figures in rows if {"refused", "borderline"} <= figures.keys()]
    return [
        Point(LABELS.get(name, name), style, Estimate.of(f["borderline"]), Estimate.of(f["refused"]))
        for style, (name, f) in enumerate(rows)
    ]


def _frontier_plot(points: Sequence[Point], title: str) -> Plot:
    legend = tuple((f"{number}  {p.label}", p.style) for number, p in enumerate(points, start=1))
    drawn = plot_frontier(points, show=lambda v: f"{v:.0%}")
    return Plot(title, drawn, "up: harmful requests declined; right: harmless borderline requests declined", legend)


def _frontier(found: Json) -> list[Block]:
    """Checkpoints of the patch and LoRA with the patch's own losses."""
    names = [str(p["name"]) for p in found["points"]]
    points = [
        Point(LABELS.get(name, name), style, Estimate.of(p["over_refusal"]), Estimate.of(p["refusal"]))
        for style, (name, p) in enumerate(zip(names, found["points"], strict=True))
    ]
    rows = tuple(
        Row(point.label + _steps(p), tuple(shown(p[key], "share") for key in ("refusal", "over_refusal", "everyday")))
        for point, p in zip(points, found["points"], strict=True)
    )
    counts = " / ".join(str(found["points"][0][key]["n"]) for key in ("refusal", "over_refusal", "everyday"))
    title = (
        f"Checkpoints of the refusal patch of the official recipe, each as it was when training reached it, and LoRA with the "
        f"patch's own losses, its last (judge {found['judge']}; {counts} answers)"
    )
    head = ("harmful declined", "borderline wrongly declined", "everyday wrongly declined")
    return [_frontier_plot(points, "Harmful against harmless requests declined"), Grid(head, rows, title)]


def _steps(point: Json) -> str:
    return f" ({' + '.join(map(str, point['steps']))} steps)" if "steps" in point else ""


def self_reference(shelf: Shelf) -> Section | None:
    """Patches whose base was its own reference beside what was chosen as M', by benchmarks/self_reference.py."""
    found = shelf.load("benchmarks/results/self_reference.json")
    if found is None:
        return None
    blocks = []
    for risk in found["risks"].values():
        rows = tuple(
            Row(
                f"{row['name']} ({row['better']} is better)",
                (str(row["n"]), *_result(row, ("base", "patched", "reference")), shown(row["closed"], "share")),
            )
            for row in risk["sets"].values()
        )
        chosen = f"the worst of {risk['best_of']} rewritten" if risk["rewritten"] else f"the best of {risk['best_of']}"
        title = f"{risk['patch']}: {chosen}, by {risk['judge']}; {risk['samples']} for each prompt"
        blocks.append(Grid(("n", "base", "patched", "reference", "share of the gap closed"), rows, title))
    lead = (
        "These patches had no safer model: what was chosen out of the base's own continuations stood for M'. Here it is chosen "
        "once more, for the test prompts, and measured as the patch is. A share above 100 %: the patch goes beyond it."
    )
    return Section("Where the base was its own reference", lead, tuple(blocks))


def sampled(shelf: Shelf) -> Section | None:
    """A patch's rates where answers are drawn, and where they are long, by benchmarks/sampled.py."""
    found = shelf.load("benchmarks/results/sampled.json")
    if found is None:
        return None
    rows: list[Row] = []
    for row in found["rows"]:
        said = [row["systems"][name] for name in ("M", "M+")]
        n = str(said[0]["refusal"]["n"])
        cells = [shown(one["refusal"], "share") for one in said]
        cells += [shown(one["harm"], "share") if "harm" in one else "" for one in said]
        rows.append(Row(f"{_way(row)}: {row['kind']}", (n, *cells)))
    head = ("n", "declined, base", "declined, patched", "harmful answers, base", "harmful answers, patched")
    judges = found["judges"]
    lead = (
        f"{found['patch']}, judges {judges['refusal']} and {judges['harm']}. The other figures of harmful requests are of "
        "greedy answers of 48 tokens; llmpatch serve and OpenAI's API draw at temperature 1 where a request says nothing. "
        "Of the first prompts of each set compare the two lengths."
    )
    return Section("Where answers are drawn, or long", lead, (Grid(head, tuple(rows)),))


def _way(row: Json) -> str:
    drawn = f"drawn at temperature {row['temperature']:g}" if row.get("temperature") else "greedy"
    first = f", the first {row['limit']} of each set" if row.get("limit") else ""
    return f"{drawn}, {row['max_new_tokens']} tokens{first}"


def ablations(shelf: Shelf) -> list[Section]:
    """A section per ablation, in the order of the list, others after it."""
    names = shelf.names("benchmarks/results/ablations/*.json")
    order = list(ABLATIONS)
    names.sort(key=lambda n: (order.index(Path(n).stem) if Path(n).stem in order else len(order), n))
    return [_ablation(shelf.load(name), Path(name).stem) for name in names]


def _ablation(found: Json, name: str) -> Section:
    axis, lines = found["axes"][0], (found["axes"][1]["values"] if len(found["axes"]) > 1 else [None])
    cells = found["cells"]

    def values(key: str, value: Any, line: Any) -> tuple[float, ...]:
        return tuple(
            float(c["validation"][key])
            for c in cells
            if (c["value"], c["line"]) == (value, line) and key in c["validation"]
        )

    ticks = [_said(value) for value in axis["values"]]
    drawn = [
        Seeds(_line_name(found, line), style, tuple(values("score", value, line) for value in axis["values"]))
        for style, line in enumerate(lines, start=1)
    ]
    every = [y for line in drawn for ys in line.values for y in ys]
    low, high = _span(every)
    title = f"Ablation: {ABLATIONS[name].title if name in ABLATIONS else axis['key']}"
    svg = plot_seeds(drawn, ticks, low=low, high=high, label=title, show=lambda v: f"{v:.2f}")
    legend = tuple((line.label, line.style) for line in drawn) if len(lines) > 1 else ()
    rows: list[Row] = []
    for line in lines:
        rows += [Row(_line_name(found, line), ())] if len(lines) > 1 else []
        rows += [
            Row(f"{axis['key']} {_said(v)}", (*_spread(values, v, line), _kept(cells, v, line))) for v in axis["values"]
        ]
    seeds = len({c["seed"] for c in cells})
    state = "" if found["complete"] else " Not all cells are measured yet."
    lead = f"{_SCORE} Recipe {found['recipe']}, base {found['base']}; {seeds} seeds, a dot each.{state}"
    head = ("seeds", "score, mean [lowest to highest]", "harmful", "borderline wrong", "everyday wrong", "rows kept of")
    blocks: list[Block] = [Plot(title, svg, f"across: {axis['key']}; up: validation score", legend)] if every else []
    return Section(title, lead, (*blocks, Grid(head, tuple(rows)), *_tested(found, lines)))


def _said(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"


def _line_name(found: Json, line: Any) -> str:
    return "score" if line is None else f"{found['axes'][1]['key']} {_said(line)}"


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis, in tenths, that hold all values."""
    if not values:
        return 0.0, 1.0
    return int(min(0.0, *values) * 10 - 0.999) / 10 if min(values) < 0 else 0.0, min(
        1.0, int(max(values) * 10 + 1) / 10
    )


def _spread(values: Any, value: Any, line: Any) -> tuple[str, ...]:
    scores = values("score", value, line)
    if not scores:
        return ("0", MISSING, "–", "–", "–")
    mean = sum(scores) / len(scores)
    others = [values(key, value, line) for key in ("harmful", "borderline", "everyday")]
    rates = [percent(sum(found) / len(found)) if found else "–" for found in others]
    return (str(len(scores)), f"{decimals(mean)} [{decimals(min(scores))} to {decimals(max(scores))}]", *rates)


def _kept(cells: Sequence[Json], value: Any, line: Any) -> str:
    """The steps whose rows validation liked best: a stage that made it worse is not in the figures beside."""
    at = {str(cell["best_at"]) for cell in cells if (cell["value"], cell["line"]) == (value, line)}
    return ", ".join(sorted(at)) or MISSING


def _tested(found: Json, lines: Sequence[Any]) -> list[Block]:
    """The small evals of the cells, where there were any: means over seeds."""
    cells = [c for c in found["cells"] if "figures" in c]
    if not cells:
        return []
    titles = list(dict.fromkeys(title for c in cells for title in c["figures"]))
    rows = []
    for line in lines:
        for value in found["axes"][0]["values"]:
            mine = [c["figures"] for c in cells if (c["value"], c["line"]) == (value, line)]
            if mine:
                means = [sum(f[t]["value"] for f in mine) / len(mine) for t in titles]
                name = f"{found['axes'][0]['key']} {_said(value)}" + (
                    "" if line is None else f", {_line_name(found, line)}"
                )
                rows.append(Row(name, (str(len(mine)), *(decimals(mean) for mean in means))))
    note = f"On test prompts: the first {found['eval_limit']} of each set, means over seeds"
    return [Grid(("seeds", *titles), tuple(rows), note)]


def further(shelf: Shelf) -> Section | None:
    """Evidence of other suites that a script left in ``benchmarks/results``."""
    blocks: list[Block] = []
    for name in shelf.names("benchmarks/results/*.json"):
        evidence = shelf.load(name)
        if not isinstance(evidence, dict) or evidence.get("schema") != "llmpatch/evidence/v1":
            continue
        columns = [
            c for c in ("base", "patched", "safe prompt", "reference") if any(c in r for r in evidence["results"])
        ]
        rows = tuple(Row(str(r["name"]), (str(r["n"]), *_result(r, columns))) for r in evidence["results"])
        blocks.append(Grid(("n", *columns), rows, f"Suite {evidence['suite']} ({Path(name).stem})"))
    return Section("Further suites", "Brackets hold 95 % intervals.", tuple(blocks)) if blocks else None


def _result(row: Json, columns: Sequence[str]) -> list[str]:
    unit = "score" if row.get("unit") == "score" else "share"
    return [_cell(row.get(column), unit) for column in columns]


def quantised(shelf: Shelf) -> Section | None:
    """The official patches on the base in several number formats, by benchmarks/quantised.py."""
    found = shelf.load("benchmarks/results/quantised.json")
    if found is None:
        return None
    kinds = found["kinds"]
    blocks = []
    for patch in found["patches"]:
        name = patch["title"]
        there = [kind for kind in kinds if name in kind["patches"]]
        measured = [{row["name"]: row for row in kind["patches"][name]["results"]} for kind in there]
        rows = [
            Row(title, tuple(_before_and_after(results[title]) for results in measured))
            for title, row in measured[0].items()
            if row.get("set", "").lower().partition(" ")[0] in ("", "all")
        ]
        limit = f", the first {patch['limit']} prompts of each set" if patch["limit"] else ""
        blocks.append(Grid(tuple(_format(kind) for kind in there), tuple(rows), f"{name}{limit}"))
    lead = (
        f"Patches before {found['source']} in several number formats, base → patched. Each format has its own weights, the "
        "arithmetic is float32. What the file lost when it was made stays lost: its F16 is the same model again. "
        "GAS and the like are of one greedy continuation of each prompt."
    )
    return Section("Quantised bases", lead, tuple(blocks))


def _format(kind: Json) -> str:
    """A format as people say it: the digest of the file tells a reader nothing."""
    said = str(kind["quantisation"])
    found = said.removeprefix("gguf:").partition(":")[0] if said.startswith("gguf:") else said.replace(":", " ")
    return found + (" (as published)" if kind["kind"] == "shipped" else "")


def _before_and_after(row: Json) -> str:
    unit = "score" if row.get("unit") == "score" else "share"
    base = percent if unit == "share" else decimals
    return f"{base(row['base']['value'])} → {shown(row['patched'], unit)}"
