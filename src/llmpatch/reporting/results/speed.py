"""The sections of the results page about time and memory: a step, decoding, answers, a whole build.

training_step(Shelf(Path(".")))      # a Section, or None where nothing was measured
"""

from __future__ import annotations

from llmpatch.reporting.numbers import decimals, plain
from llmpatch.reporting.results.blocks import Grid, Json, Section, Shelf, shown
from llmpatch.reporting.view import Row


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
        "Order, optimiser and loss are the same for all, the start and the learning rate for all but the LoRA. Ours and "
        f'"{PEERS["trl_kept"]}" ask the reference policy of DPO once, before the first step that is timed. {versions}.'
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


def few_rows(shelf: Shelf) -> Section | None:
    """A decoding step against torch's own layers, by benchmarks/few_rows.py."""
    found = shelf.load("benchmarks/results/few_rows.json")
    if found is None:
        return None
    rows = tuple(
        Row(
            str(step["rows"]),
            (plain(step["ms"]["torch"]), plain(step["ms"]["ours"]), shown(step["torch_over_ours"], "ratio"),
             f"{step['largest_difference_of_a_probability']:.0e}"),
        )
        for step in found["rows"]
    )  # fmt: skip
    lead = (
        f"One token more for a few requests at once, behind a patch: {found['base']} as llmpatch loads it, and the same weights "
        f"in torch's own layers, by turns in one process ({found['rounds']} rounds, {found['environment']['cpus']} CPU cores)."
    )
    head = ("ms, torch's layers", "ms, ours", "torch / ours", "largest difference of a probability")
    return Section("Decoding a few requests at once", lead, (Grid(head, rows),))


def prefix_cache(shelf: Shelf) -> Section | None:
    """An evaluation's answers with and without the shared cache, by benchmarks/prefix_cache.py."""
    found = shelf.load("benchmarks/results/prefix_cache.json")
    if found is None:
        return None
    rows = tuple(
        Row(
            f"answers of {answer['new_tokens']} tokens",
            (
                plain(answer["seconds"]["shared"]),
                shown(answer["over_shared"]["read again"], "ratio"),
                shown(answer["over_shared"]["transformers"], "ratio"),
                " and ".join(f"{number} of {found['prompts']}" for number in answer["same_texts"].values()),
            ),
        )
        for answer in found["answers"]
    )
    lead = (
        f"{found['prompts']} short prompts (median of {found['median_prompt']:g} tokens behind {found['virtual_tokens']} virtual "
        f"tokens and the {found['head']} that all have in common), by turns in one process ({found['rounds']} rounds, "
        f"{found['environment']['cpus']} CPU cores). In the others each prompt reads virtual tokens and common start itself."
    )
    head = (
        "seconds, shared cache",
        "read again / shared",
        "transformers' generate / shared",
        "the same texts, of each",
    )
    return Section("Answers of an evaluation", lead, (Grid(head, rows),))


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
    )
    return Section(
        "A whole build", lead, (Grid(("seconds, llmpatch", "seconds, the script", "script / llmpatch"), rows),)
    )
