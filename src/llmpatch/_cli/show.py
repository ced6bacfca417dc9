"""``llmpatch show``: what a patch is and what was measured. Loads no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llmpatch._cli.output import one_line, say, say_json

if TYPE_CHECKING:
    from llmpatch.artifact import Patch


@click.command(name="show")
@click.argument("patch")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the manifest, the digests and the main results.")
def command(patch: str, as_json: bool) -> None:
    """Check a patch and show what it is.

    PATCH is a folder, a .lpatch, or FOLDER/SLUG below ./patches. No model is loaded.
    """
    from llmpatch.store import load_patch

    found = load_patch(patch)
    if as_json:
        manifest = found.manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
        head = {"path": str(found.path), "digest": found.digest, "files": dict(found.files), "manifest": manifest}
        say_json({**head, "results": found.evidence.get("results"), "worse": found.evidence.get("worse")})
        return
    _show(found)


def _show(patch: Patch) -> None:
    from llmpatch._cli.evidence_view import asked_lines, price_lines, results_table, worse_lines

    manifest = patch.manifest
    facts = {
        "summary": manifest.summary,
        "base": f"{manifest.base.name} ({manifest.base.fingerprint.quantisation})",
        "virtual tokens": f"{manifest.prefix.tokens} of {manifest.prefix.dim} numbers",
        "released": manifest.released,
        "expires": manifest.expires or "never",
        "licence": manifest.license,
        "contact": manifest.contact or "-",
        "method": manifest.build.method,
        "made by": f"{manifest.build.tool} {manifest.build.tool_version}, seed {manifest.build.seed}",
        "digest": patch.digest,
        "signature": _signature(patch),
    }
    if manifest.members:
        between = " beside " if manifest.arrangement else ", then "
        facts["composed of"] = between.join(f"{m.name} {m.version}" for m in manifest.members)
    say(f"{manifest.name} {manifest.version}\n")
    say("\n".join(f"{key + ':':16}{one_line(str(value))}" for key, value in facts.items()))
    say("\n" + results_table(patch.evidence))
    if lines := [*asked_lines(patch.evidence), *price_lines(patch.evidence), *worse_lines(patch.evidence)]:
        say("\n" + "\n".join(map(one_line, lines)))


def _signature(patch: Patch) -> str:
    if patch.signature is None:
        return "none: digests find damage, they do not say who made it"
    from llmpatch.errors import IntegrityError
    from llmpatch.signing import parse_bundle

    try:
        key = parse_bundle(patch.signature, where="patch.sig").key_id
    except IntegrityError as error:
        return f"unreadable: {error.message}"
    return f"says key {key}; `llmpatch verify` checks it"
