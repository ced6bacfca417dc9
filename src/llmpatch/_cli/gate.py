"""``llmpatch gate``: does a patch pass a policy, on this base and these prompts?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmpatch._cli.drawing import DRAWN, drawing_options
from llmpatch._cli.opening import check_revision
from llmpatch._cli.output import note, one_line, say, say_json

if TYPE_CHECKING:
    from llmpatch.artifact import Patch
    from llmpatch.bases import Base
    from llmpatch.gate import Outcome, Policy, Verdict

FILE = click.Path(path_type=Path)


@click.command(name="gate")
@click.argument("patch", required=False)
@click.option("--base", help="The base: a catalogue name (`llmpatch models list`), a hub id, a folder or a .gguf file.")
@click.option("--revision", help="Branch, tag or commit, for a base from the Hugging Face hub.")
@click.option("--policy", "policy_file", type=FILE, help="What is required (YAML); by default the shipped policy.")
@click.option("--show-policy", is_flag=True, help="Print the policy, to read or to start your own from, and stop.")
@click.option(
    "--prompts", "files", multiple=True, type=FILE,
    help="Your own JSON Lines in the suite's place: `prompt`, and `kind` harmful, borderline or everyday. Repeatable.",
)  # fmt: skip
@click.option("--evidence", "evidence_files", multiple=True, type=FILE,
              help="Judge evidence measured before and run no model. Repeatable, one file of each risk.")  # fmt: skip
@click.option("--reference", type=FILE, help="Recorded answers of the safer model (JSON Lines).")
@click.option("--limit", type=click.IntRange(1), help="Only the first N prompts of each set.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1, 4096),
    help="Length of an answer; by default the suite's own. With --evidence, what it must be of.",
)
@drawing_options(DRAWN)
@click.option("--run", type=FILE, default=Path("runs/gate"), show_default=True,
              help="Folder of kept answers and of the fresh evidence.")  # fmt: skip
@click.option("--out", type=FILE, help="Write the verdict to this JSON file, passed or failed.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def command(
    patch: str | None,
    base: str | None,
    revision: str | None,
    policy_file: Path | None,
    show_policy: bool,
    files: tuple[Path, ...],
    evidence_files: tuple[Path, ...],
    reference: Path | None,
    limit: int | None,
    max_new_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    run: Path,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say whether a patch passes a policy, rule by rule.

    Measures PATCH afresh on your base, on the suite's prompts or your own, and holds the result against the policy: one
    line per rule. Exit code 0 if every rule passes, 3 if not, with the reasons.

    docs/gate.md explains policies and the shipped one.
    """
    from llmpatch._cli.answer_file import check_out
    from llmpatch.errors import GateError, UsageError
    from llmpatch.files import write_json
    from llmpatch.gate import default_policy, default_risks, load_policy, run_gate, verdict_json
    from llmpatch.gate.policy import shipped_risks
    from llmpatch.progress import console
    from llmpatch.store import load_patch

    check_revision(base, revision)
    if out:
        check_out(out, *files, *evidence_files, policy_file, reference, patch, base)
        if show_policy:
            raise UsageError("--show-policy judges nothing, so there is no verdict for --out", hint="leave one out")
    found = load_patch(patch) if patch else None
    if not found and not show_policy:
        raise UsageError("no patch to judge", hint="give a patch folder or name, or --show-policy")
    risks = default_risks(found) if found else shipped_risks()
    policy = (load_policy(policy_file) if policy_file else default_policy(risks)).about(temperature, top_p)
    if show_policy or not found:
        _show(policy, as_json)
        return
    verdict = run_gate(
        found,
        _open(found, base, revision) if base else None,
        policy=policy,
        evidence=evidence_files,
        prompts=files,
        reference=reference,
        limit=limit,
        max_new_tokens=max_new_tokens,
        store=run,
        progress=console(),
        tell=lambda text: note(one_line(f"note: {text}")),
    )
    if out:
        write_json(out, verdict_json(verdict))
    if as_json:
        say_json(verdict_json(verdict))
    else:
        _say(verdict, run)
    if not verdict.ok:
        raise GateError(
            f"{len(verdict.failed)} of {len(verdict.rules)} rules failed: {', '.join(verdict.failed)}",
            hint="do not ship or activate this patch on this base, or change the policy and say why",
        )


def _open(patch: Patch, base: str, revision: str | None) -> Base:
    from llmpatch._cli.output import warn
    from llmpatch.bases import load_base

    loaded = load_base(base, revision)
    for text in patch.check_base(loaded):
        warn(text)
    return loaded


def _show(policy: Policy, as_json: bool) -> None:
    from llmpatch.gate import render_policy

    if as_json:
        say_json(policy.document())
    else:
        say(render_policy(policy).rstrip())


def _say(verdict: Verdict, run: Path) -> None:
    say(f"policy {verdict.policy.name}, sha256 {verdict.policy.sha256[:16]}")
    for piece in verdict.evidence:
        kept = f"measured now, kept in {run / f'evidence-{piece.risk}.json'}"
        how = kept if piece.fresh else f"measured before, on {piece.created}; no model was run"
        say(one_line(f"evidence of {piece.risk} ({piece.suite}) on {piece.base}, sha256 {piece.sha256[:16]}: {how}"))
    say()
    for rule in verdict.rules:
        say(_line(rule))
    say()
    say(f"{verdict.result}: {len(verdict.passed)} of {len(verdict.rules)} rules passed")
    if not all(piece.fresh for piece in verdict.evidence):
        note("note: evidence that you did not measure is only as honest as who wrote it")


def _line(rule: Outcome) -> str:
    found = rule.measured
    shown = "nothing" if found is None else f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}], n = {found.n}"
    reason = f": {rule.reason}" if rule.reason else ""
    mark = "pass" if rule.passed else "FAIL"
    return one_line(f"{mark} {rule.id}: {rule.measure}: required {rule.required}; measured {shown}{reason}")
