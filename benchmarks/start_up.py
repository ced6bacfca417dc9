"""How long a command takes from its start to its end: help, looking at a patch, verifying it, a first token.

    python benchmarks/start_up.py [--rounds 9]
    LLMPATCH_MODEL_SIGNING=~/ms/bin/python python benchmarks/start_up.py    # model-signing's own verification beside ours

Every command is a process of its own, by turns. Nothing else should run meanwhile. The patch is signed by a key made for it, in a
folder of its own. ``first token`` loads the base and answers one prompt with one token, with the patch and without. Writes
``--out``; scripts/make_results.py shows it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llmpatch.evals.environment import environment
from llmpatch.evals.stats import median
from llmpatch.files import write_json, write_jsonl

Command = list[str]
ANSWERS = "answers.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--patch", type=Path, default=Path("patches/smollm2/refusal"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/start_up.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = prepared(options.base, options.patch, Path(folder))
        measured = by_turns(commands, options.rounds, Path(folder) / ANSWERS)
    told = {
        "base": options.base,
        "patch": str(options.patch),
        "evidence_bytes": (options.patch / "evidence.json").stat().st_size,
        "rounds": options.rounds,
        "commands": measured,
        "environment": environment(),
    }
    write_json(options.out, told)
    print(json.dumps(told, indent=1))


def prepared(base: str, patch: Path, folder: Path) -> dict[str, Command]:
    """The commands by what they are called, after what they need lies in ``folder``."""
    signed, key, prompts, out = folder / "signed", folder / "key.pem", folder / "prompts.jsonl", folder / ANSWERS
    shutil.copytree(patch, signed)
    write_jsonl(prompts, [{"id": "one", "prompt": "What is the capital of France?"}])
    ours = [sys.executable, "-m", "llmpatch"]
    run([*ours, "keys", "generate", "-o", str(key), "--no-password"])
    run([*ours, "sign", str(signed), "--key", str(key)])
    public = str(key.with_suffix(".pub.pem"))
    first = [*ours, "generate", "--base", base, "--prompts", str(prompts), "--max-new-tokens", "1", "--out", str(out)]
    commands = {
        "python, which does nothing": [sys.executable, "-c", "pass"],
        "llmpatch --help": [*ours, "--help"],
        "llmpatch show": [*ours, "show", str(signed)],
        "llmpatch verify": [*ours, "verify", str(signed), "--key", public],
        "import torch, transformers, peft": [sys.executable, "-c", "import torch, transformers, peft"],
        "a first token": first,
        "a first token, with the patch": [*first, "--patch", str(signed)],
    }
    if theirs := os.environ.get("LLMPATCH_MODEL_SIGNING"):
        commands["model-signing verify"] = [
            theirs, "-m", "model_signing", "verify", "key", "--signature", str(signed / "patch.sig"),
            "--public_key", public, str(signed),
        ]  # fmt: skip
    return commands


def by_turns(commands: dict[str, Command], rounds: int, answers: Path) -> dict[str, dict[str, Any]]:
    """Wall seconds and processor seconds of each, after a round that fills the caches of files."""
    wall: dict[str, list[float]] = {name: [] for name in commands}
    busy: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in sorted(commands.items(), reverse=bool(number % 2)):
            answers.unlink(missing_ok=True)  # else they would be kept, not made again
            began, used = time.perf_counter(), _children()
            run(command)
            if number:
                wall[name].append(time.perf_counter() - began)
                busy[name].append(_children() - used)
    return {
        name: {
            "seconds": median(wall[name]).json(),
            "processor_seconds": round(statistics.median(busy[name]), 3),
        }
        for name in commands
    }


def run(command: Command) -> None:
    """Run to the end.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
