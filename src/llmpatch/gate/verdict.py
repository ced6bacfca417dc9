"""The verdict: a policy applied to evidence, rule by rule, and its stable JSON.

    verdict = apply_policy(policy, [read_evidence(Path("evidence.json"))])
    verdict.result                          # "PASSED" or "FAILED"
    verdict_json(verdict)["failed"]         # ids of rules, as in an in-toto test result

A rule without its measurement, or with too few observations, fails. A better number never turns a pass into a fail.
The layout is in docs/gate.md and docs/format/verdict.schema.json; the fields below are it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from llmpatch import __version__
from llmpatch.artifact import release_time
from llmpatch.errors import UsageError
from llmpatch.evals.stats import Interval
from llmpatch.gate.evidence import Evidence, measure
from llmpatch.gate.policy import GREEDY, REFERENCE, Decoding, Policy, Rule
from llmpatch.recipe import DECLINING

SCHEMA = "llmpatch/verdict/v1"


class _Record:
    """For the JSON schema: no other keys."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class PatchRef(_Record):
    """Which patch. ``digest`` is that of its files, ``prefix_sha256`` of its virtual tokens as evidence names them."""

    name: str
    version: str
    digest: str
    prefix_sha256: str


@dataclass(frozen=True)
class PolicyRef(_Record):
    """Which policy. ``sha256`` is of its content as JSON with sorted keys."""

    name: str
    sha256: str


@dataclass(frozen=True)
class EvidenceRef(_Record):
    """Which evidence. ``sha256`` is of its bytes; ``fresh`` says that it was measured for this verdict."""

    risk: str
    suite: str
    created: str
    sha256: str
    base: str
    fingerprint: Mapping[str, str]
    prefix_sha256: str
    fresh: bool


@dataclass(frozen=True)
class Outcome(_Record):
    """One rule.

    Attributes:
        id: Of the rule.
        risk: Of the rule.
        measure: What is measured, in words.
        required: What was required, in words.
        measured: What was found; ``None`` where there is no such measurement.
        passed: Whether it is enough.
        reason: Why not; empty where it is.
        why: The policy's reason for the rule.
    """

    id: str
    risk: str
    measure: str
    required: str
    measured: Interval | None
    passed: bool
    reason: str
    why: str


@dataclass(frozen=True)
class Verdict(_Record):
    """All rules. ``passed`` and ``failed`` are ids of rules; one failed rule fails the whole."""

    schema: Literal["llmpatch/verdict/v1"]
    result: Literal["PASSED", "FAILED"]
    created: str
    tool: str
    patch: PatchRef | None
    policy: PolicyRef
    evidence: tuple[EvidenceRef, ...]
    rules: tuple[Outcome, ...]
    passed: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every rule passed."""
        return self.result == "PASSED"


def apply_policy(policy: Policy, evidence: Evidence | Sequence[Evidence], patch: PatchRef | None = None) -> Verdict:
    """Decide.

    Args:
        policy: What is required.
        evidence: At most one of each risk. What no rule asks for is left aside.
        patch: Whose evidence it is, for the record.

    Raises:
        UsageError: two are of one risk.
    """
    known: dict[str, Evidence] = {}
    for found in [evidence] if isinstance(evidence, Evidence) else evidence:
        if found.risk in known:
            raise UsageError(f"two pieces of evidence are of the risk {found.risk}", hint="give one of each risk")
        known[found.risk] = found
    rules = tuple(_outcome(rule, known, policy.decoding) for rule in policy.rules)
    failed = tuple(rule.id for rule in rules if not rule.passed)
    return Verdict(
        schema="llmpatch/verdict/v1",
        result="FAILED" if failed else "PASSED",
        created=release_time(),
        tool=f"llmpatch {__version__}",
        patch=patch,
        policy=PolicyRef(policy.name, policy.digest()),
        evidence=tuple(_reference(found) for found in known.values()),
        rules=rules,
        passed=tuple(rule.id for rule in rules if rule.passed),
        failed=failed,
    )


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain JSON."""
    found = asdict(verdict)
    for rule in found["rules"]:
        if rule["measured"] is not None:
            rule["measured"] = {key: round(number, 6) for key, number in rule["measured"].items()}
    return found


def _outcome(rule: Rule, known: Mapping[str, Evidence], decoding: Decoding) -> Outcome:
    evidence = known.get(rule.risk)
    found = measure(rule, evidence) if evidence else f"there is no evidence of the risk {rule.risk}"
    reason = found if isinstance(found, str) else _shortfall(rule, found)
    measured = None if isinstance(found, str) else found
    return Outcome(
        rule.id, rule.risk, _what(rule, decoding, evidence), _required(rule), measured, not reason, reason, rule.why
    )


def _shortfall(rule: Rule, found: Interval) -> str:
    """Why a measurement is not enough; empty where it is."""
    if found.n < rule.min_n:
        return f"too few observations: n = {found.n}, {rule.min_n} are needed"
    whole = rule.use == "interval"
    low, high = (found.low, found.high) if whole else (found.value, found.value)
    if rule.min is not None and low < rule.min:
        return f"{'the lower end ' if whole else ''}{low:.4g} is below {rule.min:g}"
    if rule.max is not None and high > rule.max:
        return f"{'the upper end ' if whole else ''}{high:.4g} is above {rule.max:g}"
    return ""


def _what(rule: Rule, decoding: Decoding, evidence: Evidence | None) -> str:
    judge = f" by {rule.judge}" if rule.judge else ""
    place = f" on {rule.kind} prompts" if rule.kind else f" on the set {rule.set}" if rule.set else ""
    system = {None: rule.system, "difference": f"{rule.system} - M", "ratio": f"{rule.system} / M"}[rule.change]
    answers = rule.risk in DECLINING and rule.system != REFERENCE and not rule.metric.startswith("price/")
    drawn = f", {decoding}" if answers and decoding != GREEDY else ""
    return f"{rule.metric}{judge}{place}, {system}{drawn}{_length(rule, evidence)}"


def _length(rule: Rule, evidence: Evidence | None) -> str:
    """How long answers may have been, where that is not as the suite has it: short ones decline more."""
    from llmpatch.evals.suites import usual_length

    told = evidence.settings.max_new_tokens if evidence else None
    if told is None or rule.metric.startswith("price/") or usual_length(rule.risk) in {None, told}:
        return ""
    return f", answers of at most {told} tokens"


def _required(rule: Rule) -> str:
    whole = rule.use == "interval"
    ends = [
        f"{end} {sign} {bound:g}"
        for bound, sign, end in (
            (rule.min, ">=", "lower end" if whole else "estimate"),
            (rule.max, "<=", "upper end" if whole else "estimate"),
        )
        if bound is not None
    ]
    return ", ".join([*ends, f"n >= {rule.min_n}"])


def _reference(found: Evidence) -> EvidenceRef:
    return EvidenceRef(
        found.risk, found.suite, found.created, found.sha256, found.base, dict(found.fingerprint), found.prefix_sha256,
        found.fresh,
    )  # fmt: skip
