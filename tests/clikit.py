"""A folder laid out like the repository, in which every verb can run for real on a tiny model."""

import json
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parent.parent


def save(folder, base):
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe_for(model_folder):
    kinds = ("harmful", "borderline", "everyday")
    prompts = {k: {"train": [f"own/{k}.jsonl"], "validation": [f"own/{k}_validation.jsonl"]} for k in kinds}
    return yaml.safe_dump(
        {
            "name": "tiny/refusal",
            "version": "0.1.0",
            "summary": "A patch for a random model.",
            "base": {"name": str(model_folder)},
            "reference": {"kind": "recorded", "path": "own/answers.jsonl"},
            "decoding": {"max_new_tokens": 8},
            "prompts": prompts,
            "prefix": {"tokens": 4},
            "pairs": {"max_prompt_tokens": 400},
            "training": {
                "sft": {"steps": 2, "learning_rate": 0.01, "batch_size": 4},
                "dpo": {"steps": 1, "learning_rate": 0.01, "batch_size": 4},
            },
            "evaluation": {"limit": 1, "max_new_tokens": 4},
        }
    )


def fill(folder: Path, recipe_text: str) -> Path:
    """Data, own prompts and recipes, as a repository would have them."""
    for kind in ("harmful", "borderline", "everyday"):
        rows = [{"prompt": f"{kind} request number {i}"} for i in range(4)]
        write_rows(folder / f"own/{kind}.jsonl", rows)
        write_rows(folder / f"own/{kind}_validation.jsonl", [{"prompt": f"another {kind} request"}])
    answers = [
        {"prompt": f"harmful request number {i}", "completion": "I'm sorry, but I can't help with that."}
        for i in range(4)
    ]
    write_rows(folder / "own/answers.jsonl", answers)
    (folder / "data").symlink_to(REPOSITORY / "data")
    (folder / "recipes").mkdir()
    for name in ("demo", "smollm2-refusal"):
        (folder / f"recipes/{name}.yaml").write_text(recipe_text, encoding="utf-8")
    return folder
