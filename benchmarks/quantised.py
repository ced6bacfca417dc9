"""Does a patch survive quantisation? Its own risk's suite on the base in several number formats, without and with the patch.

    python benchmarks/quantised.py --patch patches/smollm2/refusal --kinds F16,Q8_0,shipped,Q4_0 [--limit 20]
    python benchmarks/quantised.py --train recipes/demo.yaml --train-on shipped,Q4_0 --kinds F16,Q8_0,shipped,Q4_0

Each format is written from the base's own GGUF by ``llmpatch.exporting.requantise`` and read back through transformers, so the
weights are those of the format and the arithmetic is float32. What the source lost stays lost: of a base that is published as
Q4_1, F16 is the same model and Q4_0 a coarser one. ``NF4`` is a folder of bitsandbytes, whose linear layers stay in 4 bits while
transformers runs them. The arithmetic of llama.cpp is measured by ``tests/engines``. ``--train`` asks whether a patch that is
trained on the format does better there: the recipe is built once on each base of ``--train-on``, and every patch is measured on
every format. Answers are kept below ``--run``: an interrupted run continues. Writes ``--out``, with the n and interval of every
rate, after each format; what was measured in an earlier run stays, and a patch that was measured otherwise then is refused.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from llmpatch.artifact import Patch, load_patch
from llmpatch.bases import load_base
from llmpatch.building import build
from llmpatch.catalogue import locate
from llmpatch.evals import System, evaluate
from llmpatch.evals.environment import environment
from llmpatch.evals.suites import RISK_JUDGES
from llmpatch.exporting import requantise
from llmpatch.files import sha256_file, write_json
from llmpatch.judges import open_judge
from llmpatch.progress import console
from llmpatch.recipe import load_recipe, override
from merging import different, settings

SHIPPED = "shipped"
NF4 = "NF4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2", help="a catalogue name or a .gguf file")
    parser.add_argument("--patch", action="append", default=[], help="a patch; repeatable, each on its own")
    parser.add_argument("--train", type=Path, help="a recipe, to be built on each base of --train-on")
    parser.add_argument("--train-on", default=SHIPPED, help=f"formats to train on, as {SHIPPED},Q4_0")
    parser.add_argument("--kinds", default=f"F16,Q8_0,{SHIPPED},Q4_0", help=f"{SHIPPED} is the file as it is")
    parser.add_argument("--judge", help="instead of the suite's own")
    parser.add_argument("--limit", type=int, help="only the first N prompts of each set")
    parser.add_argument("--run", type=Path, default=Path("runs/quantised"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quantised.json"))
    options = parser.parse_args()
    source = locate(options.base)
    if source is None or source.suffix != ".gguf":
        parser.error(f"{options.base} is not a GGUF file")
    if not options.patch and not options.train:
        parser.error("give --patch or --train")
    patches = [load_patch(name) for name in options.patch]
    if options.train:
        patches += [trained(options.train, source, kind, options.run) for kind in options.train_on.split(",")]
    kept = (
        json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {"patches": [], "kinds": []}
    )
    if kept["kinds"] and kept["source"] != source.name:
        parser.error(f"{options.out} is of {kept['source']}: write elsewhere")
    before = {kind["kind"]: kind for kind in kept["kinds"]}
    kinds = options.kinds.split(",")
    sha256 = sha256_file(source)
    if kept["kinds"] and kept.get("source_sha256", sha256) != sha256:
        parser.error(f"{options.out} is of another file called {source.name}: write elsewhere")
    names = {title(patch): {"title": title(patch), "name": patch.manifest.name, "version": patch.manifest.version,
                            "digest": patch.digest, **measured_by(patch, options)} for patch in patches}  # fmt: skip
    earlier = {about["title"]: about for about in kept["patches"]}
    for name in earlier.keys() & names.keys():
        stay = [kind["kind"] for kind in kept["kinds"] if name in kind["patches"] and kind["kind"] not in kinds]
        if stay and (keys := different(earlier[name], names[name])):
            parser.error(
                f"{options.out} has {name} on {', '.join(stay)}, measured with other {', '.join(keys)}: measure these formats "
                "in this run, too (--kinds), measure as then, or write elsewhere (--out)"
            )
    found: dict[str, Any] = {
        "source": source.name,
        "source_sha256": sha256,
        "patches": list((earlier | names).values()),
        "environment": environment(),
    }
    for kind in kinds:
        made = measure(source, kind, patches, options)
        earlier_there = before[kind]["patches"] if kind in before else {}
        before[kind] = made | {"patches": earlier_there | made["patches"]}
        found["kinds"] = list(before.values())
        write_json(options.out if kind == kinds[-1] else options.out.with_suffix(".part.json"), found)
    options.out.with_suffix(".part.json").unlink(missing_ok=True)


def measured_by(patch: Patch, options: argparse.Namespace) -> dict[str, Any]:
    """How a patch is measured in this run; formats of one patch stand side by side only where it is the same."""
    suite = patch.manifest.fixes[0].risk
    names = [options.judge] if options.judge else RISK_JUDGES.get(suite, ())
    return settings(suite, [open_judge(name) for name in names], limit=options.limit, max_new_tokens=None)


def title(patch: Patch) -> str:
    """As people say it: ``acme/refusal 1.0.0, trained on Q4_0``."""
    of = patch.manifest.base.fingerprint.quantisation.split(":")
    return f"{patch.manifest.name} {patch.manifest.version}, trained on {of[1] if len(of) > 1 else of[0]}"


def requantised(source: Path, kind: str, run: Path) -> Path:
    """The base's file in one format, written once for each source."""
    if kind == SHIPPED:
        return source
    if kind == NF4:
        return in_nf4(source, run)
    path = run / f"{source.stem}.{kind}.{sha256_file(source)[:16]}.gguf"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        requantise(source, part, kind)
        part.replace(path)
    return path


def in_nf4(source: Path, run: Path) -> Path:
    """The base as a Hugging Face folder whose linear layers bitsandbytes keeps in 4 bits; the tables stay as they are."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from llmpatch.exporting.checkpoint import save_model

    folder = run / f"{source.stem}.{NF4}.{sha256_file(source)[:16]}"
    if not folder.is_dir():
        base = load_base(str(source))
        base.model.hf_quantizer = None  # it would write GGUF's
        del base.model.config.quantization_config
        run.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=run) as whole, tempfile.TemporaryDirectory(dir=run) as part:
            save_model(base.model, base.tokenizer, Path(whole))
            four = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
            )
            model = AutoModelForCausalLM.from_pretrained(whole, quantization_config=four, dtype=torch.float32)
            save_model(model, base.tokenizer, Path(part))
            Path(part).rename(folder)
            Path(part).mkdir()  # what is cleaned away
    return folder


def trained(recipe: Path, source: Path, kind: str, run: Path) -> Patch:
    """The patch that a recipe makes for the base in one format; kept, and built again where the recipe changed."""
    wanted = override(load_recipe(recipe), [f"base.name={requantised(source, kind, run)}"])
    folder = run / f"{recipe.stem}-on-{kind}-{wanted.digest()[:12]}"
    if (folder / "patch").is_dir():
        return load_patch(str(folder / "patch"))
    return build(wanted, folder / "patch", run=folder / "run", progress=console())


def measure(source: Path, kind: str, patches: list[Patch], options: argparse.Namespace) -> dict[str, Any]:
    """One format: every patch against the base, on the same prompts."""
    path = requantised(source, kind, options.run)
    base = load_base(str(path))
    results = {}
    for patch in patches:
        notes = [note.replace(str(path), path.name) for note in patch.check_base(base)]  # of no machine
        suite = patch.manifest.fixes[0].risk
        evidence = evaluate(
            base,
            [System("M"), System("M+", prefix=patch.prefix())],
            suite=suite,
            judges=[open_judge(options.judge)] if options.judge else None,
            limit=options.limit,
            store=options.run / "evals",
            progress=console(),
        )
        results[title(patch)] = {"suite": suite, "notes": notes, "results": evidence["results"]}
    return {"kind": kind, "quantisation": base.quantisation, "bytes": weighed(path), "patches": results}


def weighed(path: Path) -> int:
    """Bytes of a base's weights."""
    return sum(file.stat().st_size for file in (path.glob("*.safetensors") if path.is_dir() else [path]))


if __name__ == "__main__":
    main()
