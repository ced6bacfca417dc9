"""A whole build, from prompts to answers of the patched model, beside a straightforward script with TRL, PEFT and ``generate``.

    python benchmarks/end_to_end.py [--rounds 5] [--prompts 30] [--sft 6] [--dpo 12]

Both make the same pairs (greedy answers of the base to the first prompts of each kind of ``--recipe``, the recipe's recorded
reference, its filter), train as many SFT and DPO steps on the same batches with the same optimiser and loss (TRL's: no KL to the
base), and answer held-out prompts with the base and with what was trained. The script asks ``transformers.generate`` in batches
of the same size, trains PEFT's prompt tuning with TRL's trainers, and puts the rows before each prompt (PEFT's own ``generate``
is wrong on today's transformers). Each is a process of its own, by turns; loading is counted, and so is what a process imports.
Steps and prompts stand to each other as in the demo recipe. Writes ``--out``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llmpatch.evals.stats import median
from llmpatch.files import write_json

SIDES = ("ours", "script")
KINDS = ("harmful", "borderline", "everyday")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/demo.yaml"))
    parser.add_argument("--prompts", type=int, default=30, help="of each kind, to train on and to answer")
    parser.add_argument("--sft", type=int, default=6, help="steps")
    parser.add_argument("--dpo", type=int, default=12, help="steps")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/end_to_end.json"))
    parser.add_argument("--work", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options, options.work)))
        return
    from llmpatch.evals.environment import environment

    told = {key: getattr(options, key) for key in ("prompts", "sft", "dpo")} | {"recipe": str(options.recipe)}
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            runs[side].append(ask(options, side))
            print(number, side, json.dumps(runs[side][-1]), file=sys.stderr, flush=True)
        found = {"settings": told | {"rounds": number + 1}, "environment": environment(), **compare(runs)}
        write_json(options.out, found)
    print(json.dumps(found, indent=1))


def ask(options: argparse.Namespace, side: str) -> dict[str, Any]:
    """One side's whole job, in a process of its own."""
    arguments = [
        part for key in ("recipe", "prompts", "sft", "dpo") for part in (f"--{key}", str(getattr(options, key)))
    ]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--work", side], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": round(time.perf_counter() - began, 2)}


def compare(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians of each side and stage; the ratios compare two of one round."""
    parts = ("pairs", "training", "answers", "seconds")
    return {
        "sides": {
            side: {part: round(statistics.median(run[part] for run in rounds), 2) for part in parts}
            for side, rounds in runs.items()
        },
        "script_over_ours": {
            part: median([b[part] / a[part] for a, b in zip(runs["ours"], runs["script"], strict=True)]).json()
            for part in parts
        },
        "pairs_kept": {side: rounds[-1]["kept"] for side, rounds in runs.items()},
        "declined": {side: rounds[-1]["declined"] for side, rounds in runs.items()},
    }


def work(options: argparse.Namespace, side: str) -> dict[str, Any]:
    """Pairs, training and answers of one side; seconds of each."""
    import torch

    from llmpatch.bases import load_base
    from llmpatch.judges import open_judge
    from llmpatch.learning import read_prompts, start_rows
    from llmpatch.packed import unpack
    from llmpatch.pairs import encode
    from llmpatch.recipe import load_recipe, override

    limits = [f"prompts.{kind}.{name}={options.prompts}" for kind in KINDS for name in ("limit", "validation_limit")]
    steps = [f"training.sft.steps={options.sft}", f"training.dpo.steps={options.dpo}"]
    loss = [
        "training.optimizer=adamw",
        "training.kl_weight=0",
        "training.benign_nll_weight=1",
        "training.dpo.reference=sft",
        "training.dpo.sft_weight=0",
    ]
    recipe = override(load_recipe(options.recipe), [*limits, *steps, *loss])
    base, prompts = load_base(recipe.base.name, recipe.base.revision), read_prompts(recipe)
    if side == "script":
        unpack(base.model)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        pairs = {"ours": our_pairs, "script": their_pairs}[side](recipe, base, prompts.train, Path(folder))
        paired = time.perf_counter()
        trained = {"ours": our_rows, "script": their_rows}[side](
            base, encode(base, pairs), start_rows(recipe, base), recipe.training, Path(folder)
        )
    rows, done = trained.detach().clone(), time.perf_counter()
    texts = [prompt.text for prompt in prompts.validation]
    answer = our_answers if side == "ours" else their_answers
    with torch.no_grad():
        plain, patched = (answer(base, texts, prefix, recipe.decoding.max_new_tokens) for prefix in (None, rows))
    answered = time.perf_counter()
    phrases = open_judge("refusal-phrases")
    declined = [sum(score >= 0.5 for score in phrases.score(texts, found)) for found in (plain, patched)]
    return {
        "pairs": round(paired - began, 2), "training": round(done - paired, 2), "answers": round(answered - done, 2),
        "kept": len(pairs), "declined": declined,
    }  # fmt: skip


def our_pairs(recipe: Any, base: Any, prompts: Any, folder: Path) -> Any:
    from llmpatch.pairing import open_models, sample_pairs
    from llmpatch.progress import Silent

    return sample_pairs(recipe, open_models(recipe, base), prompts, folder, Silent())[0]


def their_pairs(recipe: Any, base: Any, prompts: Any, folder: Path) -> Any:
    """Answers by ``generate``; what is recorded, and the filter, are the recipe's."""
    from llmpatch.answers import Answer
    from llmpatch.judges import open_judge
    from llmpatch.pairs import make_pairs
    from llmpatch.progress import Silent
    from llmpatch.references import collect, open_reference

    short = [p for p in prompts if len(base.prompt_ids(p.text)) <= recipe.pairs.max_prompt_tokens]
    said = their_answers(base, [p.text for p in short], None, recipe.decoding.max_new_tokens)
    harmful = [p for p in short if p.kind == "harmful"]
    told = collect(open_reference(recipe.reference, recipe.decoding), harmful, folder / "answers", progress=Silent())
    reference = {p.id: answer for p, answer in zip(harmful, told, strict=True)}
    most = recipe.decoding.max_new_tokens
    own = [[Answer(text, "stop" if len(base.text_ids(text)) < most else "length")] for text in said]
    return make_pairs(short, own, reference, open_judge(recipe.pairs.judge), recipe.pairs)[0]


def our_rows(base: Any, data: Any, start: Any, section: Any, folder: Path) -> Any:  # noqa: ARG001
    from llmpatch.training import train

    return train(base, data, start, section, seed=0).rows


def their_rows(base: Any, data: Any, start: Any, section: Any, folder: Path) -> Any:
    """PEFT's prompt tuning by TRL's trainers, one after the other."""
    import torch
    from peft import PromptTuningConfig, get_peft_model

    from llmpatch.baselines.trl_stages import run_dpo, run_sft, step_rows
    from llmpatch.step_losses import StepLosses

    wrapped = get_peft_model(base.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(start)))
    weight = wrapped.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(start)
    plan = StepLosses(base, data, section, seed=0)  # who is in which batch
    for offset, about in enumerate((section.sft, section.dpo)):
        fed = [step_rows(plan, about, step, offset) for step in range(about.steps)]
        if offset:
            run_dpo(wrapped, base.tokenizer, fed, section, about.learning_rate, str(folder / "dpo"), Unwatched(), None)
        else:
            run_sft(wrapped, base.tokenizer, fed, section, about.learning_rate, str(folder / "sft"), Unwatched())
    base.model = wrapped.get_base_model()
    return weight


class Unwatched:
    """Hears of steps, and says nothing."""

    def begin(self, step: int) -> None:
        """Before a step."""

    def end(self, step: int) -> None:
        """After it."""


def our_answers(base: Any, texts: list[str], prefix: Any, count: int) -> list[str]:
    from llmpatch.patched import answer_all
    from llmpatch.recipe import DecodingSection

    return [found[0] for found in answer_all(base, texts, DecodingSection(max_new_tokens=count), prefix=prefix)]


def their_answers(base: Any, texts: list[str], prefix: Any, count: int) -> list[str]:
    """``generate`` on left-padded batches; the rows stand before each prompt and are read again for each."""
    import torch

    from prefix_cache import theirs

    rows = prefix if prefix is not None else torch.zeros(0, base.hidden_size)
    return theirs(base, rows, [base.prompt_ids(text) for text in texts], count)


if __name__ == "__main__":
    main()
