"""``llmpatch audit``: which known gaps are open on your bases, what closes them, and which active patch has a known defect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpatch._cli.opening import check_revision
from llmpatch._cli.output import note, one_line, say, say_json, table, warn
from llmpatch._cli.stored import offline_option, registry_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmpatch.advisories import Advisory, Audit, Inventory
    from llmpatch.store import ActiveSet

FILE = click.Path(path_type=Path)


@click.command(name="audit")
@click.option("--advisories", "folder", type=FILE,
              help="A folder of advisories: VENDOR/ID.json, as a registry holds them, or loose ID.json. "
              "By default the configured registries are asked.")  # fmt: skip
@registry_option
@offline_option
@click.option(
    "--base", help="Only this base; it is loaded, to compare its fingerprint. By default all the store knows of."
)
@click.option("--revision", help="Branch, tag or commit, for a base from the Hugging Face hub.")
@click.option("--format", "form", type=click.Choice(["table", "json", "sarif", "cyclonedx"]), default="table",
              show_default=True)  # fmt: skip
@click.option("--out", type=FILE, help="Write it here instead of printing it.")
@click.option("--apply", "apply_them", is_flag=True,
              help="Revoke what its own vendor revokes; bases fall back to their last good set. Recorded.")  # fmt: skip
@click.option("--ignore-unfixed", is_flag=True, help="Gaps that no patch is known to close do not count.")
@click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever is found.")
def command(
    folder: Path | None,
    registry: str | None,
    offline: bool,
    base: str | None,
    revision: str | None,
    form: str,
    out: Path | None,
    apply_them: bool,
    ignore_unfixed: bool,
    exit_zero: bool,
) -> None:
    """Hold advisories against what is installed and active.

    Exit code 3: a known gap is open on a base, an active patch has a known defect, some advisories could not be had, or --apply
    left a base without a patch. Changes nothing without --apply.
    docs/advisories.md explains it.
    """
    from llmpatch._cli.answer_file import check_out
    from llmpatch.advisories import apply_revocations, take_inventory
    from llmpatch.bases import load_base
    from llmpatch.errors import AuditError
    from llmpatch.store import default_store, load

    check_revision(base, revision)
    if out:
        check_out(out)  # before anything is revoked: what that leaves bare is only told by the run that did it
    store = default_store()
    before = load(store).state.active
    known = _known(folder, registry, offline)
    loaded = load_base(base, revision) if base else None
    audit = known.audit(take_inventory(store, loaded))
    if apply_them:
        for done in apply_revocations(store, audit):
            note(one_line(done.why))
        audit = known.audit(take_inventory(store, loaded), _bare(before, load(store).state.active))
    deliver(_rendered(audit, form), out)
    problems = audit.problems(ignore_unfixed=ignore_unfixed)
    if problems and not exit_zero:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise AuditError("; ".join(problems[:3]) + more, hint=_advice(audit))


def _bare(before: Sequence[ActiveSet], after: Sequence[ActiveSet]) -> list[str]:
    """Names of bases that had something active and have nothing now; two bases may have one name."""
    left = [(group.base, group.fingerprint) for group in after if group.patches]
    return sorted({group.base for group in before if group.patches and (group.base, group.fingerprint) not in left})


@dataclass(frozen=True)
class _Known:
    """The advisories, what could not be had of them, and by whose keys they came; ``None`` where they are a folder's."""

    advisories: Sequence[Advisory]
    left_out: Sequence[str] = ()
    keys: Mapping[Advisory, frozenset[str]] | None = None

    def audit(self, inventory: Inventory, bare: Sequence[str] = ()) -> Audit:
        from llmpatch.advisories import anybody, by_keys, distrusted, make_audit
        from llmpatch.signing import usual_trust

        trust = usual_trust()
        return make_audit(
            inventory,
            self.advisories,
            left_out=self.left_out,
            distrusted=distrusted(inventory, trust),
            bare=bare,
            may_revoke=anybody if self.keys is None else by_keys(self.keys, trust),
        )


def _known(folder: Path | None, registry: str | None, offline: bool) -> _Known:
    from llmpatch.advisories import usable_advisories
    from llmpatch.errors import UsageError

    if folder is not None:
        if registry is not None or offline:
            raise UsageError(
                "--advisories reads a folder and asks no registry", hint="leave out --registry and --offline"
            )
        return _said(_Known(*usable_advisories(folder)))
    from llmpatch.registry import ask_advisories, load_registries

    if not load_registries():
        raise UsageError(
            "no registry is configured, and no folder of advisories is given",
            hint="llmpatch registry add NAME URL --root ROOT.json, or --advisories FOLDER",
        )
    asked = ask_advisories(registry=registry, offline=offline)
    keys = {each.advisory: each.keys for each in asked.told}
    return _said(_Known([each.advisory for each in asked.told], asked.left_out, keys))


def _said(known: _Known) -> _Known:
    for text in known.left_out:
        warn(text)
    return known


def deliver(content: str | dict[str, Any], out: Path | None) -> None:
    """Print text or JSON, or write it to a file that was checked before."""
    from llmpatch.files import write_json, write_text

    if out is None:
        say(content) if isinstance(content, str) else say_json(content)
        return
    write_text(out, f"{content}\n") if isinstance(content, str) else write_json(out, content)


def _rendered(audit: Audit, form: str) -> str | dict[str, Any]:
    from llmpatch.advisories import audit_json, audit_sarif, bill_of_materials

    if form == "json":
        return audit_json(audit)
    if form == "sarif":
        return audit_sarif(audit)
    return bill_of_materials(audit.inventory, audit) if form == "cyclonedx" else _table(audit)


def _table(audit: Audit) -> str:
    rows = [
        [gap.advisory.id, gap.deployment.base.name + ("" if gap.sure else " (by name only)"),
         "closed" if gap.status == "closed" else "OPEN", gap.remedy, gap.advisory.summary]
        for gap in audit.gaps
    ]  # fmt: skip
    for defect in audit.defects:
        state = "REVOKED" if defect.active and defect.revokes else "DEFECT" if defect.active else "not active"
        rows.append([defect.advisory.id, defect.held.title, state, defect.remedy, defect.advisory.summary])
    bases = ", ".join(deployment.base.name for deployment in audit.inventory.deployments) or "no base"
    head = one_line(
        f"{audit.advisories} advisories, {len(audit.inventory.installed)} installed patches, bases: {bases}"
    )
    told = "\n".join([head, *(one_line(f"problem: {text}") for text in audit.others)])
    if not rows:
        return f"{told}\nnone of them concerns what is here"
    return f"{told}\n\n{table(['advisory', 'concerns', 'state', 'what to do', 'summary'], rows)}"


def _advice(audit: Audit) -> str:
    if any(defect.active and defect.revokes for defect in audit.defects):
        return "llmpatch audit --apply takes revoked patches out; then install what fixes it"
    if any(gap.status == "open" and gap.fixable for gap in audit.gaps):
        return "install or activate the patch that the audit names"
    if audit.distrusted:
        return "install what another key signed, or `llmpatch revoke` what the revoked one did"
    if audit.left_out and not any(gap.status == "open" for gap in audit.gaps):
        return "tell the registry what it leaves out, or choose another with --registry"
    return "ask the vendor for a patch; --ignore-unfixed lets gaps pass that nothing closes yet"
