"""Over HTTP: what OpenAI's clients send and read, which patch level answers, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from html.parser import HTMLParser

import httpx
import openai
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from llmpatch.generation import generate_ids
from llmpatch.recipe import DecodingSection
from llmpatch.serving import _served_name
from llmpatch.serving.guard import Guard
from llmpatch.serving.limits import Limits
from servekit import serving
from tinymodels import TEMPLATE, make_spaced_tokenizer, make_tiny


def events(response: httpx.Response) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.fixture(scope="module")
def client(live):
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_a_chat_is_answered_by_the_patched_model_and_says_so(live, patches):
    response = live.chat("Tell me")
    body = response.json()
    level = f"acme/first@1.0.0:{patches['first'].digest[:12]}"
    assert response.status_code == 200
    assert body["choices"][0]["message"]["content"] == live.expected("Tell me", [patches["first"]])
    assert live.expected("Tell me", [patches["first"]]) != live.expected("Tell me")
    assert (body["system_fingerprint"], response.headers["x-llmpatch-level"]) == (level, level)
    ids = live.engine.base.chat_ids("Tell me")
    assert body["usage"]["prompt_tokens"] == len(ids)
    assert 0 < body["usage"]["prompt_tokens_details"]["cached_tokens"] < len(ids)
    assert body["usage"]["completion_tokens"] <= 8


def test_a_request_names_its_patch_set(live, patches):
    for asked, names in [
        ({"patches": []}, []),
        ({"model": "tiny@none"}, []),
        ({"model": "tiny"}, ["first"]),
        ({"patches": ["acme/second"]}, ["second"]),
        ({"model": "tiny@acme/second@1.0.0+acme/first"}, ["second", "first"]),
        ({"patches": ["acme/first", patches["third"].digest[:12]]}, ["first", "third"]),
    ]:
        response = live.chat("Tell me", **asked)
        wanted = [patches[name] for name in names]
        assert response.json()["choices"][0]["message"]["content"] == live.expected("Tell me", wanted)
        level = "+".join(f"{p.manifest.name}@1.0.0:{p.digest[:12]}" for p in wanted) or "none"
        assert response.headers["x-llmpatch-level"] == response.json()["system_fingerprint"] == level


def test_openais_client_chats_streams_and_lists(live, client, patches):
    messages = [{"role": "user", "content": "Tell me"}]
    wanted = live.expected("Tell me", [patches["first"]], max_new_tokens=20)
    whole = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=20)
    assert whole.choices[0].message.content == wanted
    assert whole.choices[0].finish_reason in ("stop", "length")
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=messages,
            temperature=0,
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == wanted
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    unpatched = client.chat.completions.create(
        model="tiny", messages=messages, temperature=0, max_tokens=20, extra_body={"patches": []}
    )
    assert unpatched.choices[0].message.content == live.expected("Tell me", max_new_tokens=20)
    assert unpatched.system_fingerprint == "none"
    assert {"tiny", "tiny@none", "tiny@acme/second@1.0.0"} <= {m.id for m in client.models.list()}
    assert client.models.retrieve("tiny@acme/second@1.0.0").id == "tiny@acme/second@1.0.0"
    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=messages, max_tokens=1)
    assert raw.headers["x-llmpatch-level"] == whole.system_fingerprint


def test_openais_client_reads_logprobs_choices_and_errors(live, client):
    messages = [{"role": "user", "content": "Tell me"}]
    found = client.chat.completions.create(
        model="tiny", messages=messages, n=3, seed=7, max_tokens=6, logprobs=True, top_logprobs=2
    )
    again = client.chat.completions.create(model="tiny", messages=messages, n=3, seed=7, max_tokens=6)
    assert [c.message.content for c in found.choices] == [c.message.content for c in again.choices]
    assert [c.index for c in found.choices] == [0, 1, 2]
    assert len({c.message.content for c in found.choices}) > 1
    for choice in found.choices:
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in choice.logprobs.content)
    assert sum(len(c.logprobs.content) for c in found.choices) == found.usage.completion_tokens
    greedy = client.completions.create(model="tiny", prompt="abc", temperature=0, max_tokens=4, logprobs=1)
    best = [next(iter(top.values())) for top in greedy.choices[0].logprobs.top_logprobs]
    assert greedy.choices[0].logprobs.token_logprobs == best
    with pytest.raises(openai.NotFoundError, match="no model other here"):
        client.chat.completions.create(model="other", messages=messages)
    with pytest.raises(openai.BadRequestError, match="not fit a context"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x" * 900}])


def test_completions_take_texts_and_ids_in_any_number(live):
    base = live.engine.base
    ids = base.text_ids("abc")
    texts = [live.complete(prompt).json()["choices"][0]["text"] for prompt in ("abc", ids, [ids])]
    assert len(set(texts)) == 1
    both = live.complete(["abc", "Why?"], n=2).json()
    assert [c["index"] for c in both["choices"]] == [0, 1, 2, 3]
    assert [c["text"] for c in both["choices"][:2]] == 2 * texts[:1]
    assert both["choices"][2]["text"] == live.complete("Why?").json()["choices"][0]["text"]
    echoed = live.complete(ids, max_tokens=0, echo=True, logprobs=1).json()["choices"][0]
    assert echoed["text"] == "abc"
    assert echoed["logprobs"]["token_logprobs"][0] is None
    assert len(echoed["logprobs"]["token_logprobs"]) == len(ids)
    one = live.complete(ids, max_tokens=1, echo=True, logprobs=1).json()["choices"][0]
    assert one["text"] == "abc" + live.complete(ids, max_tokens=1).json()["choices"][0]["text"]


def test_a_completion_keeps_the_space_that_some_tokenizers_hide():
    base = make_tiny(seed=3)
    base.tokenizer = make_spaced_tokenizer()
    base.tokenizer.chat_template = TEMPLATE
    assert base.hides_spaces
    bias = torch.zeros(base.vocab_size)
    bias[3] = 4.0  # "▁"
    base.model.lm_head.bias = torch.nn.Parameter(bias, requires_grad=False)
    with serving(base, []) as live:
        ids = base.text_ids("He is a")
        whole = live.complete("He is a", logprobs=0).json()["choices"][0]
        written = dict(generate_ids(base, [ids], decoding=DecodingSection(max_new_tokens=8)))[0][0]
        assert "".join(whole["logprobs"]["tokens"]) == whole["text"]
        assert whole["text"].startswith(" ")
        assert whole["text"].strip() == written.text.strip()
        streamed = live.complete("He is a", stream=True, logprobs=0).text
        pieces = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
        assert "".join(piece["choices"][0]["text"] for piece in pieces if piece["choices"]) == whole["text"]
        assert not live.chat("He is a").json()["choices"][0]["message"]["content"].startswith(" ")


def test_a_silent_connection_is_closed_and_a_slow_answer_is_not(live, monkeypatch):
    monkeypatch.setattr("llmpatch.serving.connections.HEAD_SECONDS", 0.15)
    host, port = live.url.removeprefix("http://").split(":")

    def closed(*sent):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            for text in sent:
                connection.sendall(text)
                if text.endswith(b"\r\n\r\n"):
                    assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
            while connection.recv(1 << 16):
                pass
        return True

    whole = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    assert closed()
    assert closed(b"GET /heal")
    assert closed(whole, b"GET /heal")
    began = time.monotonic()
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 250, "ignore_eos": True, "n": 4}
    reply = httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=100)  # a connection of its own
    assert reply.json()["usage"]["completion_tokens"] == 1000
    assert time.monotonic() - began > 0.15, "the answer was not slow enough to tell"


def test_a_base_is_served_under_its_whole_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Qwen2.5-0.5B").mkdir()
    (tmp_path / "tiny-1.0.gguf").write_bytes(b"")
    named = {"./Qwen2.5-0.5B": "Qwen2.5-0.5B", "Qwen2.5-0.5B/": "Qwen2.5-0.5B", "org/M-1.5": "org/M-1.5"}
    named["tiny-1.0.gguf"] = "tiny-1.0"
    assert {name: _served_name(name) for name in named} == named


def test_a_completion_that_names_no_length_has_what_fits(live, tiny, patches):
    assert live.http.post("/v1/completions", json={"prompt": "abc"}).json()["usage"]["completion_tokens"] <= 16
    with serving(tiny, [patches["first"]], max_tokens=4, context=256) as small:

        def ask(prompt, **more):
            return small.http.post("/v1/completions", json={"prompt": prompt, "temperature": 0} | more)

        assert ask("abc").json()["usage"]["completion_tokens"] == 4
        rows = len(patches["first"].embeddings)
        assert ask([70] * (256 - rows - 2)).json()["usage"]["completion_tokens"] == 2
        full = ask([70] * (256 - rows), max_tokens=0, echo=True, logprobs=1)
        assert len(full.json()["choices"][0]["logprobs"]["tokens"]) == 256 - rows
        refused = ask([70] * (256 - rows))
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")


def test_offsets_of_a_stream_go_on_where_the_last_chunk_ended(live):
    whole = live.complete("abc", logprobs=1).json()["choices"][0]["logprobs"]["text_offset"]
    body = {"prompt": "abc", "temperature": 0, "max_tokens": 8, "logprobs": 1, "stream": True}
    chunks = [choice for event in events(live.http.post("/v1/completions", json=body)) for choice in event["choices"]]
    found = [offset for choice in chunks for offset in choice["logprobs"]["text_offset"]]
    assert found == whole
    assert whole == sorted(set(whole))


def test_a_stop_text_ends_a_stream_and_a_whole_answer_alike(live):
    text = live.chat(max_tokens=40).json()["choices"][0]["message"]["content"]
    stop = text[6:8]
    whole = live.chat(max_tokens=40, stop=[stop, "never"]).json()["choices"][0]
    assert (whole["message"]["content"], whole["finish_reason"]) == (text.partition(stop)[0], "stop")
    chunks = events(live.chat(max_tokens=40, stop=stop, stream=True))
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == text.partition(stop)[0]


BAD = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages.0"),
    ({"messages": "Hi"}, "messages"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 257}, "at most 256"),
    ({"max_tokens": 10**9}, "do not fit"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "different things"),
    ({"n": 0}, "n"),
    ({"n": 5}, "at most 4 choices"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"seed": 2**80}, "seed"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": 2}, "goes with logprobs"),
    ({"stream_options": {"include_usage": True}}, "goes with stream"),
    ({"presence_penalty": 1}, "presence_penalty"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"unheard_of": 1}, "unheard_of"),
    ({"model": "other"}, "no model other here"),
    ({"model": "tiny@"}, "no model"),
    ({"model": "tiny@acme/unknown"}, "acme/unknown"),
    ({"model": "tiny@none", "patches": []}, "use one"),
    ({"patches": ["../../etc/passwd"]}, "etc/passwd"),
    ({"patches": ["acme/first"] * 17}, "patches"),
    ({"messages": [{"role": "user", "content": "x" * 600}]}, "do not fit"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_request_is_told_what_is_wrong(live, change, said):
    response = live.chat(**change)
    error = response.json()["error"]
    assert 400 <= response.status_code < 500
    assert set(error) == {"message", "type", "param", "code"}
    assert said in error["message"]
    assert "Traceback" not in response.text
    assert response.headers["x-llmpatch-level"].startswith("acme/first@")


BODIES = [
    b"", b"{", b"[]", b"\xff\xfe", b'{"messages": ' + b"[" * 100_000, b'{"prompt": NaN}', b'{"prompt": "\\ud800"}',
    b'{"prompt": []}', b'{"prompt": [1e99]}', b'{"prompt": [99999]}', b'{"prompt": ""}', b'{"prompt": ["a", 1]}',
    b'{"prompt": "a", "temperature": 1e999}',
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
def test_a_bad_body_is_a_client_error(live, body):
    response = live.http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["error"]["message"]


def test_other_paths_methods_and_sizes_are_refused_in_the_same_shape(live):
    large = live.http.post("/v1/completions", content=b"x" * (2 << 20))
    chunked = live.http.post("/v1/completions", content=(b"x" * 65536 for _ in range(40)))
    statuses = [
        live.http.get("/nothing").status_code,
        live.http.get("/v1/completions").status_code,
        large.status_code,
        chunked.status_code,
    ]
    assert statuses == [404, 405, 413, 413]
    assert "at most 1048576" in large.json()["error"]["message"]
    assert live.http.get("/nothing").json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonl"])
def test_a_body_that_is_not_sent_as_json_is_told_which_header_it_lacks(live, kind):
    headers = {"content-type": kind} if kind else {}
    response = live.http.post("/v1/completions", content=b'{"prompt": "a"}', headers=headers)
    assert response.status_code == 415
    assert "content-type: application/json" in response.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"])
def test_a_body_may_be_sent_as_any_json(live, kind):
    response = live.http.post("/v1/completions", content=b'{"prompt": ""}', headers={"content-type": kind})
    assert response.status_code != 415


@pytest.mark.parametrize(("parts", "expect", "taken"), [(30, b"", 30), (300, b"", 91), (30, b"100-continue", 11)])
def test_the_rest_of_a_large_body_is_taken_in_before_the_answer_and_no_more_than_so_much(parts, expect, taken):
    received, sent = [], []

    async def receive():
        received.append(sent[:])
        return {"type": "http.request", "body": b"x" * 100, "more_body": len(received) < parts}

    async def send(message):
        sent.append(message)

    guard = Guard(None, Limits(body_bytes=1000), lambda: "none", lambda *_: None)
    asyncio.run(guard({"type": "http", "path": "/", "headers": [(b"expect", expect)]}, receive, send))
    assert (sent[0]["status"], len(received), any(received)) == (413, taken, False)


def test_a_body_that_does_not_arrive_is_given_up(tiny):
    with serving(tiny, [], body_seconds=0.3) as live:
        host, port = live.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=200) as raw:
            raw.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{")
            assert raw.recv(100).startswith(b"HTTP/1.1 408")


def test_a_full_queue_is_503_with_a_time_to_come_back(tiny):
    with serving(tiny, [], rows=1, queue=1) as live:
        hold = threading.Event()
        blocked = threading.Thread(target=live.engine.call, args=(lambda _: hold.wait(300),))
        blocked.start()
        waiting = threading.Thread(target=live.chat)
        waiting.start()
        until = time.monotonic() + 200
        while not live.engine.queued and time.monotonic() < until:
            time.sleep(0.01)
        for stream in (False, True):
            refused = live.chat(stream=stream)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
            assert "wait already" in refused.json()["error"]["message"]
        hold.set()
        waiting.join(300)
        blocked.join(300)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_row(live, stream):
    host, port = live.url.removeprefix("http://").split(":")
    body = json.dumps({"prompt": "abc", "max_tokens": 256, "ignore_eos": True, "stream": stream, "n": 4}).encode()
    with socket.create_connection((host, int(port)), timeout=200) as raw:
        lines = [
            "POST /v1/completions HTTP/1.1",
            "host: x",
            "content-type: application/json",
            f"content-length: {len(body)}",
        ]
        raw.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        until = time.monotonic() + 200
        while not live.engine.busy and time.monotonic() < until:
            time.sleep(0.001)
        assert live.engine.busy
    written = live.engine.batch.counts.written_tokens
    while live.engine.busy and time.monotonic() < until:
        time.sleep(0.002)
    assert live.engine.batch.counts.written_tokens - written < 4 * 250


def test_a_request_ends_at_its_time(tiny):
    with serving(tiny, [], request_seconds=0.2) as live:
        body = live.chat(max_tokens=256, ignore_eos=True).json()
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["completion_tokens"] < 256


def test_metrics_health_and_description_say_what_is(live):
    before = live.engine.batch.counts.written_tokens
    live.chat()
    families = {f.name: f for f in text_string_to_metric_families(live.http.get("/metrics").text)}
    assert families["llmpatch_tokens_written"].samples[0].value > before
    (active,) = families["llmpatch_active"].samples
    assert (active.labels["level"], active.value) == (live.desk.active.level, 1)
    assert families["llmpatch_healthy"].samples[0].value == 1
    statuses = {(s.labels["path"], s.labels["status"]) for s in families["llmpatch_requests"].samples}
    assert ("/v1/chat/completions", "200") in statuses
    health = live.http.get("/health")
    assert (health.status_code, health.json()["level"]) == (200, live.desk.active.level)
    assert "/v1/chat/completions" in live.http.get("/openapi.json").json()["paths"]


def test_the_page_is_whole_in_itself(live):
    response = live.http.get("/")
    urls = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attrs):
            urls.extend(value for key, value in attrs if key in ("src", "href", "action"))

    Links().feed(response.text)
    assert urls == []
    assert "//" not in re.sub(r"https?://www\.w3\.org", "", response.text.replace("<!--", ""))
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_a_fixed_server_lets_nobody_choose(tiny, patches):
    with serving(tiny, [patches["first"]], fixed=True) as live:
        assert live.chat().status_code == 200
        for asked in ({"patches": []}, {"model": "tiny@none"}, {"patches": ["acme/first"]}):
            refused = live.chat(**asked)
            assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
        assert [model["id"] for model in live.http.get("/v1/models").json()["data"]] == ["tiny"]


def test_a_request_that_names_no_temperature_gets_the_servers(tiny):
    asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 12}

    def said(live, **more):
        answers = {
            live.http.post("/v1/chat/completions", json=asked | more).text.partition('"choices"')[2] for _ in "123"
        }
        return answers.pop() if len(answers) == 1 else None

    with serving(tiny, temperature=0.0) as greedy:
        assert said(greedy) == said(greedy, temperature=0)
        assert said(greedy, temperature=1) is None  # three draws of twelve tokens
    with serving(tiny, temperature=1.0, top_p=1e-9) as likeliest:
        assert said(likeliest) == said(likeliest, temperature=0)
        assert said(likeliest, top_p=1) is None


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl_streams(live):
    body = json.dumps({"prompt": "abc", "stream": True, "max_tokens": 4, "temperature": 0})
    done = subprocess.run(
        ["curl", "-sSNi", f"{live.url}/v1/completions", "-H", "content-type: application/json", "-d", body],
        capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    assert f"x-llmpatch-level: {live.desk.active.level}" in done.stdout
    assert done.stdout.rstrip().endswith("data: [DONE]")


def test_limits_stay_within_the_base(tiny):
    limits = Limits(context=100_000, rows=2).for_base(tiny)
    assert (limits.context, limits.max_n) == (512, 2)
