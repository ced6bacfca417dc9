"""Find a patch among all that the configured registries offer, and take it into the store.

choice = choose("acme/refusal@>=1,<2")
entry = take(store, choice, signed_by(trust))       # the patch's own signature is verified by your policy besides
newer(load(store).state)                            # what `upgrade` would fetch, and what it left out
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmpatch.artifact import ARCHIVE_SUFFIX
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, TrustError, UsageError
from llmpatch.files import write_bytes
from llmpatch.registry.client import Found, download, look, offers, read_target
from llmpatch.registry.configured import chosen_registries, load_registries
from llmpatch.registry.layout import Offer
from llmpatch.store import Installed, State, Store, Verified, Verify, install, is_newer
from llmpatch.versions import parse_request, parse_version


@dataclass(frozen=True)
class Choice:
    """One patch that a registry offers.

    Attributes:
        found: The registry's answer.
        offer: What it says of the patch.
    """

    found: Found
    offer: Offer

    @property
    def origin(self) -> str:
        """Where it comes from, for the store's record."""
        return f"registry {self.found.registry.name}: {self.found.registry.url}"


def search(term: str = "", *, registry: str | None = None, offline: bool = False) -> tuple[list[Choice], list[str]]:
    """Patches whose name, summary, base or advisories contain a term, by name, newest first; and what was left out.

    Raises:
        UsageError: no registry is configured.
        LlmpatchError: as in :func:`~llmpatch.registry.client.look`.
    """
    choices, notes = _all(registry, None, offline)
    wanted = term.casefold()
    hits = [
        c
        for c in choices
        if wanted in " ".join((c.offer.name, c.offer.summary, c.offer.base, *c.offer.fixes)).casefold()
    ]
    hits.sort(key=lambda choice: parse_version(choice.offer.version), reverse=True)
    return sorted(hits, key=lambda choice: choice.offer.name), notes


def choose(
    request: str, *, registry: str | None = None, offline: bool = False, revoked: Collection[str] = ()
) -> Choice:
    """The patch that ``NAME`` or ``NAME@RANGE`` means: the highest version, a released one before a pre-release.

    Args:
        request: What is wanted.
        registry: Only this one. Several that offer the name are an error otherwise: they may not mean the same.
        offline: Use what the last visit left.
        revoked: Digests not to be chosen.

    Raises:
        UsageError: nobody offers it, several do, or no registry is configured.
        TrustError: only revoked versions are offered.
        LlmpatchError: as in :func:`~llmpatch.registry.client.look`.
    """
    wanted = parse_request(request)
    choices, notes = _all(registry, [wanted.name.partition("/")[0]], offline)
    named = [choice for choice in choices if choice.offer.name == wanted.name]
    if not named:
        hint = f"{notes[0]}" if notes else "llmpatch search"
        raise UsageError(f"no configured registry offers {wanted.name}", hint=hint)
    sources = sorted({choice.found.registry.name for choice in named})
    if len(sources) > 1:
        raise UsageError(
            f"{wanted.name} is offered by several registries: {', '.join(sources)}", hint="--registry NAME"
        )
    fitting = [c for c in named if wanted.range is None or wanted.range.holds(parse_version(c.offer.version))]
    if not fitting:
        there = ", ".join(sorted((c.offer.version for c in named), key=parse_version))
        raise UsageError(f"no version of {request} is offered; there is {there}", hint="llmpatch search")
    usable = [choice for choice in fitting if choice.offer.digest not in revoked]
    if not usable:
        raise TrustError(f"every offered version of {request} is revoked here", hint="llmpatch list --json says why")
    released = [choice for choice in usable if not parse_version(choice.offer.version).prerelease] or usable
    return max(released, key=lambda choice: parse_version(choice.offer.version))


def newer(state: State, names: Sequence[str] = (), *, registry: str | None = None) -> tuple[list[Choice], list[str]]:
    """For every active patch, the newest that a registry offers within its pin, if the store does not have it yet; and notes.

    What was revoked or rolled back here is not offered again. Where several registries offer a name, the one that the active
    patch came from is asked: another that offers it, too, does not keep its newer versions away. Without one a note says so.

    Raises:
        LlmpatchError: as in :func:`~llmpatch.registry.client.look`.
    """
    active = [e for e in state.installed if e.digest in state.active_digests and (not names or e.name in names)]
    known = chosen_registries(registry) if registry is not None else load_registries()
    if not active or not known:
        return [], []
    choices, notes = _all(registry, sorted({entry.name.partition("/")[0] for entry in active}), offline=False)
    passed_by = {entry.digest for entry in state.installed if entry.status in ("rolled back", "revoked")} | set(
        state.revoked
    )
    found = []
    for old in active:
        named = [c for c in choices if (c.offer.name, c.offer.base) == (old.name, old.base)]
        named = [c for c in named if c.origin == old.source] or named
        usable = [c for c in named if c.offer.digest not in passed_by and is_newer(state, old, c.offer.version)]
        best = max(usable, key=lambda choice: parse_version(choice.offer.version), default=None)
        if best is None or state.entry(best.offer.digest) is not None:
            continue
        if len(offering := sorted({c.found.registry.name for c in named})) > 1:
            notes.append(
                f"{old.name} is offered by several registries ({', '.join(offering)}): --registry says which to ask"
            )
        else:
            found.append(best)
    return found, notes


def take(store: Store, choice: Choice, verify: Verify, *, reason: str = "") -> Installed:
    """Fetch a patch, verify it as any other, and put it into the store.

    Raises:
        IntegrityError: it is not the patch that was offered.
        LlmpatchError: as in ``install`` and :func:`~llmpatch.registry.client.download`.
    """
    path = download(choice.found, choice.offer.path)
    return install(store, path, _as_offered(choice.offer, verify), reason=reason, origin=choice.origin)


def save_offered(choice: Choice, out: Path) -> None:
    """Fetch a patch and write it to a file, unverified but for what the registry says of it.

    Raises:
        UsageError: the file's name does not end in ``.lpatch``.
        LlmpatchError: as in :func:`~llmpatch.registry.client.download`.
    """
    if out.suffix != ARCHIVE_SUFFIX:
        raise UsageError(f"{out} does not end in {ARCHIVE_SUFFIX}", hint=f"name a {ARCHIVE_SUFFIX} file")
    write_bytes(out, read_target(choice.found, choice.offer.path))


def _as_offered(offer: Offer, verify: Verify) -> Verify:
    """Accept only the patch that the registry named: a signature does not say which version somebody asked for."""

    def check(path: Path) -> Verified:
        verified = verify(path)
        manifest = verified.patch.manifest
        if (manifest.name, manifest.version, verified.patch.digest) != (offer.name, offer.version, offer.digest):
            raise IntegrityError(
                f"{offer.name} {offer.version} was offered, and what came is {manifest.name} {manifest.version}, digest "
                f"{verified.patch.digest[:16]}",
                hint="tell its vendor",
            )
        return verified

    return check


def _all(registry: str | None, vendors: Collection[str] | None, offline: bool) -> tuple[list[Choice], list[str]]:
    """What the registries offer, and notes."""
    choices, notes = [], []
    for each in chosen_registries(registry):
        found = look(each, vendors=vendors, offline=offline)
        made, left_out = offers(found)
        choices += [Choice(found, offer) for offer in made]
        notes += [f"registry {each.name}: {shown(note, 300)}" for note in left_out]
    return choices, notes
