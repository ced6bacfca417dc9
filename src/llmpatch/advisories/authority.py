"""Whose word takes a patch out of use: that of whoever signed it, or of whom you trust for its name.

    may_revoke = by_keys({advisory: frozenset({"ab12..."})}, trust)
    audit = make_audit(inventory, advisories, may_revoke=may_revoke)

A registry says which keys speak for a vendor, and any registry can say so of any vendor: without this, one that you added for
other patches could have you go on unpatched. Knows no registry; it is given the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmpatch.errors import TrustError
from llmpatch.store.allowing import lost_key

if TYPE_CHECKING:
    from llmpatch.advisories.inventory import Held, Inventory
    from llmpatch.advisories.record import Advisory
    from llmpatch.signing import Trust

MayRevoke = Callable[["Advisory", "Held", str], bool]
"""Whether an advisory that asks for it counts for an installed patch, or for the part of it that has this name."""


def anybody(advisory: Advisory, held: Held, name: str) -> bool:  # noqa: ARG001
    """For advisories that somebody here has chosen, as a folder of them."""
    return True


def by_keys(keys: Mapping[Advisory, frozenset[str]], trust: Trust | None) -> MayRevoke:
    """For advisories out of registries.

    Args:
        keys: Advisory -> ids of the keys that signed for the vendor where it came from. Not by its name: two registries
            can carry another one under the same.
        trust: Whose signatures count for which names, where there is such a policy.

    Returns:
        A function that says yes if one of those keys signed the installed patch, or may sign patches of that name, or if nobody's
        signature was asked for when it was installed. A key that the policy revokes says nothing.
    """
    lost = frozenset(trust.revoked) if trust else frozenset()

    def may(advisory: Advisory, held: Held, name: str) -> bool:
        theirs = keys.get(advisory, frozenset()) - lost
        if name == held.entry.name and (held.entry.signer is None or held.entry.signer in theirs):
            return True
        return bool(theirs & _trusted(trust, name))

    return may


def _trusted(trust: Trust | None, name: str) -> frozenset[str]:
    if trust is None:
        return frozenset()
    try:
        return frozenset(trust.vendor_of(name).by_id)
    except TrustError:
        return frozenset()


@dataclass(frozen=True)
class Distrusted:
    """An active patch whose signature would not count any more, and ``lost``, which key that was, in words."""

    held: Held
    base: str
    lost: str

    @property
    def text(self) -> str:
        """It in words."""
        return f"{self.held.title}, active on {self.base}, {self.lost}"


def distrusted(inventory: Inventory, trust: Trust | None) -> tuple[Distrusted, ...]:
    """Active patches whose key was revoked after they were installed."""
    revoked = trust.revoked if trust else ()
    return tuple(
        Distrusted(held, deployment.base.name, lost)
        for deployment in inventory.deployments
        for held in deployment.active
        if (lost := lost_key(held.entry, revoked))
    )
