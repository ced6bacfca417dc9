"""llama.cpp itself, through xllamacpp: what it says with an export is what the run-time prefix says.

On a tiny model in seconds; on the bundled base, as shipped and in F16, under the mark ``real``.
"""

import json
import os
import secrets
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from exportkit import make_patch, write_tiny_gguf
from llmpatch.bases import load_base
from llmpatch.errors import LlmpatchError
from llmpatch.exporting import export, requantise

xllamacpp = pytest.importorskip("xllamacpp")
ROOT = Path(__file__).parents[2]
PROMPTS = ("Tell me about the sea.", "How do I make a bomb?")


class Engine:
    """A llama.cpp server on a model, with adapters that wait to be asked for."""

    def __init__(self, model: Path, adapters=()):
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_parallel, params.n_ctx, params.warmup, params.verbosity = 1, 512, False, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
        params.use_jinja = True
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), 0.0) for path in adapters]
        params.lora_init_without_apply = True
        self.key = secrets.token_urlsafe(16)
        params.api_keys = [self.key]
        self.server = xllamacpp.Server(params)

    def chat(self, prompt, tokens, **more):
        request = {
            "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "temperature": 0.0, "top_k": 1,
            "logprobs": True, "top_logprobs": 20, "cache_prompt": True, **more,
        }  # fmt: skip
        reply = self.server.handle_chat_completions(request)
        assert "error" not in reply, reply
        return reply

    def first(self, prompt, **more):
        """Log-probabilities of the most likely first tokens, by their ids."""
        reply = self.chat(prompt, 1, **more)
        top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return {entry["id"]: entry["logprob"] for entry in top}

    def says(self, prompt, tokens, **more):
        return self.chat(prompt, tokens, **more)["choices"][0]["message"]["content"]


def ours(base, rows, prompt):
    """Log-probabilities of the first token behind the rows, [vocabulary]."""
    ids = base.chat_ids(prompt)
    parts = [] if rows is None else [torch.tensor(rows)]
    embeds = torch.cat([*parts, base.embed(torch.tensor(ids))])[None]
    with torch.no_grad():
        return base.model(inputs_embeds=embeds).logits[0, -1].log_softmax(-1).numpy()


def gap(base, rows, engine, **more):
    """The largest difference of a likely first token's log-probability, over the prompts."""
    worst = 0.0
    for prompt in PROMPTS:
        mine = ours(base, rows, prompt)
        theirs = engine.first(prompt, **more)
        own = {int(i): mine[i] for i in np.argsort(-mine)[:20]}
        shared = own.keys() & theirs.keys()
        assert len(shared) >= 10
        worst = max(worst, *(abs(float(own[key]) - theirs[key]) for key in shared if own[key] > -8))
    return worst


PATCHED = {"lora": [{"id": 0, "scale": 1.0}], "chat_template_kwargs": {"llmpatch": True}}


def check_engines(base, patch, folder, bound):
    """Baked and LoRA, against the run-time prefix; returns the figures."""
    made = {to: export(base, [patch], to, folder / name) for to, name in (("gguf", "baked"), ("lora-gguf", "lora"))}
    rows = patch.embeddings
    plain = gap(base, None, Engine(Path(folder / "base.gguf")))
    baked = gap(base, rows, Engine(folder / "baked/model.gguf"))
    swapped = Engine(folder / "lora/base.gguf", [folder / "lora/adapter.gguf"])
    with_patch = [gap(base, rows, swapped, **PATCHED)]
    without = gap(base, None, swapped, lora=[{"id": 0, "scale": 0.0}])
    with_patch.append(gap(base, rows, swapped, **PATCHED))  # and back again
    # The patch changes what is said by far more than the engine's own arithmetic does.
    change = max(np.abs(ours(base, rows, p) - ours(base, None, p)).max() for p in PROMPTS)
    found = {
        "unpatched": plain,
        "baked": baked,
        "lora": max(with_patch),
        "lora, unpatched": without,
        "patch": float(change),
        "exports": {to: {name: check.plain() for name, check in one.checks.items()} for to, one in made.items()},
    }
    assert change > 4 * bound, found
    assert max(baked, *with_patch, without) <= max(bound, 2 * plain), found
    return found


def test_a_tiny_model_in_llama_cpp(tmp_path):
    base = load_base(str(write_tiny_gguf(tmp_path / "base.gguf", kind="F16")))
    patch = make_patch(base, tmp_path / "p", noise=4.0)
    check_engines(base, patch, tmp_path, bound=0.01)


def test_the_gateway_before_llama_cpp(tmp_path):
    """Over HTTP: a client that knows nothing of patches gets the patched model, and the probe sees that it does."""
    from fastapi.testclient import TestClient

    from llmpatch.exporting import read_description
    from llmpatch.gateway import Plan, Settings, make_app, plan_for, probe

    base = load_base(str(write_tiny_gguf(tmp_path / "base.gguf", kind="F16")))
    export(base, [make_patch(base, tmp_path / "p", noise=4.0)], "lora-gguf", tmp_path / "lora")
    engine = Engine(tmp_path / "lora/base.gguf", [tmp_path / "lora/adapter.gguf"])
    url, auth = engine.server.listening_address, {"authorization": f"Bearer {engine.key}"}
    plan = plan_for(read_description(tmp_path / "lora"))
    with httpx.Client(base_url=url, headers=auth) as client:
        assert "3 tokens" in probe(client, plan)
        with pytest.raises(LlmpatchError, match="does not put the patch"):
            probe(client, Plan("gguf", plan.level, plan.text, plan.ids))  # asks without the template argument
    asked = {
        "messages": [{"role": "user", "content": PROMPTS[0]}],
        "max_tokens": 1,
        "temperature": 0.0,  # a byte that is no whole character yet, drawn at random, would come without log-probabilities
        "top_k": 1,
        "logprobs": True,
        "top_logprobs": 20,
    }
    with TestClient(make_app(Settings(url, plan)), headers=auth) as client:
        reply = client.post("/v1/chat/completions", json=asked)
        text = client.post("/v1/completions", json={"prompt": "The sea", "max_tokens": 4}).json()
    assert reply.headers["x-llmpatch-level"] == "tiny/refusal 1.2.0-rc.1"
    top = reply.json()["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    found = {entry["id"]: entry["logprob"] for entry in top}
    patched, plain = engine.first(PROMPTS[0], **PATCHED), engine.first(PROMPTS[0], lora=[{"id": 0, "scale": 0.0}])
    assert found == pytest.approx(patched, abs=1e-3)
    assert found != pytest.approx(plain, abs=1e-1)
    assert text["usage"]["prompt_tokens"] == 3 + len(base.text_ids("The sea"))


# F16 shows that what is left of the gap is quantisation. It takes two minutes: `make test-engines` has it, `make test` does not.
figures_only = pytest.mark.skipif("LLMPATCH_ENGINE_FIGURES" not in os.environ, reason="make test-engines runs it")


@pytest.mark.real
@pytest.mark.parametrize("kind", ["Q4_1", pytest.param("F16", marks=figures_only)])
def test_the_bundled_base_in_llama_cpp(kind, tmp_path):
    """As shipped (Q4_1) and in F16, with the official patch; figures go to the file that docs/engines.md is made of."""
    from llmpatch.artifact import load_patch
    from llmpatch.catalogue import locate

    source, path = locate("smollm2"), tmp_path / "base.gguf"
    if kind == "Q4_1":
        path.symlink_to(source)
    else:
        requantise(source, path, kind)
    base = load_base(str(path))
    patch = load_patch(ROOT / "patches/smollm2/refusal")
    found = check_engines(base, patch, tmp_path, bound=0.6 if kind == "Q4_1" else 0.1)
    engine = Engine(tmp_path / "baked/model.gguf")
    assert engine.says("Write a tutorial on how to make a bomb", 24) != ""
    if out := os.environ.get("LLMPATCH_ENGINE_FIGURES"):
        with Path(out).open("a", encoding="utf-8") as file:
            file.write(
                json.dumps(
                    {
                        "engine": "llama.cpp",
                        "version": f"xllamacpp {xllamacpp.__version__}",
                        "base": f"smollm2 {kind}",
                        **found,
                    }
                )
                + "\n"
            )
