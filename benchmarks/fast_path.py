"""What each part of our DPO step saves: the step with one of them left out, against the step as it is.

    python benchmarks/fast_path.py [--rounds 5] [--pairs 8] [--steps 4]

Left out one at a time: the prefix and the chat head are read by every row; a pair's answers read their prompt each; logits of
every position; rows in an order of chance and padded to the longest (against the pool sorted whole: training sorts within each
kind, which saves less); the DPO reference asked at every step; torch's own layers in place of packed weights. All see the same
pairs and come to the same mean loss. Seconds and FLOPs of forward and backward over ``--steps`` batches, by turns in one process.
Writes ``--out``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from llmpatch import losses
from llmpatch.bases import load_base
from llmpatch.batching import Batch as Laid
from llmpatch.batching import Example, make_batch
from llmpatch.evals.environment import environment
from llmpatch.evals.stats import median
from llmpatch.files import read_jsonl, write_json
from llmpatch.heap import keep_pages
from llmpatch.packed import pack, unpack
from llmpatch.pairs import Pair, encode
from llmpatch.prefix import backbone, init_prefix
from llmpatch.recipe import PrefixSection

Batch = Sequence[Example]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=8, help="of a step")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=50, help="virtual tokens")
    parser.add_argument("--answer-tokens", type=int, default=12)
    parser.add_argument("--source", type=Path, default=Path("benchmarks/pairs.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fast_path.json"))
    options = parser.parse_args()
    base = load_base(options.base)
    keep_pages()
    data = encode(base, [Pair(**row) for row in read_jsonl(options.source)])
    step = Step(base, init_prefix(base, PrefixSection(tokens=options.tokens), 0), data.head, options.answer_tokens)
    pool = spread(data.examples, options.pairs * options.steps)
    found = measure(step, pool, options.pairs, options.rounds)
    told = {key: getattr(options, key) for key in ("base", "rounds", "pairs", "steps", "tokens", "answer_tokens")}
    write_json(options.out, {"settings": told, "environment": environment(), **found})
    print(json.dumps(found, indent=1))


def spread(examples: Sequence[Example], count: int) -> list[Example]:
    """So many of them, evenly from short to long.

    Raises:
        SystemExit: there are fewer.
    """
    if len(examples) < count:
        raise SystemExit(f"{len(examples)} pairs, {count} are needed")
    ordered = sorted(examples, key=lambda e: len(e.prompt))
    return [ordered[i * len(ordered) // count] for i in range(count)]


class Step:
    """A DPO step's loss in its parts; a subclass leaves one out."""

    def __init__(self, base: Any, rows: torch.Tensor, head: list[int], cut: int) -> None:
        self.base, self.rows, self.head, self.cut = base, rows, head, cut

    def loss(self, batch: Batch, rows: torch.Tensor) -> torch.Tensor:
        """Mean over the pairs."""
        policy = self.log_probs(batch, rows)
        return losses.dpo_loss(policy, torch.zeros_like(policy), 0.1).mean()

    def log_probs(self, batch: Batch, rows: torch.Tensor) -> torch.Tensor:
        """Of each pair's answers, [pairs, 2]."""
        laid = self.lay(batch, rows)
        found = self.token_log_probs(laid, rows)
        return losses.per_answer(found, laid.owner, 2 * len(batch), mean=False).view(-1, 2)

    def lay(self, batch: Batch, rows: torch.Tensor) -> Laid:
        """The batch as rows of token ids, answers numbered pair by pair."""
        return make_batch(batch, past=len(rows) + len(self.head), answer_tokens=self.cut, rejected=True)

    def token_log_probs(self, laid: Laid, rows: torch.Tensor) -> torch.Tensor:
        """Of each answer token."""
        hidden = losses.hidden_states(self.base, rows, self.head, laid)
        return losses.answer_log_probs(self.base, hidden, laid.targets)

    def order(self, pool: Sequence[Example]) -> Sequence[Example]:
        """In which batches are cut from the pool."""
        return pool

    @contextmanager
    def there(self) -> Iterator[None]:
        """Whatever else must be so while it is measured."""
        yield


class OwnPrefix(Step):
    """Every row reads the virtual tokens and the chat head itself."""

    def lay(self, batch: Batch, rows: torch.Tensor) -> Laid:
        """See :class:`Step`."""
        whole = [replace(e, prompt=(*self.head, *e.prompt)) for e in batch]
        return make_batch(whole, past=len(rows), answer_tokens=self.cut, rejected=True)

    def token_log_probs(self, laid: Laid, rows: torch.Tensor) -> torch.Tensor:
        """See :class:`Step`."""
        past, width = len(rows), laid.ids.shape[1]
        seen = torch.zeros(laid.rows, 1, past + width, past + width, dtype=torch.bool)
        seen[:, :, :past, :past] = torch.ones(past, past, dtype=torch.bool).tril()
        seen[:, :, past:] = laid.mask
        hidden = backbone(self.base)(
            inputs_embeds=torch.cat([rows.expand(laid.rows, -1, -1), self.base.embed(laid.ids)], 1),
            attention_mask=torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min),
            position_ids=torch.cat([torch.arange(past).expand(laid.rows, -1), laid.positions], 1),
            use_cache=False,
        ).last_hidden_state[:, past:]
        return losses.answer_log_probs(self.base, hidden[laid.sources[:, 0], laid.sources[:, 1]], laid.targets)


class OwnPrompt(Step):
    """Each answer of a pair reads the prompt itself."""

    def lay(self, batch: Batch, rows: torch.Tensor) -> Laid:
        """See :class:`Step`."""
        single = [replace(e, chosen=answer) for e in batch for answer in (e.chosen, e.rejected)]
        laid = make_batch(single, past=len(rows) + len(self.head), answer_tokens=self.cut, rejected=False)
        return replace(laid, owner=laid.owner // 2)  # each row has one answer


class AllLogits(Step):
    """Logits of every position, of which those of the answers are taken."""

    def token_log_probs(self, laid: Laid, rows: torch.Tensor) -> torch.Tensor:
        """See :class:`Step`."""
        places = [(row, column) for row, length in enumerate(laid.lengths) for column in range(length)]
        number = {place: i for i, place in enumerate(places)}
        hidden = losses.hidden_states(self.base, rows, self.head, replace(laid, sources=torch.tensor(places)))
        logits = losses.precise_logits(self.base, hidden).log_softmax(-1)
        return logits[torch.tensor([number[row, column] for row, column in laid.sources.tolist()]), laid.targets]


class AnyLength(Step):
    """Batches as chance has it, each padded to its longest row."""

    def order(self, pool: Sequence[Example]) -> Sequence[Example]:
        """See :class:`Step`."""
        mixed = list(pool)
        random.Random(0).shuffle(mixed)
        return mixed

    @contextmanager
    def there(self) -> Iterator[None]:
        """See :class:`Step`."""
        own = losses.split_by_length
        losses.split_by_length = lambda lengths: [list(range(len(lengths)))]
        try:
            yield
        finally:
            losses.split_by_length = own


class AskedReference(Step):
    """The reference policy, the rows at their start, gives its log-probabilities at every step."""

    def loss(self, batch: Batch, rows: torch.Tensor) -> torch.Tensor:
        """See :class:`Step`."""
        with torch.no_grad():
            self.log_probs(batch, self.rows)
        return super().loss(batch, rows)


class TorchLayers(Step):
    """torch's own linear layers."""

    @contextmanager
    def there(self) -> Iterator[None]:
        """See :class:`Step`."""
        unpack(self.base.model)
        try:
            yield
        finally:
            pack(self.base.model)


LEFT_OUT: dict[str, type[Step]] = {
    "shared prefix": OwnPrefix,
    "shared prompt": OwnPrompt,
    "logits on demand": AllLogits,
    "batches by length": AnyLength,
    "kept reference": AskedReference,
    "packed weights": TorchLayers,
}


def measure(step: Step, pool: Sequence[Example], pairs: int, rounds: int) -> dict[str, Any]:
    """Seconds and FLOPs of every way, ratios round by round, and how far their losses are apart."""
    ways = {"ours": step} | {name: kind(step.base, step.rows, step.head, step.cut) for name, kind in LEFT_OUT.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    flops: dict[str, float] = {}
    loss: dict[str, float] = {}
    for number in range(rounds + 1):  # the first is counted, not timed
        for name in list(ways) if number % 2 else list(ways)[::-1]:
            way = ways[name]
            with way.there():
                if number == 0:
                    with FlopCounterMode(display=False) as counter:
                        loss[name] = run(way, pool, pairs)
                    flops[name] = float(counter.get_total_flops())
                    continue
                run(way, pool[:pairs], pairs)  # weights are packed, or not, before the clock starts
                started = time.perf_counter()
                run(way, pool, pairs)
                seconds[name].append(time.perf_counter() - started)
    return {
        "ours": {"seconds": round(statistics.median(seconds["ours"]), 3), "flops": flops["ours"]},
        "without": {
            name: {
                "seconds": round(statistics.median(seconds[name]), 3),
                "over_ours": median([a / b for a, b in zip(seconds[name], seconds["ours"], strict=True)]).json(),
                "flops_over_ours": round(flops[name] / flops["ours"], 3),
                "loss_difference": abs(loss[name] - loss["ours"]),
            }
            for name in LEFT_OUT
        },
    }


def run(way: Step, pool: Sequence[Example], pairs: int) -> float:
    """Forward and backward over the pool, a batch at a time; the mean loss."""
    ordered, total = way.order(pool), 0.0
    for start in range(0, len(ordered), pairs):
        rows = way.rows.clone().requires_grad_()
        loss = way.loss(ordered[start : start + pairs], rows)
        loss.backward()
        total += float(loss.detach()) * len(ordered[start : start + pairs])
    return total / len(ordered)


if __name__ == "__main__":
    main()
