"""Requests that schemathesis makes from the server's own OpenAPI description: right ones, and wrong ones.

`make fuzz` sends thousands (LLMPATCH_FUZZ is the number for each operation and kind) and writes benchmarks/results/fuzz_api.json.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from servekit import TOKEN, serving

NUMBER = int(os.environ.get("LLMPATCH_FUZZ", "25"))
FIGURES = os.environ.get("LLMPATCH_FUZZ_FIGURES")
SECONDS = 60  # without an answer for so long, it hangs
OPERATIONS = [
    ("/v1/chat/completions", "POST"),
    ("/v1/completions", "POST"),
    ("/v1/models/{model}", "GET"),
    ("/admin/activate", "POST"),
    ("/admin/rollback", "POST"),
]

ASKED = [
    (path, method, mode)
    for path, method in OPERATIONS
    for mode in GenerationMode
    if method == "POST" or mode is GenerationMode.POSITIVE  # every text is a right path
]

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def asked(tiny, patches):
    with serving(tiny, [patches["first"]], max_tokens=8) as running:
        running.desk.given += (patches["second"],)
        yield running


@pytest.mark.parametrize(("path", "method", "mode"), ASKED)
def test_what_is_made_from_the_description_is_answered(asked, path, method, mode):
    schema = schemathesis.openapi.from_dict(asked.http.get("/openapi.json").json())
    statuses: Counter[int] = Counter()

    # The same requests every time in `make test`, others each time in `make fuzz`.
    @settings(
        max_examples=NUMBER, deadline=None, database=None, derandomize=not FIGURES,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def ask(case):
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict) and statuses.total() % 2 and "/v1/" in path:
            # A request that is right by its form asks for a model that is not there, and for a million tokens.
            case.body |= {"model": "tiny", "patches": None, "max_tokens": 4, "n": 1}
        headers = {"authorization": f"Bearer {TOKEN}"}
        response = case.call(base_url=asked.url, headers=headers, timeout=SECONDS)
        statuses[response.status_code] += 1
        assert response.status_code < 500 or response.status_code == 503, (case.body, response.text)
        assert "Traceback" not in response.text

    ask()
    assert asked.http.get("/health").json()["status"] == "ok"
    assert asked.desk.engine.failures == 0
    assert 503 not in statuses  # one request at a time is no overload
    refused = sum(n for status, n in statuses.items() if status >= 400)
    assert refused or mode is GenerationMode.POSITIVE
    assert 200 in statuses or mode is GenerationMode.NEGATIVE or "completions" not in path
    if FIGURES:
        row = {"operation": f"{method} {path}", "mode": mode.value, "statuses": dict(statuses)}
        with Path(FIGURES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def test_every_operation_that_takes_something_is_asked(asked):
    described = asked.http.get("/openapi.json").json()["paths"]
    takes = {
        (path, method.upper())
        for path, methods in described.items()
        for method, about in methods.items()
        if about.get("requestBody") or about.get("parameters")
    }
    assert takes == set(OPERATIONS)
