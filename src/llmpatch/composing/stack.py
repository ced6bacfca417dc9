"""A stack: the rows of several patches one after another, after every check that needs no model to answer.

    stack = make_stack([read_patch(first), read_patch(second)])
    stack.rows.shape, stack.members, stack.digest

Concatenation is associative: a composed patch stands for its members, so a stack of stacks is the stack of all members, with
the same rows and the same digest. It is not commutative: order is part of what a stack is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from llmpatch.artifact import Patch
from llmpatch.artifact.manifest import Member
from llmpatch.artifact.tensors import MAX_TOKENS, Embeddings
from llmpatch.errors import UsageError
from llmpatch.prefix import check_room
from llmpatch.store import check_one_base, check_together, facts_of

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.patched import PatchedModel

_SHORTER = "leave one out, or train one cumulative patch for all of them (docs/composition.md)"


@dataclass(frozen=True, eq=False)
class Stack:
    """Patches in an order.

    Attributes:
        patches: As given.
        members: The single patches whose rows these are, in order; a composed patch is replaced by its own members.
        rows: [n, hidden_size] float32, of all of them.
    """

    patches: tuple[Patch, ...]
    members: tuple[Member, ...]
    rows: Embeddings = field(repr=False)

    @property
    def digest(self) -> str:
        """The identity of the stack: sha256 over its members' digests, a line each, in their order."""
        return hashlib.sha256("".join(f"{m.digest}\n" for m in self.members).encode("ascii")).hexdigest()

    @property
    def title(self) -> str:
        """Names and versions, in order."""
        return ", then ".join(f"{m.name} {m.version}" for m in self.members)

    def apply(self, base: Base, *, force: bool = False) -> PatchedModel:
        """The base with all rows in front of everything it reads.

        Raises:
            WrongBaseError: another base than the one the patches were made for, unless ``force``.
            UsageError: too many rows for its context.
        """
        from llmpatch.patched import PatchedModel

        for patch in self.patches:
            patch.check_base(base, allow=force)
        check_room(base, len(self.rows))
        return PatchedModel(base, self.rows, self.title)


def make_stack(patches: Sequence[Patch]) -> Stack:
    """Put patches one after another.

    Args:
        patches: At least one, in the order of their rows.

    Raises:
        WrongBaseError: they are for different bases.
        UsageError: none; a patch twice, or two versions of one; one that supersedes, contains or conflicts with another,
            or requires what is not there; more rows than a patch can hold. Each says what to do.
    """
    if not patches:
        raise UsageError("a stack needs a patch", hint="name at least one")
    check_one_base(patches)
    check_together([facts_of(patch.manifest, patch.digest) for patch in patches])
    members = tuple(member for patch in patches for member in members_of(patch))
    rows = np.concatenate([patch.embeddings for patch in patches])
    if len(rows) > MAX_TOKENS:
        raise UsageError(
            f"{len(patches)} patches have {len(rows)} virtual tokens together, at most {MAX_TOKENS} fit into one",
            hint=_SHORTER,
        )
    rows.setflags(write=False)
    return Stack(tuple(patches), members, rows)


def members_of(patch: Patch) -> tuple[Member, ...]:
    """The single patches that a patch stands for: its members, or itself."""
    manifest = patch.manifest
    own = Member(name=manifest.name, version=manifest.version, digest=patch.digest, tokens=manifest.prefix.tokens)
    return manifest.members or (own,)
