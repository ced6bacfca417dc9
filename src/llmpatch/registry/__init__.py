"""Registries: a static folder of signed files that says which patches there are, and that nobody hides a newer one.

    publish(Path("site"), [Path("refusal.lpatch")], keys=keys)     # a vendor: any web server serves the folder
    found = look(load_registry("acme"))                                # a customer: checked against a pinned root
    data = download(found, "patches/acme/refusal-1.0.0.lpatch")

The Update Framework by ``python-tuf`` (extra ``registry``). It vouches for freshness and for who may publish under which
name. The signature in a patch is checked besides and by the customer's own policy: see ``llmpatch.signing``. Knows nothing
about what is active. docs/registry.md explains it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmpatch.registry.advising import ask_advisories, fetch_advisories
    from llmpatch.registry.choosing import Choice, choose, newer, save_offered, search, take
    from llmpatch.registry.client import Found, download, look, offers, read_target
    from llmpatch.registry.configured import Registry, add_registry, load_registries, load_registry, remove_registry
    from llmpatch.registry.drafts import Drafted, drafted
    from llmpatch.registry.founding import add_vendor, cosign, create, refresh
    from llmpatch.registry.layout import Offer
    from llmpatch.registry.mirroring import mirror
    from llmpatch.registry.publishing import publish, publish_target, withdraw
    from llmpatch.registry.rotating import rotate
    from llmpatch.registry.settling import Outcome
    from llmpatch.registry.sourcing import install_from

_HOMES = {
    "Choice": "choosing", "Drafted": "drafts", "Found": "client", "Offer": "layout", "Outcome": "settling",
    "Registry": "configured",
    "add_registry": "configured", "add_vendor": "founding", "ask_advisories": "advising", "choose": "choosing",
    "cosign": "founding", "drafted": "drafts",
    "create": "founding", "download": "client", "fetch_advisories": "advising", "install_from": "sourcing",
    "load_registries": "configured", "load_registry": "configured", "look": "client", "mirror": "mirroring",
    "newer": "choosing", "offers": "client", "publish": "publishing", "publish_target": "publishing",
    "read_target": "client", "refresh": "founding", "remove_registry": "configured", "rotate": "rotating",
    "save_offered": "choosing", "search": "choosing", "take": "choosing", "withdraw": "publishing",
}  # fmt: skip

__all__ = [
    "Choice",
    "Drafted",
    "Found",
    "Offer",
    "Outcome",
    "Registry",
    "add_registry",
    "add_vendor",
    "ask_advisories",
    "choose",
    "cosign",
    "create",
    "download",
    "drafted",
    "fetch_advisories",
    "install_from",
    "load_registries",
    "load_registry",
    "look",
    "mirror",
    "newer",
    "offers",
    "publish",
    "publish_target",
    "read_target",
    "refresh",
    "remove_registry",
    "rotate",
    "save_offered",
    "search",
    "take",
    "withdraw",
]


def __getattr__(name: str) -> Any:
    """Import a part when it is asked for, and say once what to install for it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'llmpatch.registry' has no attribute {name!r}")
    from llmpatch.registry.configured import needing_tuf

    with needing_tuf():
        return getattr(importlib.import_module(f"llmpatch.registry.{_HOMES[name]}"), name)
