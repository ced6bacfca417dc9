"""How the cost of a DPO step grows: with virtual tokens, pairs of a step, length of prompts and answers, size of the model.

    python benchmarks/growth.py [--axis tokens]... [--rounds 3]

Loss and gradient of one step, ours and the plain computation (every sequence whole behind its own copy of the prefix, as TRL
with PEFT's prompt tuning has it; benchmarks/step_flops.py), on the same real pairs and by turns in one process: seconds of every
round, FLOPs as torch counts them, and what autograd keeps for the backward pass (each storage once, weights left out: most of
what a step needs above the model). What is not on an axis stays at 50 virtual tokens, 8 pairs and answers of 12 tokens. Prompts
are repeated or cut to the length of their axis.
Adds the axes it measures to ``--out``; benchmarks/streaming.py measures the number of prompts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from llmpatch.bases import load_base
from llmpatch.evals.environment import environment
from llmpatch.evals.stats import median
from llmpatch.files import read_jsonl, write_json
from llmpatch.pairs import Pair, encode
from llmpatch.prefix import init_prefix
from llmpatch.recipe import PrefixSection
from step_flops import ours, plain

AXES: dict[str, tuple[Any, ...]] = {
    "tokens": (5, 10, 20, 50, 100, 200),
    "pairs": (1, 2, 4, 8, 16),
    "answer": (2, 4, 8, 12),
    "prompt": (16, 64, 256),
    "base": ("smollm2", "gemma-3-270m", "qwen2.5-coder-1.5b"),
}
SIDES: dict[str, Callable[..., Any]] = {"ours": ours, "plain": plain}


@dataclass(frozen=True)
class Step:
    """What a step is made of."""

    tokens: int = 50
    pairs: int = 8
    answer: int = 12
    prompt: int | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axis", action="append", choices=AXES, help="repeatable; all by default")
    parser.add_argument("--values", help="of the one axis that is named: 5,10,20")
    parser.add_argument("--base", default="smollm2", help="of all axes but `base`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--source", type=Path, default=Path("benchmarks/pairs.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/growth.json"))
    options = parser.parse_args()
    axes = options.axis or list(AXES)
    if options.values and len(axes) != 1:
        parser.error("--values belongs to one --axis")
    found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {"axes": {}}
    pairs = [Pair(**row) for row in read_jsonl(options.source)]
    base = None
    for axis in axes:
        kind = type(AXES[axis][0])
        values = [kind(value) for value in options.values.split(",")] if options.values else AXES[axis]
        rows = []
        for value in values:
            step = Step() if axis == "base" else replace(Step(), **{axis: value})
            if base is None or axis == "base":
                base = None  # before the next one is loaded
                base = load_base(value if axis == "base" else options.base)
            rows.append({"value": value} | measure(base, step, pairs, options.rounds))
            print(axis, json.dumps(rows[-1]), file=sys.stderr, flush=True)
        found["axes"][axis] = {"rounds": options.rounds, "environment": environment(), "rows": rows}
        write_json(options.out, found)


class Kept:
    """What autograd keeps for a backward pass: the bytes of each storage, once."""

    def __init__(self, base: Any):
        self._weights = {weight.untyped_storage().data_ptr() for weight in base.model.parameters()}
        self._sizes: dict[int, int] = {}

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Autograd keeps a tensor."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def give(self, tensor: torch.Tensor) -> torch.Tensor:
        """It asks for it back."""
        return tensor

    def size(self) -> int:
        """Bytes."""
        return sum(self._sizes.values())


def measure(base: Any, step: Step, pairs: Sequence[Pair], rounds: int) -> dict[str, Any]:
    """Seconds, FLOPs and kept memory of both sides, by turns.

    Raises:
        SystemExit: there are not enough pairs of that length.
    """
    data = encode(base, pairs)
    long = [e for e in data.examples if min(len(e.chosen), len(e.rejected)) >= step.answer][: step.pairs]
    if len(long) < step.pairs:
        raise SystemExit(f"{len(long)} pairs have answers of {step.answer} tokens, {step.pairs} are needed")
    if step.prompt:
        long = [replace(e, prompt=tuple(islice(cycle(e.prompt), step.prompt))) for e in long]
    data = replace(data, examples=long)
    rows = init_prefix(base, PrefixSection(tokens=step.tokens), 0)
    found: dict[str, dict[str, Any]] = {side: {"seconds": []} for side in SIDES}
    for side, function in SIDES.items():  # the first of each is counted, not timed
        again = rows.clone().requires_grad_()
        kept = Kept(base)
        with FlopCounterMode(display=False) as counter:
            with torch.autograd.graph.saved_tensors_hooks(kept.keep, kept.give):
                loss = function(base, again, data, step.answer)
            loss.backward()
        found[side]["flops"], found[side]["kept_mib"] = counter.get_total_flops(), round(kept.size() / 2**20, 1)
        found[side]["gradient"] = again.grad
    for number in range(rounds):
        for side in list(SIDES)[:: 1 if number % 2 == 0 else -1]:
            again = rows.clone().requires_grad_()
            started = time.perf_counter()
            SIDES[side](base, again, data, step.answer).backward()
            found[side]["seconds"].append(round(time.perf_counter() - started, 4))
    ours_grad, plain_grad = (found[side].pop("gradient") for side in SIDES)
    turns = list(zip(found["plain"]["seconds"], found["ours"]["seconds"], strict=True))
    return found | {
        "parameters": sum(p.numel() for p in base.model.parameters()),
        "plain_over_ours": median([a / b for a, b in turns]).json(),
        "flops_plain_over_ours": round(found["plain"]["flops"] / found["ours"]["flops"], 3),
        "gradient_relative_difference": float((plain_grad - ours_grad).norm() / plain_grad.norm()),
    }


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
