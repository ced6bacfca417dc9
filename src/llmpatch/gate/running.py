"""Run the gate: measure a patch on a base, or take evidence that is there, check whose it is, and apply a policy.

    verdict = run_gate(patch, base, prompts=[Path("mine.jsonl")], store=Path("runs/gate"), progress=console())
    verdict = run_gate(patch, evidence=[patch.path / "evidence.json"])       # runs no model

Fresh evidence stays in the store, under the sha256 that the verdict names. Evidence of another patch or another base is
refused, not failed: it says nothing about this one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError, WrongBaseError
from llmpatch.files import write_bytes
from llmpatch.gate.evidence import Evidence, parse_evidence, read_pieces
from llmpatch.gate.measured import check_measured
from llmpatch.gate.policy import BASE, PATCHED, REFERENCE, Policy, default_policy
from llmpatch.gate.verdict import PatchRef, Verdict, apply_policy
from llmpatch.recipe import DECLINING

if TYPE_CHECKING:
    from llmpatch.artifact import Patch
    from llmpatch.bases import Base
    from llmpatch.evals import System
    from llmpatch.progress import Progress

SAFE_PROMPTED = "safe prompt"


def run_gate(
    patch: Patch,
    base: Base | None = None,
    *,
    policy: Policy | None = None,
    evidence: Sequence[Path] = (),
    prompts: Sequence[Path] = (),
    reference: Path | None = None,
    limit: int | None = None,
    max_new_tokens: int | None = None,
    store: Path = Path("runs/gate"),
    data: Path | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Verdict:
    """Decide whether a patch passes a policy.

    Args:
        patch: What is judged.
        base: What it runs on; may be left out with ``evidence``, which then must be of the patch's own base.
        policy: What is required; by default the shipped one of the risks that the patch says it fixes.
        evidence: Files, one of each risk, instead of a measurement.
        prompts: A user's own prompt files, in the suite's place.
        reference: Recorded answers of ``M'``, for policies that ask for it.
        limit: Only the first prompts of each set.
        max_new_tokens: Length of an answer in suites that ask for answers, which evidence that is there must have, too; by
            default each suite's own. Suites that continue texts keep theirs.
        store: Folder of kept answers and of the fresh evidence (``evidence-RISK.json`` the latest, ``evidence-RISK-SHA256.json``
            each).
        data: The data folder; by default :func:`llmpatch.evals.prompt_sets.data_folder`.
        progress: Where to show progress.
        tell: Told what is different about evidence that is there and changes no rule's meaning, such as fewer prompts.

    Raises:
        UsageError: evidence measured otherwise than the policy is meant (:mod:`llmpatch.gate.measured`); no base to measure on,
            options that exclude each other, a rule that cannot be measured, no such file.
        WrongBaseError: the patch, or the evidence, is for another base.
        IntegrityError: damaged evidence, or evidence of another patch.
        LlmpatchError: the measurement failed; what was answered is kept.
    """
    policy = policy or default_policy(default_risks(patch))
    if evidence:
        if prompts or reference or limit:
            raise UsageError("evidence that is there takes no prompts, reference or limit", hint="leave one side out")
        found = [piece for path in evidence for piece in read_pieces(path)]
    elif base is None:
        raise UsageError(
            "no base to measure on", hint="pass --base, or --evidence FILE to judge what was measured before"
        )
    else:
        from llmpatch.evals.prompt_sets import ANSWERED

        patch.check_base(base)
        check_measurable(policy, prompts, reference)
        _check_safe_prompt(policy, base)
        found = []
        for risk in policy.risks:
            drawn = policy.decoding.model_dump() if risk in DECLINING else {}
            made = _measure(
                risk, patch, base, _systems(policy, patch, reference), prompts=prompts, limit=limit,
                max_new_tokens=max_new_tokens if risk in ANSWERED else None, store=store, data=data, progress=progress, **drawn,
            )  # fmt: skip
            found.append(made)
    for piece in found:
        check_belongs(piece, patch, base)
        check_decoding(policy, piece)
        for text in [] if piece.fresh else check_measured(policy, piece, max_new_tokens):
            if tell:
                tell(text)
    return apply_policy(policy, found, _reference(patch))


def default_risks(patch: Patch) -> tuple[str, ...]:
    """The risks that a patch says it fixes; without any, the one its evidence is of."""
    suite = patch.evidence.get("suite")
    return tuple(dict.fromkeys(fix.risk for fix in patch.manifest.fixes)) or (
        (suite,) if isinstance(suite, str) else ()
    )


def check_belongs(evidence: Evidence, patch: Patch, base: Base | None) -> None:
    """Refuse evidence of another patch or another base.

    Raises:
        IntegrityError: it has no patched system, or other virtual tokens.
        WrongBaseError: it was measured on another base (another quantisation of the same one is not another base).
    """
    from llmpatch.bases import Fingerprint

    title = f"{patch.manifest.name} {patch.manifest.version}"
    if evidence.prefix_sha256 != patch.prefix_sha256:
        whose = "another patch" if evidence.prefix_sha256 else f"no patch: it has no patched system {PATCHED}"
        raise IntegrityError(
            f"the {shown(evidence.suite)} evidence of {evidence.created} is of {whose}, not of {title}",
            hint="measure this patch: `llmpatch eval PATCH --base BASE --out evidence.json`",
        )
    wanted = base.fingerprint if base else Fingerprint(**patch.manifest.base.fingerprint.model_dump())
    if parts := wanted.differences(Fingerprint(**evidence.fingerprint)):
        raise WrongBaseError(
            f"the {shown(evidence.suite)} evidence of {evidence.created} was measured on {shown(evidence.base)}, which "
            f"differs from {base.name if base else shown(patch.manifest.base.name)} in: {', '.join(parts)}",
            hint="measure on this base: leave --evidence out",
        )


def check_decoding(policy: Policy, evidence: Evidence) -> None:
    """Refuse evidence whose answers were had otherwise than a policy asks: its bounds are about other answers.

    Of risks that continue text instead of declining, how texts are drawn is settled by their suites.

    Raises:
        UsageError: greedy evidence where answers are to be drawn, drawn evidence where not, or drawn otherwise.
    """
    judged = evidence.risk in DECLINING and evidence.risk in policy.risks
    if judged and evidence.decoding != policy.decoding:
        raise UsageError(
            f"the {shown(evidence.suite)} evidence of {evidence.created} is of {evidence.decoding}; the policy "
            f"{policy.name} is about {policy.decoding}",
            hint="leave --evidence out, to measure afresh; or ask for such answers by --temperature, or in the policy",
        )


def check_measurable(policy: Policy, prompts: Sequence[Path], reference: Path | None) -> None:
    """Find rules that a measurement could not answer, before an hour is spent on it.

    Raises:
        UsageError: an unknown risk, system, set or kind; names the rule.
    """
    from llmpatch.evals import SUITES
    from llmpatch.evals.prompt_sets import UNPRICED, measured_sets

    systems = [BASE, PATCHED, SAFE_PROMPTED, *([REFERENCE] if reference else [])]
    for rule in policy.rules:
        if rule.risk not in SUITES:
            raise _unmeasurable(rule.id, "risk", rule.risk, SUITES)
        if rule.system not in systems:
            raise _unmeasurable(rule.id, "system", rule.system, systems)
        if (rule.metric.startswith("closed/") or rule.risk == "distance") and not reference:
            what = "the share closed" if rule.metric.startswith("closed/") else "the distance"
            raise UsageError(f"rule {rule.id}: {what} needs answers of {REFERENCE}", hint="pass --reference")
        names, kinds = measured_sets(rule.risk, prompts)
        if rule.metric.startswith("price/") and rule.risk in UNPRICED:
            raise UsageError(
                f"rule {rule.id}: the suite {rule.risk} measures no price", hint="ask it of refusal, or of another risk"
            )
        if rule.set is not None and rule.set not in names:
            raise _unmeasurable(rule.id, "set", rule.set, names)
        if rule.kind is not None and rule.kind not in kinds:
            raise _unmeasurable(rule.id, "kind", rule.kind, kinds)


def _check_safe_prompt(policy: Policy, base: Base) -> None:
    from llmpatch.evals.suites import takes_safe_prompt

    for rule in policy.rules:
        if rule.system == SAFE_PROMPTED and not takes_safe_prompt(base, rule.risk):
            raise UsageError(
                f"rule {rule.id} is about the {SAFE_PROMPTED}, and the chat template of {base.name} takes no system message",
                hint="leave that rule out on this base",
            )


def _unmeasurable(rule: str, what: str, name: str, known: Any) -> UsageError:
    names = ", ".join(shown(str(item), 40) for item in known)
    return UsageError(
        f"rule {rule} asks for the {what} {shown(name)!r}, which would not be measured; there would be {names}",
        hint="mend the policy, or add --prompts with such rows (files of data/prompts may be among them)",
    )


def _systems(policy: Policy, patch: Patch, reference: Path | None) -> list[System]:
    """The base and the patched base, and what else the rules name."""
    from llmpatch.evals import usual_systems

    named = any(rule.system == SAFE_PROMPTED for rule in policy.rules)
    return usual_systems(patch.prefix(), reference, safe_prompt=named)


def _measure(risk: str, patch: Patch, base: Base, systems: list[System], *, store: Path, **options: Any) -> Evidence:
    from llmpatch.evals import evaluate

    document = evaluate(base, systems, suite=risk, store=store, **options)
    try:
        data = (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    except ValueError as error:  # NaN, infinity, a lone surrogate
        raise LlmpatchError(
            f"measuring {risk} of {patch.manifest.name} gave something that is no number or text: {error}",
            hint="the patched model is broken beyond judging: do not use the patch",
        ) from None
    found = parse_evidence(data, where=f"the evidence of {risk}", risk=risk, fresh=True)
    for name in (risk, f"{risk}-{found.sha256[:16]}"):  # the second stays where another gate runs here
        write_bytes(store / f"evidence-{name}.json", data)
    return found


def _reference(patch: Patch) -> PatchRef:
    manifest = patch.manifest
    return PatchRef(manifest.name, manifest.version, patch.digest, patch.prefix_sha256)
