"""Install from wherever a patch is: a folder or file, a registry by name, or the Hugging Face Hub.

    install_from(store, "acme/refusal@>=1,<2", signed_by(trust))
    install_from(store, "hf://acme/refusal-smollm2@v1.0.0", signed_by(trust))

Whoever carried it, the same ``verify`` decides. Only registries need ``tuf``.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from llmpatch.artifact import find_patch
from llmpatch.errors import UsageError
from llmpatch.registry.configured import load_registries
from llmpatch.store import Installed, Store, Verify, install, load
from llmpatch.versions import is_request


def install_from(
    store: Store, source: str, verify: Verify, *, registry: str | None = None, offline: bool = False, reason: str = ""
) -> Installed:
    """Fetch a patch if it is not on this machine, verify it, and put it into the store.

    Args:
        store: Which.
        source: A folder, a ``.lpatch``, ``VENDOR/SLUG[@RANGE]`` or ``hf://ORG/REPO[@REVISION]``. A name that lies here, or in
            ``./patches``, means that; ``registry`` or a range means a registry.
        verify: Who vouches for its bytes.
        registry: Ask this registry.
        offline: Stay off the network.
        reason: Recorded.

    Raises:
        UsageError: there is no such patch; offline, and it is on the Hub.
        LlmpatchError: whatever fetching, ``verify`` and the disk raise.
    """
    if source.startswith("hf://"):
        return _from_hub(store, source, verify, offline or registry is not None, reason)
    if is_request(source) and (registry is not None or "@" in source or _is_elsewhere(source)):
        from llmpatch.registry import choose, take

        choice = choose(source, registry=registry, offline=offline, revoked=load(store).state.revoked)
        return take(store, choice, verify, reason=reason)
    if registry is not None:
        raise UsageError(f"{source[:128]!r} is not a name in a registry", hint="VENDOR/SLUG or VENDOR/SLUG@RANGE")
    return install(store, find_patch(source), verify, reason=reason)


def _is_elsewhere(name: str) -> bool:
    """Whether a name is no path here, and there is a registry to ask."""
    return not os.path.lexists(find_patch(name)) and bool(load_registries())


def _from_hub(store: Store, address: str, verify: Verify, refused: bool, reason: str) -> Installed:
    if refused:
        raise UsageError(
            f"{address[:128]} is on the Hub, not in a registry, and needs the network",
            hint="leave --offline and --registry out",
        )
    from llmpatch.registry.hub import pull

    with tempfile.TemporaryDirectory() as folder:
        pulled = pull(address, Path(folder))
        return install(store, pulled.path, verify, reason=reason, origin=pulled.origin)
