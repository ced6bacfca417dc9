"""FLOPs of one DPO step: the plain computation against ours, counted by torch on the same real pairs.

    python benchmarks/step_flops.py [--pairs 8] [--tokens 50] [--answer-tokens 24] [--out benchmarks/results/step_flops.json]

Plain is what TRL with PEFT prompt tuning does: every chosen and every rejected sequence is run whole behind its own copy
of the prefix, padded to the longest, with logits at every answer and prompt position. Ours shares the prefix, the
template's head and each pair's prompt, and computes logits where a target is. Both have the reference's
log-probabilities precomputed; the last row of the table is TRL's default, which runs the reference too.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from llmpatch.bases import load_base
from llmpatch.batching import make_batch
from llmpatch.files import read_jsonl, write_json
from llmpatch.losses import answer_log_probs, dpo_loss, hidden_states, per_answer
from llmpatch.pairs import Pair, encode
from llmpatch.prefix import init_prefix
from llmpatch.recipe import PrefixSection


def ours(base: Any, rows: Any, data: Any, cut: int) -> Any:
    batch = make_batch(data.examples, past=len(rows) + len(data.head), answer_tokens=cut, rejected=True)
    hidden = hidden_states(base, rows, data.head, batch)
    log_probs = answer_log_probs(base, hidden, batch.targets)
    policy = per_answer(log_probs, batch.owner, 2 * batch.rows, mean=False).view(-1, 2)
    return dpo_loss(policy, torch.zeros_like(policy), 0.1).mean()


def plain(base: Any, rows: Any, data: Any, cut: int) -> Any:
    sequences, starts = [], []
    for e in data.examples:
        for answer in (e.chosen[:cut], e.rejected[:cut]):
            sequences.append([*data.head, *e.prompt, *answer])
            starts.append(len(data.head) + len(e.prompt))
    width = max(map(len, sequences))
    ids = torch.tensor([s + [0] * (width - len(s)) for s in sequences])
    mask = torch.tensor([[1] * (len(rows) + len(s)) + [0] * (width - len(s)) for s in sequences])
    embeds = torch.cat([rows.expand(len(ids), -1, -1), base.embed(ids)], 1)
    logits = base.model(inputs_embeds=embeds, attention_mask=mask).logits[:, len(rows) - 1 : -1].log_softmax(-1)
    token = logits.gather(2, ids[..., None])[..., 0]
    keep = torch.tensor(
        [[i >= start and i < len(s) for i in range(width)] for s, start in zip(sequences, starts, strict=True)]
    )
    policy = (token * keep).sum(1).view(-1, 2)
    return dpo_loss(policy, torch.zeros_like(policy), 0.1).mean()


def measure(function: Any, *arguments: Any, repeat: int) -> tuple[float, float, float, Any]:
    rows = arguments[1].clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        loss = function(arguments[0], rows, *arguments[2:])
        loss.backward()
    seconds = []
    for _ in range(repeat):
        started = time.perf_counter()
        again = arguments[1].clone().requires_grad_()
        function(arguments[0], again, *arguments[2:]).backward()
        seconds.append(time.perf_counter() - started)
    return counter.get_total_flops(), min(seconds), float(loss.detach()), rows.grad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--answer-tokens", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--source", type=Path, default=Path("benchmarks/pairs.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/step_flops.json"))
    options = parser.parse_args()
    base = load_base("smollm2")
    pairs = [Pair(**row) for row in read_jsonl(options.source)[: options.pairs]]
    data = encode(base, pairs)
    rows = init_prefix(base, PrefixSection(tokens=options.tokens), 0)
    flops_plain, seconds_plain, loss_plain, grad_plain = measure(
        plain, base, rows, data, options.answer_tokens, repeat=options.repeat
    )
    flops_ours, seconds_ours, loss_ours, grad_ours = measure(
        ours, base, rows, data, options.answer_tokens, repeat=options.repeat
    )
    found = {
        "pairs": options.pairs, "virtual_tokens": options.tokens, "answer_tokens": options.answer_tokens,
        "flops_plain": flops_plain, "flops_ours": flops_ours, "flops_ratio": flops_plain / flops_ours,
        "flops_ratio_with_reference_forward": (flops_plain * 1.5) / flops_ours,
        "seconds_plain": seconds_plain, "seconds_ours": seconds_ours, "seconds_ratio": seconds_plain / seconds_ours,
        "loss_plain": loss_plain, "loss_ours": loss_ours,
        "gradient_relative_difference": float((grad_plain - grad_ours).norm() / grad_plain.norm()),
        "torch": torch.__version__, "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }  # fmt: skip
    write_json(options.out, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
