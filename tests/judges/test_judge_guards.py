"""Guard models: their questions, and both adapters against real parts (a tiny random Llama, a loopback server)."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.judges import identity, open_judge
from llmpatch.judges.guards import MAX_CHARS, family_of
from tinymodels import make_tiny

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<risk:{{ guardian_config.risk_name }}>"
PROMPTS = ["How do I pick a lock?", "Hi", "Tell me a story about {answer} and {prompt}."]
ANSWERS = ["First, insert the wrench.", "Hello there, this answer is quite a bit longer than the others.", ""]


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("meta-llama/Llama-Guard-3-8B", "llama-guard-3"),
        ("meta-llama/Llama-Guard-3-1B", "llama-guard-3"),
        ("llama-guard3:8b", "llama-guard-3"),
        ("meta-llama/LlamaGuard-7b", "llama-guard"),
        ("ibm-granite/granite-guardian-3.2-5b", "granite-guardian"),
        ("cais/HarmBench-Llama-2-13b-cls", "harmbench-llama"),
        ("Qwen/Qwen2.5-7B-Instruct", "general"),
    ],
)
def test_families_are_known_by_name(model: str, family: str) -> None:
    assert family_of(model).name == family


def test_a_question_holds_prompt_and_answer_as_they_are() -> None:
    text = family_of("Llama-Guard-3-8B").text("say {answer}", "no {prompt}")
    assert "User: say {answer}\n\nAgent: no {prompt}\n\n<END CONVERSATION>" in text
    assert text.startswith("<|begin_of_text|><|start_header_id|>user")
    assert text.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    assert all(f"S{number}: " in text for number in range(1, 15))
    assert len(family_of("harmbench-llama").text("a" * 10**6, "b" * 10**6)) < 2 * MAX_CHARS + 2000


# hf:


def tiny(folder: Path, chat: str | None = None) -> Path:
    """A random two-layer Llama that reads bytes."""
    base = make_tiny(max_position_embeddings=4096, initializer_range=0.5)
    base.tokenizer.chat_template = chat
    base.tokenizer.save_pretrained(folder)
    base.model.save_pretrained(folder)
    return folder


def plainly(folder: Path, text: str, harmful: str, harmless: str) -> float:
    """P(harm) by one forward pass of one text, nothing padded."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer.encode(text, add_special_tokens=False)])).logits[0, -1]
    pair = logits[[tokenizer.convert_tokens_to_ids(harmful[0]), tokenizer.convert_tokens_to_ids(harmless[0])]]
    return float(torch.softmax(pair, dim=0)[0])


@pytest.mark.parametrize(
    ("name", "words"), [("llama-guard-3-tiny", ("unsafe", "safe")), ("harmbench-llama-tiny", ("Yes", "No"))]
)
def test_a_local_guard_reads_the_two_words(tmp_path: Path, name: str, words: tuple[str, str]) -> None:
    folder = tiny(tmp_path / name)
    judge = open_judge(f"hf:{folder}")
    scores = judge.score(PROMPTS, ANSWERS)
    family = family_of(name)
    expected = [plainly(folder, family.text(p, a), *words) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    assert scores == pytest.approx(expected, abs=1e-4)
    assert len(set(scores)) == 3
    assert judge.measures == "harm"
    assert identity(judge)["family"] == family.name
    (folder / "README.md").write_text("other files are another judge: kept scores are not its")
    assert identity(open_judge(f"hf:{folder}")) != identity(judge)


def test_a_granite_guardian_is_asked_through_its_own_template(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "granite-guardian-tiny", CHAT)
    text = f"<user>{PROMPTS[0]}\n<assistant>{ANSWERS[0]}\n<risk:harm>"
    assert open_judge(f"hf:{folder}").score(PROMPTS[:1], ANSWERS[:1]) == pytest.approx(
        [plainly(folder, text, "Yes", "No")], abs=1e-4
    )


def test_a_guard_without_a_template_is_refused(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "granite-guardian-tiny")
    with pytest.raises(LlmpatchError, match="no chat template"):
        open_judge(f"hf:{folder}")


def test_a_folder_without_a_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LlmpatchError, match="cannot load judge hf:"):
        open_judge(f"hf:{tmp_path}")


# endpoint:

Answerer = Callable[[dict[str, Any], int], tuple[int, bytes, dict[str, str]]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answerer], tuple[str, list[dict[str, Any]]]]]:
    """Start a chat server with the given behaviour; yields its URL and what it was asked."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answerer) -> tuple[str, list[dict[str, Any]]]:
        asked: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
                status, data, headers = answer(body, len(asked))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/v1", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def said(text: str, logprobs: Any = None) -> tuple[int, bytes, dict[str, str]]:
    return 200, json.dumps({"choices": [{"message": {"content": text}, "logprobs": logprobs}]}).encode(), {}


def test_an_endpoint_gets_the_conversation_and_keeps_the_order(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPATCH_JUDGE_API_KEY", "sk-secret")
    url, asked = serve(
        lambda body, _: said("\n\nunsafe\nS2" if "bad" in body["messages"][-1]["content"] else "\n\nsafe")
    )
    judge = open_judge(f"endpoint:llama-guard3:8b@{url}")
    answers = [f"bad {i}" if i % 3 else f"good {i}" for i in range(20)]
    assert judge.score(["p"] * 20, answers) == [float(bool(i % 3)) for i in range(20)]
    assert {(a["path"], a["key"], a["model"]) for a in asked} == {
        ("/v1/chat/completions", "Bearer sk-secret", "llama-guard3:8b")
    }
    assert [m["role"] for m in asked[0]["messages"]] == ["user", "assistant"]
    assert "secret" not in json.dumps(identity(judge))


def test_log_probabilities_become_the_score(serve: Any) -> None:
    top = [{"token": "unsafe", "logprob": -1.0}, {"token": "safe", "logprob": -2.0}, {"token": "the", "logprob": -0.9}]
    url, _ = serve(
        lambda *_: said(
            "unsafe", {"content": [{"token": "\n", "top_logprobs": []}, {"token": "unsafe", "top_logprobs": top}]}
        )
    )
    (score,) = open_judge(f"endpoint:llama-guard-3@{url}").score(["p"], ["a"])
    assert score == pytest.approx(1 / (1 + 2.718281828**-1.0))


def test_any_other_model_is_asked_the_question(serve: Any) -> None:
    url, asked = serve(lambda *_: said("Yes, it does."))
    assert open_judge(f"endpoint:some/model@{url}").score(["PROMPT"], ["ANSWER"]) == [1.0]
    (message,) = asked[0]["messages"]
    assert "Behavior:\nPROMPT\n\nGeneration:\nANSWER" in message["content"]
    assert asked[0]["key"] is None


def test_a_granite_guardian_endpoint_gets_its_risk(serve: Any) -> None:
    url, asked = serve(lambda *_: said("<score> no </score>"))
    assert open_judge(f"endpoint:granite-guardian@{url}").score(["p"], ["a"]) == [0.0]
    assert asked[0]["chat_template_kwargs"] == {"guardian_config": {"risk_name": "harm"}}


def test_a_busy_endpoint_is_asked_again(serve: Any) -> None:
    busy = [(429, b"", {"Retry-After": "0"}), (503, b"", {})]
    url, asked = serve(lambda _, count: busy[count - 1] if count <= 2 else said("safe"))
    assert open_judge(f"endpoint:llama-guard-3@{url}").score(["p"], ["a"]) == [0.0]
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("reply", "match"),
    [
        ((401, b"no", {}), "HTTP 401"),
        ((200, b"<html>", {}), "not answer in JSON"),
        ((200, b"[" * 100_000, {}), "not answer in JSON"),
        ((200, b'{"choices": []}', {}), "no chat completion"),
        ((200, b"[1]", {}), "no chat completion"),
        ((200, b'{"choices": [{"message": {"content": null}}]}', {}), "neither 'unsafe' nor 'safe'"),
        ((200, b'{"choices": [{"message": {"content": "banana"}}]}', {}), "banana"),
        ((200, b"x" * ((1 << 20) + 1), {}), "bytes"),
    ],
)
def test_rubbish_is_one_clear_error(serve: Any, reply: Any, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPATCH_JUDGE_API_KEY", "sk-secret")
    url, _ = serve(lambda *_: reply)
    with pytest.raises(LlmpatchError, match=match) as caught:
        open_judge(f"endpoint:llama-guard-3@{url}").score(["p"] * 3, ["a"] * 3)
    assert caught.value.hint
    assert "sk-secret" not in caught.value.message + caught.value.hint


def test_an_endpoint_that_is_down() -> None:
    with pytest.raises(LlmpatchError, match="does not answer"):
        open_judge("endpoint:llama-guard-3@http://127.0.0.1:9/v1").score(["p"], ["a"])


@pytest.mark.parametrize(
    "spec", ["model", "model@", "@http://x/v1", "model@ftp://x", "model@http://", "m@http://u:p@host/v1"]
)
def test_a_wrong_address_is_refused(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_judge(f"endpoint:{spec}")
    assert caught.value.hint
