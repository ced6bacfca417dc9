import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.answers import Answer
from llmpatch.references.replies import Secret, parse_answer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "finish_reason", "refusal"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=200)
@given(value=JSON)
def test_any_json_is_an_answer_or_nothing(value):
    found = parse_answer(json.dumps(value))
    assert found is None or isinstance(found.text, str)


@settings(deadline=None)
@given(text=st.text(), finish=st.sampled_from(["stop", "eos_token", "tool_calls", None, "length", "max_tokens", "new"]))
def test_every_well_formed_completion_is_an_answer(text, finish):
    """What ended by anything but the model's own end is cut: its end is never learnt."""
    whole = finish in ("stop", "eos_token", "tool_calls", None)
    assert parse_answer(completion(text, finish)) == Answer(text, "stop" if whole else "length")


@pytest.mark.parametrize("finish", ["error", "abort", "insufficient_system_resource"])
def test_an_answer_that_the_server_broke_off_is_none(finish):
    assert parse_answer(completion("I'm sorry, but I", finish)) is None


def completion(text, finish):
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": finish}]})


def test_a_placeholder_key_does_not_eat_the_answers_but_stays_out_of_messages():
    assert Secret("x").hide_in_answer("exact") == "exact"
    assert "x" not in Secret("x").hide("exact")
    assert "sk-1234567" not in repr(Secret("sk-1234567"))
