"""A training step beside TRL and PEFT: the same pairs, order, optimiser, start and loss; seconds, FLOPs and peak memory.

    python benchmarks/peers.py [--rounds 5] [--steps 4] [--pairs 8] [--tokens 50] [--answer-tokens 12]

ours: llmpatch. trl: TRL's trainers on PEFT's prompt tuning in torch's own layers, as anybody would call them but for two
defaults: no bfloat16, so that all compute alike, and no gradient checkpointing, which takes less memory and more time (ours
for that is ``--less-memory``, off as well). DPO's reference, a frozen copy of the rows at their start, is asked again at
every step. trl_kept: the same with the reference's log-probabilities computed once, as ours are. lora: as trl, on a LoRA of
rank 16. Each is a process of its own, so that its peak memory is its own; they run by turns, and a ratio compares two of one
round. The first step of each is left out. That all but the LoRA do the same is shown: their loss on held-out pairs is told,
and how far their rows end apart. Answers are all cut to the same length, where TRL's mean over tokens is ours over answers.
Writes ``--out``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmpatch.evals.stats import median
from llmpatch.files import read_jsonl, write_json
from memory import resident

SIDES = ("ours", "trl", "trl_kept", "lora")
STAGES = ("sft", "dpo")
RATES = {"sft": 0.01, "dpo": 0.003}
LORA_RATES = {"sft": 5e-4, "dpo": 1.5e-4}
VALIDATION = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="at least 2: the first is not timed")
    parser.add_argument("--pairs", type=int, default=8, help="of a step")
    parser.add_argument("--tokens", type=int, default=50, help="virtual tokens")
    parser.add_argument("--answer-tokens", type=int, default=12)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--source", type=Path, default=Path("benchmarks/pairs.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/peers.json"))
    parser.add_argument("--work", nargs=3, metavar=("SIDE", "STAGE", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps must be 2 or more: the first one warms up")
    if options.work:
        print(json.dumps(work(options, *options.work)))
        return
    from llmpatch.evals.environment import environment

    sides = options.sides.split(",")
    told = {key: getattr(options, key) for key in ("base", "steps", "pairs", "tokens", "answer_tokens", "rounds")}
    found: dict[str, Any] = {"settings": told, "environment": environment(), "versions": versions()}
    with tempfile.TemporaryDirectory() as folder:
        for stage in STAGES:
            stage_sides = [side for side in sides if not (side == "trl_kept" and stage == "sft")]
            runs: dict[str, list[dict[str, Any]]] = {side: [] for side in stage_sides}
            for number in range(options.rounds):
                for side in stage_sides if number % 2 == 0 else stage_sides[::-1]:
                    runs[side].append(ask(options, side, stage, Path(folder)))
                    print(stage, number, side, json.dumps(runs[side][-1]), file=sys.stderr, flush=True)
                found[stage] = compare(runs, Path(folder), stage)
                write_json(options.out, found)
    print(json.dumps(found, indent=1))


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "trl", "peft")}


def ask(options: argparse.Namespace, side: str, stage: str, folder: Path) -> dict[str, Any]:
    """One side's steps, in a process of its own."""
    rows = folder / f"{stage}-{side}.safetensors"
    same = ["base", "steps", "pairs", "tokens", "answer_tokens", "source"]
    arguments = [part for key in same for part in (f"--{key.replace('_', '-')}", str(getattr(options, key)))]
    command = [sys.executable, __file__, *arguments, "--work", side, stage, str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed at {stage}:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(runs: dict[str, list[dict[str, Any]]], folder: Path, stage: str) -> dict[str, Any]:
    """Each side's medians; ratios to ours, round by round."""
    from safetensors.torch import load_file

    path = folder / f"{stage}-ours.safetensors"
    ours = load_file(path)["rows"] if path.exists() else None
    found = {}
    for side, rounds in runs.items():
        if not rounds:
            continue
        told = {
            "step_seconds": round(statistics.median(run["step_seconds"] for run in rounds), 4),
            "flops": rounds[-1]["flops"],
            "peak_mib": round(statistics.median(run["peak_mib"] for run in rounds), 1),
            "above_the_model_mib": round(statistics.median(run["above_the_model_mib"] for run in rounds), 1),
            "validation_loss": rounds[-1]["validation_loss"],
        }
        path = folder / f"{stage}-{side}.safetensors"
        if side != "ours" and runs.get("ours"):
            pairs = list(zip(rounds, runs["ours"], strict=False))
            told["seconds_over_ours"] = median([a["step_seconds"] / b["step_seconds"] for a, b in pairs]).json()
            told["flops_over_ours"] = round(rounds[-1]["flops"] / runs["ours"][-1]["flops"], 3)
            told["ours_peak_over_its"] = median([b["peak_mib"] / a["peak_mib"] for a, b in pairs]).json()
            if all(a["above_the_model_mib"] > 0 for a, _ in pairs):  # in one process it may be what others left
                told["ours_above_the_model_over_its"] = median(
                    [b["above_the_model_mib"] / a["above_the_model_mib"] for a, b in pairs]
                ).json()
            if ours is not None and path.exists():
                theirs = load_file(path)["rows"]
                told["rows_relative_difference"] = float((theirs - ours).norm() / ours.norm())
        found[side] = told
    return found


def work(options: argparse.Namespace, side: str, stage: str, rows_path: str) -> dict[str, Any]:
    """Train some steps and say what they took. Losses are TRL's: no KL to the base, benign answers learnt as they are."""
    import torch
    from safetensors.torch import save_file

    from llmpatch.bases import load_base
    from llmpatch.packed import unpack
    from llmpatch.pairs import Pair, encode
    from llmpatch.prefix import init_prefix
    from llmpatch.recipe import PrefixSection
    from llmpatch.training_data import TrainingSet
    from llmpatch.training_recipe import DPOSection, StageSection, TrainingSection

    base = load_base(options.base)
    whole = encode(base, [Pair(**row) for row in read_jsonl(options.source)])
    long = [e for e in whole.examples if min(len(e.chosen), len(e.rejected)) >= options.answer_tokens]
    if len(long) < VALIDATION + options.pairs:
        raise SystemExit(
            f"{options.source} has {len(long)} pairs with answers of {options.answer_tokens} tokens: too few"
        )
    train, held = TrainingSet(whole.head, long[:-VALIDATION]), TrainingSet(whole.head, long[-VALIDATION:])
    steps = {name: options.steps * (name == stage) for name in STAGES}
    section = TrainingSection(
        sft=StageSection(steps=steps["sft"], learning_rate=RATES["sft"], **_same(options)),
        dpo=DPOSection(steps=steps["dpo"], learning_rate=RATES["dpo"], reference="sft", **_same(options)),
        kl_weight=0, benign_nll_weight=1, warmup=0, checkpoint_every=10**6,
    )  # fmt: skip
    start = init_prefix(base, PrefixSection(tokens=options.tokens), 0)
    import datasets  # noqa: F401 - what all but ours need is loaded before, too: it is not the step's
    import peft  # noqa: F401
    from trl import DPOTrainer, SFTTrainer  # noqa: F401 - by name: the package loads them no sooner

    if side != "ours":
        unpack(base.model)  # theirs run on torch's own layers, as anybody's would
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak of loading is not training's
    loaded = resident()
    run = {"ours": _ours, "lora": _lora}.get(side, _prompt_tuning)
    rows, seconds, flops = run(base, train, start, section, stage, kept=side == "trl_kept")
    highest = resident("VmHWM")
    loss = None
    if rows is not None:
        save_file({"rows": rows.detach().contiguous()}, rows_path)
        with torch.no_grad():
            loss = _loss(base, held, section, stage, rows.detach(), start)
    return {
        "step_seconds": statistics.median(seconds[1:]), "flops": flops, "peak_mib": round(highest / 2**20, 1),
        "above_the_model_mib": round((highest - loaded) / 2**20, 1), "validation_loss": loss,
    }  # fmt: skip


def _same(options: argparse.Namespace) -> dict[str, int]:
    return {"answer_tokens": options.answer_tokens, "batch_size": options.pairs}


def _loss(base: Any, data: Any, section: Any, stage: str, rows: Any, start: Any) -> float:
    """The stage's mean loss on held-out pairs, by our own computation for all sides."""
    from llmpatch.training import Trainer

    trainer = Trainer(base, data, section, seed=0)
    every = list(range(len(data.examples)))
    if stage == "sft":
        return float(trainer.sft_loss(rows, every, section.sft)[0])
    trainer.indices = lambda *_, **__: every  # all of them, whatever the mix would have picked
    trainer.prepare_reference(start, section.dpo.model_copy(update={"steps": 1}))
    return float(trainer.dpo_loss(rows, every, section.dpo)[0])


class Clock:
    """Seconds of each step, as a progress display hears them; and the FLOPs of the first."""

    def __init__(self, name: str):
        self.name, self.times, self.flops = name, [], 0.0

    @contextlib.contextmanager
    def stage(self, name: str, total: int) -> Iterator[Any]:  # noqa: ARG002 - the shape of Progress
        """One stage of the work; only the steps of ours are timed."""
        if name != self.name:
            yield lambda *_, **__: None
            return
        from torch.utils.flop_counter import FlopCounterMode

        counter, marks = FlopCounterMode(display=False), []

        def advance(*_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())
            if len(marks) == 1:
                counter.__enter__()
            elif len(marks) == 2:
                counter.__exit__(None, None, None)
                self.flops = float(counter.get_total_flops())
                marks[-1] = time.perf_counter()

        yield advance
        self.times = [b - a for a, b in itertools.pairwise(marks)]


def _ours(base: Any, data: Any, start: Any, section: Any, stage: str, kept: bool) -> Any:  # noqa: ARG001
    from llmpatch.training import train

    clock = Clock(stage.upper())
    found = train(base, data, start, section, seed=0, progress=clock)
    return found.rows, clock.times, clock.flops


class Steps:
    """What TRL's stages tell of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.flops = 0.0
        self._counter: Any = None
        self._began = 0.0

    def begin(self, step: int) -> None:
        """Before a step."""
        from torch.utils.flop_counter import FlopCounterMode

        if step == 0:
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()
        self._began = time.perf_counter()

    def end(self, step: int) -> None:
        """After it."""
        self.times.append(time.perf_counter() - self._began)
        if step == 0:
            self._counter.__exit__(None, None, None)
            self.flops = float(self._counter.get_total_flops())


def _trl(wrapped: Any, base: Any, data: Any, start: Any, section: Any, stage: str, rate: float, kept: bool) -> Steps:
    from llmpatch.baselines.trl_stages import run_dpo, run_sft, step_rows
    from llmpatch.training import Trainer

    trainer, offset, about = Trainer(base, data, section, seed=0), STAGES.index(stage), getattr(section, stage)
    rows = [step_rows(trainer, about, step, offset) for step in range(about.steps)]
    reference = None
    if kept:
        trainer.prepare_reference(start, about)
        reference = [
            tuple(trainer._pair_reference[i].tolist())
            for step in range(about.steps)
            for i in trainer.indices(about, step, offset)
        ]
    watch = Steps()
    with tempfile.TemporaryDirectory() as folder:
        if stage == "sft":
            run_sft(wrapped, base.tokenizer, rows, section, rate, folder, watch)
        else:
            run_dpo(wrapped, base.tokenizer, rows, section, rate, folder, watch, reference)
    return watch


def _prompt_tuning(base: Any, data: Any, start: Any, section: Any, stage: str, kept: bool) -> Any:
    import torch
    from peft import PromptTuningConfig, get_peft_model

    wrapped = get_peft_model(base.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(start)))
    weight = wrapped.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(start)
    watch = _trl(wrapped, base, data, start, section, stage, RATES[stage], kept)
    return weight, watch.times, watch.flops


def _lora(base: Any, data: Any, start: Any, section: Any, stage: str, kept: bool) -> Any:
    from peft import LoraConfig, get_peft_model

    from llmpatch.baselines.copies import share
    from llmpatch.baselines.own_lora import PROJECTIONS

    settings = LoraConfig(r=16, lora_alpha=32, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    wrapped = get_peft_model(share(base.model), settings)
    watch = _trl(wrapped, base, data, start, section, stage, LORA_RATES[stage], kept)
    return None, watch.times, watch.flops


if __name__ == "__main__":
    main()
