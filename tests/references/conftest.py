"""A real HTTP server on the loopback interface that misbehaves on request."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llmpatch.prompts import Prompt


def completion(text, finish="stop"):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]})


class Endpoint:
    """Answers `echo:<prompt>`, unless `behave(prompt, nth try, handler)` sends something else and returns True."""

    def __init__(self):
        self.calls = []  # (prompt, headers, payload) as they come in
        self.behave = lambda prompt, number, handler: False
        self.lock = threading.Lock()
        self.in_flight = self.most_in_flight = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = payload["messages"][-1]["content"]
                with outer.lock:
                    outer.calls.append((prompt, dict(self.headers), payload))
                    number = sum(call[0] == prompt for call in outer.calls)
                    outer.in_flight += 1
                    outer.most_in_flight = max(outer.most_in_flight, outer.in_flight)
                try:
                    if not outer.behave(prompt, number, self):
                        self.reply(200, completion(f"echo:{prompt}"))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with outer.lock:
                        outer.in_flight -= 1

            def reply(self, status, body, headers=()):
                data = body if isinstance(body, bytes) else body.encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return True

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def asked(self):
        return sorted(call[0] for call in self.calls)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture
def reply():
    return completion


@pytest.fixture
def make_prompts():
    return lambda count: [Prompt(f"p{n}", f"prompt {n} ☂", "everyday") for n in range(count)]
