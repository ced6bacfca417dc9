"""Ask a reference for what is not known yet, keep every answer at once, return them in order.

    answers = collect(reference, prompts, Path("work/answers"), progress=console())

A run that is killed continues where it was; a repeated run asks nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from llmpatch.answers import Answer
from llmpatch.errors import ReferenceFailedError, UsageError
from llmpatch.progress import Progress
from llmpatch.prompts import Prompt
from llmpatch.references.base import Reference
from llmpatch.references.shards import Shard


def collect(
    reference: Reference, prompts: Sequence[Prompt], store: Path, *, shard_size: int = 32, progress: Progress
) -> list[Answer]:
    """Answer prompts through a store of shards.

    Args:
        reference: Who answers.
        prompts: What is asked.
        store: Folder of the shards; one folder may serve many references.
        shard_size: Prompts per shard.
        progress: Where to show how many are answered.

    Returns:
        One answer per prompt, in their order.

    Raises:
        UsageError: a prompt that is not valid Unicode.
        ReferenceFailedError: the reference failed; every answer it gave is kept.
        IntegrityError: a damaged shard, by name.
        LlmpatchError: the store cannot be written.
    """
    texts = [prompt.text for prompt in prompts]
    for prompt in prompts:
        if _clean(prompt.text) != prompt.text:
            raise UsageError(f"prompt {prompt.id!r} is not valid Unicode (a lone surrogate)", hint="mend its text")
    identity = reference.identity()
    starts = range(0, len(texts), shard_size)
    shards = [Shard.of(identity, texts[start : start + shard_size], store) for start in starts]
    known = [shard.load() for shard in shards]
    for shard, answers in zip(shards, known, strict=True):
        # Finished and partial but whole: a run killed between the last answer and the last rename.
        if len(answers) == len(shard.prompts) and not shard.path.exists():
            shard.finish(answers)
    missing = [i for i in range(len(texts)) if i % shard_size not in known[i // shard_size]]
    with progress.stage("Asking the reference", len(texts)) as advance:
        advance(len(texts) - len(missing))
        if missing:
            _ask(reference, [(shards[i // shard_size], known[i // shard_size], i % shard_size) for i in missing], advance)
    return [known[i // shard_size][i % shard_size] for i in range(len(texts))]
