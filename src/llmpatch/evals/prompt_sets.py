"""What suites ask: frozen lists of prompt sets, or a user's own files in their place.

    load_suite("refusal", limit=20)[0].prompts
    load_own([Path("mine.jsonl")])

No prompt of a suite is in a training or validation file. Knows nothing about systems and scores.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.errors import UsageError
from llmpatch.evals.lengths import LENGTHS, set_name, set_title
from llmpatch.files import read_bytes, read_jsonl
from llmpatch.prompts import KINDS, Kind, Prompt, load_prompts
from llmpatch.recipe import DECLINING

if TYPE_CHECKING:
    from llmpatch.evals.gender_bias import Pair


CORPUS = Path("corpora") / "wikitext2-test.txt"
WHERE = "run in a clone, or name its data folder in LLMPATCH_DATA"
MAX_CORPUS_BYTES = 1 << 24


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one kind from one source.

    Attributes:
        name: Key in the evidence.
        title: For people.
        kind: ``harmful`` should be declined, the others answered.
        prompts: What is asked.
        path: The file they are from, for errors.
    """

    name: str
    title: str
    kind: Kind
    prompts: tuple[Prompt, ...]
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class SetFile:
    """Where a suite's set lies, below the data folder; with ``category``, only its rows of that category."""

    name: str
    title: str
    kind: Kind
    path: str
    category: str = ""


SUITES: dict[str, tuple[SetFile, ...]] = {
    "attacks": (
        SetFile("harmbench_standard", "HarmBench standard", "harmful", "prompts/harmbench_standard_test.jsonl"),
        SetFile("jailbreakbench", "JailbreakBench harmful", "harmful", "prompts/jailbreakbench_test.jsonl"),
    ),
    "refusal": (
        SetFile("harmbench_standard", "HarmBench standard", "harmful", "prompts/harmbench_standard_test.jsonl"),
        SetFile("harmbench_extra", "HarmBench, further", "harmful", "prompts/harmbench_extra_test.jsonl"),
        SetFile("jailbreakbench", "JailbreakBench harmful", "harmful", "prompts/jailbreakbench_test.jsonl"),
        SetFile("xstest_unsafe", "XSTest unsafe", "harmful", "prompts/xstest_unsafe_test.jsonl"),
        SetFile("xstest_safe", "XSTest safe", "borderline", "prompts/xstest_safe_test.jsonl"),
        SetFile("jbb_benign", "JailbreakBench benign", "borderline", "prompts/jbb_benign_test.jsonl"),
        SetFile("everyday", "Everyday instructions", "everyday", "prompts/everyday_test.jsonl"),
    ),
    "personal-data": (
        SetFile("personal_requests", "Personal data", "harmful", "prompts/personal_requests_test.jsonl"),
        SetFile("personal_harmless", "People, nothing private", "borderline", "prompts/personal_harmless_test.jsonl"),
        SetFile("everyday", "Everyday instructions", "everyday", "prompts/everyday_test.jsonl"),
    ),
    "toxicity": (
        SetFile(
            "rtp_challenging", "RTP challenging", "harmful", "prompts/toxicity_challenging_test.jsonl", "challenging"
        ),
        SetFile("rtp_toxic", "RTP toxic", "harmful", "prompts/toxicity_challenging_test.jsonl", "toxic"),
        SetFile("rtp_nontoxic", "RTP non-toxic", "borderline", "prompts/toxicity_nontoxic_test.jsonl"),
    ),
    "gender-bias": (
        SetFile("gender_professional", "Occupations", "harmful", "prompts/gender_professional_test.jsonl"),
        SetFile("gender_everyday", "Everyday scenes", "harmful", "prompts/gender_everyday_test.jsonl"),
    ),
    "utility": (
        SetFile("arc_challenge", "ARC-Challenge", "everyday", "utility/arc_challenge.jsonl"),
        SetFile("mmlu", "MMLU", "everyday", "utility/mmlu.jsonl"),
        SetFile("truthfulqa", "TruthfulQA, one true choice", "everyday", "utility/truthfulqa.jsonl"),
    ),
    "facts": (SetFile("facts", "Short facts", "everyday", "utility/facts.jsonl"),),
    "ifeval": (SetFile("ifeval", "IFEval", "everyday", "utility/ifeval.jsonl"),),
    "long-context": tuple(
        SetFile(set_name(n), set_title(n), "harmful", "prompts/harmbench_standard_test.jsonl") for n in LENGTHS
    ),
}
SUITES["distance"] = SUITES["refusal"]
UNPRICED = ("attacks", "distance", "facts", "ifeval", "long-context")  # their evidence has no price
PRICE_SUITES = ("distance", "facts", "ifeval", "long-context", "utility")
ANSWERED = (*DECLINING, "attacks", "long-context")  # what says how long an answer is says it of these
# A system message stands before their text as a paragraph, in no template.
CONTINUED = ("toxicity", "gender-bias", "utility")
# Sentence pairs for likelihood gaps, by suite: name, title, and where they lie below the data folder.
PAIRS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "gender-bias": (
        ("winobias", "WinoBias", "gender/winobias.jsonl"),
        ("crows_pairs", "CrowS-Pairs, gender", "gender/crows_pairs_gender.jsonl"),
    )
}


def data_folder() -> Path:
    """Where the suites' prompts lie: ``$LLMPATCH_DATA``, by default ``data`` in the current folder."""
    return Path(os.environ.get("LLMPATCH_DATA") or "data").expanduser()


def load_suite(name: str, *, data: Path | None = None, limit: int | None = None) -> list[PromptSet]:
    """Read a suite's sets.

    Args:
        name: A key of ``SUITES``.
        data: The data folder; by default :func:`llmpatch.evals.prompt_sets.data_folder`.
        limit: Only the first prompts of each set.

    Raises:
        UsageError: no such suite, or a missing or malformed file.
    """
    if name not in SUITES:
        raise UsageError(f"no suite called {name!r}", hint=f"known: {', '.join(sorted(SUITES))}")
    data, sets = data or data_folder(), []
    for file in SUITES[name]:
        path = data / file.path
        if not path.is_file():
            raise UsageError(
                f"suite {name}: no such file: {path}",
                hint=f"{WHERE}, or pass your own prompts",
            )
        wanted = _of_category(path, file.category) if file.category else None
        found = [p for p in load_prompts(path, file.kind) if wanted is None or p.id in wanted]
        prompts = tuple(found[:limit])
        if strange := next((p for p in prompts if p.kind != file.kind), None):
            raise UsageError(f"{path}: {strange.id} is {strange.kind}, not {file.kind}", hint="restore the file")
        sets.append(PromptSet(file.name, file.title, file.kind, prompts, str(path)))
    return sets


def _of_category(path: Path, category: str) -> set[str]:
    """Ids of the rows that name this category."""
    return {str(row.get("id")) for row in read_jsonl(path) if row.get("category") == category}


def load_suite_pairs(
    name: str, *, data: Path | None = None, limit: int | None = None
) -> dict[str, tuple[str, list[Pair]]]:
    """Title and sentence pairs of a suite by name, of the files that are there (a user's own prompts need none).

    Args:
        name: A key of ``SUITES``.
        data: The data folder; by default :func:`llmpatch.evals.prompt_sets.data_folder`.
        limit: Only so many pairs of each file, evenly spread.

    Raises:
        UsageError: a malformed file.
        IntegrityError: a huge one.
    """
    from llmpatch.evals.gender_bias import load_pairs

    data = data or data_folder()
    there = [(key, title, data / path) for key, title, path in PAIRS.get(name, ()) if (data / path).is_file()]
    return {key: (title, load_pairs(path, limit=limit)) for key, title, path in there}


def load_corpus(data: Path) -> str:
    """The plain text that prices are measured on; empty where it is not there."""
    path = data / CORPUS
    return read_bytes(path, limit=MAX_CORPUS_BYTES).decode("utf-8", "replace") if path.is_file() else ""


def load_own(paths: Sequence[Path], *, limit: int | None = None) -> list[PromptSet]:
    """A user's own files as sets, one per file and kind (rows without a ``kind`` are everyday).

    Raises:
        UsageError: a missing or malformed file, or two files of one name.
    """
    sets: list[PromptSet] = []
    for path in paths:
        prompts = load_prompts(path)
        kinds = [kind for kind in KINDS if any(p.kind == kind for p in prompts)]
        for kind in kinds:
            name = path.stem if len(kinds) == 1 else f"{path.stem} {kind}"
            if any(s.name == name for s in sets):
                raise UsageError(f"two prompt sets are called {name!r}", hint="rename one of the files")
            sets.append(PromptSet(name, name, kind, tuple(p for p in prompts if p.kind == kind)[:limit], str(path)))
    return sets


def measured_sets(suite: str, prompts: Sequence[Path] = ()) -> tuple[list[str], list[str]]:
    """The names of the sets that a suite's evidence has, and the kinds that are put together in it.

    Raises:
        UsageError: own prompts that cannot be read.
    """
    if suite == "attacks":
        from llmpatch.attacks.registry import ATTACKS

        return [attack.name for attack in ATTACKS.values() if not (prompts and attack.kind == "file")], []
    if suite == "long-context":
        return [set_name(length) for length in LENGTHS], []
    if prompts and suite in ("utility", "facts", "ifeval"):  # a set for each file, whatever kinds its rows say
        return [path.stem for path in prompts], list(dict.fromkeys(str(s.kind) for s in SUITES[suite]))
    sets: Sequence[PromptSet | SetFile] = load_own(prompts) if prompts else SUITES[suite]
    return [s.name for s in sets], list(dict.fromkeys(str(s.kind) for s in sets))


def apart(sets: Sequence[PromptSet]) -> list[PromptSet]:
    """The sets with ids that are unique among all of them, for what puts their prompts together: as ``SET/ID`` if need be."""
    idents = [p.id for s in sets for p in s.prompts]
    if len(set(idents)) == len(idents):
        return list(sets)
    return [replace(s, prompts=tuple(replace(p, id=f"{s.name}/{p.id}") for p in s.prompts)) for s in sets]
