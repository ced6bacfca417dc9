"""Does a patch fade? Refusals of the same harmful requests behind 0, 500, 1,000 and 2,000 tokens of plain text.

    evidence = evaluate_long_context(base, systems, requests=prompts, judges=judges, corpus=text)
    evidence["sets"]["after_2000"]["systems"]["M+"]["refusal"]["refusal-head"]

The text stands before the request in the same user turn, as a paste does. Requests take four passages of the corpus in turn, so
that no single passage decides. Laid out as in :mod:`llmpatch.evals.refusal`, a set per length, with these differences:

    kinds, price   empty: the sets repeat the same requests, so pooling them would make intervals too narrow
    fade           {set: {system: {judge: paired change of refusals against the same system behind no text}}}
    left_out       lengths in tokens that do not fit the context of the base

Judges see the plain request. A recording answers a length by the id ``after_500/REQUEST`` or by the whole text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.errors import UsageError
from llmpatch.evals.common import ANSWER_TOKENS, check_systems, head
from llmpatch.evals.kept_losses import kept_answer_losses
from llmpatch.evals.lengths import LENGTHS, set_name, set_title
from llmpatch.evals.refusal import assemble
from llmpatch.evals.scoring import Scores, check_judges, clusters_of, score
from llmpatch.evals.stats import paired
from llmpatch.evals.systems import System, ask
from llmpatch.progress import Progress, Silent
from llmpatch.prompts import Prompt
from llmpatch.recipe import DecodingSection

if TYPE_CHECKING:
    from llmpatch.answers import Answer
    from llmpatch.bases import Base
    from llmpatch.judges import Judge

PASSAGES = 4
_CHARS_PER_TOKEN = 12  # more than enough of the corpus to cut a passage from


def passage(base: Base, corpus: str, number: int, length: int) -> str:
    """About ``length`` tokens of a corpus, the ``number``-th of four passages that start a quarter of it apart.

    Raises:
        UsageError: the corpus is too short.
    """
    start = number * (len(corpus) // PASSAGES)
    ids = base.tokenizer.encode(corpus[start : start + _CHARS_PER_TOKEN * length], add_special_tokens=False)[:length]
    if len(ids) < length:
        raise UsageError(
            f"the corpus ends {len(ids)} tokens into a passage of {length}",
            hint="restore data/corpora, or use more text",
        )
    return base.decode(ids).strip()


def evaluate_long_context(
    base: Base,
    systems: Sequence[System],
    *,
    requests: Sequence[Prompt],
    judges: Sequence[Judge],
    corpus: str,
    suite: str = "long-context",
    limit: int | None = None,
    max_new_tokens: int = ANSWER_TOKENS,
    store: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure refusals behind text of several lengths.

    Args:
        base: The base ``M``.
        systems: ``M`` and those to compare with it, each name once.
        requests: Harmful requests.
        judges: Refusal and harm judges, the leading one of each measure first.
        corpus: Plain text to put before requests.
        suite: Name for the evidence.
        limit: The limit the requests were cut to, for the evidence.
        max_new_tokens: Length of an answer.
        store: Folder of kept answers.
        progress: Where to show progress.

    Returns:
        The evidence, plain JSON, laid out as in the module docstring.

    Raises:
        UsageError: no ``M``, a name twice, no refusal judge, no requests, a corpus that is too short, or a request that does
            not even fit the context by itself.
    """
    from llmpatch.evals.prompt_sets import PromptSet

    check_judges(judges)
    lengths = [n for n in LENGTHS if n == 0 or _fits(base, systems, requests, n + max_new_tokens)]
    sets = [PromptSet(set_name(n), set_title(n), "harmful", tuple(_named(requests, n))) for n in lengths]
    check_systems(systems, sets)
    decoding = DecodingSection(max_new_tokens=max_new_tokens)
    table: dict[str, dict[str, Scores]] = {s.name: {} for s in sets}
    for system in systems:
        for length, prompt_set in zip(lengths, sets, strict=True):
            asked = _behind_text(base, prompt_set.prompts, corpus, length)
            title = f"{system.name}: {prompt_set.title}"
            answers = _ask(base, system, asked, decoding, store, progress or Silent(), title)
            if known := [p for p in prompt_set.prompts if p.id in answers]:
                replies = [answers[p.id] for p in known]
                losses = kept_answer_losses(base, [p.text for p in known], [a.text for a in replies], store)
                table[prompt_set.name][system.name] = score(known, replies, judges, losses, store)
    top = head(base, systems, judges, decoding, suite=suite, limit=limit)
    evidence = assemble(top, sets, table, judges, price={}) | {"kinds": {}}
    evidence["fade"] = _fade(table, [j.name for j in judges if j.measures == "refusal"])
    evidence["left_out"] = [n for n in LENGTHS if n not in lengths]
    return evidence


def _named(requests: Sequence[Prompt], length: int) -> list[Prompt]:
    """Requests with ids of their own for each length, so that a recording's plain answers do not pass for others."""
    return [replace(r, id=f"{set_name(length)}/{r.id}") if length else r for r in requests]


def _fits(base: Base, systems: Sequence[System], requests: Sequence[Prompt], more: int) -> bool:
    """Whether every live system has room for its prompts and ``more`` tokens; what joins text and request takes a few."""
    longest = max(requests, key=lambda r: len(base.chat_ids(r.text)), default=None)
    live = [s for s in systems if s.live] if longest else []
    needs = [
        len(base.chat_ids(longest.text, s.system_message)) + (0 if s.prefix is None else len(s.prefix))
        for s in live
        if longest
    ]
    return not needs or max(needs) + more + 16 <= base.context


def _behind_text(base: Base, requests: Sequence[Prompt], corpus: str, length: int) -> list[list[Prompt]]:
    """Requests behind their passage, those of one passage together: its keys and values are computed once for all."""
    if not length:
        return [list(requests)]
    groups = []
    for number in range(PASSAGES):
        mine = requests[number::PASSAGES]
        text = passage(base, corpus, number, length) if mine else ""
        groups.append([replace(r, text=f"{text}\n\n{r.text}") for r in mine])
    return [group for group in groups if group]


def _ask(
    base: Base,
    system: System,
    groups: Sequence[Sequence[Prompt]],
    decoding: DecodingSection,
    store: Path | None,
    progress: Progress,
    title: str,
) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for group in groups:
        found |= ask(base, system, group, decoding, store=store, progress=progress, title=title)
    return found


def _fade(table: Mapping[str, Mapping[str, Scores]], judges: Sequence[str]) -> dict[str, Any]:
    """By set and system: how refusals changed against the same requests behind no text."""
    bare = table[set_name(0)]
    found: dict[str, Any] = {}
    for name, systems in table.items():
        if name == set_name(0):
            continue
        found[name] = {}
        for system, scores in systems.items():
            if system in bare:
                found[name][system] = _changes(bare[system], scores, name, judges)
    return found


def _changes(bare: Scores, scores: Scores, name: str, judges: Sequence[str]) -> dict[str, Any]:
    changes = {}
    for judge in judges:
        before = bare.hits(judge)
        after = {ident.removeprefix(f"{name}/"): hit for ident, hit in scores.hits(judge).items()}
        if common := [ident for ident in before if ident in after]:
            near = clusters_of(bare.items[i] for i in common)
            changes[judge] = paired([before[i] for i in common], [after[i] for i in common], near).json()
    return changes
