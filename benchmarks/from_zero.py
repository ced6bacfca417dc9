"""How long a whole build takes on this machine, from a recipe to a patch with its evidence: nothing kept is used.

    python benchmarks/from_zero.py recipes/demo.yaml recipes/smollm2-refusal.yaml

Each recipe is built by the command line in a new folder, one after another: nothing else should run meanwhile. Writes --out,
a row for each recipe; rows of recipes that are not built now stay. scripts/make_results.py shows it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llmpatch.artifact import read_patch
from llmpatch.evals.environment import created, environment
from llmpatch.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/from_zero.json"))
    options = parser.parse_args()
    found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {"builds": {}}
    for recipe in options.recipes:
        found["builds"][recipe.stem] = row = measure(recipe)
        write_json(options.out, found)
        print(recipe.stem, {key: row[key] for key in ("minutes", "training_minutes")})


def measure(recipe: Path) -> dict[str, Any]:
    """Minutes of one build, of its training alone, and what was run.

    Raises:
        subprocess.CalledProcessError: the build failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, run = Path(folder) / "patch", Path(folder) / "run"
        started = time.perf_counter()
        command = [sys.executable, "-m", "llmpatch", "build", str(recipe), "--out", str(out), "--run", str(run)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        minutes = (time.perf_counter() - started) / 60
        patch = read_patch(out)
    return {
        "patch": f"{patch.manifest.name} {patch.manifest.version}",
        "recipe_digest": patch.evidence["training"]["recipe_digest"],
        "minutes": round(minutes, 2),
        "training_minutes": round(patch.evidence["training"]["seconds"] / 60, 2),
        "created": created(),
        "environment": environment(),
    }


if __name__ == "__main__":
    main()
