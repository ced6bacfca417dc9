"""Live servers over a tiny model, with patches that were made for it."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from pathlib import Path

import httpx

from llmpatch.artifact import parse_patch, render_patch
from llmpatch.generation import generate_ids
from llmpatch.recipe import DecodingSection
from llmpatch.serving.admin import Admin
from llmpatch.serving.app import make_app
from llmpatch.serving.desk import Desk
from llmpatch.serving.engine import Engine
from llmpatch.serving.keeper import Keeper
from llmpatch.serving.limits import Limits
from llmpatch.serving.running import make_server, open_socket
from patchkit import EVIDENCE, P999, embeddings, fields, save
from storekit import fixes

TOKEN = "a-token-of-some-length"


def patch_files(
    base, name: str, version: str = "1.0.0", seed: int = 0, tokens: int = 4, fixed=(1,), **changes
) -> dict[str, bytes]:
    about = fields()["base"] | {"fingerprint": dataclasses.asdict(base.fingerprint), "vocab_size": base.vocab_size}
    made = fields(name=name, version=version, base=about, supersedes=[], fixes=fixes(*fixed), **changes)
    return render_patch(made, 3 * embeddings(tokens, seed=seed), EVIDENCE, base_p999=P999)


def make_patch(base, name: str, **more):
    return parse_patch(patch_files(base, name, **more), Path(name))


def save_patch(root: Path, base, name: str, **more) -> Path:
    return save(root / f"{name.replace('/', '_')}-{more.get('version', '1.0.0')}", patch_files(base, name, **more))


@dataclasses.dataclass
class Live:
    """A running server."""

    url: str
    desk: Desk
    engine: Engine
    keeper: Keeper
    http: httpx.Client

    def chat(self, text: str = "Hi", **more) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 8} | more
        return self.http.post("/v1/chat/completions", json=body)

    def complete(self, prompt, **more) -> httpx.Response:
        return self.http.post("/v1/completions", json={"prompt": prompt, "temperature": 0, "max_tokens": 8} | more)

    def expected(self, text: str = "Hi", patches=(), **decoding) -> str:
        """What ``generation`` says to a chat behind patches."""
        import numpy as np
        import torch

        rows = torch.tensor(np.concatenate([p.embeddings for p in patches])) if patches else None
        how = DecodingSection(**({"max_new_tokens": 8} | decoding))
        ids = self.engine.base.chat_ids(text)
        return dict(generate_ids(self.engine.base, [ids], decoding=how, prefix=rows))[0][0].text


@contextlib.contextmanager
def serving(base, given=None, store=None, *, fixed=False, admin=None, canary_seconds=3600.0, **limits):
    settings = Limits(**({"rows": 4, "context": 512, "max_tokens": 256, "queue": 64} | limits))
    engine = Engine(base, settings)
    engine.start()
    desk = Desk(engine, given, store, fixed)
    keeper = Keeper(desk, canary_seconds)
    app = make_app(desk, keeper, served="tiny", admin=admin or Admin(TOKEN))
    with open_socket("127.0.0.1", 0) as listening:
        server = make_server(app, engine.limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        until = time.monotonic() + 300
        while not server.started and time.monotonic() < until:
            time.sleep(0.02)
        with httpx.Client(base_url=url, timeout=300) as http:
            try:
                yield Live(url, desk, engine, keeper, http)
            finally:
                server.should_exit = True
                thread.join(300)
    assert not thread.is_alive()
