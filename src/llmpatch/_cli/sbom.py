"""``llmpatch sbom``: bases, patches and patched bases as a CycloneDX bill of materials."""

from __future__ import annotations

from pathlib import Path

import click

from llmpatch._cli.opening import check_revision

FILE = click.Path(path_type=Path)


@click.command(name="sbom")
@click.option(
    "--base", help="Only this base; it is loaded for its fingerprint. By default all that the store knows of."
)
@click.option("--revision", help="Branch, tag or commit, for a base from the Hugging Face hub.")
@click.option(
    "--advisories", "folder", type=FILE, help="Add what advisories in this folder say: vulnerabilities and VEX."
)
@click.option("--out", "-o", type=FILE, help="Write it here instead of printing it.")
def command(base: str | None, revision: str | None, folder: Path | None, out: Path | None) -> None:
    """Write what is installed and active as CycloneDX 1.6 (JSON).

    A patched base is a machine-learning model whose pedigree names the base and the patches, with what they resolve.
    """
    from llmpatch._cli.answer_file import check_out
    from llmpatch._cli.audit import deliver
    from llmpatch.advisories import bill_of_materials, load_advisories, make_audit, take_inventory
    from llmpatch.bases import load_base
    from llmpatch.store import default_store

    check_revision(base, revision)
    if out:
        check_out(out)
    advisories = load_advisories(folder) if folder else None
    inventory = take_inventory(default_store(), load_base(base, revision) if base else None)
    audit = make_audit(inventory, advisories) if advisories is not None else None
    deliver(bill_of_materials(inventory, audit), out)
