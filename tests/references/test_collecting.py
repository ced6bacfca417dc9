import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llmpatch.answers import Answer
from llmpatch.errors import IntegrityError, LlmpatchError, ReferenceFailedError, UsageError
from llmpatch.progress import Silent
from llmpatch.prompts import Prompt
from llmpatch.references import collect


class Counting:
    """A reference that counts, answers backwards, and fails after `limit` answers."""

    def __init__(self, name="one", limit=10**9, error=None):
        self.name, self.limit, self.asked, self.closed = name, limit, [], False
        self.error = error or ReferenceFailedError("enough")

    def identity(self):
        return {"kind": "counting", "name": self.name, "shape": (1, 2)}

    def answer(self, prompts):
        try:
            for number, index in enumerate(reversed(range(len(prompts)))):
                if number == self.limit:
                    raise self.error
                self.asked.append(prompts[index])
                yield index, Answer(f"{self.name}: {prompts[index]}", "length" if index % 2 else "stop")
        finally:
            self.closed = True


def run(reference, prompts, store, **options):
    return collect(reference, prompts, store, progress=Silent(), **options)


def test_answers_come_in_the_order_of_the_prompts_and_a_second_run_asks_nothing(tmp_path, make_prompts):
    prompts = make_prompts(70)
    first, second = Counting(), Counting()
    answers = run(first, prompts, tmp_path)
    assert [a.text for a in answers] == [f"one: {p.text}" for p in prompts]
    assert len(first.asked) == 70
    assert first.closed
    assert run(second, prompts, tmp_path) == answers
    assert second.asked == []
    assert len(list(tmp_path.iterdir())) == 3
    assert not list(tmp_path.glob("*.partial.jsonl"))


def test_another_identity_or_another_prompt_is_asked_anew_and_the_rest_is_not(tmp_path, make_prompts):
    run(Counting(), make_prompts(64), tmp_path)
    other = Counting("two")
    run(other, make_prompts(64), tmp_path)
    assert len(other.asked) == 64
    longer = Counting()
    run(longer, make_prompts(70), tmp_path)
    assert sorted(longer.asked) == sorted(p.text for p in make_prompts(70)[64:])


@pytest.mark.parametrize("error", [ReferenceFailedError("gone"), KeyboardInterrupt(), RuntimeError("bug")])
def test_whatever_ends_a_run_nothing_is_lost_and_nothing_asked_twice(tmp_path, make_prompts, error):
    prompts = make_prompts(50)
    broken = Counting(limit=23, error=error)
    with pytest.raises(type(error)):
        run(broken, prompts, tmp_path)
    resumed = Counting()
    answers = run(resumed, prompts, tmp_path)
    assert sorted(broken.asked + resumed.asked) == sorted(p.text for p in prompts)
    assert [a.text for a in answers] == [f"one: {p.text}" for p in prompts]


def test_a_reference_that_ends_early_without_a_word_is_an_error(tmp_path, make_prompts):
    class Lazy(Counting):
        def answer(self, prompts):
            yield 0, Answer("only", "stop")

    with pytest.raises(ReferenceFailedError, match="left 4 of 5"):
        run(Lazy(), make_prompts(5), tmp_path)


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_torn_last_line_of_a_partial_shard_costs_one_answer(tmp_path, make_prompts, cut):
    prompts = make_prompts(10)
    with pytest.raises(ReferenceFailedError):
        run(Counting(limit=6), prompts, tmp_path)
    (partial,) = tmp_path.glob("*.partial.jsonl")
    partial.write_bytes(partial.read_bytes()[:-cut])
    resumed = Counting()
    assert len(run(resumed, prompts, tmp_path)) == 10
    assert len(resumed.asked) == 5


def test_a_run_killed_before_the_last_rename_is_finished_without_asking(tmp_path, make_prompts):
    prompts = make_prompts(4)
    with pytest.raises(ReferenceFailedError):
        run(Counting(limit=3), prompts, tmp_path)
    (partial,) = tmp_path.glob("*.partial.jsonl")
    row = {"index": 0, "prompt": prompts[0].text, "completion": "late", "finish": "stop"}
    partial.write_bytes(partial.read_bytes() + json.dumps(row).encode() + b"\n")
    silent = Counting()
    assert run(silent, prompts, tmp_path)[0] == Answer("late", "stop")
    assert silent.asked == []
    assert not partial.exists()


def test_a_damaged_shard_is_named_and_deleting_it_mends_the_store(tmp_path, make_prompts):
    prompts = make_prompts(40)
    run(Counting(), prompts, tmp_path)
    victim = sorted(tmp_path.iterdir())[0]
    victim.write_bytes(victim.read_bytes().replace(b"one: ", b"two: ", 1))
    with pytest.raises(IntegrityError) as caught:
        run(Counting(), prompts, tmp_path)
    assert str(victim) in caught.value.message
    assert "delete" in caught.value.hint
    victim.unlink()
    mended = Counting()
    run(mended, prompts, tmp_path)
    assert 0 < len(mended.asked) < 40


def test_text_that_no_file_can_hold_is_replaced_in_answers_and_refused_in_prompts(tmp_path):
    class Odd(Counting):
        def answer(self, prompts):
            yield 0, Answer("a\ud800b", "stop")

    prompts = [Prompt("x", "fine", "everyday")]
    assert run(Odd(), prompts, tmp_path) == [Answer("a\ufffdb", "stop")]
    assert run(Counting(name="one"), prompts, tmp_path) == [Answer("a\ufffdb", "stop")]
    with pytest.raises(UsageError, match="'y'"):
        run(Odd(), [Prompt("y", "b\udc00", "everyday")], tmp_path)


def test_a_store_that_cannot_be_written_is_one_clear_error(tmp_path, make_prompts):
    (tmp_path / "store").write_text("a file, not a folder")
    with pytest.raises(LlmpatchError, match="cannot"):
        run(Counting(), make_prompts(3), tmp_path / "store")


def test_a_full_disk_keeps_what_was_answered(tmp_path, make_prompts, monkeypatch):
    """The kernel itself refuses to let a file grow (RLIMIT_FSIZE), as a full disk would."""
    script = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_collecting import Counting, run
from llmpatch.errors import LlmpatchError
from llmpatch.prompts import Prompt
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1200, 1200))
prompts = [Prompt(f"p{n}", f"prompt {n} ☂", "everyday") for n in range(20)]
try:
    run(Counting(), prompts, Path(sys.argv[1]))
except LlmpatchError as error:
    print(error.message, error.hint, sep="|")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)], capture_output=True, text=True
    )
    assert "cannot write" in done.stdout, done.stderr
    assert "are kept" in done.stdout
    resumed = Counting()
    assert len(run(resumed, make_prompts(20), tmp_path)) == 20
    assert 0 < len(resumed.asked) < 20


CHILD = """
import sys
from pathlib import Path
from llmpatch.progress import Silent
from llmpatch.prompts import Prompt
from llmpatch.recipe import DecodingSection
from llmpatch.references import collect
from llmpatch.references.endpoint import EndpointReference
prompts = [Prompt(f"p{n}", f"prompt {n} ☂", "everyday") for n in range(60)]
reference = EndpointReference(sys.argv[1], "m", DecodingSection(), api_key_env="TEST_KEY", concurrency=2)
print(len(collect(reference, prompts, Path(sys.argv[2]), progress=Silent())))
"""


def start(endpoint, store):
    environment = os.environ | {"TEST_KEY": "sk-very-secret-1234567890", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", CHILD, endpoint.url, str(store)]
    # A shell that runs the tests in the background ignores Ctrl-C for all its children; this child must not.
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def stored(store):
    return [json.loads(line)["prompt"] for path in store.glob("*.jsonl") for line in whole_rows(path)]


def whole_rows(path):
    return [line for line in path.read_bytes().split(b"\n")[1:-1] if line]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_continues_and_asks_nothing_twice(tmp_path, endpoint, how):
    release = threading.Event()
    # Twenty answers and then none: however slow this machine is, the child is in the middle when the signal comes.
    endpoint.behave = lambda prompt, number, handler: len(endpoint.calls) > 20 and release.wait(600)
    child = start(endpoint, tmp_path)
    deadline = time.monotonic() + 300
    while len(stored(tmp_path)) < 19 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(how)
    child.communicate(timeout=300)
    release.set()
    kept = stored(tmp_path)
    assert 19 <= len(kept) <= 20
    before = len(endpoint.calls)
    endpoint.behave = lambda prompt, number, handler: False

    second = start(endpoint, tmp_path)
    out, err = second.communicate(timeout=300)
    assert out == "60\n", err
    asked_again = [call[0] for call in endpoint.calls[before:]]
    assert sorted(asked_again + kept) == sorted(f"prompt {n} ☂" for n in range(60))
    everything = len(endpoint.calls)
    start(endpoint, tmp_path).communicate(timeout=300)
    assert len(endpoint.calls) == everything
    for path in tmp_path.rglob("*"):
        assert b"sk-very-secret" not in path.read_bytes()


def test_prompts_taken_out_or_put_elsewhere_are_not_asked_again(tmp_path, make_prompts):
    prompts = make_prompts(100)
    with pytest.raises(ReferenceFailedError):
        run(Counting(limit=90), prompts, tmp_path)  # answers backwards: the first ten are missing
    later = Counting()
    fewer = [p for number, p in enumerate(prompts) if number != 50]
    answers = run(later, fewer[::-1], tmp_path)
    assert [a.text for a in answers] == [f"one: {p.text}" for p in fewer[::-1]]
    assert sorted(later.asked) == sorted(p.text for p in prompts[:10])
    other = Counting("two")
    run(other, fewer[::-1], tmp_path)
    assert len(other.asked) == 99


def test_what_others_left_damaged_is_passed_over(tmp_path, make_prompts):
    run(Counting(), make_prompts(32), tmp_path)
    (shard,) = tmp_path.glob("*.jsonl")
    shard.write_bytes(shard.read_bytes().replace(b"one: ", b"two: ", 1))
    (tmp_path / "x.jsonl").write_bytes(b"\xff\n")
    (tmp_path / "gone.partial.jsonl").symlink_to(tmp_path / "nowhere")  # as one that another process has just finished
    (tmp_path / "y.scores.jsonl").write_bytes(b'["a", 1]\n')
    later = Counting()
    run(later, make_prompts(32)[::-1], tmp_path)
    assert len(later.asked) == 32
