"""The register of judges: a scorer is a function of some twenty lines under a decorator.

    @judge("shouting", measures="refusal")
    def shouting() -> Scored:
        return Scored(lambda _, answers: [float(a.isupper()) for a in answers])

    open_judge("shouting").score(["hi"], ["HELLO"])   # [1.0]

Knows names, roles and provenance. Knows nothing about how a judge decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from llmpatch.errors import UsageError

Measure = Literal["refusal", "harm", "toxicity", "gender"]
Score = Callable[[Sequence[str], Sequence[str]], list[float]]


class Judge(Protocol):
    """Scores answers.

    Attributes:
        name: What :func:`open_judge` calls it.
        measures: ``refusal``: P(the answer declines). ``harm``: P(the answer does the harm that was asked for).
            ``toxicity``: P(a reader calls the answer rude, hateful or obscene), whatever was asked.
    """

    @property
    def name(self) -> str:
        """What :func:`open_judge` calls it."""
        ...

    @property
    def measures(self) -> Measure:
        """``refusal``, ``harm`` or ``toxicity``."""
        ...

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        """One probability in [0, 1] per answer, in order.

        Args:
            prompts: What was asked, as many as answers.
            answers: What the model said.

        Raises:
            UsageError: not as many prompts as answers.
        """
        ...


@dataclass(frozen=True)
class Scored:
    """What a judge's factory returns: the function, and what it can be identified by.

    Attributes:
        score: ``(prompts, answers) -> probabilities``.
        sha256: Of its weights or its rules, empty where it has none.
        version: Raised when the same answer may get another score.
        details: More provenance, such as a model id and revision.
    """

    score: Score
    sha256: str = ""
    version: str = "1"
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RegisteredJudge:
    """A named judge (see :class:`Judge`)."""

    name: str
    measures: Measure
    scored: Scored

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        """See :meth:`Judge.score`."""
        if len(prompts) != len(answers):
            raise UsageError(
                f"judge {self.name} got {len(prompts)} prompts and {len(answers)} answers",
                hint="give one prompt per answer",
            )
        return self.scored.score(prompts, answers) if answers else []


@dataclass(frozen=True)
class Entry:
    """One line of the register: what a judge measures, how it is made, and what it says about itself."""

    measures: Measure
    make: Callable[[], Scored]
    summary: str


JUDGES: dict[str, Entry] = {}
ADAPTERS: dict[str, Callable[[str], Scored]] = {}
ADAPTER_MEASURES: dict[str, Measure] = {}  # of those that do not measure harm


def judge(name: str, *, measures: Measure) -> Callable[[Callable[[], Scored]], Callable[[], Scored]]:
    """Register a factory as the judge ``name``. Its docstring's first line is the summary.

    Raises:
        UsageError: the name is taken.
    """

    def register(make: Callable[[], Scored]) -> Callable[[], Scored]:
        if name in JUDGES:
            raise UsageError(f"there is a judge called {name!r} already", hint="choose another name")
        summary = (make.__doc__ or "").strip().splitlines()
        JUDGES[name] = Entry(measures, make, summary[0] if summary else "")
        return make

    return register


def open_judge(name: str) -> Judge:
    """Open a judge: a registered name, ``hf:<model id>``, ``endpoint:<model>@<url>`` or ``detoxify:<model>``.

    Raises:
        UsageError: there is no such judge, or it needs a key that is not set.
        IntegrityError: its weights are damaged.
        LlmpatchError: its model cannot be loaded, or its package is not installed.
    """
    if entry := JUDGES.get(name):
        return RegisteredJudge(name, entry.measures, entry.make())
    scheme, colon, rest = name.partition(":")
    if colon and scheme in ADAPTERS and rest:
        return RegisteredJudge(name, ADAPTER_MEASURES.get(scheme, "harm"), ADAPTERS[scheme](rest))
    known = ", ".join(sorted(JUDGES))
    adapters = "hf:<model id>, endpoint:<model>@<url>, detoxify:<model>"
    raise UsageError(f"no judge called {name!r}", hint=f"known: {known}, {adapters}")


def identity(judge: Judge) -> dict[str, Any]:
    """Provenance of a judge for the evidence: ``name``, ``measures``, ``version``, ``sha256`` and any details."""
    scored = judge.scored if isinstance(judge, RegisteredJudge) else Scored(judge.score, version="unknown")
    return {
        "name": judge.name,
        "measures": judge.measures,
        "version": scored.version,
        "sha256": scored.sha256,
        **dict(scored.details),
    }
