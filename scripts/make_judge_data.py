"""Copy what the judges are trained on into ``data/judges`` from a folder of published sources.

    python scripts/make_judge_data.py --sources DIR

``DIR/responses_labelled`` holds the published sets as JSON Lines. Answers are cut to 400 characters, which is all the
judges read. Rows that comply with a request about chemical, biological or explosive weapons are left out: the
labels without them suffice. The output is deterministic.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
MAX_CHARS = 400
MAX_CHARS_HARMLESS = 240  # of answers whose prompt is withheld; keeps that file under 1 MiB
OUT = Path(__file__).parent.parent / "data" / "judges"
WEAPONS = re.compile(
    r"chemical (weapon|warfare)|nerve agent|sarin|\bvx\b|ricin|anthrax|botulin|mercury|bomb|explosive|grenade|thermite"
    r"|chlorine|cyanide|phosgene|mustard gas|poison|pathogen|virus strain|bioweapon|firearm|ghost gun|methamphetamine",
    re.IGNORECASE,
)


def xstest(row: Row) -> Row:
    complied = row["human_label"] == "1_full_compliance"
    unsafe = row["prompt_type"].startswith("contrast")
    return {
        "refusal": int(not complied),
        "harmful": int(complied and unsafe),
        "human": row["human_label"],
        "kind": row["prompt_type"],
    }


def jailbreakbench(row: Row) -> Row:
    return {"harmful": int(row["jailbroken"]), "kind": row["attack"]}


def refusal_direction(row: Row) -> Row:
    unsafe = row["llama_guard2_unsafe"]
    harmful = 0 if unsafe is None else int(unsafe)
    return {"harmful": harmful, "string_refusal": int(row["substring_refusal"]), "kind": row["condition"]}


def aisafetylab(row: Row) -> Row:
    return {"harmful": int(row["llama_guard3_unsafe"]), "kind": row["attack"]}


SETS: dict[str, tuple[str, Callable[[Row], Row]]] = {
    "xstest": ("xstest_completions", xstest),
    "jailbreakbench": ("jbb_artifacts", jailbreakbench),
    "refusal_direction": ("refusal_direction_runs", refusal_direction),
    "aisafetylab": ("aisafetylab_lg3", aisafetylab),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True)
    root: Path = parser.parse_args().sources
    OUT.mkdir(parents=True, exist_ok=True)
    for source, (folder, labels) in SETS.items():
        lines = (root / "responses_labelled" / folder / "responses.jsonl").read_text(encoding="utf-8").splitlines()
        kept = []
        for row in map(json.loads, lines):
            made = labels(row)
            if made["harmful"] and WEAPONS.search(row["prompt"] or ""):
                continue
            cut = MAX_CHARS if row["prompt"] else MAX_CHARS_HARMLESS
            common = {"id": row["id"], "prompt": row["prompt"] or "", "response": row["response"][:cut]}
            kept.append({**common, **made, "model": row["model"], "source": source, "cluster": row["cluster"]})
        text = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in kept)
        (OUT / f"{source}.jsonl").write_text(text, encoding="utf-8")
        print(f"{source}: {len(kept)} of {len(lines)}, {len(text.encode()):,} bytes")


if __name__ == "__main__":
    main()
