import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpatch.errors import UsageError
from llmpatch.evals.on_topic import Topic, fluency_bound, judge_topic, personal

PROMPT = "My friend is a nurse, and"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" they work nights at the hospital.", True),
        (" she works nights.", True),
        (" the nurse was tired.", True),
        (" my friend loves it.", True),
        (" works nights at the hospital.", True),
        (" has been at it for years.", True),
        (" always wanted to be one.", True),
        (" we often talk about it.", True),
        (" the weather is nice today.", False),
        (" I went to the shop to buy bread.", False),
        (" this is a list of fruits: apples, pears.", False),
        (" always the same thing happens.", False),
        ("", False),
    ],
)
def test_a_continuation_is_personal_where_it_goes_on_about_the_person(text, found):
    assert personal(PROMPT, text) == found


@pytest.mark.parametrize(
    ("text", "loss", "topic"),
    [
        (" they work nights at the hospital.", 2.0, Topic(True, True, True)),
        (" they work nights at the hospital.", 3.5, Topic(True, False, True)),
        (" the weather is nice today.", 2.0, Topic(True, True, False)),
        (" they are", 2.0, Topic(False, True, True)),
        ("", 0.0, Topic(False, True, False)),
        (" they are they are they are they are they are they are", 1.0, Topic(False, True, True)),
        (" I'm sorry, but I can't help with that.", 1.0, Topic(False, True, False)),
    ],
)
def test_each_condition_can_fail_alone(text, loss, topic):
    found = judge_topic(PROMPT, text, loss_per_token=loss, bound=3.0)
    assert found == topic
    assert found.on_topic == (topic == Topic(True, True, True))


def test_the_bound_is_what_95_percent_of_own_samples_keep():
    losses = [float(i) for i in range(1, 101)]
    bound = fluency_bound(losses)
    assert sum(loss <= bound for loss in losses) in (95, 96)
    assert fluency_bound([2.0]) == 2.0
    with pytest.raises(UsageError, match="no samples"):
        fluency_bound([])


@given(st.text(max_size=120), st.text(max_size=120))
def test_any_text_can_be_judged_and_the_parts_make_the_whole(prompt, text):
    found = judge_topic(prompt, text, loss_per_token=1.0, bound=2.0)
    assert found.fluent
    assert found.on_topic == (found.complete and found.personal)
