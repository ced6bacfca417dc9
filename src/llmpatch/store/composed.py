"""What was measured here of patches together: composition records, kept in the store under their sha256.

    keep_record(store, record)
    decide(active, new, known_here(store))      # an order that was measured to lose something is refused

A record is only ever added. One that is damaged stops activations until somebody takes it away: it may be the one that
would have refused.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from llmpatch.artifact.composition import MAX_RECORD_BYTES, Record, parse_record, render_record
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from llmpatch.files import read_bytes
from llmpatch.store.disk import make_folder, replace_file
from llmpatch.store.facts import Known, known_of
from llmpatch.store.generations import Store, open_to_write

MAX_RECORDS = 4096


def keep_record(store: Store, record: Record) -> str:
    """Keep a record, and return the sha256 it is kept under.

    Raises:
        UsageError: it is of patches side by side, which are one patch in a store.
        LlmpatchError: the disk refuses, or there are too many.
    """
    if record.arrangement:
        raise UsageError(
            "the record is of patches side by side, and what the store keeps is of patches one after another",
            hint="install the one patch that `llmpatch compose --parallel` made: its evidence is in it",
        )
    data = render_record(record)
    digest = hashlib.sha256(data).hexdigest()
    path = store.compositions / f"{digest}.json"
    if not path.exists():
        if store.compositions.is_dir() and sum(1 for _ in store.compositions.iterdir()) >= MAX_RECORDS:
            raise LlmpatchError(
                f"{store.compositions} holds {MAX_RECORDS:,} records already", hint="delete those of patches long gone"
            )
        with open_to_write(store):
            make_folder(store.compositions)
            replace_file(path, data, 0o444)
    return digest


def known_here(store: Store) -> tuple[Known, ...]:
    """What all kept records say; of one order measured twice the later one, but no loss for fewer prompts that show none.

    Raises:
        IntegrityError: one is damaged; names it.
    """
    if not store.compositions.is_dir():
        return ()
    records: list[Record] = []
    for path in sorted(store.compositions.glob("*.json")):
        data = read_bytes(path, limit=MAX_RECORD_BYTES)
        if hashlib.sha256(data).hexdigest() != path.stem:
            raise IntegrityError(
                f"{path} was changed or damaged", hint="delete it, and measure again: `llmpatch compose --remember`"
            )
        records.append(parse_record(data, where=str(path)))
    records.sort(key=lambda record: datetime.fromisoformat(record.created))
    found: dict[tuple[str, ...], tuple[float, Known]] = {}
    for record in records:
        for measured, known in zip(record.measured, known_of(record), strict=False):  # none of patches side by side
            # Prompts of one's own have no limit, and may be three.
            least = min(figure.change.n for figure in measured.figures)
            asked = least if record.limit is None else min(least, record.limit)
            before, old = found.get(known.patches, (0.0, known))
            if known.losses or not old.losses or asked >= before:
                found[known.patches] = (asked, known)
    return tuple(known for _, known in found.values())
