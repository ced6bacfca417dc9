import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmpatch.answers import Answer
from llmpatch.errors import IntegrityError, LlmpatchError
from llmpatch.references.shards import Shard

PROMPTS = ["first", "zweite ☂", "third\nline"]
ANSWERS = {0: Answer("one", "stop"), 1: Answer("zwei\u2028", "length"), 2: Answer("", "stop")}
FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def shard(folder, identity=None):
    return Shard.of(identity or {"kind": "test", "seed": 0}, PROMPTS, folder)


def finished(folder):
    made = shard(folder)
    made.finish(ANSWERS)
    return made


def partial(folder):
    made = shard(folder)
    for index in (2, 0):
        made.append(index, ANSWERS[index])
    return made


def test_what_is_written_is_read(tmp_path):
    assert finished(tmp_path / "a").load() == ANSWERS
    assert partial(tmp_path / "b").load() == {2: ANSWERS[2], 0: ANSWERS[0]}
    assert shard(tmp_path / "c").load() == {}


def test_the_key_follows_identity_and_prompts(tmp_path):
    keys = {
        shard(tmp_path).key,
        shard(tmp_path, {"kind": "test", "seed": 1}).key,
        Shard.of({"kind": "test", "seed": 0}, PROMPTS[:2], tmp_path).key,
        Shard.of({"kind": "test", "seed": 0}, PROMPTS[::-1], tmp_path).key,
    }
    assert len(keys) == 4
    assert shard(tmp_path).key == shard(tmp_path).key


def mutate(data, edits):
    for place, value, kind in edits:
        at = place % (len(data) + 1)
        insert = kind == "insert"
        data = data[:at] + (b"" if kind == "cut" else bytes([value])) + data[at + (not insert) :]
    return data


EDITS = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(["set", "insert", "cut"])),
    min_size=1,
    max_size=4,
)


@FAST
@given(edits=EDITS)
def test_a_mutated_finished_shard_reads_the_same_or_is_refused(tmp_path, edits):
    made = finished(tmp_path)
    made.path.write_bytes(mutate(made.path.read_bytes(), edits))
    caught = None
    try:
        assert made.load() == ANSWERS
    except IntegrityError as error:
        caught = error
    assert caught is None or str(made.path) in caught.message


@FAST
@given(edits=EDITS)
def test_a_mutated_partial_shard_raises_nothing_but_our_errors(tmp_path, edits):
    made = partial(tmp_path)
    made.partial.write_bytes(mutate(made.partial.read_bytes(), edits))
    try:
        found = made.load()
    except LlmpatchError:
        pass
    else:
        assert set(found) <= {0, 1, 2}
        made.append(1, ANSWERS[1])  # what was read can be continued
        assert made.load()[1].finish in ("stop", "length")
    finally:
        made.partial.unlink()


@FAST
@given(data=st.binary(max_size=300))
def test_foreign_bytes_raise_nothing_but_our_errors(tmp_path, data):
    made = shard(tmp_path)
    made.path.write_bytes(data)
    with pytest.raises(IntegrityError):
        made.load()
    made.path.unlink()


@pytest.mark.parametrize(
    "row",
    [
        [],
        {"index": 0},
        {"index": True, "prompt": "zweite ☂", "completion": "", "finish": "stop"},
        {"index": 3, "prompt": "first", "completion": "", "finish": "stop"},
        {"index": -1, "prompt": "third\nline", "completion": "", "finish": "stop"},
        {"index": 0, "prompt": "other", "completion": "", "finish": "stop"},
        {"index": 0, "prompt": "first", "completion": 5, "finish": "stop"},
        {"index": 0, "prompt": "first", "completion": "\ud800", "finish": "stop"},
        {"index": 0, "prompt": "first", "completion": "", "finish": "later"},
        {"index": 0, "prompt": "first", "completion": "", "finish": ["stop"]},
        {"index": 0, "prompt": "first", "completion": "", "finish": "stop", "more": 1},
    ],
)
def test_a_row_of_another_shape_is_refused(tmp_path, row):
    made = partial(tmp_path)
    made.partial.write_bytes(made.partial.read_bytes() + json.dumps(row).encode() + b"\n")
    with pytest.raises(IntegrityError, match="line 4"):
        made.load()


def test_depth_and_digits_of_json_are_no_way_in(tmp_path):
    made = shard(tmp_path)
    for data in (b"[" * 100_000, b"1" * 10_000):
        made.path.write_bytes(data + b"\n")
        with pytest.raises(IntegrityError):
            made.load()
