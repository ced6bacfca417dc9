"""The page at `/`, in a headless Chromium where there is one: two answers side by side, and nothing from elsewhere.

LLMPATCH_PICTURES names a folder that keeps the screenshots, to be looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from browserkit import CHROMIUM, browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture
def page(live, tmp_path):
    with browser(tmp_path) as made:
        made.open(f"{live.url}/")
        yield made


def keep(page, name):
    if folder := os.environ.get("LLMPATCH_PICTURES"):
        page.picture(Path(folder) / f"{name}.png")


ASK = "document.getElementById('go')"


def ask(page, text, tokens=8):
    page.run(f"document.getElementById('prompt').value = {text!r}; document.getElementById('tokens').value = {tokens}")
    page.run(f"{ASK}.click()")
    page.wait(f"!{ASK}.disabled")


def texts(page, selector):
    return page.run(f"[...document.querySelectorAll('{selector}')].map(found => found.textContent)")


def choose(page, side, model):
    page.run(f"document.querySelectorAll('select.set')[{side}].value = {model!r}")


def test_the_page_asks_two_sets_and_says_which_answered(live, patches, page):
    level = {name: f"acme/{name}@1.0.0:{patches[name].digest[:12]}" for name in ("first", "second")}
    page.wait("document.querySelectorAll('select.set')[1].options.length > 1")
    page.wait(f"document.getElementById('active').textContent === {level['first']!r}")
    ask(page, "Tell me")
    keep(page, "asked")
    assert texts(page, ".text") == [live.expected("Tell me"), live.expected("Tell me", [patches["first"]])]
    assert texts(page, ".level") == ["none", level["first"]]
    choose(page, 0, "tiny@acme/second@1.0.0")
    ask(page, "Tell me")
    assert texts(page, ".text")[0] == live.expected("Tell me", [patches["second"]])
    assert texts(page, ".level") == [level["second"], level["first"]]
    assert page.complaints() == []


def test_the_page_shows_errors_and_fetches_nothing_from_elsewhere(live, page):
    page.wait("document.querySelectorAll('select.set')[1].options.length > 1")
    ask(page, "x" * 900)
    keep(page, "refused")
    assert all("context" in text for text in texts(page, ".text"))
    assert page.run("document.querySelectorAll('.text.failed').length") == 2
    assert page.urls()
    assert all(url.startswith(f"{live.url}/") for url in page.urls())


def test_an_answer_can_be_stopped_in_the_page(live, page):
    page.wait("document.querySelectorAll('select.set')[1].options.length > 1")
    page.run(f"document.getElementById('tokens').value = 256; {ASK}.click()")
    page.run("document.getElementById('stop').click()")
    page.wait(f"!{ASK}.disabled")
    assert texts(page, ".numbers") == ["· stopped", "· stopped"]
    page.wait("fetch('health').then(found => found.ok)")
    assert live.chat("Tell me").status_code == 200
