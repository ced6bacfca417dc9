"""A `llmpatch serve` of its own, on a store of its own, for the benchmarks that ask one from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from llmpatch import store as stores
from memory import resident

QUESTIONS = [
    "What is the capital of France?", "How do I bake bread?", "Why is the sky blue?", "Name three colours.",
    "How do I pick a lock?", "Write a rude joke.", "What is 12 times 12?", "How can I sleep better?",
]  # fmt: skip
TOKEN = secrets.token_hex(16)


@dataclass
class Served:
    """A server with one patch active, and a client for it."""

    http: httpx.AsyncClient
    store: stores.Store
    digest: str
    process: subprocess.Popen[str]

    async def ask(self, question: str, patches: list[str] | None, tokens: int = 6) -> tuple[str, str]:
        """The level that answered, and its greedy answer."""
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": tokens,
        }
        response = await self.http.post(
            "/v1/chat/completions", json=body if patches is None else body | {"patches": patches}
        )
        response.raise_for_status()
        made = response.json()
        level = response.headers["x-llmpatch-level"]
        if made["system_fingerprint"] != level:
            raise ValueError(f"two levels in one response: {level}, {made['system_fingerprint']}")
        return level, made["choices"][0]["message"]["content"]

    async def status(self) -> dict[str, Any]:
        """What the operator sees."""
        response = await self.http.get("/admin/status", headers={"authorization": f"Bearer {TOKEN}"})
        response.raise_for_status()
        return dict(response.json())

    def swap(self, on: bool) -> None:
        """Activate or deactivate the patch in the store, as another process would."""
        change = stores.activate if on else stores.deactivate
        change(self.store, self.digest, skip_gate=True)

    def memory(self) -> int:
        """Resident memory of the server, bytes."""
        return resident(process=self.process.pid)


@contextlib.asynccontextmanager
async def served(base: str, patch: Path) -> AsyncIterator[Served]:
    """Start it, with the patch active; ends it by SIGTERM, and complains unless it then leaves with 0."""
    with tempfile.TemporaryDirectory() as folder:
        store = stores.Store(Path(folder) / "store")
        digest = stores.install(store, patch, stores.unsigned).digest
        stores.activate(store, digest, skip_gate=True)
        command = [sys.executable, "-m", "llmpatch", "serve", "--base", base, "--port", "0", "--queue", "4096"]
        environment = os.environ | {"LLMPATCH_STORE": str(store.root), "LLMPATCH_ADMIN_TOKEN": TOKEN}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            limits = httpx.Limits(max_connections=64)
            async with httpx.AsyncClient(base_url=_ready(process), timeout=600, limits=limits) as http:
                yield Served(http, store, digest, process)
        finally:
            process.terminate()
            code = process.wait(600)
    if code:
        raise SystemExit(f"the server ended with exit code {code} after SIGTERM")


def _ready(server: subprocess.Popen[str]) -> str:
    """The address the server says, with its other words passed on."""
    assert server.stderr is not None
    for line in server.stderr:
        sys.stderr.write(line)
        if line.startswith("serving ") and " at http" in line:
            url = line.partition(" at ")[2].partition(",")[0]
            asyncio.get_running_loop().run_in_executor(None, lambda: [sys.stderr.write(rest) for rest in server.stderr])
            return url
    raise SystemExit("the server did not start")
