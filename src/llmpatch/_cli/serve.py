"""``llmpatch serve``: a base behind patches, for OpenAI's clients and for a browser."""

from __future__ import annotations

from pathlib import Path

import click

from llmpatch._cli.drawing import TEMPERATURE, TOP_P, Number
from llmpatch._cli.listening import Port
from llmpatch._cli.opening import base_options
from llmpatch._cli.output import note, warn


@click.command(name="serve")
@base_options
@click.option("--patch", "patches", multiple=True,
              help="A patch folder or name. Repeatable: rows go one after another, as given. Without it, what is active "
              "in the store on this base is served and followed.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=Port(0), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--name", help="What clients call the base. By default --base, or the last part of its path.")
@click.option("--fixed", is_flag=True, help="Answer with the active set only: requests may not name another one.")
@click.option("--rows", type=click.IntRange(1, 256), default=16, show_default=True, help="Answers written at a time.")
@click.option("--queue", type=click.IntRange(0, 65536), default=64, show_default=True,
              help="Prompts that may wait; the next one is answered 503.")  # fmt: skip
@click.option("--context", type=click.IntRange(64), default=2048, show_default=True,
              help="Most positions of a row: patches, prompt and answer.")  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(1), default=1024, show_default=True, help="Longest answer.")
@click.option("--request-seconds", type=Number(1, 86400), default=300.0, show_default=True,
              help="Longest time of a request; an answer ends there.")  # fmt: skip
@click.option("--temperature", type=TEMPERATURE, default=1.0, show_default=True,
              help="Of a request that names none; 0 is greedy, as evidence is. At 1 a patch may decline less.")  # fmt: skip
@click.option("--top-p", type=TOP_P, default=1.0, show_default=True,
              help="The nucleus of a request that names none.")  # fmt: skip
@click.option("--canary-seconds", type=Number(1, 86400), default=60.0, show_default=True,
              help="Time between two proofs that the patches are applied.")  # fmt: skip
@click.option("--admin-token-file", type=click.Path(path_type=Path),
              help="File with the token for /admin; by default $LLMPATCH_ADMIN_TOKEN. Without one: no /admin.")  # fmt: skip
@click.option("--admin-anywhere", is_flag=True, help="Take /admin requests from other machines, too.")
def command(
    base: str,
    revision: str | None,
    patches: tuple[str, ...],
    host: str,
    port: int,
    name: str | None,
    fixed: bool,
    rows: int,
    queue: int,
    context: int,
    max_tokens: int,
    request_seconds: float,
    temperature: float,
    top_p: float,
    canary_seconds: float,
    admin_token_file: Path | None,
    admin_anywhere: bool,
) -> None:
    """Serve a base behind patches at /v1, with a page at /.

    What is active can change while it runs: `llmpatch activate`, `rollback` and the like on this machine, or /admin with
    the token. Ctrl-C or SIGTERM ends it when running answers are done.
    """
    from llmpatch.serving import check_installed, open_serving

    check_installed()
    from llmpatch.serving.admin import Admin, read_token
    from llmpatch.serving.limits import Limits
    from llmpatch.serving.running import open_socket, run_server

    limits = Limits(
        rows=rows, queue=queue, context=context, max_tokens=max_tokens, request_seconds=request_seconds,
        temperature=temperature, top_p=top_p,
    )  # fmt: skip
    admin = Admin(read_token(admin_token_file), admin_anywhere)
    with open_socket(host, port) as listening:
        serving = open_serving(
            base, revision, patches, limits=limits, fixed=fixed, name=name, admin=admin, canary_seconds=canary_seconds
        )
        for text in serving.warnings:
            warn(text)
        where = f"[{host}]" if ":" in host else host
        note(f"serving {serving.name} at http://{where}:{listening.getsockname()[1]}, patch level: {serving.level}")
        run_server(serving.app, listening, serving.limits)
