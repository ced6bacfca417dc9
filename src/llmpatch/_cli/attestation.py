"""``llmpatch attestation``: what a gate said before a patch became active, and whose key says so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmpatch._cli.output import one_line, say, say_json

if TYPE_CHECKING:
    from llmpatch.gate import Attestation

FILE = click.Path(path_type=Path)


@click.command(name="attestation")
@click.argument("subject")
@click.option(
    "--key", "key_files", multiple=True, type=FILE, help="A public key, one of which must have signed it. Repeatable."
)
@click.option("--out", "-o", type=FILE, help="Also write the attestation here, as it was kept.")
@click.option("--json", "as_json", is_flag=True, help="Print the in-toto statement.")
def command(subject: str, key_files: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Show the attestation of a gate: an in-toto test result, signed if `--attest-key` was given when it ran.

    SUBJECT is an active patch, or a file. Exit code 4: not signed by one of the keys. Exit code 6: it was changed.
    """
    from llmpatch._cli.answer_file import check_out
    from llmpatch.files import read_bytes, write_bytes
    from llmpatch.gate import MAX_ATTESTATION_BYTES, read_attestation
    from llmpatch.signing import load_public_key
    from llmpatch.store import default_store
    from llmpatch.store.contents import read_kept

    path = Path(subject)
    if path.is_file():
        data, where = read_bytes(path, limit=MAX_ATTESTATION_BYTES), str(path)
    else:
        data, where = read_kept(default_store(), subject, "attestation")
    found = read_attestation(data, where=where, keys=[load_public_key(file) for file in key_files])
    if out:
        check_out(out)
        write_bytes(out, data)
    if as_json:
        say_json(found.statement)
        return
    _say(found, checked=bool(key_files))


def _say(found: Attestation, *, checked: bool) -> None:
    verdict = found.statement["predicate"]["verdict"]
    say(one_line(f"{found.result}: {len(found.passed)} rules passed, {len(found.failed)} failed; {verdict['created']}"))
    for name, digest in found.patches.items():
        say(one_line(f"patch {name}, digest {digest[:16]}"))
    for piece in found.statement["predicate"]["configuration"]:
        say(one_line(f"{piece['name']}, sha256 {piece['digest']['sha256'][:16]}"))
    if not found.key_id:
        say("not signed")
    else:
        say(f"signed by key {found.key_id}" + ("" if checked else ", which was not checked: --key KEY"))
