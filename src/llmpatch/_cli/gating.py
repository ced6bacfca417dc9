"""The gate before an activation: its options, and the store's view of it.

    @gate_options
    def command(skip_gate, **options): activate(store, digest, gate=open_gate(**options), skip_gate=skip_gate)

A set of several patches is judged as what it is: all rows in their order in front of the base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llmpatch._cli.drawing import DRAWN, drawing_options
from llmpatch._cli.opening import check_revision
from llmpatch._cli.output import note, one_line, warn

if TYPE_CHECKING:
    from llmpatch.artifact import Patch
    from llmpatch.bases import Base
    from llmpatch.store import Gate, Judged

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)


def gate_options(function: F) -> F:
    """The options of a gate run, and ``--skip-gate``."""
    options = [
        click.option("--base", help="Run the gate on this base: a catalogue name, a hub id, a folder or a .gguf file."),
        click.option("--revision", help="Branch, tag or commit, for a base from the Hugging Face hub."),
        click.option("--policy", "policy_file", type=FILE, help="What is required; by default the shipped policy."),
        click.option("--prompts", "files", multiple=True, type=FILE,
                     help="Your own prompts in the suite's place, as for `llmpatch gate`. Repeatable."),
        click.option("--evidence", "evidence_files", multiple=True, type=FILE,
                     help="Judge evidence measured before and run no model. Repeatable."),
        click.option("--limit", type=click.IntRange(1), help="Only the first N prompts of each set."),
        click.option("--max-new-tokens", type=click.IntRange(1, 4096),
                     help="Length of an answer, as for `llmpatch gate`; by default each suite's own."),
        click.option("--run", type=FILE, default=Path("runs/gate"), show_default=True,
                     help="Folder of kept answers and of the fresh evidence."),
        click.option("--attest-key", type=FILE,
                     help="Your private key, to sign what the gate says. Unsigned without it."),
        click.option("--skip-gate", is_flag=True, help="Activate unjudged. Recorded, and shown by `llmpatch list`."),
    ]  # fmt: skip
    for option in reversed([*options, drawing_options(DRAWN)]):
        function = option(function)
    return function


def open_gate(
    *,
    base: str | None,
    revision: str | None,
    policy_file: Path | None,
    files: tuple[Path, ...],
    evidence_files: tuple[Path, ...],
    limit: int | None,
    run: Path,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    attest_key: Path | None = None,
    skip_gate: bool = False,
    no_activate: bool = False,
    open_base: Callable[[], Base] | None = None,
) -> Gate | None:
    """A gate for the store; ``None`` if neither a base nor evidence is given, or none is to run.

    ``open_base`` gives the base of these options where somebody else needs it, too, so that it is not loaded twice.

    Raises:
        UsageError: a wrong policy or key; options of a gate, and no gate that would run.
    """
    from llmpatch.errors import UsageError
    from llmpatch.gate import load_policy

    policy = load_policy(policy_file) if policy_file else None
    check_revision(base, revision)
    unused = "--no-activate" if no_activate else "--skip-gate" if skip_gate else ""
    if unused or (base is None and not evidence_files):
        hint = f"leave it or {unused} out" if unused else "add --base BASE"
        if attest_key:
            raise UsageError("--attest-key signs what a gate says, and no gate would run", hint=hint)
        given = {
            "--policy": policy_file, "--prompts": files, "--limit": limit,
            "--max-new-tokens": max_new_tokens, "--evidence": unused and evidence_files,
            "--temperature": temperature is not None, "--top-p": top_p is not None,
        }  # fmt: skip
        if said := [name for name, value in given.items() if value]:
            raise UsageError(f"{said[0]} says how a gate judges, and no gate would run", hint=hint)
        if base is not None and open_base is None:
            warn(f"--base {base} is not looked at: {unused} runs no gate, and a patch goes to the base it was made for")
        return None
    key = None
    if attest_key:
        from llmpatch._cli.password import open_keys

        (key,) = open_keys([attest_key])
    loaded: list[Any] = []

    def gate(patches: Sequence[Patch]) -> Judged:
        from llmpatch.bases import load_base
        from llmpatch.files import write_bytes
        from llmpatch.gate import attest, default_policy, default_risks, run_gate, verdict_json
        from llmpatch.progress import console
        from llmpatch.store import Judged

        judged = joined(patches)
        wanted = (policy or default_policy(default_risks(judged))).about(
            temperature, top_p
        )  # before the base is loaded
        if base is not None and not loaded:
            loaded.append(open_base() if open_base else load_base(base, revision))
        for patch in patches if loaded else ():
            for text in patch.check_base(loaded[0]):
                warn(text)
        verdict = run_gate(
            judged, loaded[0] if loaded else None, policy=wanted, evidence=evidence_files, prompts=files,
            limit=limit, max_new_tokens=max_new_tokens, store=run,
            progress=console(), tell=lambda text: note(one_line(f"note: {text}")),
        )  # fmt: skip
        for rule in verdict.rules:
            note(one_line(f"{'pass' if rule.passed else 'FAIL'}  {rule.id}: {rule.reason or rule.required}"))
        kept = {"patches": [patch.digest for patch in patches], "verdict": verdict_json(verdict)}
        attestation = attest(verdict, patches, key)
        write_bytes(run / "attestation.json", attestation)  # of a failed run, too, which the store does not keep
        return Judged(verdict.ok, verdict.failed, verdict.policy.name, verdict.policy.sha256, kept, attestation)

    return gate


def joined(patches: Sequence[Patch]) -> Patch:
    """One patch with the rows and the fixes of all, in their order, to be measured; it is never written."""
    import numpy as np

    if len(patches) == 1:
        return patches[0]
    rows = np.concatenate([patch.embeddings for patch in patches])
    fixes = tuple(fix for patch in patches for fix in patch.manifest.fixes)
    return replace(patches[0], embeddings=rows, manifest=patches[0].manifest.model_copy(update={"fixes": fixes}))
