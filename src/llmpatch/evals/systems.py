"""Systems under test, and their answers, each sampled once and kept.

    system = System("M+", prefix=rows)
    answers = ask(base, system, prompts, DecodingSection(), store=Path("work/answers"), progress=Silent())

Answers are kept under the digest of everything they depend on: model, weights, prefix, system message, decoding and
prompts. So an interrupted eval goes on where it was, and a repeated one samples nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.answers import FINISHES, Answer
from llmpatch.errors import UsageError
from llmpatch.files import encodable, read_jsonl
from llmpatch.prefix import Parallel, Rows, prefix_digest
from llmpatch.progress import Advance, Progress
from llmpatch.prompts import Prompt
from llmpatch.references.collecting import collect
from llmpatch.references.local import TransformersReference

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.recipe import DecodingSection


@dataclass(frozen=True, eq=False)
class System:
    """Something that answers.

    Attributes:
        name: ``M`` is the base, ``M+`` the patched base, ``M'`` the reference; any other name is a baseline.
        prefix: Virtual tokens [n, hidden_size], or several such prefixes side by side.
        system_message: Instead of the template's own.
        recorded: Answers by prompt text or id (:func:`load_recorded`) instead of a model's; some may be missing.
        base: The model, where it is another than the base under test (a LoRA).
        samples: As ``recorded``, with several answers per prompt (:func:`load_samples`), for evals that sample.
    """

    name: str
    prefix: Rows | None = None
    system_message: str | None = None
    recorded: Mapping[str, Answer] | None = None
    base: Base | None = None
    samples: Mapping[str, Sequence[Answer]] | None = None

    @property
    def live(self) -> bool:
        """Whether a model answers here."""
        return self.recorded is None and self.samples is None

    def json(self) -> dict[str, Any]:
        """What the system is, for the evidence."""
        found: dict[str, Any] = {"kind": "recorded" if not self.live else "base"}
        if self.live and self.prefix is not None:
            found = {"kind": "patched", "tokens": len(self.prefix), "prefix_sha256": prefix_digest(self.prefix)}
            if isinstance(self.prefix, Parallel):
                found["side_by_side"] = len(self.prefix.parts)
        elif self.live and self.base is not None:
            found = {"kind": "other model", "name": self.base.name}
        elif self.system_message is not None:
            found = {"kind": "prompted"}
        return found | ({"system_message": self.system_message} if self.system_message is not None else {})


@dataclass(frozen=True, eq=False)
class SystemModel(TransformersReference):
    """A model behind a prefix, as something that :func:`collect` can ask."""

    def identity(self) -> dict[str, Any]:
        """Everything the answers depend on."""
        return {"prefix": None, **super().identity()}


@dataclass(frozen=True)
class Titled:
    """Progress under a name of our own."""

    inner: Progress
    title: str

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """See :class:`llmpatch.progress.Progress`."""
        with self.inner.stage(self.title or name, total) as advance:
            yield advance


def load_recorded(path: Path) -> dict[str, Answer]:
    """The first answer to each prompt, from rows ``{"prompt", "completion", "finish"}``; by ``id`` where there is no ``prompt``.

    Raises:
        UsageError: missing or malformed file, or a row without a text ``completion`` and an ``id`` or ``prompt``.
    """
    return {key: answers[0] for key, answers in load_samples(path).items()}


def load_samples(path: Path) -> dict[str, list[Answer]]:
    """All answers of a recording, in the file's order, by prompt text; by id only from rows that do not say what was asked.

    Rows in which nothing was said (``finish`` "none") are left out. An id may mean another prompt by now: rows of a file
    without ids are named by their number. See :func:`recorded_answers` (errors as :func:`load_recorded`).
    """
    found: dict[str, list[Answer]] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        text, finish = row.get("completion"), row.get("finish", "stop")
        key = next((row[name] for name in ("prompt", "id") if isinstance(row.get(name), str)), None)
        if not isinstance(text, str) or key is None or finish not in FINISHES:
            raise UsageError(
                f"{path}: row {number} has no text `completion` with an `id` or `prompt`, or an unknown finish",
                hint='rows look like {"id": "...", "prompt": "...", "completion": "...", "finish": "stop"}',
            )
        if not encodable(text):
            raise UsageError(
                f"{path}: row {number} holds a lone surrogate, which is no text", hint="mend its `completion`"
            )
        if finish != "none":
            found.setdefault(key, []).append(Answer(text, finish))
    return found


def recorded_answers(system: System, prompts: Sequence[Prompt]) -> dict[str, Sequence[Answer]]:
    """All answers of a recording by prompt id, found by what was asked, else by the id; it may lack some."""
    many: Mapping[str, Sequence[Answer]] = system.samples or {
        key: [one] for key, one in (system.recorded or {}).items()
    }
    pairs = ((prompt.id, many.get(prompt.text) or many.get(prompt.id)) for prompt in prompts)
    return {ident: answers for ident, answers in pairs if answers}


def ask(
    base: Base,
    system: System,
    prompts: Sequence[Prompt],
    decoding: DecodingSection,
    *,
    store: Path | None,
    progress: Progress,
    title: str = "",
) -> dict[str, Answer]:
    """The system's answers by prompt id; a recording may lack some.

    Args:
        base: The base under test.
        system: Who answers.
        prompts: What is asked.
        decoding: How a model is sampled.
        store: Folder of kept answers; ``None`` keeps none.
        progress: Where to show progress.
        title: What to call it there.

    Raises:
        UsageError: a prompt that does not fit the context or is not valid Unicode.
        IntegrityError: a damaged file in the store.
        LlmpatchError: the store cannot be written.
    """
    if not system.live:
        return {ident: answers[0] for ident, answers in recorded_answers(system, prompts).items()}
    model = SystemModel(system.base or base, decoding, system.system_message, prefix=system.prefix)
    with tempfile.TemporaryDirectory() as scratch:
        found = collect(model, prompts, store or Path(scratch), progress=Titled(progress, title))
    return {prompt.id: answer for prompt, answer in zip(prompts, found, strict=True)}
