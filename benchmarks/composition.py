"""How well patches stack: each single patch's gain in stacks of two and three, in the worst order, and the cost per token.

    python benchmarks/composition.py patches/smollm2/refusal patches/smollm2/toxicity patches/smollm2/gender-bias
    python benchmarks/composition.py P1 P2 P3 --beside independent=Q1,Q2,Q3 --cumulative P --added P4 --prompts 200
    python benchmarks/composition.py P1 P2 P4 --keep independent --keep patches=earlier      what was measured before stays
    python benchmarks/composition.py P1 P2 P3 --keep patches --keep independent --cumulative P   only P, and each patch alone
    python benchmarks/composition.py P1 P2 P3 --beside independent=Q1,Q2,Q3 --keep patches --keep independent --parallel patches

The patches are of different risks and one base. ``--beside`` measures another set the same way: patches trained independently
are the baseline that must lose. Only what a patch is for is measured, not what it should leave alone: for the price of one stack
there is ``llmpatch compose``. ``--parallel`` measures a set side by side (ADR 0035), as SET-parallel, or others only so;
``--cumulative`` is one prefix for all risks, ``--added`` a further patch behind all of them, ``--added-beside SET=PATCH`` one
side by side with a set of this run. Everything sampled stays in --run, so a killed run goes on where it was, and another
order costs only its own answers. Writes --out; ``make docs`` shows it in docs/composition.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmpatch.artifact import Patch, load_patch
from llmpatch.bases import load_base
from llmpatch.composing import (
    Bench,
    Task,
    check_room,
    make_stack,
    open_tasks,
    stack_prefix,
    survey_one,
    survey_set,
    survey_table,
)
from llmpatch.errors import UsageError
from llmpatch.evals.common import middling, price
from llmpatch.evals.environment import created, environment
from llmpatch.evals.prompt_sets import data_folder, load_corpus
from llmpatch.evals.systems import System
from llmpatch.files import write_json
from llmpatch.prefix import check_side_by_side
from llmpatch.progress import console


def main() -> None:
    options = _options()
    patches = [load_patch(path) for path in options.patches]
    check_room(base := load_base(options.base or patches[0].manifest.base.name), len(make_stack(patches).rows))
    beside = dict(_named(text) for text in options.beside)
    known = {"patches": patches, **beside}
    parallel = dict((text, known[text]) if text in known else _named(text) for text in options.parallel)
    others = [p for found in (*beside.values(), *parallel.values()) for p in found]
    opened = open_tasks([*patches, *others], samples=options.samples)
    tasks = [_aims(task, options.prompts) for task in opened]
    for patch in [*patches, *others]:
        patch.check_base(base)
    if parallel:
        check_side_by_side(base)
    bench = Bench(base, tasks, options.run / "answers", console())
    result: dict[str, Any] = {
        "schema": "llmpatch/composition-benchmark/v1",
        "created": created(),
        "environment": environment(),
        "base": base.name,
        "samples": options.samples,
        "risks": {
            task.risk: {"suite": task.suite, "prompts": sum(len(s.prompts) for s in task.sets)} for task in tasks
        },
        "sets": {},
    }
    earlier = _earlier(options, result) if options.keep else {}
    kept = _kept(options, earlier)
    if "patches" in kept:  # what was measured with the same patches stays, unless it is measured again
        _check_same("patches", kept["patches"], patches)
        result |= {key: earlier[key] for key in ("price", "cumulative", "added", "added-parallel") if key in earlier}
    for name, found in {"patches": patches, **beside}.items():
        if name in kept:
            _check_same(name, kept[name], found)
            continue
        result["sets"][name] = survey_set(bench, found)
        print(f"{name}\n\n{survey_table(result['sets'][name])}\n")
        write_json(options.out, result | {"sets": result["sets"] | kept})
    result["sets"] |= kept
    result.setdefault("price", {})
    side = replace(bench, parallel=True)
    for name, found in parallel.items():
        result["sets"][f"{name}-parallel"] = survey_set(side, found)
        print(f"{name} side by side\n\n{survey_table(result['sets'][f'{name}-parallel'], parallel=True)}\n")
        result["price"]["parallel" if name == "patches" else f"{name}-parallel"] = _price(side, found)
        write_json(options.out, result)
    if "stack" not in result["price"]:
        result["price"]["stack"] = _price(bench, patches)
    if options.cumulative:
        one = load_patch(options.cumulative)
        one.check_base(base)
        result["cumulative"] = {"tokens": len(one.embeddings), "figures": survey_one(bench, patches, [one])}
        result["price"]["cumulative"] = _price(bench, [one])
    if options.added:
        result["added"] = _added(options, patches, load_patch(options.added), bench)
    if options.added_beside:
        name, _, path = options.added_beside.partition("=")
        if name not in known | parallel or not path:
            raise UsageError(
                f"--added-beside {options.added_beside}: not SET=PATCH of a set of this run",
                hint=", ".join(known | parallel),
            )
        result["added-parallel"] = _added(options, (known | parallel)[name], load_patch(path), side)
    write_json(options.out, result)
    print(options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patches", nargs="+", metavar="PATCH")
    parser.add_argument("--base", help="by default the one the patches name")
    parser.add_argument("--beside", action="append", default=[], metavar="NAME=PATCH,PATCH,...")
    parser.add_argument(
        "--keep", action="append", default=[], metavar="SET[=NAME]", help="of the earlier --out, as NAME"
    )
    parser.add_argument(
        "--parallel", action="append", default=[], metavar="SET|NAME=PATCH,PATCH,...", help="side by side"
    )
    parser.add_argument("--cumulative", metavar="PATCH")
    parser.add_argument("--added", metavar="PATCH")
    parser.add_argument("--added-beside", metavar="SET=PATCH", help="a further patch, side by side with a set")
    parser.add_argument("--prompts", type=_count, help="this many for each risk, an equal number of each of its sets")
    parser.add_argument("--samples", type=_count, help="continuations per prompt, for texts to be continued")
    parser.add_argument("--run", type=Path, default=Path("runs/composition"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/composition.json"))
    return parser.parse_args()


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _earlier(options: argparse.Namespace, result: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run wrote, measured as this one measures."""
    earlier: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8"))
    for key in ("base", "samples", "risks"):
        if earlier[key] != result[key]:
            raise UsageError(f"{options.out} was measured with another {key}: {earlier[key]}", hint="leave --keep out")
    return earlier


def _kept(options: argparse.Namespace, earlier: dict[str, Any]) -> dict[str, Any]:
    """Sets that an earlier run measured, each under the name it is to have now."""
    wanted = {name or old: old for old, _, name in (text.partition("=") for text in options.keep)}
    if missing := [old for old in wanted.values() if old not in earlier["sets"]]:
        raise UsageError(f"{options.out} has no set {missing[0]!r}", hint=f"it has {', '.join(earlier['sets'])}")
    return {name: earlier["sets"][old] for name, old in wanted.items()}


def _check_same(name: str, kept: dict[str, Any], patches: Sequence[Patch]) -> None:
    """A set that is kept under the name of one to measure must be of the same patches."""
    if [found["digest"] for found in kept["patches"]] != [patch.digest for patch in patches]:
        named = ", ".join(found["name"] for found in kept["patches"])
        raise UsageError(f"the set {name!r} that is to be kept is of {named}", hint=f"keep it as --keep {name}=NAME")


def _aims(task: Task, prompts: int | None) -> Task:
    """A task's harmful prompts only, the first of each set."""
    sets = [s for s in task.sets if s.kind == "harmful"]
    cut = prompts and max(1, prompts // len(sets))
    return replace(task, sets=tuple(replace(s, prompts=s.prompts[:cut]) for s in sets))


def _named(text: str) -> tuple[str, list[Patch]]:
    name, sign, paths = text.partition("=")
    if not sign or not paths:
        raise UsageError(f"{text!r} is not NAME=PATCH,PATCH, nor a set of its own", hint="as independent=a,b,c")
    found = [load_patch(path) for path in paths.split(",")]
    make_stack(found)
    return name, found


def _price(bench: Bench, patches: Sequence[Patch]) -> dict[str, Any]:
    """Perplexity of plain text and time per token behind all rows, against the base."""
    rows = stack_prefix(patches, parallel=bench.parallel)
    prompts = middling([p for task in bench.tasks for s in task.sets for p in s.prompts])
    found = price(bench.base, System("M+", prefix=rows), prompts, load_corpus(data_folder()), bench.progress)
    return {"tokens": len(rows), **found}


def _added(options: argparse.Namespace, patches: Sequence[Patch], new: Patch, bench: Bench) -> dict[str, Any]:
    """What each patch keeps with a further one behind all of them, against the stack without it; and what that one does."""
    new.check_base(bench.base)
    check_room(bench.base, len(make_stack([*patches, new]).rows))
    own = [_aims(task, options.prompts) for task in open_tasks([new], samples=options.samples)]
    return {
        "name": f"{new.manifest.name} {new.manifest.version}",
        "figures": survey_one(bench, patches, [*patches, new], against=patches),
        "own": survey_one(replace(bench, tasks=own), [new], [*patches, new]),
    }


if __name__ == "__main__":
    main()
