"""What a DPO step takes on a GPU: the bundled base's shape alone and side by side, and that of a 7B base.

    python benchmarks/gpu.py                      # alone at 16 and 64 pairs, and a 7B base at the same
    python benchmarks/gpu.py --at-once 8          # and so many trainings of the small base side by side

Random weights of each shape, random tokens of the lengths of real ones: neither decides how long a step takes. Start
``nvidia-cuda-mps-control -d`` first to have trainings side by side share the card instead of taking turns. Writes ``--out``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import time
from pathlib import Path
from queue import Empty
from typing import Any

from llmpatch.batching import Example
from llmpatch.estimate import CHARS_PER_TOKEN, HEAD_TOKENS, SHAPES
from llmpatch.evals.environment import environment
from llmpatch.files import write_json
from llmpatch.learning import read_prompts
from llmpatch.recipe import Recipe, load_recipe
from llmpatch.training_data import TrainingSet
from llmpatch.training_recipe import DPOSection, TrainingSection

SMALL, LARGE = "smollm2", "meta-llama/Llama-2-7b-chat-hf"
RECIPE = Path("recipes/llama-2-7b-toxicity.yaml")
BATCHES = (16, 64)
TOKENS, WARM = 50, 4  # virtual ones; steps before those that are timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=0)
    parser.add_argument("--steps", type=int, default=15, choices=range(1, 97), metavar="1-96")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--large", default=LARGE, choices=sorted(SHAPES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu_steps.json"))
    options = parser.parse_args()
    found: dict[str, Any] = {"environment": environment()}
    jobs = [(SMALL, "float32", batch) for batch in BATCHES]
    jobs += [(SMALL, "bfloat16", BATCHES[-1]), *((options.large, "bfloat16", batch) for batch in BATCHES)]
    found["alone"] = [_aside(1, *job, options)[0] for job in jobs]
    if options.at_once:
        found["at_once"] = _aside(options.at_once, SMALL, "float32", BATCHES[-1], options)
    for row in [*found["alone"], *found.get("at_once", [])]:
        print(row)
    write_json(options.out, found)


def _aside(count: int, name: str, dtype: str, batch: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The same steps in so many processes at once; a process of its own each, so that memory is measured from nothing."""
    spawn = multiprocessing.get_context("spawn")
    barrier, queue = spawn.Barrier(count), spawn.Queue()
    work = (name, dtype, batch, options.steps, options.device, barrier, queue)
    processes = [spawn.Process(target=_steps, args=work) for _ in range(count)]
    for process in processes:
        process.start()
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        try:
            rows.append(queue.get(timeout=1))
        except Empty:
            if any(process.exitcode for process in processes):
                for process in processes:
                    process.kill()
                raise SystemExit(f"a process of {name} at {batch} pairs failed: see above") from None
    for process in processes:
        process.join()
    return rows


def _steps(name: str, dtype: str, batch: int, count: int, device: str, barrier: Any, queue: Any) -> None:
    """Times of steps, after some to warm up."""
    import torch

    from llmpatch.step_losses import StepLosses

    cuda = device != "cpu"
    if cuda:
        torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    recipe = load_recipe(RECIPE)
    base, data, answer = _base(name, dtype, device), _data(name, recipe), recipe.training.dpo.answer_tokens
    dpo = DPOSection(
        steps=100, learning_rate=0.01, answer_tokens=answer, batch_size=batch, reference="none", sft_weight=0.2
    )
    losses = StepLosses(base, data, TrainingSection(dpo=dpo), seed=0)
    losses.prepare_reference(torch.empty(0), dpo)
    # What is computed once per run is no part of a step.
    losses._base_states([i for i, e in enumerate(data.examples) if e.kind != "harmful"], answer)
    torch.manual_seed(0)
    rows = torch.randn(TOKENS, base.hidden_size) * 0.02
    seconds: list[float] = []
    for step in range(WARM + count):
        if step == WARM:
            barrier.wait(timeout=300)
        if cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        live = rows.clone().requires_grad_()
        loss, _ = losses.dpo_loss(live, losses.indices(dpo, step, 1), dpo)
        loss.backward()  # type: ignore[no-untyped-call]
        assert live.grad is not None
        if not bool(torch.isfinite(live.grad).all()):  # also waits for the card
            raise SystemExit(f"{name}: the gradient is not finite")
        if step >= WARM:
            seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else None
    device_name = torch.cuda.get_device_name() if cuda else "cpu"
    queue.put({
        "base": name, "pairs": batch, "answer_tokens": answer, "seconds": statistics.median(seconds), "steps": count,
        "peak_mib": peak, "dtype": dtype, "device": device_name,
    })  # fmt: skip


def _base(name: str, dtype: str, device: str) -> Any:
    """A random model of a shape, made where it will run."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    from llmpatch.bases import Base

    shape = SHAPES[name]
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, tie_word_embeddings=shape.tied,
    )  # fmt: skip
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"word": 0}, unk_token="word"))  # it is asked for the ids of a template, no more
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="word")
    return Base(name, model.eval().requires_grad_(False), tokenizer)


def _data(name: str, recipe: Recipe) -> TrainingSet:
    """Random tokens, as many as the recipe's prompts have by the estimate's rule."""
    rng, cut = random.Random(1), recipe.training.dpo.answer_tokens

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(10, SHAPES[name].vocabulary) for _ in range(max(1, count)))

    prompts = read_prompts(recipe).train
    by_kind = {kind: [p for p in prompts if p.kind == kind][:120] for kind in {p.kind for p in prompts}}
    chosen = [p for kind in sorted(by_kind) for p in by_kind[kind]]
    examples = [Example(p.kind, ids(len(p.text) // CHARS_PER_TOKEN), ids(cut), ids(cut)) for p in chosen]
    return TrainingSet(list(ids(HEAD_TOKENS)), examples)


if __name__ == "__main__":
    main()
