"""What a store is given: somebody who vouches for bytes, and somebody who judges a set of patches.

    verify: Verify = lambda path: Verified(patch, contents, signer="...")
    gate: Gate = lambda patches: Judged(passed=True, ...)

So that a store knows nothing of keys, registries, models or policies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpatch.artifact import Patch


@dataclass(frozen=True)
class Verified:
    """A patch of which every byte was checked.

    Attributes:
        patch: As read from ``contents``.
        contents: File name -> the very bytes that were checked, with ``patch.sig`` if it was signed.
        signer: The trusted key that signed it; ``None`` if nobody did and that was allowed.
    """

    patch: Patch
    contents: Mapping[str, bytes] = field(repr=False)
    signer: str | None = None


@dataclass(frozen=True)
class Judged:
    """What a gate says of an ordered set of patches on one base.

    Attributes:
        passed: Whether all rules passed.
        failed: The rules that did not.
        policy: Name of the policy.
        policy_sha256: Its identity.
        verdict: The whole verdict, to be kept.
        attestation: The same as a statement, signed or not, to be kept as it is.
    """

    passed: bool
    failed: tuple[str, ...]
    policy: str
    policy_sha256: str
    verdict: Mapping[str, Any] = field(repr=False)
    attestation: bytes | None = field(default=None, repr=False)


Verify = Callable[[Path], Verified]
Gate = Callable[[Sequence[Patch]], Judged]
