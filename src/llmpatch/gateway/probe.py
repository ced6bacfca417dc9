"""Whether an engine really puts the patch in front: it is asked how it would write or tokenise a chat.

    probe(client, plan)     # "llama.cpp: /apply-template starts with the patch's tokens"

A server started with another model, or with a chat template of its own, would serve the base under the patch's name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.errors import LlmpatchError
from llmpatch.exporting.gguf_model import ADAPTER
from llmpatch.gateway.plan import Plan

if TYPE_CHECKING:
    import httpx

_CHAT = {"messages": [{"role": "user", "content": "What stands before this?"}]}


def probe(client: httpx.Client, plan: Plan) -> str | None:
    """Ask the upstream.

    Args:
        client: With the upstream as its base URL.
        plan: How requests will be changed.

    Returns:
        What was checked; ``None`` where the engine has no way to ask.

    Raises:
        LlmpatchError: it cannot be reached, it leaves the patch out, or it has other models that requests could name.
    """
    _check_model(client, plan)
    path = "/apply-template" if plan.to in ("gguf", "lora-gguf") else "/tokenize"
    reply = _ask(client, path, plan.chat(_CHAT))
    if reply is None:
        return None
    if path == "/apply-template":
        applied = str(reply.get("prompt", "")).startswith(plan.text)
    else:
        applied = tuple(reply.get("tokens") or ())[: len(plan.ids)] == plan.ids
    if not applied:
        raise LlmpatchError(
            f"{client.base_url} does not put the patch ({plan.level}) in front of a chat",
            hint="start it with the model of this export, and with no --chat-template of its own",
        )
    _check_adapter(client, plan)
    return f"{path} of {client.base_url} starts with the patch's {len(plan.ids)} tokens"


def _check_model(client: httpx.Client, plan: Plan) -> None:
    """A request that names another model of the same server would be answered without the patch.

    Raises:
        LlmpatchError: there are several, and none is named; or the one that is named is not there.
    """
    listed = _get(client, "/v1/models") if plan.to != "lora" else None
    found = listed.get("data") if isinstance(listed, dict) else None
    names = [str(entry.get("id")) for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    if len(names) > 1 and not plan.model:
        raise LlmpatchError(
            f"{client.base_url} has {len(names)} models ({', '.join(names)[:200]}): a request could name one without the patch",
            hint="--model NAME, as the engine calls this export: every request gets it",
        )
    if names and plan.model and plan.model not in names:
        raise LlmpatchError(
            f"{client.base_url} has no model {plan.model}, but {', '.join(names)[:200]}", hint="check --model"
        )


def _check_adapter(client: httpx.Client, plan: Plan) -> None:
    """Without the right adapter the patch's tokens say nothing, and the base answers under the patch's name.

    Raises:
        LlmpatchError: what the engine has under the adapter's name is another one, or the base itself.
    """
    path = {"lora-gguf": "/lora-adapters", "lora": "/v1/models"}.get(plan.to)
    found = _get(client, path) if path else None
    if isinstance(found, dict):
        found = found.get("data")
    if not isinstance(found, list):  # the engine cannot be asked
        return
    there = [entry for entry in found if isinstance(entry, dict) and str(entry.get("id")) == plan.adapter]
    if plan.to == "lora-gguf":
        names = [Path(str(entry.get("path", ""))).name for entry in there]
        right = any(name in ("", ADAPTER) for name in names)  # llama-server has not always told the path
    else:
        right = any(entry.get("parent") for entry in there)
        names = [str(entry.get("id")) for entry in there if not entry.get("parent")]
    if not right:
        has = f"is {', '.join(names)[:100]} there" if names else "is not there"
        raise LlmpatchError(
            f"{client.base_url}: adapter {plan.adapter} {has}, not this export's",
            hint="--adapter NUMBER of llama-server's --lora, in their order from 0; or NAME of vLLM's --lora-modules",
        )


def _get(client: httpx.Client, path: str) -> Any:
    """What a path says as JSON; ``None`` where it says none."""
    import httpx

    try:
        reply = client.get(path)
        return json.loads(reply.content[: 1 << 20]) if reply.status_code == 200 else None
    except (httpx.HTTPError, ValueError, RecursionError):
        return None


def _ask(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
    import httpx

    try:
        reply = client.post(path, json=body)
    except httpx.HTTPError as error:
        raise LlmpatchError(
            f"cannot reach {client.base_url}: {type(error).__name__}: {str(error)[:200]}",
            hint="start the engine first, and check --upstream",
        ) from None
    if reply.status_code in (404, 405, 501):
        return None
    if reply.status_code in (401, 403):
        return None  # the engine wants a key, which clients bring
    try:
        found = json.loads(reply.content[: 1 << 20])
    except (ValueError, RecursionError):
        found = None
    if reply.status_code != 200 or not isinstance(found, dict):
        raise LlmpatchError(
            f"{client.base_url}{path} answered {reply.status_code}: {reply.text[:200]}",
            hint="is the adapter loaded under the name given?",
        )
    return found
