"""The sections of the results page about time and memory of making a patch: a step, and a whole build.

training_step(Shelf(Path(".")))      # a Section, or None where nothing was measured
"""

from __future__ import annotations

from statistics import median

from llmpatch.reporting.numbers import decimals, plain
from llmpatch.reporting.page import Row
from llmpatch.reporting.results.blocks import Block, Grid, Json, Plot, Section, Shelf, shown
from llmpatch.reporting.svg import Seeds, plot_seeds

FEW_ROUNDS = 6  # the lowest and the highest of fewer hold a median in less than 95 % of cases


def _brackets(rounds: int) -> str:
    """What brackets around a median of so many rounds hold; empty where it is what they hold elsewhere."""
    if rounds >= FEW_ROUNDS:
        return ""
    return (
        "one round has no range" if rounds == 1 else f"brackets hold the range of the {rounds} rounds, no 95 % interval"
    )


def few(rounds: int) -> str:
    """What brackets hold, as a further sentence of a section's lead."""
    text = _brackets(rounds)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def training_step(shelf: Shelf) -> Section | None:
    """FLOPs of one DPO step against the plain computation, by benchmarks/step_flops.py."""
    found = shelf.load("benchmarks/results/step_flops.json")
    if found is None:
        return None
    rows = (
        Row("FLOPs", (f"{found['flops_plain']:.3e}", f"{found['flops_ours']:.3e}", f"×{found['flops_ratio']:.2f}")),
        Row("seconds", (plain(found["seconds_plain"]), plain(found["seconds_ours"]), f"×{found['seconds_ratio']:.2f}")),
    )
    lead = (
        f"{found['pairs']} real pairs, {found['virtual_tokens']} virtual tokens; the same loss and gradient "
        f"(relative difference {found['gradient_relative_difference']:.1e}). Plain: every sequence behind its own copy of the "
        "prefix, as TRL with PEFT has it."
    )
    return Section("The cost of a training step", lead, (Grid(("plain", "ours", "plain / ours"), rows),))


PARTS = {
    "shared prefix": "prefix and chat head read once a step",
    "shared prompt": "a pair's answers share their prompt",
    "logits on demand": "logits only of answers",
    "batches by length": "rows sorted by length (in training: within each kind)",
    "kept reference": "the reference's log-probabilities kept",
    "packed weights": "packed weights",
}


def fast_path(shelf: Shelf) -> Section | None:
    """A DPO step with one of its parts left out, by benchmarks/fast_path.py."""
    found = shelf.load("benchmarks/results/fast_path.json")
    if found is None:
        return None
    rows = tuple(
        Row(
            PARTS[name],
            (
                decimals(part["seconds"]),
                shown(part["over_ours"], "ratio"),
                f"×{part['flops_over_ours']:.2f}",
                f"{part['loss_difference']:.0e}",
            ),
        )
        for name, part in found["without"].items()
    )
    settings = found["settings"]
    lead = (
        f"Forward and backward of {settings['steps']} steps of {settings['pairs']} pairs take {found['ours']['seconds']:.2f} s; "
        f"here one part is left out at a time. {settings['tokens']} virtual tokens, answers of {settings['answer_tokens']} "
        f"tokens, by turns in one process ({settings['rounds']} rounds, {found['environment']['cpus']} CPU cores)."
        f"{few(settings['rounds'])}"
    )
    head = ("seconds without it", "without / with", "FLOPs, without / with", "difference of the losses")
    return Section("What each part of a step saves", lead, (Grid(head, rows),))


PEERS = {
    "ours": "llmpatch",
    "trl": "TRL and PEFT's prompt tuning",
    "trl_kept": "the same, reference log-probabilities kept",
    "lora": "TRL and PEFT's LoRA, rank 16",
}


def peers(shelf: Shelf) -> Section | None:
    """A training step beside TRL and PEFT, by benchmarks/peers.py."""
    found = shelf.load("benchmarks/results/peers.json")
    if found is None:
        return None
    head = (
        "seconds a step",
        "its seconds / ours",
        "its FLOPs / ours",
        "peak memory, MiB",
        "ours / its peak",
        "loss on held-out pairs",
    )
    grids = []
    for stage in ("sft", "dpo"):
        rows = [Row(PEERS[side], _peer(told)) for side, told in found.get(stage, {}).items()]
        grids.append(Grid(head, tuple(rows), f"A step of {stage.upper()}"))
    settings = found["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lead = (
        f"{settings['pairs']} real pairs a step, {settings['tokens']} virtual tokens, answers of {settings['answer_tokens']} "
        f"tokens, {found['environment']['cpus']} CPU cores; medians of {settings['rounds']} rounds by turns. "
        "Nobody recomputes layers to save memory, which TRL does by default and ours with `--less-memory`. "
        "Order, optimiser and loss are the same for all, the start and the learning rate for all but the LoRA. Ours and "
        f'"{PEERS["trl_kept"]}" ask the reference policy of DPO once, before the first step that is timed. {versions}.'
        f"{few(settings['rounds'])}"
    )
    return Section("A training step beside TRL and PEFT", lead, tuple(grids))


def _peer(told: Json) -> tuple[str, ...]:
    loss, over, under = told["validation_loss"], told.get("seconds_over_ours"), told.get("ours_peak_over_its")
    return (
        decimals(told["step_seconds"]),
        "–" if over is None else shown(over, "ratio"),
        "–" if over is None else f"×{told['flops_over_ours']:.2f}",
        f"{told['peak_mib']:,.0f}",
        "–" if under is None else shown(under, "ratio"),
        "–" if loss is None else f"{loss:.4f}",
    )


AXES = {
    "tokens": "virtual tokens",
    "pairs": "pairs of a step",
    "answer": "tokens of an answer",
    "prompt": "tokens of a prompt",
    "base": "model",
}


def growth(shelf: Shelf) -> Section | None:
    """How the cost of a DPO step grows, by benchmarks/growth.py, and the memory of many prompts, by benchmarks/streaming.py."""
    found = shelf.load("benchmarks/results/growth.json")
    if found is None:
        return None
    blocks: list[Block] = []
    for axis in (name for name in AXES if name in found["axes"]):
        blocks += _axis(AXES[axis], found["axes"][axis])
    if streaming := shelf.load("benchmarks/results/streaming.json"):
        blocks += _prompts(streaming["rows"])
    lead = (
        "Loss and gradient of one DPO step: ours, and every sequence whole behind its own copy of the prefix, as TRL with PEFT's "
        "prompt tuning has it (reference log-probabilities given to both). The same real pairs, by turns in one process. What is "
        "not on an axis stays at 50 virtual tokens, 8 pairs and answers of 12 tokens. MiB kept: what "
        "autograd keeps for the backward pass, most of what a step needs above the model."
    )
    return Section("How cost grows", lead, tuple(blocks))


def _axis(name: str, found: Json) -> list[Block]:
    rows = found["rows"]
    ticks = [_size(row) if name == "model" else f"{row['value']}" for row in rows]
    title = f"Seconds of a step over {name}"
    lines = [
        Seeds(label, style, tuple(tuple(row[side]["seconds"]) for row in rows))
        for style, (side, label) in enumerate((("ours", "llmpatch"), ("plain", "plain")), start=1)
    ]
    high = max(seconds for line in lines for seen in line.values for seconds in seen)
    drawn = plot_seeds(lines, ticks, low=0.0, high=high, label=title, show=lambda v: f"{v:.3g} s")
    legend = tuple((line.label, line.style) for line in lines)
    head = (
        "seconds, ours", "seconds, plain", "plain / ours", "FLOPs, ours", "FLOPs, plain / ours", "MiB kept, ours",
        "MiB kept, plain", "difference of the gradients",
    )  # fmt: skip
    grid = [
        Row(
            tick,
            (
                *(decimals(median(row[side]["seconds"])) for side in ("ours", "plain")),
                shown(row["plain_over_ours"], "ratio"),
                f"{row['ours']['flops']:.2e}",
                f"×{row['flops_plain_over_ours']:.2f}",
                *(f"{row[side]['kept_mib']:,.0f}" for side in ("ours", "plain")),
                f"{row['gradient_relative_difference']:.0e}",
            ),
        )
        for tick, row in zip(ticks, rows, strict=True)
    ]
    rounds = f"{found['rounds']} round{'s' if found['rounds'] != 1 else ''}, {found['environment']['cpus']} CPU cores"
    few = _brackets(found["rounds"])
    return [
        Plot(title, drawn, f"across: {name}; up: seconds, a dot for each round", legend),
        Grid(head, tuple(grid), f"Over {name} ({rounds}{'; ' + few if few else ''})"),
    ]


def _size(row: Json) -> str:
    return f"{row['value']} ({row['parameters'] / 1e6:,.0f} M)"


def _prompts(rows: list[Json]) -> list[Block]:
    ticks = [f"{row['prompts']:,}" for row in rows]
    peaks = [Seeds("MiB", 1, tuple((row["peak_mib"],) for row in rows))]
    title = "Peak memory of making pairs over prompts"
    high = 2 * max(row["peak_mib"] for row in rows)
    drawn = plot_seeds(peaks, ticks, low=0.0, high=high, label=title, show=lambda v: f"{v:,.0f} MiB")
    grid = [
        Row(tick, (f"{row['peak_mib']:,.0f}", f"{row['peak_with_draw_mib']:,.0f}", plain(row["seconds"])))
        for tick, row in zip(ticks, rows, strict=True)
    ]
    head = ("MiB, making pairs", "MiB, with what a build draws of them", "seconds")
    return [
        Plot(title, drawn, "across: prompts, on a tiny random model; up: MiB"),
        Grid(head, tuple(grid), "Over prompts"),
    ]


def end_to_end(shelf: Shelf) -> Section | None:
    """A whole build beside a script with TRL, PEFT and generate, by benchmarks/end_to_end.py."""
    found = shelf.load("benchmarks/results/end_to_end.json")
    if found is None:
        return None
    parts = {
        "pairs": "pairs",
        "training": "training",
        "answers": "answers of base and patched model",
        "seconds": "all, loading too",
    }
    sides, ratios, settings = found["sides"], found["script_over_ours"], found["settings"]
    rows = tuple(
        Row(title, (plain(sides["ours"][part]), plain(sides["script"][part]), shown(ratios[part], "ratio")))
        for part, title in parts.items()
    )
    lead = (
        f"{settings['recipe']} made smaller: {settings['prompts']} prompts of each kind to pair and as many to answer, "
        f"{settings['sft']} SFT and {settings['dpo']} DPO steps of the same loss on the same batches; a process each, by turns "
        f"({settings['rounds']} rounds, {found['environment']['cpus']} CPU cores). The script asks transformers' generate and "
        f"trains PEFT's prompt tuning with TRL. Pairs kept: {found['pairs_kept']['ours']} and {found['pairs_kept']['script']}."
        f"{few(settings['rounds'])}"
    )
    return Section(
        "A whole build", lead, (Grid(("seconds, llmpatch", "seconds, the script", "script / llmpatch"), rows),)
    )
