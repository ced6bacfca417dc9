"""Patches for the tiny model, and a server behind the first of them."""

from __future__ import annotations

import pytest

from servekit import make_patch, serving


@pytest.fixture(scope="session")
def patches(tiny):
    return {name: make_patch(tiny, f"acme/{name}", seed=seed) for seed, name in enumerate(("first", "second", "third"))}


@pytest.fixture(scope="module")
def live(tiny, patches):
    with serving(tiny, [patches["first"]]) as running:
        running.desk.given += (patches["second"], patches["third"])
        yield running
