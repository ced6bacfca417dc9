"""``llmpatch lock``: pin an ordered set of patches with what was measured of it, and install exactly that elsewhere."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpatch._cli.installing import install_options, open_verify
from llmpatch._cli.output import note, one_line, say, say_json, table
from llmpatch._cli.stored import json_option, say_done

if TYPE_CHECKING:
    from llmpatch.artifact.composition import Record
    from llmpatch.store import Lock, Verify

FILE = click.Path(path_type=Path)


@click.group(name="lock")
def command() -> None:
    """Pin an ordered set of patches by digest, and install exactly that elsewhere."""


@command.command(name="write")
@click.argument("patches", metavar="PATCH...", nargs=-1, required=True)
@click.option("-o", "--out", type=FILE, default=Path("llmpatch.lock"), show_default=True, help="The file to write.")
@click.option("--composition", type=FILE, help="The composition.json that `llmpatch compose` wrote for this order.")
@json_option
def write(patches: tuple[str, ...], out: Path, composition: Path | None, as_json: bool) -> None:
    """Pin these patches in this order. Loads no model.

    A composed patch brings its own evidence. Without --composition, several patches need a gate run when they are activated.
    """
    from llmpatch._cli.answer_file import check_out
    from llmpatch.files import write_text
    from llmpatch.store import load_patch, make_lock, render_lock

    check_out(out, composition, *patches)
    lock = make_lock([load_patch(found) for found in patches], _record(composition) if composition else None)
    write_text(out, render_lock(lock))
    _say_lock(lock, as_json)


@command.command(name="check")
@click.argument("lock", type=FILE)
@click.argument("patches", metavar="[PATCH]...", nargs=-1)
@json_option
def check(lock: Path, patches: tuple[str, ...], as_json: bool) -> None:
    """Read a lock file, and compare patches with it, digest by digest. Loads no model.

    Without PATCH, the installed ones are looked up by their digests.
    """
    from llmpatch.errors import UsageError
    from llmpatch.store import check_locked, default_store, load, load_patch, read_stored

    found = _read(lock)
    store = default_store()
    if patches:
        given = [load_patch(name) for name in patches]
    else:
        known = {entry.digest for entry in load(store).state.installed}
        missing = [part for part in found.patches if part.digest not in known]
        if missing:
            raise UsageError(
                f"{missing[0].name} {missing[0].version} ({missing[0].digest[:16]}) is not installed",
                hint=f"llmpatch lock install {lock}, or name the patches",
            )
        given = [read_stored(store, part.digest) for part in found.patches]
    check_locked(found, given)
    _say_lock(found, as_json)


@command.command(name="install")
@click.argument("lock", type=FILE)
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@install_options
@click.option("--downgrade", is_flag=True, help="Allow versions below the highest that was ever active.")
def install(
    lock: Path,
    sources: tuple[str, ...],
    trust_file: Path | None,
    key_files: tuple[Path, ...],
    allow_unsigned: bool,
    registry: str | None,
    offline: bool,
    no_activate: bool,
    skip_gate: bool,
    downgrade: bool,
    reason: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Install exactly the patches of a lock file, and make them active together, in its order, in one step.

    SOURCE is where to get them, one each, in order: a folder, a .lpatch, or what `llmpatch install` takes. Without any, what
    is installed is used, its signature verified again, and the rest asked from the registries by name and version. Any other
    digest than the lock file's is refused (exit code 6), also if it is signed. Refused before anything is fetched: a lock file
    of another base than --base or than its own patches and evidence (5), and older versions without --downgrade (1).
    """
    from llmpatch._cli.gating import open_gate
    from llmpatch._cli.verify import revoked_keys
    from llmpatch.bases import load_base
    from llmpatch.errors import UsageError
    from llmpatch.store import activate_stack, check_lock_base, check_mark, default_store, load

    found = _read(lock)
    if sources and len(sources) != len(found.patches):
        raise UsageError(
            f"{len(sources)} sources for {len(found.patches)} patches", hint="name one for each, in order, or none"
        )
    open_base = functools.cache(lambda: load_base(options["base"], options["revision"]))
    gate = open_gate(**options, skip_gate=skip_gate, no_activate=no_activate, open_base=open_base)
    verify = open_verify(trust_file, key_files, allow_unsigned)
    store = default_store()
    state = load(store).state
    for part in () if no_activate else found.patches:
        check_mark(state, part.digest, part.name, part.version, downgrade=downgrade)
    if options["base"]:
        check_lock_base(found, options["base"], open_base().fingerprint)
    _fetch(found, sources, verify, registry, offline, reason)
    if no_activate:
        say_json({"installed": list(found.digests)}) if as_json else say("all are kept; nothing was activated")
        return
    done = activate_stack(
        store,
        found.digests,
        known=found.known,
        gate=gate,
        skip_gate=skip_gate,
        downgrade=downgrade,
        revoked_keys=revoked_keys(trust_file, key_files),
        reason=reason or f"lock file {lock}"[:200],
    )
    say_done(done, as_json)


def _fetch(
    lock: Lock, sources: tuple[str, ...], verify: Verify, registry: str | None, offline: bool, reason: str
) -> None:
    """Put every patch of the lock file into the store, each checked against its digest before it is kept.

    What is there already is verified first: a set that is refused for it fetches nothing.
    """
    from llmpatch.registry import install_from
    from llmpatch.store import default_store, load, locked_to, verify_stored

    store = default_store()
    state = load(store).state
    there = [part for part in lock.patches if not sources and state.entry(part.digest) is not None]
    for part in there:
        verify_stored(store, lock, part, verify, reason=reason)
    for place, part in enumerate(lock.patches):
        if part in there:
            continue
        source = sources[place] if sources else f"{part.name}@=={part.version}"
        wanted = locked_to(lock, part, verify)
        entry = install_from(store, source, wanted, registry=registry, offline=offline, reason=reason)
        note(one_line(f"installed {entry.name} {entry.version}"))


def _read(path: Path) -> Lock:
    from llmpatch.files import read_bytes
    from llmpatch.store import parse_lock
    from llmpatch.store.locking import MAX_LOCK_BYTES

    return parse_lock(read_bytes(path, limit=MAX_LOCK_BYTES), where=str(path))


def _record(path: Path) -> Record:
    from llmpatch.artifact.composition import MAX_RECORD_BYTES, parse_record
    from llmpatch.files import read_bytes

    return parse_record(read_bytes(path, limit=MAX_RECORD_BYTES), where=str(path))


def _say_lock(lock: Lock, as_json: bool) -> None:
    if as_json:
        say_json(lock.model_dump(mode="json", by_alias=True, exclude_none=True))
        return
    say(table(["patch", "digest"], [[f"{p.name} {p.version}", p.digest[:16]] for p in lock.patches]))
    if lock.composition is None:
        say("\nnobody measured them together: activating them needs a gate run" if len(lock.patches) > 1 else "")
        return
    kept = [f.kept.value for f in lock.composition.measured[0].figures if f.kept]
    lost = len(lock.composition.measured[0].hurt)
    say(
        f"\nmeasured together: {lost} losses; least gain kept {100 * min(kept):.1f} %"
        if kept
        else "\nmeasured together"
    )
