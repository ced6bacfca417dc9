"""What the evidence of every risk shares: its head, which systems it may compare, and the price of a system.

    check_systems(systems, sets)
    evidence = head(base, systems, judges, decoding, suite="toxicity", limit=None)
    evidence |= summaries(sets, table, summarise, compare, join)   # {"sets": ..., "kinds": ...}
    price(base, system, ["What is rain?"], corpus, progress)     # {"wikitext": ..., "latency": ...}

Knows nothing about any risk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from llmpatch.errors import UsageError
from llmpatch.evals.environment import created, environment
from llmpatch.evals.fluency import wikitext_perplexity
from llmpatch.evals.latency import measure_latency
from llmpatch.evals.systems import System
from llmpatch.progress import Progress
from llmpatch.prompts import KINDS, Prompt
from llmpatch.recipe import DecodingSection

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.evals.prompt_sets import PromptSet
    from llmpatch.judges import Judge

S = TypeVar("S")  # a system's scores on a set

SCHEMA = "llmpatch/evidence/v1"
BASE, PATCHED, REFERENCE = "M", "M+", "M'"
ANSWER_TOKENS = 48  # of a request's answer, unless told otherwise
LATENCY_PROMPTS = 6
WIKITEXT_TOKENS = 16_384


def check_systems(systems: Sequence[System], sets: Sequence[PromptSet]) -> None:
    """Refuse what no evidence can be made of.

    Raises:
        UsageError: no ``M``, a name twice, ``M`` as a recording, no prompts.
    """
    names = [system.name for system in systems]
    if BASE not in names or len(set(names)) != len(names):
        raise UsageError(f"systems {names}: `M` must be there, and each name once", hint='add System("M")')
    if not next(s for s in systems if s.name == BASE).live:
        raise UsageError("the base `M` cannot be a recording", hint="leave out its recorded answers")
    if not sets or not all(s.prompts for s in sets):
        raise UsageError("no prompts to evaluate", hint="add at least one prompt to each set")


def head(
    base: Base,
    systems: Sequence[System],
    judges: Sequence[Judge],
    decoding: DecodingSection,
    *,
    suite: str,
    limit: int | None,
) -> dict[str, Any]:
    """The keys that every evidence begins with: where it comes from and what was compared."""
    from llmpatch.judges import identity

    return {
        "schema": SCHEMA,
        "suite": suite,
        "created": created(),
        "environment": environment(base),
        "base": {"name": base.name, "fingerprint": asdict(base.fingerprint)},
        "judges": [identity(judge) for judge in judges],
        "decoding": {**decoding.model_dump(mode="json"), "limit": limit},
        "systems": {system.name: system.json() for system in systems},
    }


def summaries(
    sets: Sequence[PromptSet],
    table: Mapping[str, Mapping[str, S]],
    summarise: Callable[[S], dict[str, Any]],
    compare: Callable[[S, S], dict[str, Any]],
    join: Callable[[Sequence[tuple[str, S]]], S],
) -> dict[str, Any]:
    """The keys ``sets`` and ``kinds``: what a risk says of each set, and of all sets of a kind together.

    ``clusters`` is there where there are fewer clusters than prompts (ADR 0032).

    Args:
        sets: What was asked.
        table: Scores by set and system, those of ``M`` in each set.
        summarise: Scores of one system in numbers.
        compare: Changes of a system's scores against those of ``M``.
        join: Several sets' scores, named, as one; a system counts for a kind only where it answered all of its sets.
    """

    def entry(kind: str, prompts: Sequence[Prompt], systems: Mapping[str, S]) -> dict[str, Any]:
        clusters = len({p.group for p in prompts})
        return {
            "kind": kind,
            "n": len(prompts),
            **({"clusters": clusters} if clusters < len(prompts) else {}),
            "systems": {name: summarise(scores) for name, scores in systems.items()},
            "paired": {name: compare(systems[BASE], scores) for name, scores in systems.items() if name != BASE},
        }

    kinds: dict[str, Any] = {}
    for kind in KINDS:
        members = [s for s in sets if s.kind == kind]
        names = [n for n in table[members[0].name] if all(n in table[s.name] for s in members)] if members else []
        if names:
            pooled = {name: join([(s.name, table[s.name][name]) for s in members]) for name in names}
            kinds[kind] = entry(kind, [p for s in members for p in s.prompts], pooled)
    return {
        "sets": {s.name: {"title": s.title, **entry(s.kind, s.prompts, table[s.name])} for s in sets},
        "kinds": kinds,
    }


def groups_of(sets: Iterable[PromptSet]) -> dict[str, str]:
    """Whom each prompt counts with (:attr:`Prompt.group`), by ``SET/ID``, as figures of several sets name it."""
    return {f"{s.name}/{p.id}": p.group for s in sets for p in s.prompts}


def prices(
    base: Base, systems: Sequence[System], prompts: Sequence[str], corpus: str | None, progress: Progress
) -> dict[str, Any]:
    """:func:`price` of ``M+`` and of other models, by name; of none where ``corpus`` is ``None``."""
    if corpus is None:
        return {}
    return {s.name: price(base, s, prompts, corpus, progress) for s in systems if has_price(s)}


def has_price(system: System) -> bool:
    """Whether a system computes anything that the base does not."""
    return system.live and (system.prefix is not None or system.base is not None)


def price(base: Base, system: System, prompts: Sequence[str], corpus: str, progress: Progress) -> dict[str, Any]:
    """Perplexity of plain text and time per token, against the base.

    Args:
        base: The base under test.
        system: A live one with a prefix or another model.
        prompts: A few ordinary requests to time.
        corpus: Plain text; one that is shorter than a window is left out.
        progress: Where to show progress.
    """
    past = 0 if system.prefix is None else len(system.prefix)
    window = min(512, base.context // 2, base.context - past - 1)
    found: dict[str, Any] = {}
    if corpus and len(base.tokenizer.encode(corpus, add_special_tokens=False)) >= window:
        found["wikitext"] = wikitext_perplexity(
            base, system.prefix, corpus, patched=system.base, window_tokens=window, limit_tokens=WIKITEXT_TOKENS,
            progress=progress,
        ).json()  # fmt: skip
    found["latency"] = measure_latency(base, system.prefix, prompts, patched=system.base, progress=progress).json()
    return found


def middling(prompts: Sequence[Prompt], count: int = LATENCY_PROMPTS) -> list[str]:
    """A few prompts of middling length."""
    pool = sorted(prompts, key=lambda p: (len(p.text), p.id))
    start = max(0, len(pool) // 2 - count // 2)
    return [p.text for p in pool[start : start + count]]
