"""``llmpatch gateway``: put a patch in front of a server that already runs."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import click

from llmpatch._cli.drawing import Number, drawing_options
from llmpatch._cli.listening import Port
from llmpatch._cli.output import note, one_line, warn

CONNECTIONS = 16_384  # the engine behind it has a queue of its own


@click.command(name="gateway")
@click.option("--upstream", required=True, help="The engine's URL, as http://127.0.0.1:8000 (without /v1).")
@click.option("--export", "folder", required=True, type=click.Path(path_type=Path),
              help="The folder of `llmpatch export` that the engine serves; its export.json is read.")  # fmt: skip
@click.option("--adapter", help="Of a lora: its name in the engine; of a lora-gguf: its number there (default 0).")
@click.option(
    "--model", help="What the engine calls the export, if it serves others too: requests get it whatever they name."
)
@click.option("--key-env", metavar="NAME", help="Variable with the engine's key, for the questions before the start.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=Port(1), default=8100, show_default=True)
@drawing_options("Of a request that names none; by default the engine's own. At 1 a patch may decline less.")
@click.option("--timeout", type=Number(0.1, 86400), default=600.0, show_default=True,
              help="Seconds without a byte from the engine before a request fails.")  # fmt: skip
def command(
    upstream: str, folder: Path, adapter: str | None, model: str | None, key_env: str | None, host: str, port: int,
    temperature: float | None, top_p: float | None, timeout: float,
) -> None:  # fmt: skip
    """Serve the OpenAI API in front of a vLLM or llama.cpp server, with the patch in every request.

    Chats and completions get the patch's tokens, adapter and template argument; other paths do not exist here, and what could
    leave the patch out is refused. The engine is asked first whether it puts the patch in front. Keys pass through.
    """
    from importlib.util import find_spec

    from llmpatch.connections import open_client
    from llmpatch.errors import LlmpatchError, UsageError
    from llmpatch.exporting import read_description
    from llmpatch.gateway import Settings, make_app, plan_for, probe
    from llmpatch.references.replies import ENV_NAME, Secret, holds_secret
    from llmpatch.serving.limits import Limits
    from llmpatch.serving.running import make_server, open_socket

    plan = plan_for(read_description(folder), adapter=adapter, model=model)
    plan = replace(plan, temperature=temperature, top_p=top_p)
    if key_env is not None and not ENV_NAME.fullmatch(key_env):  # not repeated: it may be the key itself
        raise UsageError("--key-env is not the name of an environment variable", hint="export KEY=..., --key-env KEY")
    key = Secret.read(key_env)
    if not upstream.startswith(("http://", "https://")):
        raise UsageError(f"{one_line(upstream)[:100]} is not a URL", hint="as http://127.0.0.1:8000")
    try:
        secret = holds_secret(upstream)
    except ValueError:
        raise UsageError(f"{one_line(upstream)[:100]} is not a URL", hint="as http://127.0.0.1:8000") from None
    if secret:  # which would stand in every line about it, and take the place of the clients' keys
        raise UsageError(
            "--upstream holds a password or a key", hint="clients send theirs; --key-env KEY for the start"
        )
    app = make_app(Settings(upstream.rstrip("/"), plan, timeout))
    if find_spec("uvicorn") is None:
        raise UsageError("the gateway needs uvicorn", hint='pip install "llmpatch[serve]"')
    with open_client(base_url=upstream.rstrip("/"), timeout=min(30.0, timeout), headers=key.headers()) as client:
        found = probe(client, plan)
    if found is None:
        more = "" if model or plan.to == "lora" else ", nor whether requests can name a model without it (--model)"
        warn(
            f"{upstream} cannot be asked how it writes a chat: whether the patch reaches the model is not checked{more}"
        )
    else:
        note(one_line(f"checked: {found}"))
    listening = open_socket(host, port)
    note(one_line(f"{plan.level} in front of {upstream} at http://{host}:{port}/v1"))
    server = make_server(app, Limits(request_seconds=timeout, connections=CONNECTIONS))
    with listening, contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again when it is done
        server.run(sockets=[listening])
    if not server.started:
        raise LlmpatchError("the gateway did not start", hint="the lines above may say why")
