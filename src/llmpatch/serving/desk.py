"""Which patch set answers: the active one, or the one that a request names. Every set is proved before its first use.

    desk = Desk(engine, given=[patch])            # these patches; or store=..., and the desk follows what is active there
    desk.active                                   # an immutable snapshot; a request keeps it to its end
    desk.named(["acme/refusal"])                  # another set, computed once
    desk.activate(["acme/refusal@2.0.0"], ...)    # from now on, for new requests

A swap is one assignment. Knows nothing about HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from llmpatch import store as stores
from llmpatch.artifact import Patch
from llmpatch.errors import IntegrityError, LlmpatchError, TrustError, UsageError
from llmpatch.prefix import check_room
from llmpatch.serving.canary import Check, probe_ids
from llmpatch.serving.engine import Engine
from llmpatch.serving.limits import MAX_PATCHES
from llmpatch.serving.patchsets import CanaryError, PatchSet, Ready, prepare, probe

KEPT_SETS = 8
LOG = logging.getLogger("llmpatch.serving")


@dataclass(frozen=True)
class Swap:
    """One change of what is active: from which level to which, when, why, and how long making it ready took."""

    old: str
    new: str
    time: float
    why: str
    seconds: float


class Desk:
    """See the module.

    Args:
        engine: Started.
        given: Patches to serve, in order; ``None`` to follow a store.
        store: Where installed patches are found, and what is followed.
        fixed: Requests may not name a set of their own.

    Raises:
        WrongBaseError: a given patch was made for another base.
        IntegrityError: the store or a patch in it is damaged.
        CanaryError: a set is not served as it must be.
    """

    def __init__(
        self,
        engine: Engine,
        given: Sequence[Patch] | None = None,
        store: stores.Store | None = None,
        fixed: bool = False,
    ) -> None:
        self.engine, self.store, self.fixed = engine, store, fixed
        self.given = tuple(given or ())
        self.follows = given is None and store is not None
        self.generation = 0
        self.notes: tuple[str, ...] = ()
        self.trouble = ""
        self.swaps: list[Swap] = []
        self.swapped = 0
        self.check: Check | None = None
        self._lock = threading.RLock()  # one swap is done at a time; what a request wants made ready does not take it
        self.namer = ThreadPoolExecutor(1, "llmpatch-namer")  # makes ready what requests name, one set at a time
        self.naming = 0  # requests that wait for it
        self._shelf = threading.Lock()  # of the sets that are ready: held for moments
        self._kept: OrderedDict[str, Ready] = OrderedDict()
        self._before: list[Ready] = []
        self._fitting: dict[str, bool] = {}
        # Once: a template may write today's date, and tomorrow's answers are to be compared with these.
        self.probes = probe_ids(engine.base)
        self.base = prepare(engine, PatchSet.of(()), None, self.probes)
        self.active = self.base
        if self.follows:
            self.follow()
        else:
            self._check_set(self.given)
            self.active = self.ready(self.given)
        self.ask_canary()

    @property
    def healthy(self) -> bool:
        """Whether the canary's last word about the active set was good, and the engine runs."""
        return self.engine.alive and self.check is not None and self.check.ok

    def ready(self, patches: Sequence[Patch]) -> Ready:
        """A set, computed and proved; from memory where it was before.

        Raises:
            WrongBaseError: a patch was made for another base.
            CanaryError: see :func:`~llmpatch.serving.patchsets.prepare`.
        """
        wanted = PatchSet.of(patches)
        if found := self._at_hand(wanted):
            return found
        for patch in patches:
            for note in patch.check_base(self.engine.base):
                LOG.warning("%s", note)
        found = prepare(self.engine, wanted, self.base.expected, self.probes)
        with self._shelf:
            found = self._kept.get(wanted.key, found)  # somebody else may have made it ready meanwhile
            self._kept[wanted.key] = found
            self._kept.move_to_end(wanted.key)
            while len(self._kept) > KEPT_SETS:
                self._kept.popitem(last=False)
        return found

    def _at_hand(self, wanted: PatchSet) -> Ready | None:
        """A set that is ready."""
        if not wanted.patches:
            return self.base
        with self._shelf:
            if found := self._kept.get(wanted.key):
                self._kept.move_to_end(wanted.key)
            return found

    def _ready_sets(self) -> list[Ready]:
        with self._shelf:
            return list(self._kept.values())

    def snapshot(self) -> Ready:
        """The active set, for a request that names none.

        Raises:
            CanaryError: the canary found that it is not applied.
        """
        ready = self.active
        if self.check is not None and not self.check.ok:
            raise CanaryError(
                f"{ready.level} is not applied as it must be: it is not served", hint="see the server's log"
            )
        return ready

    def named(self, names: Sequence[str]) -> Ready:
        """The set that a request names: names or digests of given or installed patches; none for the base alone.

        Raises:
            TrustError: it is not the active set, and requests may not choose; or a patch is revoked.
            UsageError: there is no such patch.
        """
        if not names and self.active is self.base:
            return self.base
        if self.fixed:
            raise TrustError(
                "this server answers with its active set only", hint="drop `patches` and `@` from the request"
            )
        return self.ready(self.find(names))

    def named_at_hand(self, names: Sequence[str]) -> Ready | None:
        """The set that a request names, if nothing has to be computed for it (errors as :meth:`named`)."""
        if self.fixed or (not names and self.active is self.base):
            return self.named(names)
        return self._at_hand(PatchSet.of(self.find(names)))

    def find(self, names: Sequence[str]) -> list[Patch]:
        """Patches by name, ``NAME@RANGE`` or the start of a digest, among those given and those installed. Never by path.

        Raises:
            UsageError: there is no such patch, there are too many, or they do not go together.
            TrustError: it is revoked.
        """
        if len(names) > MAX_PATCHES:
            raise UsageError(f"{len(names)} patches; at most {MAX_PATCHES} go together", hint="name fewer")
        state = stores.load(self.store).state if self.store is not None else None
        found = [self._find(name, state) for name in names]
        if len({patch.digest for patch in found}) < len(found):
            raise UsageError("a patch is named twice", hint="name each once")
        _check_revoked(state, found)
        self._check_set(found)
        return found

    def _check_set(self, patches: Sequence[Patch]) -> None:
        """As for any stack that is put together on the spot; what follows a store was checked when it was activated.

        Raises:
            UsageError: they do not go together, or are too long.
        """
        stores.check_together([stores.facts_of(patch.manifest, patch.digest) for patch in patches])
        check_room(self.engine.base, sum(len(patch.embeddings) for patch in patches))

    def _find(self, name: str, state: stores.State | None) -> Patch:
        for patch in self.given:
            titles = (patch.manifest.name, f"{patch.manifest.name}@{patch.manifest.version}")
            if name in titles or (len(name) >= 8 and patch.digest.startswith(name)):
                return patch
        if state is None or self.store is None:
            raise UsageError(
                f"{name[:128]!r} is not among the patches of this server", hint="GET /v1/models lists them"
            )
        digest = stores.pick(state, name).digest
        for ready in [self.active, *self._ready_sets()]:
            for patch in ready.patches.patches:
                if patch.digest == digest:
                    return patch
        return stores.read_stored(self.store, digest)

    def follow(self) -> None:
        """Serve what the store says is active.

        Raises:
            IntegrityError: nothing whole is active; what was served is served on.
        """
        if self.store is None:
            return
        with self._lock:
            found = stores.load_active(self.store, self.engine.base.fingerprint)
            if self.generation and not found.generation:  # a store never goes back to before its first: it is not there
                raise IntegrityError(
                    f"the store {self.store.root} is gone or empty", hint="is it mounted? what was active is served on"
                )
            for note in set(found.notes) - set(self.notes):
                LOG.warning("%s", note)
            began = time.monotonic()
            ready = self.ready(found.patches)
            self._swap(ready, f"generation {found.generation} of the store", time.monotonic() - began)
            self.generation, self.notes, self.trouble = found.generation, found.notes, ""

    def activate(self, names: Sequence[str], *, skip_gate: bool = False, reason: str = "") -> None:
        """Make a set active: in the store where the desk follows one, else here.

        Raises:
            UsageError: there is no such patch; in a store: no gate passed on what would be active, or several at once.
            WrongBaseError: it was made for another base than this server's.
            TrustError: it is revoked; in a store: it was signed by a key that the trust policy has revoked since.
        """
        if not self.follows:
            with self._lock:
                began = time.monotonic()
                ready = self.ready(self.find(names))
                before = self.active
                if self._swap(ready, reason or "activated", time.monotonic() - began):
                    self._before.append(before)
                    del self._before[:-32]
            return
        if len(names) != 1 or self.store is None:
            raise UsageError("a store activates one patch at a time", hint='send {"patches": ["VENDOR/SLUG"]}')
        digest = stores.pick(stores.load(self.store).state, names[0]).digest
        stores.read_stored(self.store, digest).check_base(self.engine.base)
        stores.activate(self.store, digest, skip_gate=skip_gate, revoked_keys=_revoked_keys(), reason=reason)
        self.follow()

    def rollback(self, reason: str = "") -> None:
        """Go back to the set before.

        Raises:
            UsageError: there is none, or none of which nothing was revoked meanwhile; in a store: another base's set would
                change, too.
            CanaryError: it is not served as it must be any more; it is gone from what one can go back to.
        """
        if self.follows and self.store is not None:
            stores.rollback(self.store, only=self.engine.base.fingerprint, reason=reason)
            self.follow()
            return
        with self._lock:
            began = time.monotonic()
            state = stores.load(self.store).state if self.store is not None else None
            while self._before:
                before = self._before.pop()
                try:
                    _check_revoked(state, before.patches.patches)
                except TrustError as error:
                    LOG.warning("not gone back to: %s", error.message)
                    continue
                ready = self.ready(before.patches.patches)  # proved again where the canary has let it go meanwhile
                self._swap(ready, reason or "rolled back", time.monotonic() - began)
                return
            raise UsageError("nothing to go back to", hint="GET /admin/status shows what was active")

    def ask_canary(self) -> Check:
        """Prove all sets again, and compute anew what is not served as it must be. The active one's result is returned.

        Raises:
            BusyError: the server is closing.
            CanaryError: the active set cannot be served rightly; requests for it are refused until it can.
        """
        # Without the lock while it asks: under load that takes a second or two, and a swap must not wait for it.
        for ready in self._ready_sets():
            if ready is not self.active and not probe(self.engine, ready, self.base.expected).ok:
                LOG.error("the canary: %s is not applied; it is computed anew", ready.level)
                self._forget(ready)
        while True:
            ready = self.active
            found = probe(self.engine, ready, self.base.expected)
            with self._lock:
                if ready is not self.active:  # swapped meanwhile: the question is about what is served now
                    if not found.ok:
                        self._forget(ready)
                    continue
                self.check = found
                if not found.ok:
                    self._compute_anew(ready)
                return self.check

    def _forget(self, ready: Ready) -> None:
        with self._shelf:
            if self._kept.get(ready.patches.key) is ready:
                del self._kept[ready.patches.key]

    def _compute_anew(self, ready: Ready) -> None:
        """Put a fresh copy of the active set in its place, and ask about that."""
        LOG.error("the canary: %s is not applied (%s); it is computed anew", ready.level, self.check)
        self._forget(ready)
        if not ready.patches.patches:
            self.base = prepare(self.engine, PatchSet.of(()), None, self.probes)
        self._swap(self.ready(ready.patches.patches), "computed anew: the canary", 0.0)
        self.check = probe(self.engine, self.active, self.base.expected)

    def _swap(self, ready: Ready, why: str, seconds: float) -> bool:
        old = self.active
        if ready is old:
            return False
        self.active = ready
        self.check = ready.check or self.check  # it was proved before it was taken
        self.swapped += 1
        self.swaps.append(Swap(old.level, ready.level, time.time(), why[:200], seconds))
        del self.swaps[:-64]
        LOG.info("now active: %s (%s)", ready.level, why)
        return True

    def status(self) -> dict[str, Any]:
        """All of it, for people and programs that watch a transition."""
        levels = self.engine.levels()
        check = self.check
        return {
            "base": self.engine.base.name,
            "active": self.active.level,
            "source": "store" if self.follows else "command line",
            "generation": self.generation if self.follows else None,
            "healthy": self.healthy,
            "canary": None if check is None else vars(check),
            "in_flight": dict(levels),
            "draining": {level: n for level, n in levels.items() if level != self.active.level},
            "waiting": self.engine.queued,
            "rows": self.engine.busy,
            "ready": [ready.level for ready in self._ready_sets()],
            "swaps": self.swapped,
            "last_swaps": [vars(swap) for swap in self.swaps[-8:]],
            "notes": list(self.notes),
            "trouble": self.trouble,
        }

    def titles(self) -> list[str]:
        """``NAME@VERSION`` of each patch that a request may name."""
        found = {f"{p.manifest.name}@{p.manifest.version}" for p in self.given}
        if self.store is None:
            return sorted(found)
        state = stores.load(self.store).state
        usable = [entry for entry in state.installed if entry.digest not in state.revoked]
        return sorted(found | {f"{e.name}@{e.version}" for e in usable if self._fits(self.store, e.digest)})

    def _fits(self, store: stores.Store, digest: str) -> bool:
        """Whether an installed patch is for this base; asked once a digest."""
        if digest not in self._fitting:
            try:
                stores.read_stored(store, digest).check_base(self.engine.base)
                self._fitting[digest] = True
            except LlmpatchError:
                self._fitting[digest] = False
        return self._fitting[digest]


def _revoked_keys() -> tuple[str, ...]:
    """Of the usual trust policy, read anew each time: a revocation needs no other start of the server."""
    from llmpatch.signing import usual_trust

    trust = usual_trust()
    return trust.revoked if trust else ()


def _check_revoked(state: stores.State | None, patches: Sequence[Patch]) -> None:
    """Refuse what the store, where there is one, has revoked."""
    if state is not None:
        for patch in patches:
            stores.check_revoked(state, patch)
