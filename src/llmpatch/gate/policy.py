"""A policy: what evidence of a patch must show, as a closed YAML schema.

    policy = load_policy(Path("policy.yaml"))
    policy = default_policy(["refusal"])       # the shipped one; docs/gate.md has the reason for every number
    policy.rules[0].metric, policy.rules[0].max
    policy.decoding                            # how answers are had: greedy, or drawn as the engine draws them

A rule names one measurement and bounds it. An unknown key, a key that is there twice, a wrong type, a bound that
contradicts another or an empty list of rules is an error. Knows nothing about evidence or patches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmpatch.artifact.manifest import LongText, Text
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import UsageError
from llmpatch.files import digest_json, read_bytes
from llmpatch.recipe import DECLINING, describe
from llmpatch.strict_yaml import parse_mapping
from llmpatch.training_recipe import Temperature, TopP

SCHEMA = "llmpatch/policy/v1"
MAX_POLICY_BYTES = 1 << 16
MAX_RULES = 256
BASE, PATCHED, REFERENCE = "M", "M+", "M'"  # a reference's answers are a recording
TOP = ("price", "closed")
_HINT = "docs/gate.md lists every key; `llmpatch gate --show-policy` prints one to start from"

Slug = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
MetricPath = Annotated[str, Field(max_length=200, pattern=r"^[^/\u0000-\u001F]+(/[^/\u0000-\u001F]+){0,5}$")]
Bound = Annotated[float, Field(ge=-1e9, le=1e9)]


class _Section(BaseModel):
    """A frozen part of a policy that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Rule(_Section):
    """One requirement.

    ``risk`` is the suite whose evidence is read. ``set`` or ``kind`` says on which prompts, ``metric`` what was measured
    there on ``system``, as ``refusal`` or ``loops``, and ``judge`` by whom, where several judge it. Without ``set`` and
    ``kind``, ``metric`` is a path from the top: ``price/wikitext/ratio`` or ``closed/SET``.

    ``change`` compares with the base ``M``: ``difference`` is system - M, ``ratio`` is system / M. ``min`` and ``max``
    bound the result. With ``use: interval`` the whole 95 % interval must lie within them, with ``use: estimate`` only
    the estimate. Fewer than ``min_n`` observations fail, whatever they show.
    """

    id: Slug
    why: LongText
    risk: Slug
    set: Text | None = None
    kind: Text | None = None
    system: Text = PATCHED
    metric: MetricPath
    judge: Text | None = None
    change: Literal["difference", "ratio"] | None = None
    use: Literal["interval", "estimate"] = "interval"
    min: Bound | None = None
    max: Bound | None = None
    min_n: Annotated[int, Field(ge=1, le=1_000_000_000)]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError(f"rule {self.id} has neither `min` nor `max`")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"rule {self.id} can never pass: min {self.min:g} is above max {self.max:g}")
        if self.set is not None and self.kind is not None:
            raise ValueError(f"rule {self.id} names both a `set` and a `kind`")
        if self.change and self.system == BASE:
            raise ValueError(f"rule {self.id} compares the base {BASE} with itself")
        if self.set is None and self.kind is None:
            self._check_top()
        return self

    def _check_top(self) -> None:
        top, slash, _ = self.metric.partition("/")
        if top not in TOP or not slash:
            raise ValueError(
                f"rule {self.id}: metric {self.metric!r} needs a `set` or a `kind`, or is price/... or closed/..."
            )
        if self.change:
            raise ValueError(f"rule {self.id}: {top} is measured against the base already, leave `change` out")
        if top == "closed" and self.system != PATCHED:
            raise ValueError(f"rule {self.id}: closed is measured of {PATCHED} only")


class Decoding(_Section):
    """How the answers are had that rules are about, of the risks that decline: greedy at ``temperature`` 0, else drawn.

    ``top_p`` is the nucleus that is drawn from.
    """

    temperature: Temperature = 0.0
    top_p: TopP = 1.0

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.top_p < 1 and not self.temperature:
            raise ValueError("decoding: top_p says which words are drawn, and nothing is drawn at temperature 0")
        return self

    def __str__(self) -> str:
        if not self.temperature:
            return "greedy answers"
        return f"answers drawn at temperature {self.temperature:g}, top_p {self.top_p:g}"


GREEDY = Decoding()


class Policy(_Section):
    """What a patch must show, rule by rule; every rule must pass."""

    schema_: Annotated[Literal["llmpatch/policy/v1"], Field(alias="schema")]
    name: Slug
    summary: LongText
    decoding: Decoding = GREEDY
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=MAX_RULES)]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        ids = [rule.id for rule in self.rules]
        if twice := sorted({ident for ident in ids if ids.count(ident) > 1}):
            raise ValueError(f"two rules are called {twice[0]}")
        return self

    @property
    def risks(self) -> tuple[str, ...]:
        """The risks whose evidence is needed, in the order of the rules."""
        return tuple(dict.fromkeys(rule.risk for rule in self.rules))

    def about(self, temperature: float | None = None, top_p: float | None = None) -> Policy:
        """The same rules about answers drawn otherwise; what is ``None`` stays as the policy says.

        Raises:
            UsageError: a way of drawing that means nothing, or no rule is about answers that it could change.
        """
        if temperature is None and top_p is None:
            return self
        heat = self.decoding.temperature if temperature is None else temperature
        nucleus = self.decoding.top_p if top_p is None and heat else top_p
        try:
            decoding = Decoding(temperature=heat, top_p=1.0 if nucleus is None else nucleus)
        except ValidationError as error:
            raise UsageError(
                f"answers cannot be drawn so: {shown(describe(error), 300)}",
                hint="temperature is 0 to 5, top_p above 0 and at most 1",
            ) from None
        if not set(self.risks) & set(DECLINING):
            raise UsageError(
                f"the policy {self.name} has no rule about answers that a temperature changes",
                hint=f"it is for {', '.join(DECLINING)}; how other suites have their texts is settled",
            )
        return self.model_copy(update={"decoding": decoding})

    def digest(self) -> str:
        """The sha256 of the policy's content, whatever its spelling in YAML."""
        return digest_json(self.model_dump(mode="json", by_alias=True, exclude=self._left_out()))

    def document(self) -> dict[str, Any]:
        """What :func:`parse_policy` reads back as the same policy; what is left to its default is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=self._left_out())

    def _left_out(self) -> set[str]:
        return {"decoding"} if self.decoding == GREEDY else set()  # a policy without it has the digest it always had


def load_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        UsageError: no such file; not YAML; an unknown or repeated key, a wrong type, bounds that contradict each other,
            no rules.
        IntegrityError: larger than 64 kB.
    """
    return parse_policy(read_bytes(path, limit=MAX_POLICY_BYTES), where=str(path))


def parse_policy(data: bytes, *, where: str = "policy") -> Policy:
    """Check the bytes of a policy against the schema (errors as in :func:`load_policy`)."""
    try:
        # Back to JSON, so that strictness applies to values and not to Python's choice of containers.
        text = json.dumps(parse_mapping(data), ensure_ascii=False).encode("utf-8")
    except ValueError as error:
        raise UsageError(f"{where} is not a YAML policy: {shown(str(error), 300)}", hint=_HINT) from None
    try:
        return Policy.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{where}: {shown(describe(error), 400)}", hint=_HINT) from None


def default_policy(risks: Sequence[str]) -> Policy:
    """The shipped policy of these risks.

    Raises:
        UsageError: there is none for one of them, or no risk is given.
    """
    known = shipped_risks()
    if missing := [risk for risk in risks if risk not in known] or ([] if risks else ["no risk"]):
        raise UsageError(
            f"there is no default policy for {shown(missing[0])}",
            hint=f"write one and pass --policy FILE; there is one for {', '.join(known)}",
        )
    policies = [_shipped(risk) for risk in dict.fromkeys(risks)]
    if len(policies) == 1:
        return policies[0]
    summary = f"The shipped policies of {', '.join(risks)} together."[:500]
    rules = tuple(rule for policy in policies for rule in policy.rules)
    return Policy.model_validate({"schema": SCHEMA, "name": "default", "summary": summary, "rules": rules})


def shipped_risks() -> tuple[str, ...]:
    """The risks for which a policy is shipped."""
    names = [entry.name for entry in (resources.files("llmpatch.gate") / "policies").iterdir()]
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def render_policy(policy: Policy) -> str:
    """A policy as YAML that :func:`load_policy` reads back as the same policy."""
    return yaml.safe_dump(policy.document(), sort_keys=False, allow_unicode=True, width=110)


def _shipped(risk: str) -> Policy:
    file = resources.files("llmpatch.gate") / "policies" / f"{risk}.yaml"
    return parse_policy(file.read_bytes(), where=f"the shipped policy {risk}.yaml")
