"""Select and split toxicity prompts and labelled texts from a folder of published sources.

    python scripts/make_toxicity_data.py --sources DIR

Writes ``data/prompts/toxicity_*.jsonl`` (openings to be continued) and ``data/judges/toxicity`` (what the toxicity
judges are trained and measured on). ``DIR`` holds the published sets as JSON Lines. Prompts split by cluster; a labelled
text of a cluster that a test prompt has is a test text, too. Texts under a share-alike licence are never in a judge's
training split (what DecodingTrust selected of Apache-2.0 texts may be). The output is deterministic.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from source_rows import DATA, Row, order, read, write
from toxicity_sentences import authored

SALT = "toxicity"
PROMPTS = DATA / "prompts"
LABELLED = DATA / "judges" / "toxicity"
MAX_CHARS = 600  # longer texts are dropped: the judges would not read what their label is about
APACHE, SELECTION = "Apache-2.0", "CC-BY-SA-4.0"
TESTED = {"challenging": 110, "toxic": 190, "nontoxic": 300}
VALIDATED = {"challenging": 8, "toxic": 72, "nontoxic": 80}
TRAINED = {"challenging": 33, "toxic": 767, "nontoxic": 400}
PROMPT_TEXTS = 700  # prompts among the texts of one RealToxicityPrompts file; its continuations are all there
SETS = {
    # source: (folder, most rows, share-alike, licence files)
    "davidson": ("davidson", 6000, False, ("hate-speech-and-offensive-language",)),
    "hatecheck": ("hatecheck", 2904, False, ("hatecheck-data",)),
    "surge": ("surge_toxicity", 743, False, ("toxicity",)),
    "toxigen": ("toxigen_demonstrations", 416, False, ("TOXIGEN",)),
    "civil": ("civil_toxic_spans", 1200, False, ("toxic_spans",)),
    "madlibs": ("identity_madlibs", 800, False, ("unintended-ml-bias-analysis",)),
    "stormfront": ("stormfront_hate", 2000, True, ("hate-speech-dataset",)),
    "wiki_detox": ("wiki_detox_testset", 1012, True, ("unintended-ml-bias-analysis",)),
    "wiki_context": ("wiki_context_toxicity", 1200, True, ("context_toxicity",)),
}


def licence(row: Row) -> str:
    """RealToxicityPrompts is Apache-2.0; what DecodingTrust chose of it is a selection under a share-alike licence."""
    return SELECTION if "DecodingTrust" in row["source"] else APACHE


# Prompts


def openings(rows: list[Row]) -> dict[str, list[Row]]:
    """Prompts by class, one per cluster, in the fixed order; toxic ones from the Apache-2.0 sources only."""
    found: dict[str, list[Row]] = {name: [] for name in TESTED}
    seen: set[str] = set()
    for row in sorted(rows, key=lambda r: order(r["id"], SALT)):
        if row["cluster"] in seen or (row["class"] == "toxic" and licence(row) != APACHE):
            continue
        seen.add(row["cluster"])
        found[row["class"]].append(
            {
                "id": f"rtp:{row['id']}",
                "prompt": row["prompt"].rstrip(),
                "kind": "borderline" if row["class"] == "nontoxic" else "harmful",
                "source": "realtoxicityprompts",
                "cluster": row["cluster"],
                "category": row["class"],
                "license": licence(row),
            }
        )
    return found


def write_prompts(rows: list[Row]) -> set[str]:
    """Write the prompt sets; the clusters of the test sets."""
    parts: dict[str, dict[str, list[Row]]] = {}
    for name, pool in openings(rows).items():
        tested, checked = TESTED[name], TESTED[name] + VALIDATED[name]
        parts[name] = {
            "test": pool[:tested],
            "validation": pool[tested:checked],
            "train": pool[checked : checked + TRAINED[name]],
        }
    harmful = {part: parts["challenging"][part] + parts["toxic"][part] for part in ("test", "validation", "train")}
    mixed = {part: sorted(harmful[part], key=lambda r: order(r["id"], "mix")) for part in harmful}
    write(PROMPTS / "toxicity_challenging_test.jsonl", mixed["test"])
    write(PROMPTS / "toxicity_nontoxic_test.jsonl", parts["nontoxic"]["test"])
    for part in ("train", "validation"):
        write(PROMPTS / f"toxicity_{part}.jsonl", mixed[part])
        write(PROMPTS / f"toxicity_nontoxic_{part}.jsonl", parts["nontoxic"][part])
    return {r["cluster"] for r in [*mixed["test"], *parts["nontoxic"]["test"]]}


# Labelled texts


def held_out(source: str, cluster: str) -> bool:
    return int(order(f"{source}:{cluster}", "judge"), 16) % 4 == 0


def scored(rows: list[Row], tested: set[str]) -> dict[str, list[Row]]:
    """Texts with Perspective's score: ``rtp``, and ``rtp_selection`` of those that DecodingTrust selected."""
    found: dict[str, list[Row]] = {"rtp": [], "rtp_selection": []}
    prompts = {"rtp": 0, "rtp_selection": 0}
    own = {r["cluster"] for r in rows if licence(r) == APACHE}
    for row in sorted(rows, key=lambda r: order(r["id"], "texts")):
        source = "rtp" if licence(row) == APACHE else "rtp_selection"
        if source == "rtp_selection" and row["cluster"] in own:
            continue
        test = row["cluster"] in tested or held_out("rtp", row["cluster"])
        for part, text, score in (
            ("continuation", row.get("continuation"), row.get("continuation_perspective")),
            ("prompt", row["prompt"], row.get("perspective")),
        ):
            value = (score or {}).get("toxicity")
            if text is None or value is None or (part == "prompt" and prompts[source] >= PROMPT_TEXTS):
                continue
            prompts[source] += part == "prompt"
            found[source].append(
                {
                    "id": f"{row['id']}:{part}",
                    "text": text.strip(),
                    "toxic": int(value >= 0.5),
                    "score": value,
                    "source": source,
                    "part": part,
                    "cluster": row["cluster"],
                    "split": "test" if test else "train",
                }
            )
    return found


def labelled(source: str, rows: Iterable[Row], most: int, share_alike: bool) -> list[Row]:
    """Rows of one set, near-identical texts and one template's sentences in one cluster."""
    found = []
    for row in sorted(rows, key=lambda r: order(r["id"], "texts")):
        text = row["text"].strip()
        if not text or len(text) > MAX_CHARS:
            continue
        same = " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
        cluster = str(row.get("template") or hashlib.sha256(same.encode()).hexdigest()[:10])
        test = share_alike or held_out(source, cluster)
        made = {"id": row["id"], "text": text, "toxic": int(row["toxic"]), "source": source, "cluster": cluster}
        if "perspective_toxicity" in row:
            made["score"] = row["perspective_toxicity"]
        found.append({**made, "split": "test" if test else "train"})
    return found[:most]


def lexicon(root: Path) -> list[Row]:
    """Terms with a severity from 1 to 3; a term without one gets 1.5, about the middle of the others."""
    terms: dict[str, float] = {
        term: 1.5 for term in json.loads((root / "ldnoobw_en.json").read_text(encoding="utf-8")) if term.isascii()
    }
    for row in json.loads((root / "surge_profanity_en.json").read_text(encoding="utf-8")):
        terms[row["term"]] = float(row["severity"])
    return [{"term": term, "severity": terms[term]} for term in sorted(terms)]


def copy_licences(root: Path) -> None:
    target = LABELLED / "licenses"
    target.mkdir(parents=True, exist_ok=True)
    wanted = {
        source: [root / "toxicity_labelled" / folder / f"LICENSE.{n}.txt" for n in names]
        for source, (folder, _, _, names) in SETS.items()
    }
    prompts, words = root / "toxicity_prompts" / "realtoxicityprompts", root / "wordlists" / "profanity"
    wanted |= {
        "rtp": [prompts / "LICENSE.real-toxicity-prompts.txt"],
        "rtp_selection": [prompts / "LICENSE.DecodingTrust.txt"],
        "lexicon_surge": [words / "LICENSE.profanity.txt"],
        "lexicon_ldnoobw": [words / "LICENSE.List-of-Dirty-Naughty-Obscene-and-Otherwise-Bad-Words.txt"],
    }
    for source, files in wanted.items():
        for file in files:
            shutil.copyfile(file, target / f"{source}.txt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True)
    root: Path = parser.parse_args().sources
    rows = read(root / "toxicity_prompts" / "realtoxicityprompts" / "prompts.jsonl")
    tested = write_prompts(rows)
    for source, found in scored(rows, tested).items():
        write(LABELLED / f"{source}.jsonl", found)
    for source, (folder, most, share_alike, _) in SETS.items():
        texts = read(root / "toxicity_labelled" / folder / "data.jsonl")
        write(LABELLED / f"{source}.jsonl", labelled(source, texts, most, share_alike))
    write(LABELLED / "authored.jsonl", authored())
    write(LABELLED / "lexicon.jsonl", lexicon(root / "wordlists" / "profanity"))
    copy_licences(root)


if __name__ == "__main__":
    main()
