"""The engine: rows that join and leave at any time say what each would say alone, behind whatever patch set."""

from __future__ import annotations

import queue
import random
import threading

import pytest
import torch

from llmpatch.errors import UsageError
from llmpatch.generation import generate_ids
from llmpatch.recipe import DecodingSection
from llmpatch.serving.engine import Engine
from llmpatch.serving.jobs import BusyError, EngineError, Job, Piece, Scored
from llmpatch.serving.limits import Limits
from llmpatch.serving.patchsets import chat_head
from llmpatch.serving.sampling import Sampling
from servekit import serving
from tinymodels import make_tiny

PROMPTS = ["Hi", "Tell me about the sea and everything in it.", "Why?", "One two three four five", "x" * 90]
GREEDY = Sampling(temperature=0)


def rows_of(n, seed=3):
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(seed)) if n else None


@pytest.fixture
def running():
    """Start engines that are stopped at the end."""
    started = []

    def start(base, **limits) -> Engine:
        engine = Engine(base, Limits(**({"rows": 4, "context": 512, "queue": 500} | limits)))
        engine.start()
        started.append(engine)
        return engine

    yield start
    for engine in started:
        engine.stop(0)


def prefix_of(engine, rows, head=None):
    head = chat_head(engine.base) if head is None else head
    return engine.call(lambda batch: batch.memory.make_prefix(rows, head))


def submit(engine, ids, prefix, sampling=GREEDY, max_tokens=12, **more) -> queue.Queue:
    events: queue.Queue = queue.Queue()
    engine.submit(Job(ids, prefix, "level", sampling, max_tokens, events.put, **more))
    return events


def answer(events, choices=1) -> list[tuple[str, str]]:
    """Text and finish of each choice."""
    texts, finishes = [""] * choices, [None] * choices
    while None in finishes:
        event = events.get(timeout=300)
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Piece):
            texts[event.choice] += event.text
            finishes[event.choice] = event.finish or finishes[event.choice]
    return list(zip(texts, finishes, strict=True))


def alone(base, ids, rows, decoding=None, **more):
    """What ``generation`` says, one prompt at a time."""
    decoding = decoding or DecodingSection(max_new_tokens=12)
    (found,) = generate_ids(base, [ids], decoding=decoding, prefix=rows, **more)
    return [(a.text, a.finish) for a in found[1]]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("qwen2", {}),
        ("gemma2", {"sliding_window": 12}),
        ("gemma3_text", {"sliding_window": 12}),
        ("mistral", {"sliding_window": 16}),
    ],
)
def test_rows_behind_different_sets_in_one_batch_say_what_each_says_alone(running, family, changes):
    base = make_tiny(family, **changes)
    engine = running(base)
    sets = [(rows, prefix_of(engine, rows)) for rows in (None, rows_of(7), rows_of(20, seed=9))]
    asked = [(base.chat_ids(p), rows, prefix) for rows, prefix in sets for p in PROMPTS]
    random.Random(0).shuffle(asked)
    waiting = [submit(engine, ids, prefix) for ids, _, prefix in asked]
    for events, (ids, rows, _) in zip(waiting, asked, strict=True):
        assert answer(events) == alone(base, ids, rows)


def test_rows_that_come_while_others_write_change_nothing(running, tiny):
    engine = running(tiny)
    rows = rows_of(7)
    prefixes = {False: prefix_of(engine, None), True: prefix_of(engine, rows)}
    chance = random.Random(1)
    pending = []
    for i in range(60):
        ids = tiny.chat_ids("word " * chance.randrange(1, 30) + str(i))
        patched, length = chance.random() < 0.5, chance.randrange(1, 30)
        pending.append((submit(engine, ids, prefixes[patched], max_tokens=length), ids, patched, length))
        threading.Event().wait(chance.random() * 0.004)
    for events, ids, patched, length in pending:
        decoding = DecodingSection(max_new_tokens=length)
        assert answer(events) == alone(tiny, ids, rows if patched else None, decoding)


def test_prompts_that_do_not_start_with_the_chat_head_leave_it_whole(running, tiny):
    engine = running(tiny, rows=1)
    rows = rows_of(5)
    prefix = prefix_of(engine, rows)
    for ids in (tiny.chat_ids("Hi"), tiny.text_ids("raw text"), tiny.chat_ids("Hi", "Be brief."), tiny.chat_ids("Hi")):
        assert answer(submit(engine, ids, prefix)) == alone(tiny, ids, rows)


def test_a_long_prompt_is_read_in_pieces_while_others_write(running, tiny):
    engine = running(tiny)
    prefix = prefix_of(engine, rows_of(7))
    long_ids, short_ids = tiny.text_ids("y" * 470), tiny.chat_ids("Hi")
    first = submit(engine, short_ids, prefix, max_tokens=40)
    second = submit(engine, long_ids, prefix)
    assert answer(second) == alone(tiny, long_ids, rows_of(7))
    assert answer(first) == alone(tiny, short_ids, rows_of(7), DecodingSection(max_new_tokens=40))


def test_draws_depend_on_the_seed_and_are_those_of_generation(running, tiny):
    engine = running(tiny, rows=6)
    rows, ids = rows_of(7), tiny.chat_ids("Tell me")
    prefix = prefix_of(engine, rows)
    drawn = Sampling(temperature=1.0, top_p=0.9, seed=5)
    decoding = DecodingSection(max_new_tokens=12, temperature=1.0, top_p=0.9, seed=5)
    wanted = alone(tiny, ids, rows, decoding, samples=3, keys=[0])
    others = [submit(engine, tiny.chat_ids(p), prefix, Sampling(seed=8)) for p in PROMPTS]
    assert answer(submit(engine, ids, prefix, drawn, choices=3), 3) == wanted
    assert len(set(wanted)) > 1
    for events in others:
        answer(events)
    assert answer(submit(engine, ids, prefix, Sampling(top_p=0.9, seed=6)))[0] not in wanted


def test_choices_fork_while_another_prompt_is_being_read(running, tiny):
    engine = running(tiny, rows=6)
    prefix = prefix_of(engine, rows_of(7))
    long_ids = tiny.text_ids("z" * 400)
    both = [submit(engine, tiny.chat_ids("Hi"), prefix, choices=3), submit(engine, long_ids, prefix)]
    assert answer(both[0], 3) == 3 * alone(tiny, tiny.chat_ids("Hi"), rows_of(7))
    assert answer(both[1]) == alone(tiny, long_ids, rows_of(7))


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_ends_before_its_stop_text(running, tiny, stream):
    engine = running(tiny)
    rows, ids = rows_of(7), tiny.chat_ids("Tell me")
    prefix = prefix_of(engine, rows)
    decoding = DecodingSection(max_new_tokens=40)
    text = alone(tiny, ids, rows, decoding)[0][0]
    for stops in [(text[5:7],), (text[10:11], "never said"), (text[-1],), ("never said",)]:
        wanted = alone(tiny, ids, rows, decoding, until=stops)
        assert answer(submit(engine, ids, prefix, max_tokens=40, stops=stops, stream=stream)) == wanted


def test_logprobs_are_those_of_a_plain_forward(running, tiny):
    engine = running(tiny)
    rows, ids = rows_of(7), tiny.chat_ids("Tell me")
    events = submit(engine, ids, prefix_of(engine, rows), Sampling(temperature=0, top_logprobs=3), max_tokens=5)
    tokens = []
    while True:
        piece = events.get(timeout=300)
        tokens += piece.tokens
        if piece.finish:
            break
    sequence = [*ids, *(token.id for token in tokens)]
    embeds = torch.cat([rows, tiny.embed(torch.tensor(sequence))])[None]
    plain = tiny.model(inputs_embeds=embeds).logits[0].log_softmax(-1)
    assert len(tokens) == 5
    for i, token in enumerate(tokens):
        row = plain[len(rows) + len(ids) - 1 + i]
        assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-4)
        assert [key for key, _ in token.top] == row.topk(3).indices.tolist()


@pytest.mark.parametrize("length", [1, 3, 300])
def test_a_prompt_is_scored_by_what_stands_before_each_token(running, tiny, length):
    engine = running(tiny)
    rows, ids = rows_of(7), tiny.text_ids("abcde" * 80)[:length]
    scoring = Sampling(temperature=0, top_logprobs=2)
    events = submit(engine, ids, prefix_of(engine, rows), scoring, max_tokens=0, score_prompt=True)
    scored, end = events.get(timeout=300), events.get(timeout=60)
    plain = tiny.model(inputs_embeds=torch.cat([rows, tiny.embed(torch.tensor(ids))])[None]).logits[0].log_softmax(-1)
    assert isinstance(scored, Scored)
    assert (end.finish, end.count, end.text) == ("length", 0, "")
    assert [token.id for token in scored.tokens] == ids
    assert scored.tokens[0].logprob is None
    for i, token in enumerate(scored.tokens[1:]):
        assert token.logprob == pytest.approx(float(plain[len(rows) + i, token.id]), abs=1e-4)


def test_a_prefix_is_computed_once_and_copied_only_where_a_row_lacks_it(running, tiny, monkeypatch):
    engine = running(tiny, rows=1)
    prefix = prefix_of(engine, rows_of(7))
    ids = tiny.chat_ids("Hi")
    answer(submit(engine, ids, prefix))
    written = []
    layer = engine.batch.memory._layers[0]
    real = type(layer).write
    monkeypatch.setattr(
        type(layer), "write", lambda self, row, start, k, v: (written.append(start), real(self, row, start, k, v))
    )
    answer(submit(engine, ids, prefix))
    assert written
    assert min(written) == 7 + len(prefix.head)
    assert engine.batch.counts.shared_tokens == 2 * len(prefix.head)


def test_a_full_queue_a_late_request_and_a_closing_server_are_busy(running, tiny):
    engine = running(tiny, rows=1, queue=1)
    prefix, ids = prefix_of(engine, None), tiny.chat_ids("Hi")
    gate = threading.Event()
    blocked = threading.Thread(target=lambda: engine.call(lambda _: gate.wait(30)))
    blocked.start()
    late = submit(engine, ids, prefix, deadline=0.0)
    with pytest.raises(BusyError, match="1 requests wait"):
        submit(engine, ids, prefix)
    gate.set()
    blocked.join()
    with pytest.raises(BusyError, match="in time"):
        answer(late)
    last = submit(engine, ids, prefix)
    engine.stop(30)
    assert answer(last) == alone(tiny, ids, None)
    with pytest.raises(BusyError, match="shutting down"):
        submit(engine, ids, prefix)


def test_a_cancelled_request_frees_its_row(running, tiny):
    engine = running(tiny, rows=1)
    prefix, ids = prefix_of(engine, None), tiny.chat_ids("Hi")
    job = Job(ids, prefix, "level", GREEDY, 400, lambda _: None, ignore_eos=True)
    engine.submit(job)
    job.cancel()
    assert answer(submit(engine, ids, prefix)) == alone(tiny, ids, None)
    assert engine.batch.counts.written_tokens < 400


def test_a_failing_step_fails_its_requests_and_nothing_else(running, tiny, monkeypatch):
    engine = running(tiny)
    prefix, ids = prefix_of(engine, rows_of(7)), tiny.chat_ids("Hi")
    with monkeypatch.context() as patched:
        patched.setattr(type(engine.batch), "_write", lambda self: 1 / 0)
        with pytest.raises(EngineError, match="failed at this request"):
            answer(submit(engine, ids, prefix))
    assert engine.failures == 1
    assert answer(submit(engine, ids, prefix)) == alone(tiny, ids, rows_of(7))


def test_a_request_that_cannot_enter_is_answered_and_others_go_on(running, tiny, monkeypatch):
    engine = running(tiny)
    prefix, ids = prefix_of(engine, rows_of(7)), tiny.chat_ids("Hi")
    with monkeypatch.context() as patched:
        patched.setattr(type(engine.batch), "enter", lambda self, job: 1 / 0)
        with pytest.raises(EngineError, match="failed at this request"):
            answer(submit(engine, ids, prefix))
    assert answer(submit(engine, ids, prefix)) == alone(tiny, ids, rows_of(7))


def test_what_fills_a_row_up_has_no_position_beyond_the_context():
    """A row at the end of the context beside one that reads many tokens, in a model that learned its positions."""
    from llmpatch.serving.keyvalues import KeyValues

    base = make_tiny("gpt2", max_position_embeddings=64)
    memory = KeyValues(base, 2, 64)
    ids = torch.randint(3, base.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    together = memory.forward(0, ids, [60, 0], [4, 20])
    by_itself = KeyValues(base, 2, 64).forward(1, ids[1:], [0])
    assert torch.allclose(together[1], by_itself[0], atol=1e-5)


def test_a_base_whose_prompts_have_no_start_in_common_is_served():
    base = make_tiny()
    base.tokenizer.chat_template = None
    assert chat_head(base) == []
    with serving(base, []) as live:
        assert live.desk.healthy
        assert live.chat().json()["choices"][0]["message"]["content"] == live.expected("Hi")


def test_memory_grows_with_long_rows_and_is_given_back(running, tiny):
    engine = running(tiny, rows=2)
    prefix = prefix_of(engine, rows_of(7))
    ids = tiny.text_ids("w" * 300)
    grown = []
    events: queue.Queue = queue.Queue()
    sink = lambda event: (grown.append(engine.batch.memory._capacity), events.put(event))  # noqa: E731
    engine.submit(Job(ids, prefix, "level", GREEDY, 12, sink))
    assert answer(events) == alone(tiny, ids, rows_of(7))
    assert grown[0] == 512
    for _ in range(100):
        if engine.batch.memory._capacity == 256:
            break
        threading.Event().wait(0.02)
    assert engine.batch.memory._capacity == 256
    assert answer(submit(engine, tiny.chat_ids("Hi"), prefix)) == alone(tiny, tiny.chat_ids("Hi"), rows_of(7))


def test_layers_that_keep_something_else_are_refused():
    base = make_tiny("falcon_mamba", state_size=8, conv_kernel=4, expand=2)
    with pytest.raises(UsageError, match=r"falcon_mamba|unknown kind"):
        Engine(base, Limits())


def test_the_thread_that_loads_the_base_ends_and_the_engines_thread_does_the_rest(tiny, tmp_path, monkeypatch):
    """Each thread that ever computed keeps OpenMP's threads, and more of them than processors wait for work slowly."""
    from llmpatch.serving import canary, open_serving
    from servekit import save_patch

    where = {}

    def noting(name, function):
        def noted(*arguments, **named):
            where.setdefault(name, set()).add(threading.current_thread())
            return function(*arguments, **named)

        return noted

    monkeypatch.setattr("llmpatch.bases.load_base", noting("load", lambda *_: tiny))
    for name in ("plain", "served", "check"):
        monkeypatch.setattr(canary, name, noting(name, getattr(canary, name)))
    monkeypatch.setenv("LLMPATCH_STORE", str(tmp_path / "store"))
    patch = save_patch(tmp_path, tiny, "acme/first")
    serving = open_serving("tiny", None, [str(patch)], limits=Limits(rows=2, context=128))
    try:
        (loader,) = where.pop("load")
        assert loader is not threading.current_thread()
        assert not loader.is_alive()
        assert set.union(*where.values()) == {serving.desk.engine._thread}
        assert where.keys() == {"plain", "served", "check"}
    finally:
        serving.desk.engine.stop(5)
