"""A stack: the rows of several patches one after another or side by side, after every check that needs no model to answer.

    stack = make_stack([read_patch(first), read_patch(second)])
    stack.rows.shape, stack.members, stack.digest

Concatenation is associative: a composed patch stands for its members, so a stack of stacks is the stack of all members, with
the same rows and the same digest. It is not commutative: order is part of what a stack is. Side by side it is (ADR 0035).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from llmpatch.artifact import Patch, prefix_of
from llmpatch.artifact.manifest import Member
from llmpatch.artifact.tensors import MAX_TOKENS, Embeddings
from llmpatch.errors import UsageError
from llmpatch.prefix import Rows, check_room
from llmpatch.store import check_one_base, check_together, facts_of

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.patched import PatchedModel

_SHORTER = "leave one out, or train one cumulative patch for all of them (docs/composition.md)"


@dataclass(frozen=True, eq=False)
class Stack:
    """Patches in an order, or side by side.

    Attributes:
        patches: As given; side by side in an order of their own.
        members: The single patches whose rows these are, in order; a composed patch is replaced by its own members.
        rows: [n, hidden_size] float32, of all of them.
        parallel: Side by side: none reads another.
    """

    patches: tuple[Patch, ...]
    members: tuple[Member, ...]
    rows: Embeddings = field(repr=False)
    parallel: bool = False

    @property
    def digest(self) -> str:
        """The identity of the stack: sha256 over its members' digests, a line each, in their order."""
        kind = "parallel " if self.parallel else ""
        return hashlib.sha256("".join(f"{kind}{m.digest}\n" for m in self.members).encode("ascii")).hexdigest()

    @property
    def arrangement(self) -> dict[str, str]:
        """What a manifest or a record says of how they stand: nothing of patches one after another."""
        return {"arrangement": "parallel"} if self.parallel else {}

    @property
    def places(self) -> int:
        """Tokens of context it takes: side by side the first rows share one."""
        return len(self.rows) - (len(self.patches) - 1 if self.parallel else 0)

    @property
    def title(self) -> str:
        """Names and versions, in order."""
        return (" beside " if self.parallel else ", then ").join(f"{m.name} {m.version}" for m in self.members)

    @property
    def prefix(self) -> Rows:
        """What stands in front of a base."""
        return stack_prefix(self.patches, parallel=self.parallel)

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
        return PatchedModel(base, self.prefix, self.title)


def stack_prefix(patches: Sequence[Patch], *, parallel: bool = False) -> Rows:
    """The prefix of patches, at least one, that were checked: one after another in their order, or side by side."""
    if parallel and len(patches) > 1:
        from llmpatch.prefix import parallel as side_by_side

        return side_by_side([patch.prefix() for patch in patches])  # type: ignore[misc]
    found = prefix_of(patches)
    assert found is not None
    return found


def make_stack(patches: Sequence[Patch], *, parallel: bool = False) -> Stack:
    """Put patches one after another, or side by side.

    Args:
        patches: At least one, in the order of their rows.
        parallel: Side by side, where order makes no difference: they get one of their own.

    Raises:
        WrongBaseError: they are for different bases.
        UsageError: none; a patch twice, or two versions of one; one that supersedes, contains or conflicts with another,
            or requires what is not there; more rows than a patch can hold; one side by side with others that is composed
            itself. Each says what to do.
    """
    if not patches:
        raise UsageError("a stack needs a patch", hint="name at least one")
    check_one_base(patches)
    if parallel:
        if composed := next((patch.manifest for patch in patches if patch.manifest.members), None):
            raise UsageError(
                f"{composed.name} {composed.version} is composed itself",
                hint="name the single patches, its members, instead",
            )
        patches = sorted(patches, key=lambda patch: patch.prefix_sha256)
    check_together([facts_of(patch.manifest, patch.digest) for patch in patches])
    members = tuple(member for patch in patches for member in members_of(patch))
    rows = np.concatenate([patch.embeddings for patch in patches])
    if len(rows) > MAX_TOKENS:
        raise UsageError(
            f"{len(patches)} patches have {len(rows)} virtual tokens together, at most {MAX_TOKENS} fit into one",
            hint=_SHORTER,
        )
    rows.setflags(write=False)
    return Stack(tuple(patches), members, rows, parallel)


def members_of(patch: Patch) -> tuple[Member, ...]:
    """The single patches that a patch stands for: its members, or itself."""
    manifest = patch.manifest
    own = Member(name=manifest.name, version=manifest.version, digest=patch.digest, tokens=manifest.prefix.tokens)
    return manifest.members or (own,)
