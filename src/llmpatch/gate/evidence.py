"""Evidence as the gate reads it: untrusted bytes, bounded, one reading, and one lookup per rule.

    evidence = read_evidence(Path("evidence.json"))
    measure(rule, evidence)       # Interval(n=250, value=0.02, low=0.0, high=0.04), or a text: why there is none

What is read (base, systems, judges, decoding, sets, kinds, price, closed) is checked to the last number; other keys are for
people and cannot change a verdict. Laid out in :mod:`llmpatch.evals.refusal`; other suites use other metrics in the same places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmpatch.artifact.manifest import FingerprintSection, LongText, Sha256, Text, Time
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.errors import IntegrityError
from llmpatch.evals.stats import Interval
from llmpatch.files import read_bytes
from llmpatch.gate.policy import BASE, PATCHED, Decoding, Rule
from llmpatch.recipe import describe
from llmpatch.training_recipe import Temperature, TopP

MAX_EVIDENCE_BYTES = 1 << 22
MAX_MAGNITUDE = 1e12
COMPOSED = "llmpatch/composed/v1"
MAX_PIECES = 16
SMALLEST_BASE = 1e-6  # evidence is rounded to six places: a smaller denominator is noise
OWN_PROMPTS = "own prompts"
_ENDS = {"value", "low", "high"}
_PAIRED = {"gained", "lost", "p"}
_HINT = "give a file that `llmpatch eval --out` wrote, or the evidence.json of a patch"

Node = Mapping[str, Any]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Part(BaseModel):
    """A section in which the gate reads some keys and leaves the rest to people."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class _Base(_Closed):
    name: LongText
    fingerprint: FingerprintSection


class _System(_Part):
    kind: Text
    prefix_sha256: Sha256 | None = None


class _Prompts(_Part):
    systems: dict[str, dict[str, Any]]
    paired: dict[str, dict[str, Any]] = {}


Count = Annotated[int, Field(ge=0, lt=1 << 53)]


class _Decoding(_Part):
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    max_new_tokens: Count | None = None
    samples: Count | None = None
    limit: Count | None = None
    within: float | None = None
    seed: Count = 0


class _Judge(_Part):
    name: LongText
    version: Annotated[str, Field(max_length=200)] = ""
    sha256: Annotated[str, Field(max_length=200)] = ""


class _Budget(_Part):
    rounds: Count
    width: Count


class _Attack(_Part):
    budget: _Budget | None = None


class _Document(_Part):
    schema_: Annotated[Literal["llmpatch/evidence/v1"], Field(alias="schema")]
    suite: Text
    risk: Text | None = None
    created: Time
    base: _Base
    systems: dict[str, _System]
    decoding: _Decoding = _Decoding()
    judges: Annotated[list[_Judge], Field(max_length=64)] = []
    coherence: _Judge | None = None
    attacks: Annotated[dict[str, _Attack], Field(max_length=64)] = {}
    sets: dict[str, _Prompts] = {}
    kinds: dict[str, _Prompts] = {}
    price: dict[str, dict[str, Any]] = {}
    closed: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Settings:
    """How much was asked, as ``decoding`` says; ``None`` is not said, or no limit.

    Attributes:
        max_new_tokens: Length of an answer.
        samples: Continuations of each prompt.
        limit: The first prompts of each set only.
        within: Prompts until intervals were ± this.
        seed: Of what is drawn.
    """

    max_new_tokens: int | None = None
    samples: int | None = None
    limit: int | None = None
    within: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class JudgedBy:
    """Which build of a judge gave scores."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Evidence:
    """Evidence that has been read and found well-formed.

    Attributes:
        risk: What it is evidence of: its suite; a user's own prompts are of the refusal layout unless it says otherwise.
        suite: As written in it.
        created: When it was measured.
        sha256: Of its bytes.
        base: Name of the base it was measured on.
        fingerprint: Of that base, part by part.
        prefix_sha256: Of the virtual tokens of ``M+``; empty without a patched system.
        decoding: How its answers were had.
        settings: How much was asked.
        judges: Who judged, as written in it.
        budgets: Rounds and width of each attack that searched.
        tree: ``sets``, ``kinds``, ``price`` and ``closed``, with an :class:`Interval` at every estimate.
        fresh: Whether it was measured for this verdict.
    """

    risk: str
    suite: str
    created: str
    sha256: str
    base: str
    fingerprint: Mapping[str, str]
    prefix_sha256: str
    decoding: Decoding
    tree: Node
    fresh: bool = False
    settings: Settings = Settings()
    judges: tuple[JudgedBy, ...] = ()
    budgets: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_evidence(path: Path) -> Evidence:
    """Read an evidence file.

    Raises:
        UsageError: there is no such file.
        IntegrityError: too large, not strict JSON, not evidence, or an estimate in it is not well-formed.
    """
    return parse_evidence(read_bytes(path, limit=MAX_EVIDENCE_BYTES), where=str(path))


def read_pieces(path: Path) -> list[Evidence]:
    """Read an evidence file of one risk, or that of a composed or cumulative patch, which holds a piece for each of its risks.

    Every piece is checked as a file of its own; its sha256 is that of the file it came in.

    Raises:
        UsageError, IntegrityError: as :func:`read_evidence`, naming the piece.
    """
    data = read_bytes(path, limit=MAX_EVIDENCE_BYTES)
    mapping, sha256 = parse_object(data, where=str(path)), hashlib.sha256(data).hexdigest()
    if mapping.get("schema") != COMPOSED:
        return [_evidence(mapping, str(path), sha256)]
    risks = mapping.get("risks")
    if not isinstance(risks, dict) or not 0 < len(risks) <= MAX_PIECES:
        raise IntegrityError(f"{path} is not evidence: risks: not 1 to {MAX_PIECES} of them", hint=_HINT)
    return [_evidence(piece, f"{path}, {shown(risk)}", sha256) for risk, piece in risks.items()]


def parse_evidence(data: bytes, *, where: str = "evidence", risk: str = "", fresh: bool = False) -> Evidence:
    """Check the bytes of evidence.

    Args:
        data: The JSON document.
        where: What to call it in an error.
        risk: The risk it was measured for, where the caller knows.
        fresh: Whether it was measured just now.

    Raises:
        IntegrityError: as in :func:`read_evidence`.
    """
    if len(data) > MAX_EVIDENCE_BYTES:
        raise IntegrityError(f"{where} is larger than {MAX_EVIDENCE_BYTES:,} bytes", hint=_HINT)
    return _evidence(parse_object(data, where=where), where, hashlib.sha256(data).hexdigest(), risk=risk, fresh=fresh)


def _evidence(mapping: Any, where: str, sha256: str, *, risk: str = "", fresh: bool = False) -> Evidence:
    """What a JSON document holds, which came in a file of this sha256."""
    try:
        document = _Document.model_validate(mapping)
    except ValidationError as error:
        raise IntegrityError(f"{where} is not evidence: {shown(describe(error), 300)}", hint=_HINT) from None
    try:
        tree = _tree_of(document)
    except ValueError as error:
        raise IntegrityError(f"{where}: {shown(str(error), 300)}", hint=_HINT) from None
    # What decides what is incoherent, where no judge is listed for it.
    coherence = [document.coherence] if document.coherence else []
    patched, heat = document.systems.get(PATCHED), document.decoding.temperature
    return Evidence(
        risk=risk or document.risk or _suite_of(document.suite),
        suite=document.suite,
        created=document.created,
        sha256=sha256,
        base=document.base.name,
        fingerprint=document.base.fingerprint.model_dump(),
        prefix_sha256=(patched.prefix_sha256 or "") if patched else "",
        decoding=Decoding(temperature=heat, top_p=document.decoding.top_p if heat else 1.0),
        tree=tree,
        fresh=fresh,
        settings=Settings(**document.decoding.model_dump(exclude={"temperature", "top_p"})),
        judges=tuple(JudgedBy(judge.name, judge.version, judge.sha256) for judge in document.judges + coherence),
        budgets={
            name: (attack.budget.rounds, attack.budget.width)
            for name, attack in document.attacks.items()
            if attack.budget
        },
    )


def _suite_of(text: str) -> str:
    """The suite that evidence without a risk is of: what is no risk's says so also where prompts were a user's own."""
    return "refusal" if text == OWN_PROMPTS else text.removesuffix(f" on {OWN_PROMPTS}")


def measure(rule: Rule, evidence: Evidence) -> Interval | str:
    """What a rule asks for: an estimate with its interval, or the reason why there is none."""
    try:
        return _measure(rule, evidence.tree)
    except _AbsentError as absent:
        return str(absent)


class _AbsentError(Exception):
    """The evidence does not hold what a rule asks for."""


def _measure(rule: Rule, tree: Node) -> Interval:
    steps = [*rule.metric.split("/"), *([rule.judge] if rule.judge is not None else [])]
    if rule.set is None and rule.kind is None:
        top, *rest = steps
        return _estimate(tree[top], [rule.system, *rest] if top == "price" else rest, top)
    section, name = ("sets", rule.set) if rule.set is not None else ("kinds", rule.kind)
    place = _step(tree[section], str(name), section)
    where = f"{section}/{name}"
    found = _estimate(place["systems"], [rule.system, *steps], where)
    if rule.change is None:
        return found
    if rule.change == "difference" and (paired := _lookup(place["paired"], [rule.system, *steps])) is not None:
        return paired
    before = _estimate(place["systems"], [BASE, *steps], where)
    return _difference(found, before) if rule.change == "difference" else _ratio(found, before, where)


def _estimate(node: Any, steps: list[str], where: str) -> Interval:
    """Walk down to an estimate, or say at which step it ends."""
    for step in steps:
        node, where = _step(node, step, where), f"{where}/{step}"
    if isinstance(node, Interval):
        return node
    if isinstance(node, Mapping):
        below = [name for name, child in node.items() if isinstance(child, Interval)]
        more = f"; name one of {_names(below)} as `judge` or in `metric`" if below else ""
        raise _AbsentError(f"{shown(where, 120)} is not one estimate{more}")
    raise _AbsentError(f"{shown(where, 120)} has no n and no interval")


def _step(node: Any, name: str, where: str) -> Any:
    known = node if isinstance(node, Mapping) else {}
    if name not in known:
        raise _AbsentError(f"the evidence has no {shown(name)!r} in {shown(where, 120)}; it has {_names(known)}")
    return known[name]


def _lookup(node: Any, steps: list[str]) -> Interval | None:
    for step in steps:
        node = node.get(step) if isinstance(node, Mapping) else None
    return node if isinstance(node, Interval) else None


def _difference(after: Interval, before: Interval) -> Interval:
    """Ends of unpaired intervals subtracted crosswise: wider than need be, never too narrow."""
    low, value, high = after.low - before.high, after.value - before.value, after.high - before.low
    return Interval(min(after.n, before.n), round(value, 6), round(low, 6), round(high, 6))


def _ratio(after: Interval, before: Interval, where: str) -> Interval:
    if before.low < SMALLEST_BASE:
        raise _AbsentError(f"the interval of {BASE} at {shown(where, 120)} reaches 0, so a ratio to it has no bound")
    low = min(after.low / before.low, after.low / before.high)
    high = max(after.high / before.low, after.high / before.high)
    return Interval(min(after.n, before.n), after.value / before.value, low, high)


def _names(names: Iterable[str]) -> str:
    found = [shown(name, 40) for name in names]
    return (", ".join(found[:8]) + (", ..." if len(found) > 8 else "")) or "nothing"


def _tree_of(document: _Document) -> Node:
    found: dict[str, Any] = {}
    for section in ("sets", "kinds"):
        entries: dict[str, _Prompts] = getattr(document, section)
        found[section] = {
            name: {
                "systems": _tree(entry.systems, f"{section}.{name}.systems"),
                "paired": _tree(entry.paired, f"{section}.{name}.paired"),
            }
            for name, entry in entries.items()
        }
    for section in ("price", "closed"):
        found[section] = {name: _tree(node, f"{section}.{name}") for name, node in getattr(document, section).items()}
    return found


def _tree(value: Any, where: str) -> Any:
    """The same mapping with an :class:`Interval` at every estimate. Depth is bounded by the strict reader."""
    if not isinstance(value, dict):
        return value
    if _ENDS & value.keys():
        return _interval(value, where)
    return {name: _tree(child, f"{where}.{name}") for name, child in value.items()}


def _interval(value: dict[str, Any], where: str) -> Interval:
    wanted = {"n", *_ENDS}
    if not wanted <= value.keys() or not value.keys() <= wanted | _PAIRED:
        raise ValueError(
            f"{where} is no estimate: it has {', '.join(sorted(value))}; an estimate has n, value, low, high"
        )
    n, numbers = value["n"], [value[key] for key in ("low", "value", "high")]
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"{where}.n is not a whole number above 0")
    if any(isinstance(x, bool) or not isinstance(x, (int, float)) or abs(x) > MAX_MAGNITUDE for x in numbers):
        raise ValueError(f"{where} holds something that is not a number")
    low, estimate, high = (float(x) for x in numbers)
    if not low <= estimate <= high:
        raise ValueError(f"{where}: {estimate:g} is not within its interval [{low:g}, {high:g}]")
    return Interval(n, estimate, low, high)
