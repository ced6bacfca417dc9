"""Several patches as one: put together, measured for every risk of every member, written like any patch.

    patch = compose(["patches/smollm2/refusal", "patches/smollm2/toxicity"], Path("both"), run=Path("runs/both"))
    patch.manifest.members, patch.evidence["composition"]["measured"][0]["figures"]

The run folder keeps the answers, ``composition.json`` (what is kept of each member's gain) and the full evidence of each
risk, ``evidence-RISK.json``, which the gate takes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch import __version__
from llmpatch.artifact import (
    Patch,
    check_target,
    describe_base,
    input_norm_p999,
    parse_patch,
    release_time,
    render_patch,
)
from llmpatch.artifact.composition import Record, render_record
from llmpatch.artifact.manifest import check_fields
from llmpatch.building import fixes
from llmpatch.composing.measures import Task, open_tasks
from llmpatch.composing.search import search_orders
from llmpatch.composing.stack import Stack, make_stack
from llmpatch.composing.together import Bench, losses_in_words, measure_together
from llmpatch.errors import GateError, UsageError
from llmpatch.files import digest_json, write_bytes, write_json
from llmpatch.joining import join_evidence
from llmpatch.prefix import check_room, check_side_by_side
from llmpatch.progress import Progress, Silent

if TYPE_CHECKING:
    from llmpatch.bases import Base


@dataclass(frozen=True)
class Naming:
    """What to call a composed patch; what is empty follows from its members.

    Attributes:
        name: ``vendor/slug``.
        version: Its version.
        summary: One sentence.
    """

    name: str = ""
    version: str = "1.0.0"
    summary: str = ""


def compose(
    patches: Sequence[str | Path | Patch],
    out: Path | None = None,
    *,
    base: Base | None = None,
    search: bool = False,
    parallel: bool = False,
    naming: Naming | None = None,
    prompts: Mapping[str, Sequence[Path]] | None = None,
    limit: int | None = None,
    samples: int | None = None,
    allow_loss: bool = False,
    overwrite: bool = False,
    run: Path = Path("runs/compose"),
    data: Path | None = None,
    progress: Progress | None = None,
) -> Patch:
    """Put patches one after another or side by side, measure the result, and make one patch of it.

    Args:
        patches: Two or more, in the order of their rows: paths, names or patches that were read.
        out: The patch folder to write; without it the patch is only returned.
        base: The base they were made for; by default it is loaded by the name they give.
        search: Try other orders first, and take the best if order makes a difference.
        parallel: Side by side: none reads another, and there is no order. Our own runtime and server read such a patch;
            exports do not.
        naming: Name, version and summary.
        prompts: A user's own prompt files by risk, in the suites' place.
        limit: Only the first prompts of each set: cheap, with wider intervals.
        samples: Continuations per prompt, for texts to be continued.
        allow_loss: Make the patch although a member loses its gain; the loss stays in its evidence.
        overwrite: Replace a patch in ``out``.
        run: Folder of everything on the way; a repeated run answers nothing again.
        data: The data folder; by default :func:`llmpatch.evals.prompt_sets.data_folder`.
        progress: Where to show progress.

    Raises:
        GateError: a member loses more than chance and tolerance explain; names who loses what with whom.
        WrongBaseError: the patches, or ``base``, are of different bases.
        UsageError: fewer than two patches, or what :func:`llmpatch.composing.make_stack` refuses; ``out`` is taken.
        LlmpatchError: a measurement failed; what was answered is kept.
    """
    naming = naming or Naming()
    if out is not None:
        check_target(out, overwrite)
    # Hours of measuring go before the manifest.
    check_fields({key: said for key, said in asdict(naming).items() if said})
    bench, stack, record = look(
        patches, base=base, search=search, parallel=parallel, prompts=prompts, limit=limit, samples=samples,
        allow_loss=allow_loss, run=run, data=data, progress=progress,
    )  # fmt: skip
    evidence = {task.risk: _evidence(bench.base, stack, task, run, data, bench.progress) for task in bench.tasks}
    return _write(bench.base, stack, record, evidence, naming, out, run, overwrite)


def look(
    patches: Sequence[str | Path | Patch],
    *,
    base: Base | None = None,
    search: bool = False,
    parallel: bool = False,
    prompts: Mapping[str, Sequence[Path]] | None = None,
    limit: int | None = None,
    samples: int | None = None,
    allow_loss: bool = False,
    run: Path = Path("runs/compose"),
    data: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Bench, Stack, Record]:
    """What :func:`compose` measures before it makes a patch: what each member keeps, in the order taken.

    The run folder gets ``composition.json``, and ``orders.json`` after a search (arguments and errors as there).
    """
    from llmpatch.bases import load_base
    from llmpatch.store import load_patch

    if search and parallel:
        raise UsageError("side by side there is no order to search for", hint="leave --search or --parallel out")
    stack = make_stack(
        [found if isinstance(found, Patch) else load_patch(found) for found in patches], parallel=parallel
    )
    tasks = open_tasks(stack.patches, prompts=prompts, limit=limit, samples=samples, data=data)
    wanted = stack.patches[0].manifest.base
    base = base or load_base(wanted.name, wanted.revision)
    for patch in stack.patches:
        patch.check_base(base)
    check_room(base, len(stack.rows))
    if parallel:
        check_side_by_side(base)
    bench = Bench(base, tasks, run / "answers", progress or Silent(), parallel)
    if search:
        stack = _best_order(bench, stack, run)
    record = measure_together(bench, stack)
    write_bytes(run / "composition.json", render_record(record))
    if (lost := losses_in_words(record)) and not allow_loss:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        ways = "" if parallel else "--parallel, --search for another order, "
        raise GateError(
            f"{lost[0]}{more}; all figures are in {run / 'composition.json'}",
            hint=f"try {ways}a cumulative patch, or --allow-loss on your own responsibility",
        )
    return bench, stack, record


def _best_order(bench: Bench, stack: Stack, run: Path) -> Stack:
    """The stack in its best order, or as it is where order is noise; the matrix goes to the run folder."""
    matrix = search_orders(bench, stack)
    write_json(run / "orders.json", matrix)
    if matrix["noise"]:
        return stack
    return make_stack([stack.patches[i] for i in matrix["orders"][matrix["best"]]["order"]])


def _evidence(base: Base, stack: Stack, task: Task, run: Path, data: Path | None, progress: Progress) -> dict[str, Any]:
    """The full evidence of a risk: the base against the stack, with prices."""
    from llmpatch.evals import evaluate, usual_systems

    document = evaluate(
        base, usual_systems(stack.prefix, safe_prompt=False), suite=task.suite, prompts=task.files,
        limit=task.limit, samples=task.samples if task.suite == "toxicity" else None, store=run / "answers", data=data,
        progress=progress,
    )  # fmt: skip
    write_json(run / f"evidence-{task.risk}.json", document)
    return document


def _write(
    base: Base,
    stack: Stack,
    record: Record,
    evidence: Mapping[str, dict[str, Any]],
    naming: Naming,
    out: Path | None,
    run: Path,
    overwrite: bool,
) -> Patch:
    """The composed patch, written or only rendered."""
    from llmpatch.artifact import read_patch, write_members

    hashes = {risk: hashlib.sha256((run / f"evidence-{risk}.json").read_bytes()).hexdigest() for risk in evidence}
    record = record.model_copy(update={"evidence": hashes})
    write_bytes(run / "composition.json", render_record(record))
    fields = {
        **_inherited(stack),
        "name": naming.name or _name(stack),
        "version": naming.version,
        "released": release_time(),
        "summary": naming.summary or _summary(stack),
        "base": describe_base(
            base, revision=stack.patches[0].manifest.base.revision, purl=stack.patches[0].manifest.base.purl
        ),
        "fixes": _fixes(stack, evidence),
        "members": [member.model_dump(mode="json") for member in stack.members],
        **stack.arrangement,
        "build": {
            "tool": "llmpatch",
            "tool_version": __version__,
            "seed": 0,
            "recipe_digest": digest_json({"compose": [member.digest for member in stack.members], **stack.arrangement}),
            "data_digests": {f"{m.name} {m.version}": m.digest for m in stack.members},
            "method": _method(stack),
        },
    }
    document = join_evidence(evidence, composition=json.loads(render_record(record)), worse=losses_in_words(record))
    files = render_patch(fields, stack.rows, document, base_p999=input_norm_p999(base))
    if out is None:
        return parse_patch(files, Path(naming.name or _name(stack)))
    write_members(out, files, overwrite=overwrite)
    return read_patch(out)


def _summary(stack: Stack) -> str:
    how = "side by side" if stack.parallel else "in this order"
    return f"{len(stack.members)} patches in one, {how}: {stack.title}."[:500]


def _method(stack: Stack) -> str:
    how = "arrangement side by side" if stack.parallel else "concatenation"
    return f"{how} of {len(stack.members)} patches, {len(stack.rows)} virtual tokens; no training"


def _fixes(stack: Stack, evidence: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The union of what the members fix, as measured on the stack; a member's advisories stay with its risk."""
    found: list[dict[str, Any]] = []
    for risk, document in evidence.items():
        measured = [{**fix, "risk": risk} for fix in fixes(document)]
        named = [fix for p in stack.patches for fix in p.manifest.fixes if fix.risk == risk and fix.advisory]
        rest = list(measured)
        for fix in named:
            match = next((m for m in measured if m["metric"] == fix.metric), measured[0])
            if (entry := {**match, "advisory": fix.advisory}) not in found:
                found.append(entry)
            rest = [m for m in rest if m is not match]
        found += rest
    return found


def _inherited(stack: Stack) -> dict[str, Any]:
    """What a composed patch takes over: licences, contact, the narrowest limits and every vendor's conflicts."""
    manifests = [patch.manifest for patch in stack.patches]
    licences = list(dict.fromkeys(m.license for m in manifests))
    if len(licences) > 1:  # AND binds tighter than OR in an SPDX expression
        licences = [f"({text})" if " OR " in text.upper() else text for text in licences]
    contacts = list(dict.fromkeys(m.contact for m in manifests))
    expiries = [m.expires for m in manifests if m.expires]
    conflicts = {(r.name, r.versions): r.model_dump(mode="json") for m in manifests for r in m.conflicts}
    found: dict[str, Any] = {
        "license": " AND ".join(licences),
        "conflicts": list(conflicts.values()),
    }
    if len(contacts) == 1 and contacts[0]:
        found["contact"] = contacts[0]
    if expiries:
        found["expires"] = min(expiries, key=datetime.fromisoformat)
    return found


def _name(stack: Stack) -> str:
    """A name out of those of the members: of their vendor, if they have one vendor."""
    vendors = list(dict.fromkeys(m.name.partition("/")[0] for m in stack.members))
    slugs = [m.name.partition("/")[2] for m in stack.members]
    name = f"{vendors[0] if len(vendors) == 1 else 'stack'}/{'-and-'.join(slugs)}"
    return name if len(name) <= 128 else f"{vendors[0] if len(vendors) == 1 else 'stack'}/stack-{stack.digest[:12]}"
