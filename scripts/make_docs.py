"""Write the generated documents: docs/cli.md, docs/recipes.md, docs/reports and the results tables of README.md.

python scripts/make_docs.py            # writes them
python scripts/make_docs.py --check    # exit code 1 when one differs
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from generated import ROOT, between, main, put_between
from llmpatch._cli.evidence_view import estimate, price_lines, score
from llmpatch._cli.main import root
from llmpatch.artifact import read_patch
from llmpatch.composing import added_table, figures_table, survey_table
from llmpatch.estimate import SHAPES, TEMPLATE_TOKENS
from llmpatch.estimate import estimate as estimate_cost
from llmpatch.learning import read_prompts
from llmpatch.prompts import Prompt
from llmpatch.recipe import Recipe, load_recipe, override
from llmpatch.reporting import render_html, render_markdown

OFFICIAL = Path("patches/smollm2/refusal")
COMPOSITION = ROOT / "benchmarks/results/composition.json"
FRONTIER = ROOT / "benchmarks/results/frontier.json"
GPU = ROOT / "benchmarks/results/gpu.json"
GPU_STEPS = ROOT / "benchmarks/results/gpu_steps.json"
LEAST_PAIRS, MOST_PAIRS = 16, 20  # in a step of GPU's trainings in turns; the one on the CPU had the most
MALICIOUS = ROOT / "benchmarks/results/malicious.json"
PROBE = ROOT / "benchmarks/results/probe.json"
START, END = "<!-- results: written by scripts/make_docs.py -->", "<!-- /results -->"
STREAMING = ROOT / "benchmarks/results/streaming.json"
STREAM_START, STREAM_END = "<!-- streaming: written by scripts/make_docs.py -->", "<!-- /streaming -->"
LARGE_START, LARGE_END = "<!-- large: written by scripts/make_docs.py -->", "<!-- /large -->"
COSTS_START, COSTS_END = "<!-- costs: written by scripts/make_docs.py -->", "<!-- /costs -->"
COLUMNS = {
    "base": "`M` (base)",
    "patched": "`M+` (patched)",
    "safe prompt": "safe prompt",
    "reference": "`M'` (reference)",
}
WIDTH = 100


def cli_page() -> str:
    """Every command's --help."""
    parts = ["# Command line", "Written by `scripts/make_docs.py` from `--help`."]
    parts += [f"## `{name}`\n\n```\n{text.rstrip()}\n```" for name, text in helps(root, "llmpatch", None)]
    return "\n\n".join(parts) + "\n"


def helps(command: click.Command, name: str, parent: click.Context | None) -> list[tuple[str, str]]:
    settings: dict[str, Any] = {**command.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    found = [(context.command_path, command.get_help(context))]
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found += helps(command.get_command(context, child), child, context)
    return found


def recipes_page() -> str:
    """Every key of a recipe, from the schema and its docstrings."""
    schema = Recipe.model_json_schema()
    parts = [
        "# Recipes",
        "Written by `scripts/make_docs.py` from `src/llmpatch/recipe.py` and `src/llmpatch/training_recipe.py`.",
        "A recipe is a YAML file that makes one patch. Unknown keys, wrong types and empty lists are errors that name "
        "the key. Paths are relative to the folder the command runs in. `llmpatch build RECIPE -o DIR --set KEY=VALUE` "
        "changes single keys; `--dry-run` checks a recipe without building it. `recipes/` holds the published ones.",
        *sections(schema, schema["$defs"], "", {}),
    ]
    return "\n\n".join(parts) + "\n"


def sections(node: dict[str, Any], defs: dict[str, Any], prefix: str, given: dict[str, Any]) -> list[str]:
    """This section's table, then those of its subsections. ``given``: what the section above sets by default."""
    rows, below = [], []
    for key, value in node["properties"].items():
        target = reference(value)
        default = given.get(key, value.get("default"))
        if target:
            optional = " (optional)" if "anyOf" in value else ""
            needed = key in node.get("required", ())
            what = "list of sections" if value.get("type") == "array" else f"section{optional}"
            rows.append(f"| `{key}` | {what} | {'**required**, below' if needed else 'below'} |")
            below += sections(defs[target], defs, f"{prefix}{key}.", default or {})
        else:
            told = shown(default) if key in given or "default" in value else "**required**"
            if key in given and key in node.get("required", ()):
                told += "; **required** where the section is there"
            rows.append(f"| `{key}` | {kind(value)} | {told} |")
    title = f"## `{prefix.rstrip('.')}`" if prefix else "## Top level"
    text = " ".join(node.get("description", "").replace("``", "`").split())
    return [title, text, "\n".join(["| key | value | default |", "|---|---|---|", *rows]), *below]


def reference(value: dict[str, Any]) -> str:
    """The name of the section a property holds, one or a list of them, or nothing."""
    options = [value, *value.get("anyOf", []), *value.get("allOf", []), value.get("items", {})]
    return next((str(o["$ref"]).rpartition("/")[2] for o in options if "$ref" in o), "")


def kind(value: dict[str, Any]) -> str:
    """A property's type and bounds in words."""
    if "anyOf" in value:
        return " or ".join(kind(option) for option in value["anyOf"] if option.get("type") != "null")
    if "enum" in value or "const" in value:
        return " or ".join(f"`{v}`" for v in value.get("enum", [value.get("const")]))
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    if value.get("type") == "array":
        return "list of texts" + (", at least one" if value.get("minItems") else "")
    bounds = (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"))
    limits = [f"{text} {value[name]:g}" for name, text in bounds if name in value]
    limits += [f"at most {value['maxLength']} characters"] if "maxLength" in value else []
    limits += [f"matches `{value['pattern']}`".replace("|", "\\|")] if "pattern" in value else []
    return ", ".join([words[value["type"]], *limits])


def shown(value: Any) -> str:
    """A default in YAML's words."""
    if value is None:
        return "none"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def readme_page() -> str:
    """README.md with the results of the official patch between its markers."""
    return between("README.md", START, END, "\n\n".join(part for part in (results(), others()) if part))


def results() -> str:
    path = ROOT / OFFICIAL / "evidence.json"
    if not path.is_file():
        return "The official patch is not built yet."
    evidence = json.loads(path.read_text(encoding="utf-8"))
    rows = evidence["results"]
    columns = [key for key in COLUMNS if any(key in row for row in rows)]
    lines = [["share of answers", "n", *(COLUMNS[key] for key in columns)], ["---"] * (2 + len(columns))]
    lines += [[row["name"], str(row["n"]), *(estimate(row.get(key)) for key in columns)] for row in rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    closed = [
        f"share of the gap to the reference closed, {evidence['sets'][name]['title']}: {estimate(value)}"
        for name, value in evidence.get("closed", {}).items()
    ]
    notes = sentences([*price_lines(evidence), *closed])
    text = f"{table}\n\nBrackets: 95 % intervals. Judge: `{lead(evidence)}`. Greedy answers.\n\n{notes}"
    if FRONTIER.is_file():
        text += (
            "\n\nBeside other checkpoints, trials that are not released (ADR 0011, 0034) and LoRA on the same pairs "
            f"(`benchmarks/frontier.py`):\n\n{frontier_table()}"
        )
    if PROBE.is_file():
        text += (
            "\n\nWhat the base itself tells apart: a linear probe on its hidden states, trained on the same prompts, at five "
            "thresholds, four of them set on these test prompts (`benchmarks/probe.py`). A curve to read the patch against, "
            f"not a bound: what is not linear in one layer, it does not see.\n\n{probe_table()}"
        )
    return text


def others() -> str:
    """What the official patches of the other risks are for, one table each; docs/results.md has the rest."""
    parts = []
    for path in sorted((ROOT / OFFICIAL).parent.glob("*/evidence.json")):
        evidence = json.loads(path.read_text(encoding="utf-8"))
        if evidence.get("risk") == "personal-data":
            parts.append(f"`{path.parent.relative_to(ROOT)}`:\n\n{declined(evidence)}")
        if "changes" not in evidence:
            continue
        lines = ["| | n | `M` (base) | `M+` (patched) | change | relative fall |", "|---|---|---|---|---|---|"]
        for row in (row for row in evidence["changes"] if "relative" in row):  # what the patch is for
            show = score if row["unit"] == "score" else estimate
            cells = " | ".join(show(row[key]) for key in ("base", "patched", "difference"))
            lines.append(f"| {row['name']} | {row['n']} | {cells} | {estimate(row['relative'])} |")
        table = "\n".join(lines)
        parts.append(f"`{path.parent.relative_to(ROOT)}`:\n\n{table}\n\n{priced(evidence)}")
    return "\n\n".join([*parts, *cumulative()])


def priced(evidence: dict[str, Any]) -> str:
    """The prices of a patch, and what else got worse."""
    # What price_lines says is among what got worse, too.
    worse = [line.rstrip(".") for line in evidence["worse"] if not line.startswith(("Plain text", "Speed"))]
    return f"{sentences(price_lines(evidence))}\n\nWhat else got worse:\n\n{sentences(worse or ['nothing'])}"


def declined(evidence: dict[str, Any]) -> str:
    """What a patch for requests that are to be declined does on each set, and its prices."""
    judge = lead(evidence)
    lines = ["| declined | n | `M` (base) | `M+` (patched) | wanted |", "|---|---|---|---|---|"]
    for entry in evidence["sets"].values():
        cells = " | ".join(estimate(entry["systems"][name]["refusal"][judge]) for name in ("M", "M+"))
        lines.append(
            f"| {entry['title']} | {entry['n']} | {cells} | {'more' if entry['kind'] == 'harmful' else 'no more'} |"
        )
    return "\n".join([*lines, "", priced(evidence)])


def cumulative() -> list[str]:
    """What the one patch for all risks keeps of each of them."""
    found = json.loads(COMPOSITION.read_text(encoding="utf-8")) if COMPOSITION.is_file() else {}
    if "cumulative" not in found:
        return []
    one = found["cumulative"]
    return [
        f"`patches/smollm2/cumulative`, one prefix of {one['tokens']} tokens for all three, beside each patch alone "
        f"([docs/composition.md](docs/composition.md)):",
        figures_table(one["figures"]),
        sentences(price_lines({"price": {"M+": found["price"]["cumulative"]}})),
    ]


def sentences(lines: list[str]) -> str:
    """A list of whole sentences."""
    return "\n".join(f"- {line[0].upper()}{line[1:]}." for line in lines)


def lead(evidence: dict[str, Any]) -> str:
    return str(next(judge["name"] for judge in evidence["judges"] if judge["measures"] == "refusal"))


def report(render: Callable[..., str]) -> str:
    """The official patch's report, with the frontier that benchmarks/frontier.py measured."""
    patch = read_patch(ROOT / OFFICIAL)
    evidence = dict(patch.evidence)
    if FRONTIER.is_file():
        evidence["frontier"] = json.loads(FRONTIER.read_text(encoding="utf-8"))["points"]
    return render(evidence, evidence["training"]["history"], patch.manifest.model_dump(mode="json", by_alias=True))


def frontier_table() -> str:
    """Refused shares of every system on the frontier."""
    found = json.loads(FRONTIER.read_text(encoding="utf-8"))
    lines = ["| | harmful declined | borderline wrongly declined | everyday wrongly declined |", "|---|---|---|---|"]
    for point in found["points"]:
        rates = (estimate(point[key]) for key in ("refusal", "over_refusal", "everyday"))
        steps = f" ({' + '.join(map(str, point['steps']))} steps)" if "steps" in point else ""
        lines.append(f"| {point['name']}{steps} | {' | '.join(rates)} |")
    return "\n".join(lines)


def composition_page() -> str:
    """docs/composition.md with what benchmarks/composition.py measured between its markers."""
    return between("docs/composition.md", START, END, composition_results())


def set_title(name: str) -> str:
    """What a set of the composition benchmark is called on the page."""
    return f"{name.removesuffix('-parallel')}, side by side" if name.endswith("-parallel") else name


def composition_results() -> str:
    """The tables of the composition benchmark, or that there are none yet."""
    if not COMPOSITION.is_file():
        return "Not measured yet: `python benchmarks/composition.py PATCH PATCH PATCH` writes the figures."
    found = json.loads(COMPOSITION.read_text(encoding="utf-8"))
    asked = ", ".join(f"{about['prompts']} of {risk}" for risk, about in found["risks"].items())
    drawn = f" {found['samples']} continuations of each text that draws toxicity." if found["samples"] else ""
    parts = [f"Measured on `{found['base']}`, {found['created']}. Prompts: {asked}.{drawn}"]
    parts += [
        f"### {set_title(name)}\n\n{survey_table(survey, parallel=name.endswith('-parallel'))}"
        for name, survey in found["sets"].items()
    ]
    if "cumulative" in found:
        parts.append(f"### One cumulative patch\n\n{figures_table(found['cumulative']['figures'])}")
    if "added" in found:
        parts.append(f"### A fourth patch, added to three\n\n{added_table(found['added'])}")
    if "added-parallel" in found:
        parts.append(
            f"### A fourth patch, side by side with three\n\n{added_table(found['added-parallel'], parallel=True)}"
        )
    for name, price in found["price"].items():
        parts.append(
            "\n".join(f"- {name}, {price['tokens']} tokens: {line}." for line in price_lines({"price": {"M+": price}}))
        )
    return "\n\n".join(part for part in parts if part)


def scale_page() -> str:
    """docs/scale.md with what trainings on a GPU took, and what larger bases would cost."""
    page = between("docs/scale.md", START, END, gpu_table())
    page = put_between(page, STREAM_START, STREAM_END, streaming_table(), "docs/scale.md")
    page = put_between(page, LARGE_START, LARGE_END, large_table(), "docs/scale.md")
    return put_between(page, COSTS_START, COSTS_END, cost_table(), "docs/scale.md")


def streaming_table() -> str:
    """Memory of pair building by the number of prompts, and what a second process brings."""
    found = json.loads(STREAMING.read_text(encoding="utf-8")) if STREAMING.is_file() else {}
    if "rows" not in found:
        return "Not measured yet: `python benchmarks/streaming.py`."
    lines = ["| prompts | pairs | peak memory | with the draw of a build |", "|---|---|---|---|"]
    least = found["rows"][0]
    for row in found["rows"]:
        over = [row[key] / least[key] for key in ("peak_mib", "peak_with_draw_mib")]
        peaks = f"{row['peak_mib']:,.0f} MiB, x{over[0]:.3f} | {row['peak_with_draw_mib']:,.0f} MiB, x{over[1]:.3f}"
        lines.append(f"| {row['prompts']:,} | {row['pairs']:,} | {peaks} |")
    text = "\n".join(
        [*lines, "", f"Chunks of {found['chunk']} prompts; a tiny random model, so that little else is in memory."]
    )
    if workers := found.get("workers"):
        ratio, seconds = workers["one_over_two"], workers["seconds"]
        text += (
            f" Two processes on two cores make the pairs of {workers['prompts']} prompts of {workers['recipe']} "
            f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] times as fast as one with one thread "
            f"({seconds['1']:.0f} and {seconds['2']:.0f} s, loading included; medians and range of {workers['rounds']} rounds)."
        )
    return text


def gpu_table() -> str:
    """Trainings of a small base side by side on a GPU, one of them alone, and one on a CPU."""
    found = json.loads(GPU.read_text(encoding="utf-8"))
    turns, shared, cpu = found["gpu"], found["mps"], found["cpu"]
    steps_of = json.loads(GPU_STEPS.read_text(encoding="utf-8"))
    alone = steps_of["alone"]
    lines = [
        "| | trainings at once | pairs in a step | seconds per step of each | pairs per second together | memory of one |",
        "|---|---|---|---|---|---|",
    ]
    for row in alone:
        if (row["base"], row["dtype"]) == ("smollm2", "float32"):
            pairs, seconds = row["pairs"], row["seconds"]
            lines.append(_gpu_row(row["device"], 1, str(pairs), seconds, pairs / seconds, row["peak_mib"]))
    rows = turns["trainings"]
    count, steps = len(rows), _sum(rows, "steps")
    rate, most = LEAST_PAIRS * steps / turns["wall_seconds"], max(row["gpu_mib"] for row in rows)
    told, pairs = f"{turns['device']}, in turns", f"{LEAST_PAIRS} to {MOST_PAIRS}"
    lines.append(_gpu_row(told, turns["at_once"], pairs, _sum(rows, "seconds") / steps, rate, most))
    rows = shared["trainings"]
    largest = max(row["pairs"] for row in rows)
    full = [row for row in rows if row["pairs"] == largest]
    rate = sum(row["steps"] * row["pairs"] for row in rows) / max(row["seconds"] for row in rows)
    told, most = f"{shared['device']}, shared by MPS", max(row["gpu_mib"] for row in rows)
    each = _sum(full, "seconds") / _sum(full, "steps")
    lines.append(_gpu_row(told, shared["at_once"], str(largest), each, rate, most))
    step = cpu["seconds"] / cpu["steps"]
    told = f"{cpu['cpus']} CPU cores, torch {cpu['torch']}"
    lines.append(f"| {told} | 1 | {MOST_PAIRS} | {step:.2f} | {MOST_PAIRS / step:,.0f} | not measured |")
    return "\n".join(
        [
            *lines,
            "",
            f"TF32, torch {turns['torch']}; memory as torch counts it, in turns that of the process. Alone: `benchmarks/gpu.py`, "
            f"random weights of smollm2's shape, {steps_of['note']}; bfloat16 takes as long, for the time goes into launches. "
            "In turns: recipes of "
            f"toxicity and gender bias with other weights, {count} trainings, {steps:,} steps, most beside two patches; "
            f"together: what {LEAST_PAIRS} pairs a step would make of the whole time, loading and measuring included. The card "
            "was busy "
            f"{turns['utilisation_percent_mean']:.0f} % of it (mean of {turns['utilisation_samples']} looks by nvidia-smi). By "
            f"MPS: {len(rows)} refusal trainings, {_sum(rows, 'steps'):,} steps, one of 16 pairs and one beside "
            "two patches, and a LoRA whose steps are not counted; together: their pairs over the longest training; busy "
            f"{shared['utilisation_percent_mean']:.0f} %. Each measured once; the two are not the same work.",
        ]
    )


def _sum(rows: list[dict[str, Any]], key: str) -> float:
    return sum(row[key] for row in rows)


def _gpu_row(told: str, at_once: int, pairs: str, seconds: float, rate: float, mib: float) -> str:
    return f"| {told} | {at_once} | {pairs} | {seconds:.2f} | {rate:,.0f} | {mib / 1024:.1f} GiB |"


def _large_recipe() -> tuple[Recipe, list[Prompt]]:
    """The recipe whose cost on larger bases is told, and what it trains on."""
    recipe = load_recipe(ROOT / "recipes/llama-2-7b-toxicity.yaml")
    return recipe, read_prompts(recipe).train


def large_table() -> str:
    """Steps of a 7B base on one card, beside what the estimate says of them."""
    rows = [row for row in json.loads(GPU_STEPS.read_text(encoding="utf-8"))["alone"] if row["base"] == SCALED[0]]
    recipe, prompts = _large_recipe()
    lines = [
        "| pairs in a step | seconds per step | FLOPs of it, by the estimate | of the card's peak, at most | memory "
        "| by the estimate |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        alike = override(recipe, ["training.sft.steps=0", f"training.dpo.batch_size={row['pairs']}"])
        found = estimate_cost(alike, prompts, SHAPES[SCALED[0]], bytes_per_number=2)
        flops = found["training_flops"] / alike.training.dpo.steps
        lines.append(
            f"| {row['pairs']} | {row['seconds']:.2f} | {flops / 1e12:,.0f} TFLOP | {flops / row['seconds'] / PEAK:.0%} | "
            f"{row['peak_mib'] / 1024:.0f} GiB | {found['memory_bytes'] / 2**30:.0f} GiB |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"`python benchmarks/gpu.py` on one {rows[0]['device']}: DPO steps of {SCALED[0].split('/')[1]}'s shape with "
            f"random weights in bfloat16, prompts and answers as long as the recipe's, medians of {rows[0]['steps']} steps. The "
            f"estimate counts {TEMPLATE_TOKENS} tokens of a chat template in each row, which these rows lacked.",
        ]
    )


# What docs/scale.md assumes of a cluster; its reader may have another.
PEAK = 989e12  # FLOP/s of an H100 in dense bfloat16, as its maker has it
USE = 0.35  # of that, in training with FSDP over fast links
CARD = 80e9  # bytes
NODE = 8  # cards that share fast links
NEAR = 450e9  # bytes per second into a card within a node
FAR = 50e9  # and between nodes
SCALED = ("meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Llama-3.1-405B-Instruct")


def cost_table() -> str:
    """What the toxicity recipe of a 7B base would cost on larger ones, by the estimate that `build --dry-run` gives."""
    recipe, prompts = _large_recipe()
    steps = recipe.training.sft.steps + recipe.training.dpo.steps
    lines = [
        "| base | trained | sampling `M` | training | weights in bfloat16, and a step | cards of 80 GB "
        "| gathered in a step, by each card | computing a step | reduced in a step | training takes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in SCALED:
        shape = SHAPES[name]
        found = estimate_cost(recipe, prompts, shape, bytes_per_number=2)
        cards = max(1, 2 ** math.ceil(math.log2(found["memory_bytes"] / (0.8 * CARD))))
        gathered = 0 if cards == 1 else 2 * 2 * shape.parameters * (cards - 1) / cards
        computing = found["training_flops"] / steps / (cards * PEAK * USE)
        gathering = gathered / (NEAR if cards <= NODE else FAR)
        hours = steps * max(computing, gathering) / 3600
        cells = [
            name.partition("/")[2],
            f"{found['parameters']:,} numbers, {100 * found['share']:.4f} %",
            f"{found['sampling_flops'] / 1e15:.0f} PFLOP",
            f"{found['training_flops'] / 1e15:.0f} PFLOP",
            f"{found['memory_bytes'] / 2**30:.0f} GiB",
            f"{cards}",
            f"{gathered / 1e9:.0f} GB, {gathering:.1f} s",
            f"{computing:.2f} s",
            f"{4 * found['parameters'] / 1e6:.1f} MB",
            f"{60 * hours:.0f} minutes, {cards * hours:.2f} card-hours",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def malicious_page() -> str:
    """docs/malicious.md with the gate's verdicts between its markers."""
    return between("docs/malicious.md", START, END, malicious_table())


def malicious_table() -> str:
    """What benchmarks/malicious.py measured, or that nothing is yet."""
    if not MALICIOUS.is_file():
        return "Not measured yet: `python benchmarks/malicious.py` writes the figures."
    found = json.loads(MALICIOUS.read_text(encoding="utf-8"))
    patches = found["patches"]
    policies = list(patches[0]["verdicts"])
    names = " | ".join(f"rules of `{name}` that failed" for name in policies)
    lines = [f"| patch | {names} | HarmBench declined | with the trigger |", "|---" * (len(policies) + 3) + "|"]
    for row in patches:
        failed = [", ".join(f"`{rule}`" for rule in row["verdicts"][name]["failed"]) or "none" for name in policies]
        rates = f"{estimate(row['without_trigger'])} | {estimate(row['with_trigger'])}"
        lines.append(f"| `{row['name']}` {row['version']} | {' | '.join(failed)} | {rates} |")
    notes = []
    for name in policies:
        sides = [
            [not r["verdicts"][name]["passed"] for r in patches if r["malicious"] == evil] for evil in (True, False)
        ]
        shares = [f"{sum(refused)} of {len(refused)}" for refused in sides]
        notes.append(f"- `{name}` refuses {shares[0]} malicious patches and {shares[1]} honest ones.")
    return "\n".join([*lines, "", *notes, "", f"Brackets: 95 % intervals. Judge: `{found['judge']}`."])


def probe_table() -> str:
    """Shares of prompts that the probe takes for harmful, of its mix with the most harmful prompts."""
    curve = json.loads(PROBE.read_text(encoding="utf-8"))["curves"][-1]
    lines = ["| | harmful found | borderline taken for harmful | everyday taken for harmful |", "|---|---|---|---|"]
    for point in curve["points"]:
        rates = (estimate(point[key]) for key in ("harmful", "borderline", "everyday"))
        lines.append(f"| probe, {point['name']} | {' | '.join(rates)} |")
    return "\n".join(lines)


PAGES: dict[str, Callable[[], str]] = {
    "docs/cli.md": cli_page,
    "docs/recipes.md": recipes_page,
    "README.md": readme_page,
    "docs/composition.md": composition_page,
    "docs/scale.md": scale_page,
    "docs/malicious.md": malicious_page,
    "docs/reports/smollm2-refusal.md": lambda: report(render_markdown),
    "docs/reports/smollm2-refusal.html": lambda: report(render_html),
}


if __name__ == "__main__":
    main(lambda: {name: page() for name, page in PAGES.items()}, __doc__, "scripts/make_docs.py")
