"""Several samples per prompt of plain text that goes on, without a chat template: what toxicity and bias are measured on.

    decoding = DecodingSection(max_new_tokens=20, temperature=1.0, top_p=0.9)
    found = continue_text(base, System("M"), prompts, decoding, samples=10, store=Path("work"), progress=Silent())
    found["rtp:17"][0].text      # the first of ten continuations

A sample's random numbers depend on the decoding seed, the prompt's text and the sample's number only. So systems are
compared on the same draws, an interrupted run ends with the same samples, and more samples later keep the first ones.
Knows nothing about what a continuation is scored by.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.answers import Answer
from llmpatch.errors import UsageError
from llmpatch.evals.likelihood import log_probs
from llmpatch.evals.systems import System, SystemModel, Titled, recorded_answers
from llmpatch.progress import Progress
from llmpatch.prompts import Prompt
from llmpatch.references.collecting import collect_samples
from llmpatch.references.local import answer_samples

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.recipe import DecodingSection

MAX_SAMPLES = 1000
LOSS_TOKENS = 256


def continue_text(
    base: Base,
    system: System,
    prompts: Sequence[Prompt],
    decoding: DecodingSection,
    *,
    samples: int,
    store: Path | None,
    progress: Progress,
    title: str = "",
) -> dict[str, list[Answer]]:
    """A system's continuations by prompt id, each a list of ``samples``; a recording may lack prompts and samples.

    A system message stands before the text as a paragraph of its own, since there is no chat template to put it in.

    Args:
        base: The base under test.
        system: Who continues.
        prompts: Texts to continue.
        decoding: Length, temperature, nucleus and seed.
        samples: Continuations per prompt.
        store: Folder of kept continuations; ``None`` keeps none.
        progress: Where to show progress.
        title: What to call it there.

    Raises:
        UsageError: fewer than one or more than 1,000 samples, several samples of a greedy decoding, or a prompt that
            does not fit the context or is not valid Unicode.
        IntegrityError: a damaged file in the store.
        LlmpatchError: the store cannot be written.
    """
    if not 1 <= samples <= MAX_SAMPLES:
        raise UsageError(f"{samples} samples per prompt", hint=f"take between 1 and {MAX_SAMPLES:,}")
    if samples > 1 and decoding.temperature == 0 and system.live:
        raise UsageError("several samples at temperature 0 are all the same", hint="raise the temperature")
    if not system.live:
        return {ident: list(said[:samples]) for ident, said in recorded_answers(system, prompts).items()}
    model = SystemModel(system.base or base, decoding, system.system_message, raw=True, prefix=system.prefix)
    with tempfile.TemporaryDirectory() as scratch:
        found = collect_samples(
            [model.identity() | {"sample": number} for number in range(samples)],
            partial(answer_samples, model, prefix=model.prefix),
            prompts,
            store or Path(scratch),
            progress=Titled(progress, title or "Continuing"),
        )
    return {prompt.id: list(answers) for prompt, answers in zip(prompts, zip(*found, strict=True), strict=True)}


def continuation_losses(
    base: Base, prompts: Sequence[Prompt], answers: Mapping[str, Sequence[Answer]]
) -> dict[str, list[tuple[float, int]]]:
    """Summed nats and tokens of each continuation under the base without a patch, behind its prompt, by prompt id.

    An empty continuation is ``(0.0, 0)``; one of more than 256 tokens is cut. The end of the text is not counted.

    Raises:
        UsageError: a prompt and its continuation do not fit the context.
    """
    rows = [(prompt, answer) for prompt in prompts for answer in answers.get(prompt.id, ())]
    contexts = [base.text_ids(prompt.text) for prompt, _ in rows]
    texts = [
        base.continuation_ids(prompt.text, _joined(prompt.text, answer.text))[:LOSS_TOKENS] for prompt, answer in rows
    ]
    found: dict[str, list[tuple[float, int]]] = {}
    for (prompt, _), ids, value in zip(rows, texts, log_probs(base, None, contexts, texts), strict=True):
        found.setdefault(prompt.id, []).append((-value, len(ids)))
    return found


def _joined(prompt: str, continuation: str) -> str:
    """A continuation as it follows its prompt: recordings and some tokenizers lose the space between."""
    return f" {continuation}" if continuation[:1].isalnum() and not prompt[-1:].isspace() else continuation
