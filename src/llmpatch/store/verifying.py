"""Who vouches for the bytes that are installed: a trusted signature, or on purpose nobody.

install(store, Path("refusal.lpatch"), signed_by(load_trust(Path("trust.json"))))
install(store, Path("my-patch"), unsigned)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.artifact import parse_patch, read_contents
from llmpatch.store.interfaces import Verified, Verify

if TYPE_CHECKING:
    from llmpatch.signing import Trust


def signed_by(trust: Trust) -> Verify:
    """Take only what is signed as a trust policy wants; see :func:`llmpatch.signing.verify_patch`."""

    def verify(path: Path) -> Verified:
        from llmpatch.signing import verify_patch

        found = verify_patch(path, trust)
        return Verified(found.patch, found.contents, found.signer)

    return verify


def unsigned(path: Path) -> Verified:
    """Take a patch that is whole, whoever made it. A signature it has is kept but says nothing: nobody checked it.

    Raises:
        UsageError: there is no patch.
        IntegrityError: it is damaged, foreign or oversized.
    """
    contents = read_contents(path)
    return Verified(parse_patch(contents.files, path, signature=contents.signature), contents.members)
