import email.utils
import itertools
import json
import logging
import socket
import threading
import time

import pytest

from llmpatch.errors import ReferenceFailedError, UsageError
from llmpatch.progress import Silent
from llmpatch.recipe import DecodingSection
from llmpatch.references import collect
from llmpatch.references.endpoint import EndpointReference

KEY = "sk-very-secret-1234567890"


@pytest.fixture
def reference(endpoint, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)

    def make(url=endpoint.url, **options):
        options = {"api_key_env": "TEST_KEY", "backoff_seconds": 0.01, "retries": 3} | options
        return EndpointReference(url, "some-model", DecodingSection(max_new_tokens=7, seed=3), **options)

    return make


@pytest.fixture
def run(tmp_path):
    return lambda reference, prompts: collect(reference, prompts, tmp_path, progress=Silent())


def fail(run, reference, prompts):
    with pytest.raises(ReferenceFailedError) as caught:
        run(reference, prompts)
    assert KEY not in caught.value.message + caught.value.hint
    return caught.value


def stored_texts(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_prompts_are_asked_in_the_openai_shape_and_concurrently(endpoint, reference, run, make_prompts):
    endpoint.behave = lambda prompt, number, handler: time.sleep(0.05)
    answers = run(reference(concurrency=4, system="Be safe."), make_prompts(12))
    assert [a.text for a in answers] == [f"echo:{p.text}" for p in make_prompts(12)]
    assert endpoint.asked() == sorted(p.text for p in make_prompts(12))
    assert 1 < endpoint.most_in_flight <= 4
    _, headers, payload = endpoint.calls[0]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert payload["messages"][0] == {"role": "system", "content": "Be safe."}
    assert {k: payload[k] for k in ("model", "max_tokens", "temperature", "top_p", "seed")} == {
        "model": "some-model", "max_tokens": 7, "temperature": 0.0, "top_p": 1.0, "seed": 3,
    }  # fmt: skip


def test_it_works_inside_a_running_event_loop(endpoint, reference, run, make_prompts):
    import asyncio

    async def notebook():
        return run(reference(), make_prompts(2))

    assert len(asyncio.run(notebook())) == 2


def test_no_key_is_sent_where_none_is_named(endpoint, reference, run, make_prompts):
    run(reference(api_key_env=None), make_prompts(1))
    assert "Authorization" not in endpoint.calls[0][1]


@pytest.mark.parametrize("status", [500, 503, 408, 429])
def test_a_passing_failure_is_tried_again(endpoint, reference, run, make_prompts, status):
    endpoint.behave = lambda prompt, number, handler: number == 1 and handler.reply(status, "later")
    assert [a.text for a in run(reference(), make_prompts(3))] == [f"echo:{p.text}" for p in make_prompts(3)]
    assert len(endpoint.calls) == 6


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured_by_every_request(endpoint, reference, run, make_prompts, form):
    stamps = []

    def behave(prompt, number, handler):
        stamps.append(time.monotonic())
        if len(stamps) == 1:
            value = "1" if form == "seconds" else email.utils.formatdate(time.time() + 2, usegmt=True)
            return handler.reply(429, "slow down", [("Retry-After", value)])
        return False

    endpoint.behave = behave
    run(reference(concurrency=1), make_prompts(3))
    assert len(stamps) == 4
    assert stamps[1] - stamps[0] >= 0.9
    assert stamps[2] - stamps[1] < 0.9 or form == "date"


def test_who_waited_for_the_server_does_not_start_all_at_once(endpoint, reference, run, make_prompts):
    stamps = []

    def behave(prompt, number, handler):
        stamps.append(time.monotonic())
        return len(stamps) == 1 and handler.reply(429, "slow down", [("Retry-After", "1")])

    endpoint.behave = behave
    run(reference(requests_per_minute=600, concurrency=8), make_prompts(6))
    later = [stamp for stamp in stamps if stamp - stamps[0] >= 0.95]
    assert len(later) >= 4
    assert all(b - a > 0.05 for a, b in itertools.pairwise(later))


def test_requests_per_minute_spaces_requests(endpoint, reference, run, make_prompts):
    start = time.monotonic()
    run(reference(requests_per_minute=600, concurrency=8), make_prompts(6))
    assert time.monotonic() - start >= 0.5


def test_a_dead_endpoint_is_given_up_with_the_count(reference, run, make_prompts):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    error = fail(run, reference(url=f"http://127.0.0.1:{port}/v1", concurrency=2, retries=1), make_prompts(40))
    assert "40 of 40 prompts got no answer" in error.message
    assert "were not tried" in error.message
    assert "ConnectError" in error.message
    assert "(after 2 tries)" in error.message


def test_a_slow_endpoint_times_out(endpoint, reference, run, make_prompts):
    release = threading.Event()
    endpoint.behave = lambda prompt, number, handler: release.wait(60)
    try:
        error = fail(run, reference(timeout_seconds=0.2, retries=1), make_prompts(1))
    finally:
        release.set()
    assert "no answer within 0.2 s (after 2 tries)" in error.message


def test_stopping_does_not_wait_for_requests_in_flight(endpoint, reference):
    release = threading.Event()
    endpoint.behave = lambda prompt, number, handler: prompt == "slow" and release.wait(100)
    answers = reference(timeout_seconds=100).answer(["quick", "slow"])
    try:
        assert next(answers)[1].text == "echo:quick"
        start = time.monotonic()
        answers.close()
        assert time.monotonic() - start < 50
    finally:
        release.set()


def test_a_server_that_drips_bytes_times_out(endpoint, reference, run, make_prompts):
    def drip(prompt, number, handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)

    endpoint.behave = drip
    assert "no answer within 0.4 s" in fail(run, reference(timeout_seconds=0.4, retries=0), make_prompts(1)).message


def test_a_dropped_connection_is_tried_again_then_reported(endpoint, reference, run, make_prompts):
    def drop(prompt, number, handler):
        if number <= 2 or prompt == "prompt 1 ☂":
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return True
        return False

    endpoint.behave = drop
    error = fail(run, reference(), make_prompts(4))
    assert "1 of 4 prompts got no answer; the first is 'prompt 1 ☂'" in error.message
    assert "(after 4 tries)" in error.message
    before = len(endpoint.calls)
    endpoint.behave = lambda prompt, number, handler: False
    assert len(run(reference(), make_prompts(4))) == 4
    assert [call[0] for call in endpoint.calls[before:]] == ["prompt 1 ☂"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_stops_at_once_and_is_never_shown(endpoint, reference, run, make_prompts, tmp_path, status):
    endpoint.behave = lambda prompt, number, handler: handler.reply(status, f"bad key \x1b[31m{KEY}")
    error = fail(run, reference(concurrency=1), make_prompts(20))
    assert [call[0] for call in endpoint.calls] == ["prompt 0 ☂", "Hello!"][: 1 if status == 401 else 2]
    assert "TEST_KEY" in error.hint
    assert "[key hidden]" in error.message
    assert "\x1b" not in error.message


RUBBISH = {
    "empty": b"",
    "html": b"<html>hello</html>",
    "list": b"[]",
    "no choices": b'{"choices": []}',
    "choices a number": b'{"choices": 5}',
    "message a text": b'{"choices": [{"message": "hi"}]}',
    "content a list": b'{"choices": [{"message": {"content": ["hi"]}}]}',
    "content null": b'{"choices": [{"message": {"content": null}}]}',
    "finish a number": b'{"choices": [{"message": {"content": "hi"}, "finish_reason": 5}]}',
    "not utf-8": b'{"choices": \xff\xfe',
    "deep": b"[" * 200_000,
    "digits": b"1" * 10_000,
    "control characters": b"\x1b[2J\x00\x07",
    "huge": b" " * (9 << 20),
    "the key": f"<p>{KEY}".encode(),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_is_tried_again_then_reported_safely(endpoint, reference, run, make_prompts, name):
    endpoint.behave = lambda prompt, number, handler: handler.reply(200, RUBBISH[name])
    error = fail(run, reference(retries=1), make_prompts(1))
    assert len(endpoint.calls) == 2
    assert "not a whole chat completion" in error.message or "larger than" in error.message
    assert error.message.isprintable()
    assert len(error.message) < 500


def test_a_request_the_server_rejects_is_not_repeated_and_costs_only_itself(endpoint, reference, run, make_prompts):
    filtered = {f"prompt {n} ☂" for n in range(1, 9)}
    endpoint.behave = lambda prompt, number, handler: prompt in filtered and handler.reply(400, "bad value")
    error = fail(run, reference(concurrency=1), make_prompts(12))
    assert len(endpoint.calls) == 12
    assert "8 of 12 prompts" in error.message
    assert "status 400: 'bad value'" in error.message


FILTERED = [
    (400, '{"error": {"code": "content_filter"}}'),
    (403, '{"error": {"message": "some-model requires moderation on X. Your input was flagged"}}'),
    (200, '{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}'),
    (400, '{"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}'),
    (400, '{"error": {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}}'),
    (200, '{"choices": [{"message": {"content": "Sure, to make"}, "finish_reason": "content_filter"}]}'),
]


@pytest.mark.parametrize(("status", "body"), FILTERED)
def test_a_prompt_that_a_service_turns_away_is_answered_with_nothing(
    endpoint, reference, run, make_prompts, status, body
):
    """Also the first ones, once another one was answered; a repeated run asks none of them again."""
    turned = {f"prompt {n} ☂" for n in (0, 1, *range(3, 10))}
    endpoint.behave = lambda prompt, number, handler: prompt in turned and handler.reply(status, body)
    answers = run(reference(concurrency=1), make_prompts(10))
    assert [a.finish for a in answers] == ["none"] * 2 + ["stop"] + ["none"] * 7
    assert {a.text for a in answers} == {"", "echo:prompt 2 ☂"}
    before = len(endpoint.calls)
    assert run(reference(concurrency=1), make_prompts(10)) == answers
    assert len(endpoint.calls) == before == 10


@pytest.mark.parametrize(("status", "body"), FILTERED[:3])
def test_a_service_that_turns_all_away_is_given_up_and_nothing_of_it_kept(
    endpoint, reference, run, make_prompts, status, body
):
    endpoint.behave = lambda prompt, number, handler: handler.reply(status, body)
    error = fail(run, reference(concurrency=2), make_prompts(40))
    assert "40 of 40 prompts got no answer" in error.message
    assert len(endpoint.calls) < 8
    assert "2 of 2 prompts got no answer" in fail(run, reference(system="Hm."), make_prompts(2)).message
    endpoint.behave = lambda prompt, number, handler: False
    assert all(a.finish == "stop" for a in run(reference(), make_prompts(40)))


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_service_that_turns_all_of_these_away_and_answers_a_greeting_is_asked_on(
    endpoint, reference, run, make_prompts, concurrency
):
    endpoint.behave = lambda prompt, number, handler: prompt != "Hello!" and handler.reply(*FILTERED[0])
    assert [a.finish for a in run(reference(concurrency=concurrency), make_prompts(40))] == ["none"] * 40
    assert endpoint.asked().count("Hello!") == 1
    assert len(endpoint.calls) == 41


def test_filters_are_faster_than_answers(endpoint, reference, run, make_prompts):
    """So many prompts are turned away before the first answer is there, and more of them after."""

    def behave(prompt, number, handler):
        if int(prompt.split()[1]) % 4 if prompt != "Hello!" else False:
            return handler.reply(*FILTERED[0])
        time.sleep(0.1)
        return False

    endpoint.behave = behave
    answers = run(reference(concurrency=8), make_prompts(40))
    assert [a.finish for a in answers] == ["stop", "none", "none", "none"] * 10


def test_what_is_answered_after_a_greeting_was_not_leaves_the_rest_untried_and_says_so(
    endpoint, reference, run, make_prompts
):
    turned, asked = {f"prompt {n} ☂" for n in range(1, 5)}, threading.Event()

    def behave(prompt, number, handler):
        if prompt == "Hello!":
            asked.set()
            return handler.reply(400, "who are you?")
        if prompt == "prompt 0 ☂":
            asked.wait(5)
            time.sleep(0.2)
        return prompt in turned and handler.reply(*FILTERED[0])

    endpoint.behave = behave
    error = fail(run, reference(concurrency=2), make_prompts(20))
    assert "of 20 prompts got no answer" in error.message
    assert "were not tried any more" in error.message


def test_a_firewall_that_forbids_single_prompts_costs_only_these(endpoint, reference, run, make_prompts):
    walled = {f"prompt {n} ☂" for n in (0, 5, 7)}
    endpoint.behave = lambda prompt, number, handler: prompt in walled and handler.reply(403, "Request blocked")
    error = fail(run, reference(concurrency=1), make_prompts(12))
    assert "3 of 12 prompts got no answer; the first is 'prompt 0 ☂': it refuses us (403)" in error.message
    assert "leave out" in error.hint


@pytest.mark.parametrize("status", [402, 403, 404])
def test_an_account_that_ends_half_way_is_not_asked_to_the_end(endpoint, reference, run, make_prompts, status):
    endpoint.behave = lambda prompt, number, handler: int(prompt.split()[1]) >= 3 and handler.reply(status, "no more")
    error = fail(run, reference(concurrency=1), make_prompts(100))
    assert "97 of 100 prompts got no answer (94 were not tried any more)" in error.message
    assert len(endpoint.calls) == 6


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, '{"error": {"message": "Your account has been flagged for abuse and is suspended"}}'),
        (400, '{"error": {"code": "context_length_exceeded", "message": "maximum context length is 2048"}}'),
        (422, '{"detail": [{"loc": ["body"], "msg": "bad", "input": "content_filter flagged"}]}'),
    ],
)
def test_what_is_not_about_one_prompt_is_no_answer_to_any(endpoint, reference, run, make_prompts, status, body):
    endpoint.behave = lambda prompt, number, handler: number == 1 and "3" in prompt and handler.reply(status, body)
    fail(run, reference(concurrency=1), make_prompts(4))


def test_a_redirect_is_not_followed_so_the_key_stays(endpoint, reference, run, make_prompts):
    elsewhere = type(endpoint)()
    try:
        endpoint.behave = lambda prompt, number, handler: handler.reply(
            307, "", [("Location", f"{elsewhere.url}/chat/completions?echo={KEY}")]
        )
        error = fail(run, reference(concurrency=1), make_prompts(5))
    finally:
        elsewhere.close()
    assert elsewhere.calls == []
    assert "redirects (307)" in error.message
    assert elsewhere.url in error.message
    assert len(endpoint.calls) == 1


def test_the_key_reaches_no_file_no_log_no_repr(endpoint, reference, run, make_prompts, tmp_path, caplog, reply):
    caplog.set_level(logging.DEBUG)
    endpoint.behave = lambda prompt, number, handler: handler.reply(200, reply(f"your key is {KEY}, {prompt}"))
    made = reference()
    answers = run(made, make_prompts(3))
    assert answers[0].text == "your key is [key hidden], prompt 0 ☂"
    assert KEY.encode() not in stored_texts(tmp_path)
    assert KEY not in repr(made) + json.dumps(made.identity()) + caplog.text


def test_cut_answers_and_stated_refusals_are_answers(endpoint, reference, run, make_prompts, reply):
    refusal = json.dumps({"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]})
    thought = json.dumps({"choices": [{"message": {"content": None}, "finish_reason": "length"}]})
    bodies = {"prompt 0 ☂": reply("and so", "length"), "prompt 1 ☂": refusal, "prompt 2 ☂": thought}
    endpoint.behave = lambda prompt, number, handler: handler.reply(200, bodies[prompt])
    answers = [(a.text, a.finish) for a in run(reference(), make_prompts(3))]
    assert answers == [("and so", "length"), ("No.", "stop"), ("", "length")]


def test_the_environment_must_hold_a_key(reference, run, make_prompts, monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(UsageError, match="TEST_KEY is not set"):
        run(reference(), make_prompts(1))
    for bad in ("two words", "line\nbreak", "schlüssel"):
        monkeypatch.setenv("TEST_KEY", bad)
        with pytest.raises(UsageError) as caught:
            run(reference(), make_prompts(1))
        assert bad not in caught.value.message + caught.value.hint


def test_a_proxy_setting_that_cannot_work_is_named(reference, run, make_prompts, monkeypatch):
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1:1")
    with pytest.raises(UsageError, match="cannot set up HTTP") as caught:
        run(reference(), make_prompts(1))
    assert "ALL_PROXY" in caught.value.hint


@pytest.mark.parametrize(
    "url",
    ["", "ftp://host/v1", "host/v1", "file:///etc/passwd", "http://", "http://host:port/v1", "https://[::1/v1",
     "https://host/v1#x", "https://ho st/v1", "https://host/\x00"],
)  # fmt: skip
def test_an_address_that_is_not_one_is_refused(reference, url):
    with pytest.raises(UsageError, match=r"reference\.url"):
        reference(url=url)


@pytest.mark.parametrize(
    "url", [f"https://me:{KEY}@host/v1", f"https://host/v1?api_key={KEY}", f"https://host/?sig={KEY}"]
)
def test_a_secret_in_the_address_is_refused_and_not_repeated(reference, url):
    with pytest.raises(UsageError, match="carries a secret") as caught:
        reference(url=url)
    assert KEY not in caught.value.message + caught.value.hint


def test_a_key_in_place_of_a_name_is_refused_and_not_repeated(reference):
    with pytest.raises(UsageError, match="api_key_env") as caught:
        reference(api_key_env=KEY)
    assert KEY not in caught.value.message + caught.value.hint


def test_the_address_is_completed_once(reference):
    full = "https://host/v1/chat/completions"
    assert reference(url="https://host/v1").address == full
    assert reference(url="https://host/v1/").address == full
    assert reference(url=full).address == full
    assert reference(url="https://host/v1?api-version=2").address == f"{full}?api-version=2"
