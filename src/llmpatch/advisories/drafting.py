"""Draft an advisory from a patch: every number and interval in it comes from the patch's evidence.

    draft = draft_gap(load_patch("patches/smollm2/refusal"), "x_LLMPATCH-2026-0001")
    draft = draft_defect(patch, "x_ACME-2026-0002", fixed="1.2.0", revoke=True)
    render_advisory(draft)

A draft is valid and complete; a person reads it and adds what evidence cannot know (references, credits, codes of taxonomies).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from llmpatch.advisories.record import Advisory, Measured, make_advisory
from llmpatch.artifact import Patch, release_time
from llmpatch.artifact.layout import EVIDENCE_FILE
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, UsageError
from llmpatch.versions import parse_version

MAX_SUMMARY = 500
_REPOSITORY = "pkg:huggingface/"
_NONE = "measure it again with `llmpatch eval PATCH --base BASE`, or write the advisory by hand: docs/advisories.md"


def draft_gap(patch: Patch, ident: str, *, summary: str = "") -> Advisory:
    """An advisory about the gap that a patch closes, on the base it was made for.

    Args:
        patch: Whose evidence shows the gap.
        ident: ``x_VENDOR-YYYY-NNNN``.
        summary: Instead of the one that says what was measured first.

    Raises:
        UsageError: the evidence holds no results with intervals; the id is none.
        IntegrityError: a result in it is not well-formed.
    """
    manifest = patch.manifest
    rows = read_results(patch)
    risk = next((fix.risk for fix in manifest.fixes), str(patch.evidence.get("suite", "")))
    lead = _leading(patch, rows)
    text = summary or f"{manifest.base.name}: {lead.name} {_shown(lead, lead.base)}, n = {lead.n}"
    version = parse_version(manifest.version)
    fixer = {
        "patch": manifest.name,
        "versions": f">={manifest.version},<{version.major + 1}",
        "evidence": patch.files[EVIDENCE_FILE],
    }
    base = {"name": manifest.base.name, "fingerprint": manifest.base.fingerprint.model_dump()}
    if manifest.base.purl:
        base["purl"] = manifest.base.purl
    affected = {**_published(patch), "database_specific": {"base": base, "fixed_by": [fixer]}}
    details = (
        f"Measured on {manifest.base.name}, without and with {manifest.name} {manifest.version}.\n\n{_table(rows)}"
    )
    return _made(ident, text, details, affected, {"risk": risk} if risk else {}, patch, rows)


def draft_defect(patch: Patch, ident: str, *, fixed: str = "", revoke: bool = False, summary: str = "") -> Advisory:
    """An advisory about a defect of a patch, with what its own evidence says got worse.

    Args:
        patch: The version with the defect.
        ident: ``x_VENDOR-YYYY-NNNN``.
        fixed: The first version without it; without one, only this version is named.
        revoke: Ask that it never be active again.
        summary: Instead of the first sentence of the evidence on what got worse.

    Raises:
        UsageError: there is no summary and the evidence says of nothing that it got worse; ``fixed`` is not newer; the id is
            none, or of another vendor than revokes.
        IntegrityError: a result in the evidence is not well-formed.
    """
    manifest = patch.manifest
    rows = read_results(patch)
    worse = [text for text in _list(patch.evidence.get("worse")) if isinstance(text, str)]
    if not (summary or worse):
        raise UsageError(f"the evidence of {manifest.name} says of nothing that it got worse", hint="say it: --summary")
    if fixed and parse_version(fixed) <= parse_version(manifest.version):
        raise UsageError(
            f"{fixed} is not newer than {manifest.version}, which has the defect", hint="name the version that fixes it"
        )
    lead = next((sentence for sentence in worse if "within chance" not in sentence), worse[0] if worse else "")
    text = summary or f"{manifest.name} {manifest.version}: {shown(lead, 400)}"
    affected: dict[str, Any] = {"versions": [manifest.version]}
    if fixed:
        affected = {"ranges": [{"type": "SEMVER", "events": [{"introduced": manifest.version}, {"fixed": fixed}]}]}
    specific = {"patch": manifest.name, "digests": [patch.digest], **({"revoke": True} if revoke else {})}
    lines = "\n".join(f"- {shown(sentence, 400)}" for sentence in worse[:40])
    details = "\n\n".join(part for part in (lines, _table(rows)) if part)
    return _made(ident, text, details, affected | {"database_specific": specific}, {}, patch, rows)


def read_results(patch: Patch) -> list[Measured]:
    """The rows of ``evidence["results"]`` that have an estimate with an interval for the base.

    Raises:
        UsageError: there are none.
        IntegrityError: a row has an interval that is none.
    """
    rows = []
    for number, row in enumerate(_list(patch.evidence.get("results"))):
        if isinstance(row, dict) and isinstance(row.get("base"), dict):
            rows.append(_measured(row, f"{patch.path}: evidence.json: results.{number}"))
    if not rows:
        title = f"{patch.manifest.name} {patch.manifest.version}"
        raise UsageError(f"the evidence of {title} holds no results of the base with intervals", hint=_NONE)
    return rows


def _measured(row: dict[str, Any], where: str) -> Measured:
    def ends(value: Any) -> Any:
        return {k: v for k, v in value.items() if k in ("value", "low", "high")} if isinstance(value, dict) else value

    fields: dict[str, Any] = {key: row[key] for key in ("name", "n", "unit") if key in row}
    fields |= {key: ends(row[key]) for key in ("base", "patched") if row.get(key) is not None}
    try:
        return Measured.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        from llmpatch.recipe import describe

        raise IntegrityError(f"{where}: {shown(describe(error), 200)}", hint=_NONE) from None


def _leading(patch: Patch, rows: Sequence[Measured]) -> Measured:
    """The row that the patch's first fix was measured by; the first one, if none has its figures."""
    for fix in patch.manifest.fixes:
        for row in rows:
            if row.patched and (row.base.value, row.patched.value, row.n) == (fix.before, fix.after, fix.n):
                return row
    return rows[0]


def _published(patch: Patch) -> dict[str, Any]:
    """The base's commit, and its repository where the purl names one on the Hugging Face hub."""
    base = patch.manifest.base
    found: dict[str, Any] = {}
    if base.purl and base.purl.startswith(_REPOSITORY):
        repo = f"https://huggingface.co/{base.purl.removeprefix(_REPOSITORY).partition('@')[0].partition('?')[0]}"
        found["ranges"] = [{"type": "GIT", "repo": repo, "events": [{"introduced": "0"}]}]
    if base.revision and len(base.revision) == 40:
        found["versions"] = [base.revision]
    return found


def _made(
    ident: str, summary: str, details: str, affected: dict[str, Any], specific: dict[str, Any], patch: Patch,
    rows: Sequence[Measured],
) -> Advisory:  # fmt: skip
    now = release_time()
    measured = [row.model_dump(exclude_defaults=True) for row in rows]
    return make_advisory(
        {
            "id": ident, "published": now, "modified": now, "summary": summary[:MAX_SUMMARY], "details": details[:20_000],
            "affected": [affected],
            "database_specific": specific | {"evidence": patch.files[EVIDENCE_FILE], "measured": measured},
        }
    )  # fmt: skip


def _table(rows: Sequence[Measured]) -> str:
    lines = ["| measured | n | base | with the patch |", "|---|---|---|---|"]
    for row in rows:
        patched = _shown(row, row.patched) if row.patched else "-"
        name = row.name.replace("|", "\\|")
        lines.append(f"| {name} | {row.n} | {_shown(row, row.base)} | {patched} |")
    return "\n".join([*lines, "", "Brackets: 95 % intervals."])


def _shown(row: Measured, found: Any) -> str:
    if row.unit == "share":
        return f"{100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
