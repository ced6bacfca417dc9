"""The gateway in front of a real local server: what reaches it, what comes back, what is refused."""

import contextlib
import json
import socket
import threading
import time
import typing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.exporting import Description
from llmpatch.gateway import Plan, Settings, make_app, plan_for, probe
from llmpatch.serving.limits import Limits
from llmpatch.serving.running import make_server

SLOTS = ("<|llmpatch_0|><|llmpatch_1|>", (100, 101))
LORA = Plan("lora", "tiny/refusal 1.0.0", *SLOTS, bos="<s>", adapter="refusal")
CHAT = {"model": "any", "messages": [{"role": "user", "content": "hi"}]}


class Upstream(BaseHTTPRequestHandler):
    """An engine that says back what it was asked, and fails on demand."""

    seen: typing.ClassVar[list] = []
    left: typing.ClassVar[list] = []
    models: typing.ClassVar[list] = [{"id": "base", "parent": None}, {"id": "refusal", "parent": "base"}]
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/lora-adapters":
            self.answer(200, [{"id": 0, "path": "/x/style.gguf"}, {"id": 1, "path": "/x/adapter.gguf"}])
        else:
            self.answer(200, {"data": [entry for entry in self.models if self.path == "/v1/models"]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((self.path, body, dict(self.headers)))
        wish = body.get("user")
        if self.path == "/apply-template":
            self.answer(200, {"prompt": SLOTS[0] + "hi"})
        elif self.path == "/tokenize":
            self.answer(200, {"tokens": [100, 101, 5] if body.get("chat_template_kwargs") else [5]})
        elif wish == "fail":
            self.answer(429, {"error": {"message": "too many"}})
        elif wish == "wait":  # until whoever asked is gone
            self.connection.settimeout(10)
            self.left.append(self.connection.recv(1) == b"")
            self.close_connection = True
        elif wish == "sleep":
            time.sleep(1.5)
            self.answer(200, {})
        elif body.get("stream"):
            self.stream(breaks=wish == "break")
        else:
            self.answer(200, {"echo": body})

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, breaks):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(3):
            data = f"data: {number}\n\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
            time.sleep(0.3)
        if breaks:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(b"0\r\n\r\n")


@pytest.fixture(scope="module")
def upstream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(autouse=True)
def forget():
    Upstream.seen.clear()


@contextlib.contextmanager
def running(settings):
    """A gateway in a real server, for its answers arrive as they are made."""
    import uvicorn

    config = make_server(make_app(settings), Limits()).config
    config.host, config.port = "127.0.0.1", 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        yield client
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def gateway(upstream):
    with running(Settings(upstream, LORA, timeout=1.0, max_body=4096)) as client:
        yield client


def test_a_chat_gets_adapter_and_template_argument(gateway):
    given = CHAT | {"chat_template_kwargs": {"llmpatch": False, "mine": 1}, "add_special_tokens": True, "seed": 3}
    reply = gateway.post("/v1/chat/completions", json=given, headers={"authorization": "Bearer x", "cookie": "no"})
    ((path, body, headers),) = Upstream.seen
    assert (path, reply.status_code, reply.json()["echo"]) == ("/v1/chat/completions", 200, body)
    assert body == {
        "model": "refusal", "messages": CHAT["messages"], "chat_template_kwargs": {"llmpatch": True, "mine": 1}, "seed": 3,
    }  # fmt: skip
    assert headers["authorization"] == "Bearer x"
    assert "cookie" not in headers
    assert reply.headers["x-llmpatch-level"] == "tiny/refusal 1.0.0"


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("Once", "<|llmpatch_0|><|llmpatch_1|><s>Once"),
        (["a", [7]], ["<|llmpatch_0|><|llmpatch_1|><s>a", [100, 101, 7]]),
        ([7, 8], [100, 101, 7, 8]),
        ([100, 101, 7], [100, 101, 7]),
    ],
)
def test_a_completion_gets_the_tokens(gateway, prompt, wanted):
    gateway.post("/v1/completions", json={"model": "x", "prompt": prompt})
    ((_, body, _headers),) = Upstream.seen
    assert body == {"model": "refusal", "prompt": wanted, "add_special_tokens": False}


@pytest.mark.parametrize(
    ("path", "body", "part"),
    [
        ("chat/completions", CHAT | {"chat_template": "x"}, "chat_template"),
        ("chat/completions", CHAT | {"lora": [{"id": 0, "scale": 0}]}, "lora"),
        ("chat/completions", CHAT | {"chat_template_kwargs": 3}, "chat_template_kwargs"),
        ("chat/completions", {"messages": "hi"}, "messages"),
        ("chat/completions", {"messages": [{"content": [{"type": "prompt_embeds", "data": ""}]}]}, "prompt_embeds"),
        ("completions", {"prompt": "a", "prompt_embeds": "x"}, "prompt_embeds"),
        ("chat/completions", CHAT | {"truncate_prompt_tokens": 30}, "truncate_prompt_tokens"),
        ("completions", {"prompt": "a", "truncate_prompt_tokens": -1}, "truncate_prompt_tokens"),
        ("completions", {"prompt": "a", "truncation_side": "left"}, "truncation_side"),
        ("completions", {"prompt": "a", "n_keep": 0}, "n_keep"),
        ("chat/completions", CHAT | {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template"),
        ("completions", {"prompt": 3}, "prompt"),
        ("completions", {"prompt": [True]}, "prompt"),
        ("completions", {"prompt": []}, "prompt"),
        ("completions", {}, "prompt"),
    ],
)
def test_what_could_leave_the_patch_out_is_refused(gateway, path, body, part):
    reply = gateway.post(f"/v1/{path}", json=body)
    assert reply.status_code == 400
    assert part in reply.json()["error"]["message"]
    assert Upstream.seen == []


@pytest.mark.parametrize("to", ["checkpoint", "gguf", "lora-gguf"])
def test_no_export_lets_a_request_bring_its_template(to):
    plan = Plan(to, "tiny/refusal 1.0.0", *SLOTS, bos="<s>", adapter="0")
    for given, part in (({"chat_template": "x"}, "chat_template"), (3, "an object")):
        with pytest.raises(UsageError, match=part):
            plan.chat(CHAT | {"chat_template_kwargs": given})
    assert plan.chat(CHAT | {"chat_template_kwargs": {"enable_thinking": False}})


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"a": NaN}', b"[" * 3000])
def test_what_is_no_request_is_refused(gateway, data):
    reply = gateway.post("/v1/completions", content=data)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_large_body_is_refused(gateway):
    assert gateway.post("/v1/completions", json={"prompt": "x" * 5000}).status_code == 413


@pytest.mark.parametrize("path", ["/completion", "/v1/embeddings", "/tokenize", "/v1/chat/completions/x", "/docs"])
def test_other_paths_do_not_exist(gateway, path):
    assert gateway.post(path, json={}).status_code == 404
    assert Upstream.seen == []


def test_models_and_health(gateway):
    assert [entry["id"] for entry in gateway.get("/v1/models").json()["data"]] == ["base", "refusal"]
    assert gateway.get("/health").json() == {"status": "ok", "level": "tiny/refusal 1.0.0", "export": "lora"}


def test_an_answer_arrives_as_it_is_made(gateway):
    start, times, text = time.monotonic(), [], b""
    with gateway.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        for block in reply.iter_raw():
            times.append(time.monotonic() - start)
            text += block
    assert text == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert times[-1] - times[0] > 0.4  # not all at once, at the end


def test_a_stream_that_breaks_says_so(gateway):
    with gateway.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True, "user": "break"}) as reply:
        text = b"".join(reply.iter_raw())
    assert text.startswith(b"data: 0\n\n")
    assert b"broke off" in text


def test_errors_of_the_engine_are_passed_on_or_named(gateway):
    assert gateway.post("/v1/chat/completions", json=CHAT | {"user": "fail"}).status_code == 429
    slow = gateway.post("/v1/chat/completions", json=CHAT | {"user": "sleep"})
    assert (slow.status_code, slow.json()["error"]["type"]) == (504, "upstream_error")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_takes_its_request_with_it(upstream, stream):
    Upstream.left.clear()
    body = CHAT | {"user": "wait", "stream": stream}
    with running(Settings(upstream, LORA, timeout=60)) as gateway:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{gateway.base_url}/v1/chat/completions", json=body, timeout=1)
        end = time.monotonic() + 9  # by then the engine itself would give up
        while not Upstream.left and time.monotonic() < end:
            time.sleep(0.01)
        assert Upstream.left == [True]


def test_headers_of_any_bytes_and_any_key_reach_the_engine(gateway):
    headers = [(b"user-agent", b"\xdcnicode"), (b"X-Api-Key", b"abc"), (b"x-secret", b"no")]
    assert gateway.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 200
    seen = {name.lower(): value for name, value in Upstream.seen[-1][2].items()}
    assert (seen["user-agent"], seen["x-api-key"]) == ("\xdcnicode", "abc")
    assert "x-secret" not in seen


@pytest.mark.parametrize(("key", "value"), [("echo", True), ("prompt_logprobs", 1), ("prompt_logprobs", 0)])
def test_what_would_repeat_the_patchs_tokens_is_refused(gateway, key, value):
    for path, body in (("/v1/completions", {"prompt": "Once"}), ("/v1/chat/completions", CHAT)):
        reply = gateway.post(path, json={**body, key: value})
        assert reply.status_code == 400
        assert key in reply.json()["error"]["message"]
    assert gateway.post("/v1/completions", json={"prompt": "Once", "echo": False}).status_code == 200


def test_an_engine_with_several_models_is_asked_for_the_exports(upstream, monkeypatch):
    plan = Plan("gguf", "tiny/refusal 1.0.0", *SLOTS)
    with httpx.Client(base_url=upstream) as client:
        with pytest.raises(LlmpatchError, match=r"has 2 models \(base, refusal\)") as caught:
            probe(client, plan)
        assert "--model NAME" in caught.value.hint
        with pytest.raises(LlmpatchError, match="has no model other"):
            probe(client, replace(plan, model="other"))
        assert probe(client, replace(plan, model="base"))
        assert Upstream.seen[-1][1]["model"] == "base"
        monkeypatch.setattr(Upstream, "models", [{"id": "only"}])
        assert probe(client, plan)
    named = replace(plan, model="base")
    assert named.chat(CHAT)["model"] == named.completion({"model": "any", "prompt": "x"})["model"] == "base"


def test_a_port_that_is_taken_is_an_error_and_no_success(upstream, monkeypatch, capsys):
    from llmpatch._cli.main import main

    described = {
        "to": "lora",
        "level": "x 1.0.0",
        "slots": type("Slots", (), {"text": SLOTS[0], "ids": SLOTS[1], "bos": ""}),
    }
    monkeypatch.setattr("llmpatch.exporting.read_description", lambda folder: type("Described", (), described))
    taken = upstream.rpartition(":")[2]
    command = ["gateway", "--upstream", upstream, "--export", "out", "--adapter", "refusal", "--port", taken]
    assert main(command) == 2
    assert f"error: cannot listen on 127.0.0.1 port {taken}" in capsys.readouterr().err


def test_an_engine_that_is_not_there():
    from fastapi.testclient import TestClient

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with TestClient(make_app(Settings(f"http://127.0.0.1:{port}", LORA))) as client:
        reply = client.post("/v1/chat/completions", json=CHAT)
    assert (reply.status_code, reply.json()["error"]["type"]) == (502, "upstream_error")


def test_the_probe_asks_whether_the_patch_is_in_front(upstream):
    with httpx.Client(base_url=upstream) as client:
        assert "2 tokens" in probe(client, LORA)
        baked = Plan(
            "checkpoint", "tiny/refusal 1.0.0", *SLOTS, model="base"
        )  # this engine writes none without being asked
        with pytest.raises(LlmpatchError, match="does not put the patch"):
            probe(client, baked)
    with httpx.Client(base_url="http://127.0.0.1:9") as client, pytest.raises(LlmpatchError, match="cannot reach"):
        probe(client, LORA)


@pytest.mark.parametrize(
    ("to", "adapter", "said"),
    [
        ("lora", "base", "adapter base is base there, not this export's"),
        ("lora", "other", "adapter other is not there"),
        ("lora-gguf", "0", r"adapter 0 is style\.gguf there, not this export's"),
        ("lora-gguf", "7", "adapter 7 is not there"),
    ],
)
def test_the_probe_asks_whether_the_adapter_is_the_exports(upstream, to, adapter, said):
    """Without it the tokens say nothing, and the base would answer under the patch's name."""
    with httpx.Client(base_url=upstream) as client:
        assert "2 tokens" in probe(client, replace(LORA, to="lora-gguf", adapter="1", model="base"))
        with pytest.raises(LlmpatchError, match=said):
            probe(client, replace(LORA, to=to, adapter=adapter, model="base" if to == "lora-gguf" else ""))


def description(**changes):
    patches = [{"name": "tiny/refusal", "version": "1.0.0", "digest": "0" * 64}]
    found = {
        "schema": "llmpatch/export/v1", "to": "lora", "base": "tiny", "tokens": 2, "patches": patches, "how": {}, "checks": {},
        "files": {}, "slots": {"text": SLOTS[0], "ids": list(SLOTS[1]), "bos": ""},
    }  # fmt: skip
    return Description.model_validate_json(json.dumps(found | changes))


def test_plans():
    assert plan_for(description(), adapter="refusal").chat(CHAT)["model"] == "refusal"
    gguf = plan_for(description(to="lora-gguf"))
    assert gguf.chat(CHAT)["lora"] == [{"id": 0, "scale": 1.0}]
    baked = plan_for(description(to="checkpoint"))
    assert baked.chat(CHAT) == CHAT
    assert baked.completion({"prompt": "a", "add_special_tokens": False}) == {"prompt": "a", "add_special_tokens": True}
    assert plan_for(description(to="gguf")).completion({"prompt": "a"})["prompt"] == SLOTS[0] + "a"
    cool = replace(baked, temperature=0.2)
    assert cool.chat(CHAT) == CHAT | {"temperature": 0.2}
    assert cool.chat(CHAT | {"temperature": 1, "top_p": None}) == CHAT | {"temperature": 1, "top_p": None}
    assert replace(baked, top_p=0.5).completion({"prompt": "a", "top_p": None})["top_p"] == 0.5
    for changes, adapter, part in (
        ({}, None, "which adapter"), ({"to": "gguf"}, "x", "no adapter"), ({"to": "lora-gguf"}, "x", "not the number"),
        ({"to": "peft", "slots": None}, None, "no tokens"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=part):
            plan_for(description(**changes), adapter=adapter)


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--upstream", "http://127.0.0.1:9"], 2, "cannot reach"),
        (["--upstream", "localhost:9"], 1, "not a URL"),
        (["--upstream", "http://u:secret@127.0.0.1:9"], 1, "holds a password or a key"),
        (["--upstream", "http://[127.0.0.1:9"], 1, "not a URL"),
        (["--upstream", "http://127.0.0.1:9", "--adapter", "x"], 1, "not the number"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, capsys, arguments, code, part):
    from llmpatch._cli.main import main

    text = description(to="lora-gguf").model_dump_json(by_alias=True)
    (tmp_path / "export.json").write_text(text)
    assert main(["gateway", "--export", str(tmp_path), *arguments]) == code
    said = capsys.readouterr().err
    assert part in said
    assert "secret" not in said


def test_the_command_needs_an_export(tmp_path, capsys):
    from llmpatch._cli.main import main

    assert main(["gateway", "--export", str(tmp_path), "--upstream", "http://127.0.0.1:9"]) == 1
    assert "export.json" in capsys.readouterr().err
