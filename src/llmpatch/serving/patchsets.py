"""A patch set: the patches in front of a request, in order, what to call them, and all that is computed for them once.

patches = PatchSet.of([patch_a, patch_b])
patches.level        # "acme/refusal@1.2.0:3f2a9c01d2e4+acme/bias@1.0.0:..."; "none" without patches
ready = prepare(engine, patches, unpatched)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmpatch.artifact import Patch, prefix_of
from llmpatch.bases import Base
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.prefix import Rows, common_head
from llmpatch.serving import canary

if TYPE_CHECKING:
    import torch

    from llmpatch.serving.engine import Engine
    from llmpatch.serving.keyvalues import Prefix

UNPATCHED = "none"


class CanaryError(LlmpatchError):
    """A patch is not applied as it must be."""


@dataclass(frozen=True, eq=False)
class PatchSet:
    """Patches in order.

    Attributes:
        patches: In order; none for the base alone.
        key: Their digests, joined; the identity of the set.
        level: Their names, versions and the start of their digests: what a response says.
    """

    patches: tuple[Patch, ...]
    key: str
    level: str

    @classmethod
    def of(cls, patches: Sequence[Patch]) -> PatchSet:
        """A set of patches."""
        parts = [f"{p.manifest.name}@{p.manifest.version}:{p.digest[:12]}" for p in patches]
        return cls(tuple(patches), "+".join(p.digest for p in patches), "+".join(parts) or UNPATCHED)

    def rows(self) -> Rows | None:
        """All virtual tokens [n, hidden_size] float32, in order; ``None`` without patches."""
        return prefix_of(self.patches)


@dataclass(frozen=True, eq=False)
class Ready:
    """A set with its prefix computed and its canary content. Immutable: a request keeps the one it came with.

    Attributes:
        patches: The set.
        prefix: Keys and values that its requests share.
        probes: What the canary asks, as token ids.
        expected: What it must find.
        check: What it found before the first use.
    """

    patches: PatchSet
    prefix: Prefix
    probes: list[list[int]]
    expected: torch.Tensor
    check: canary.Check | None = None

    @property
    def level(self) -> str:
        """See :class:`PatchSet`."""
        return self.patches.level


def chat_head(base: Base) -> list[int]:
    """Token ids that every chat without a system message starts with."""
    return common_head([base.chat_ids(text) for text in ("A", "b c", "7", "\n?")])


def prepare(engine: Engine, patches: PatchSet, unpatched: torch.Tensor | None, probes: list[list[int]]) -> Ready:
    """Compute a set's prefix, and let the canary prove it. In steps, so that running answers go on between them.

    Args:
        engine: Owner of the base.
        patches: The set.
        unpatched: What the canary finds on the base alone; ``None`` when ``patches`` is that.
        probes: What it asks, from :func:`~llmpatch.serving.canary.probe_ids`.

    Raises:
        UsageError: the rows leave too little of the context.
        CanaryError: what would be served is not the patched model.
    """
    rows, base = patches.rows(), engine.base
    head = chat_head(base)
    if rows is not None and 2 * len(rows) > engine.limits.context:
        raise UsageError(f"{len(rows)} virtual tokens take over half of a context of {engine.limits.context}",
                         hint="use fewer patches, a merged one, or a larger --context")  # fmt: skip
    prefix = engine.call(lambda batch: batch.memory.make_prefix(rows, head))
    expected = engine.call(lambda _: canary.plain(base, rows, probes))
    ready = Ready(patches, prefix, probes, expected)
    found = probe(engine, ready, unpatched)
    if not found.ok:
        raise CanaryError(
            f"{patches.level}: what would be served is {found.delta:.2g} from the patched model and {found.distance:.2g} "
            f"from the base, as the canary measures it",
            hint="it is not served; is this architecture supported (docs/serving.md)?",
        )
    return replace(ready, check=found)


def probe(engine: Engine, ready: Ready, unpatched: torch.Tensor | None) -> canary.Check:
    """Ask the canary about a set."""
    intact = engine.call(lambda batch: batch.memory.intact(ready.prefix))
    found = engine.call(lambda batch: canary.served(batch, ready.prefix, ready.probes))
    other = unpatched if ready.patches.patches else None
    half = canary.rounds(engine.base)
    return engine.call(lambda _: canary.check(found, ready.expected, other, intact, half=half))
