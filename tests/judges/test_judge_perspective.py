"""The Perspective adapter against a loopback server that behaves as the service does, and as it should not."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.judges import identity, open_judge, perspective
from llmpatch.judges.asking import ask_json
from llmpatch.judges.perspective import API_KEY_ENV, MAX_TEXT_BYTES, RATE_ENV, URL_ENV, body, read_score

KEY = "secret-key"


class Service:
    """Answers with what ``replies`` holds, in turn, the last for ever; remembers what it was asked."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.asked.append(request)
                service.headers.append({k.lower(): v for k, v in self.headers.items()} | {"path": self.path})
                service.times.append(time.monotonic())
                status, reply = service.replies.pop(0) if len(service.replies) > 1 else service.replies[0]
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                if status == 429:
                    self.send_header("retry-after", "0")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    made = Service()
    monkeypatch.setenv(API_KEY_ENV, KEY)
    monkeypatch.setenv(RATE_ENV, "500")
    monkeypatch.setenv(URL_ENV, f"http://127.0.0.1:{made.server.server_port}/analyze")
    yield made
    made.server.shutdown()
    made.server.server_close()


def said(value: Any) -> dict[str, Any]:
    return {"attributeScores": {"TOXICITY": {"summaryScore": {"value": value, "type": "PROBABILITY"}}}}


def test_each_text_is_asked_once_and_the_key_stays_in_a_header(service: Service) -> None:
    service.replies = [(200, said(0.25)), (200, said(0.75))]
    judge = open_judge("perspective")
    assert judge.measures == "toxicity"
    assert judge.score(["", "", ""], ["a", "  ", "b"]) == [0.25, 0.0, 0.75]
    assert [request["comment"]["text"] for request in service.asked] == ["a", "b"]
    assert all(request["doNotStore"] and request["languages"] == ["en"] for request in service.asked)
    assert {headers["x-goog-api-key"] for headers in service.headers} == {KEY}
    assert all(KEY not in headers["path"] for headers in service.headers)
    assert KEY not in json.dumps(identity(judge))


def test_requests_are_spread_over_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RATE_ENV, "20")
    service.replies = [(200, said(0.5))]
    open_judge("perspective").score([""] * 4, ["a", "b", "c", "d"])
    gaps = [b - a for a, b in zip(service.times, service.times[1:], strict=False)]
    assert sum(gaps) >= 0.14


def test_a_busy_service_is_asked_again(service: Service) -> None:
    service.replies = [(429, {}), (429, {}), (200, said(0.5))]
    assert open_judge("perspective").score([""], ["a"]) == [0.5]
    assert len(service.asked) == 3


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((403, {"error": "no"}), "HTTP 403"),
        ((400, {"error": "API key not valid"}), "HTTP 400"),
        ((200, b"<html>"), "not answer in JSON"),
        ((200, b"[" * 100_000), "not answer in JSON"),
        ((200, b" " * (1 << 21)), "bytes"),
        ((200, {}), "no toxicity score"),
        ((200, said(1.5)), "no toxicity score"),
        ((200, said("high")), "no toxicity score"),
        ((200, said(None)), "no toxicity score"),
    ],
)
def test_rubbish_is_a_clear_error(service: Service, reply: tuple[int, Any], message: str) -> None:
    service.replies = [reply]
    with pytest.raises(LlmpatchError, match=message) as caught:
        open_judge("perspective").score([""], ["a"])
    assert KEY not in str(caught.value)


def test_a_service_that_is_down_is_given_up_after_some_patience(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    pauses: list[float] = []
    with (
        httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(503))) as client,
        pytest.raises(LlmpatchError, match="HTTP 503"),
    ):
        ask_json(client, "http://nowhere/", {}, perspective.SERVICE, sleep=pauses.append)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]


@pytest.mark.parametrize("key", ["", " ", "with\nline", "schlüssel"])
def test_without_a_usable_key_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv(API_KEY_ENV, key)
    with pytest.raises(UsageError, match=API_KEY_ENV):
        open_judge("perspective")


@pytest.mark.parametrize("url", ["https://host/analyze?key=AIzaSy", "https://me:word@host/analyze", "http://[::1/x"])
def test_an_address_with_a_key_is_refused_for_evidence_names_it(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(API_KEY_ENV, KEY)
    monkeypatch.setenv(URL_ENV, url)
    with pytest.raises(UsageError, match=URL_ENV) as caught:
        open_judge("perspective")
    assert "AIzaSy" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("rate", ["", "0", "-1", "nan", "many", "1e9"])
def test_a_wrong_rate_is_refused(monkeypatch: pytest.MonkeyPatch, rate: str) -> None:
    monkeypatch.setenv(API_KEY_ENV, KEY)
    monkeypatch.setenv(RATE_ENV, rate)
    with pytest.raises(UsageError, match=RATE_ENV):
        open_judge("perspective")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_reply_gives_a_probability_or_an_error(reply: Any) -> None:
    for wrapped in (reply, {"attributeScores": reply}, said(reply)):
        try:
            found = read_score(wrapped)
        except LlmpatchError:
            continue
        assert 0 <= found <= 1


def test_a_long_text_is_cut_within_a_character() -> None:
    text = body("é" * MAX_TEXT_BYTES)["comment"]["text"]
    assert text == "é" * (MAX_TEXT_BYTES // 2)
