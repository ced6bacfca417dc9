import pytest
import torch

from llmpatch.errors import UsageError
from llmpatch.evals.latency import _run, measure_latency
from llmpatch.generation import generate
from llmpatch.prefix import prefix_cache
from llmpatch.recipe import DecodingSection


def test_latency_times_both_models_and_pairs_them(tiny):
    found = measure_latency(tiny, torch.randn(5, 32), ["Hello!", "Why?"], new_tokens=4, repeats=3)
    assert (found.runs, found.tokens) == (6, 4)
    assert min(*found.first_ms, *found.token_ms) > 0
    for ratio in (found.first_ratio, found.token_ratio):
        assert 0 < ratio.low <= ratio.value <= ratio.high
        assert ratio.n == 6
    assert found.json()["token_ms"].keys() == {"base", "patched"}


def test_the_timed_loop_leaves_the_shared_cache_as_it_was(tiny):
    rows = torch.randn(5, 32)
    with torch.no_grad():
        shared = prefix_cache(tiny, rows, [])
        before = shared.layers[0].keys.clone()
        _run(tiny, tiny.chat_ids("Hello!"), shared, 5, 4)
    assert torch.equal(shared.layers[0].keys, before)


def test_the_timed_loop_decodes_what_generate_decodes(tiny, monkeypatch):
    rows = torch.randn(5, 32)
    seen = []
    from llmpatch.evals import latency

    real = latency.run_behind
    monkeypatch.setattr(
        latency, "run_behind", lambda b, ids, *rest: (seen.append(ids[0].tolist()), real(b, ids, *rest))[1]
    )
    with torch.no_grad():
        _run(tiny, tiny.chat_ids("Hello!"), prefix_cache(tiny, rows, []), 5, 6)
    ((_, answers),) = generate(tiny, ["Hello!"], prefix=rows, decoding=DecodingSection(max_new_tokens=5))
    fed = tiny.decode([i for step in seen[1:] for i in step])
    assert fed.startswith(answers[0].text)
    assert answers[0].finish == "stop" or fed == answers[0].text


@pytest.mark.parametrize("arguments", [{"prompts": []}, {"prompts": ["a"], "new_tokens": 1}, {"prompts": ["a" * 600]}])
def test_what_cannot_be_timed_is_refused(tiny, arguments):
    with pytest.raises(UsageError):
        measure_latency(tiny, None, **arguments)
