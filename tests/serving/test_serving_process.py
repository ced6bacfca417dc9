"""The command itself: starts on a saved model and a store, and drains on SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from clikit import save
from llmpatch import store as stores
from llmpatch._cli.main import main
from servekit import save_patch


@pytest.fixture
def command(tiny, tmp_path):
    store = stores.Store(tmp_path / "store")
    digest = stores.install(store, save_patch(tmp_path, tiny, "acme/refusal", seed=1), stores.unsigned).digest
    stores.activate(store, digest, skip_gate=True)
    environment = os.environ | {
        "LLMPATCH_STORE": str(store.root),
        "LLMPATCH_SERVE_BASE": str(save(tmp_path / "m", tiny)),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "llmpatch", "serve", "--port", "0", "--context", "512", "--temperature", "0"],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.kill()
    process.wait(60)


def test_sigterm_finishes_what_runs_and_takes_nothing_new(command):
    line = next(line for line in command.stderr if line.startswith("serving "))
    url = line.partition(" at ")[2].partition(",")[0]
    assert "patch level: acme/refusal@1.0.0:" in line
    short = {"prompt": "abc", "max_tokens": 16, "ignore_eos": True}
    answers = {httpx.post(f"{url}/v1/completions", json=short, timeout=300).json()["choices"][0]["text"] for _ in "123"}
    assert len(answers) == 1  # greedy, as the command line has it
    body = {"prompt": "abc", "max_tokens": 400, "ignore_eos": True, "stream": True}
    with httpx.Client(timeout=300) as http, http.stream("POST", f"{url}/v1/completions", json=body) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        command.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert '"finish_reason":"length"' in rest[-2]
    threading.Thread(target=command.stderr.read, daemon=True).start()
    assert command.wait(300) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_a_taken_port_and_a_missing_patch_are_one_line(tmp_path, capsys):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--base", "nowhere", "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err
    assert main(["serve", "--base", "nowhere", "--port", "0", "--patch", str(tmp_path / "none")]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_the_address_of_a_service_in_the_environment_is_no_port(monkeypatch, capsys):
    """Kubernetes sets it in every container beside a service called llmpatch-serve."""
    monkeypatch.setenv("LLMPATCH_SERVE_PORT", "tcp://10.0.0.1:8000")
    assert main(["serve", "--base", "no/such/base", "--host", "256.0.0.1"]) == 2
    assert "port 8000" in capsys.readouterr().err
    monkeypatch.setenv("LLMPATCH_SERVE_PORT", "http://10.0.0.1")
    assert main(["serve", "--base", "nowhere"]) == 1
    assert "not a valid integer" in capsys.readouterr().err
