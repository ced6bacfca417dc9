"""Pairs: who is chosen, who is dropped and why, and how they become token ids."""

from __future__ import annotations

import pytest

from llmpatch.answers import Answer
from llmpatch.errors import UsageError
from llmpatch.files import read_jsonl
from llmpatch.judges import open_judge
from llmpatch.pairs import continuation, encode, make_pairs, own_reference, save_pairs, summarise
from llmpatch.prompts import Prompt
from llmpatch.recipe import PairsSection
from tinymodels import make_tiny

NO = Answer("I'm sorry, but I can't assist with that.", "stop")
YES = Answer("Sure, first you take", "length")
JUDGE = open_judge("refusal-phrases")


def pair(kind, own, reference=NO):
    prompts = [Prompt("h", "How do I pick a lock?", "harmful", "c0"), Prompt("x", "A question", kind, "c1")]
    told = {"h": NO} | ({"x": reference} if kind == "harmful" else {})
    pairs, dropped = make_pairs(prompts, [[YES], [own]], told, JUDGE, PairsSection())
    return [p for p in pairs if p.id == "x"], [d for d in dropped if d.id == "x"]


def test_the_references_refusal_is_chosen_on_a_harmful_prompt():
    (found,), _ = pair("harmful", YES)
    assert (found.chosen, found.rejected) == (NO.text, YES.text)
    assert (found.chosen_ends, found.rejected_ends) == (True, False)


@pytest.mark.parametrize("kind", ["borderline", "everyday"])
def test_the_bases_own_answer_is_chosen_on_a_benign_prompt(kind):
    (found,), _ = pair(kind, YES)
    assert (found.chosen, found.rejected) == (YES.text, NO.text)


@pytest.mark.parametrize(
    ("kind", "own", "reference", "reason"),
    [
        ("harmful", YES, YES, "below 0.50"),
        ("harmful", NO, NO, "the margin is 0.00"),
        ("harmful", YES, Answer("", "stop"), "empty"),
        ("harmful", YES, Answer("", "none"), "its service turned the prompt away"),
        ("harmful", YES, Answer("I'm sorry, but I cannot provide", "length"), "cut off"),
        ("everyday", NO, NO, "below 0.50"),
        ("borderline", Answer("  ", "stop"), NO, "empty"),
    ],
)
def test_every_dropped_pair_says_why(kind, own, reference, reason):
    kept, (lost,) = pair(kind, own, reference)
    assert not kept
    assert reason in lost.reason


def test_a_base_that_is_its_own_reference_says_its_best_or_its_worst_rewritten():
    prompts = [Prompt("a", "The nurse", "harmful", form="raw"), Prompt("b", "Hi", "everyday", form="raw")]
    said = [[Answer(" said she was tired.", "stop"), Answer(" went home.", "stop")], [Answer(" there.", "stop")]]
    judge = open_judge("gender-words")
    assert own_reference(prompts, said, judge, PairsSection()) == {"a": said[0][1]}
    rewritten = own_reference(prompts, said, judge, PairsSection(rewrite="gender"))
    assert rewritten == {"a": Answer(" said they were tired.", "stop")}
    # Nothing to rewrite: the best stands.
    assert own_reference(prompts[:1], [said[0][1:]], judge, PairsSection(rewrite="gender")) == {"a": said[0][1]}


def test_to_say_nothing_is_not_the_best_answer():
    """A toxicity judge finds nothing wrong in it."""
    prompts = [Prompt("a", "The nurse", "harmful", form="raw")]
    said = [[Answer(" ...", "stop"), Answer("", "stop"), Answer(" said hello.", "stop")]]
    assert own_reference(prompts, said, open_judge("toxicity-head"), PairsSection(samples=3)) == {"a": said[0][2]}


def test_a_harm_judge_cannot_make_pairs():
    with pytest.raises(UsageError, match="refusal judge"):
        make_pairs([], [], {}, open_judge("harm-strings"), PairsSection())


def test_encoding_splits_off_the_head_and_ends_only_whole_answers():
    base = make_tiny()
    prompts = [Prompt("h", "Pick a lock", "harmful", "a"), Prompt("e", "Bake bread", "everyday", "b")]
    pairs, _ = make_pairs(prompts, [[YES], [YES]], {"h": NO}, JUDGE, PairsSection())
    data = encode(base, pairs)
    for example, prompt in zip(data.examples, prompts, strict=True):
        assert [*data.head, *example.prompt] == base.chat_ids(prompt.text)
    harmful, everyday = data.examples
    assert base.decode(list(harmful.chosen)) == NO.text
    assert harmful.chosen[-1] == base.tokenizer.eos_token_id
    assert everyday.chosen[-1] != base.tokenizer.eos_token_id
    assert base.decode(data.head).endswith("user ")


def test_pairs_and_dropped_pairs_are_written_and_counted(tmp_path):
    prompts = [Prompt("h", "Pick a lock", "harmful", "a"), Prompt("e", "Bake bread", "everyday", "b")]
    pairs, dropped = make_pairs(prompts, [[YES], [NO]], {"h": NO}, JUDGE, PairsSection())
    save_pairs(tmp_path, pairs, dropped)
    assert [row["id"] for row in read_jsonl(tmp_path / "pairs.jsonl")] == ["h"]
    assert [row["reason"] for row in read_jsonl(tmp_path / "dropped.jsonl")] == [dropped[0].reason]
    assert summarise(pairs, dropped) == {"everyday": {"kept": 0, "dropped": 1}, "harmful": {"kept": 1, "dropped": 0}}


def test_a_chat_models_continuation_is_cut_to_what_continues_the_text():
    prompt = Prompt("t", '"The man walked in and', "harmful", form="raw")
    for said in ('"The man walked in and sat down."', "sat down.\n\nIs there more?", "... sat down."):
        assert continuation(prompt, Answer(said, "stop")).text == " sat down."
    assert continuation(prompt, Answer(", calmly, sat", "stop")).text == ", calmly, sat"
    chat = Prompt("t", "Hello", "harmful")
    assert continuation(chat, Answer('"Hello"', "stop")).text == '"Hello"'


class Rude:
    """P(toxic) by one word: enough to see which answers are paired."""

    name, measures = "rude", "toxicity"

    def score(self, prompts, answers):
        return [0.9 if "rude" in a else 0.1 for a in answers]


def test_the_worst_of_several_continuations_is_rejected_and_benign_text_keeps_its_own():
    prompts = [
        Prompt("h", "He said", "harmful", "a", "raw"),
        Prompt("b", "She sang", "borderline", "b", "raw"),
        Prompt("n", "It rained", "harmful", "c", "raw"),
    ]
    base = [
        [Answer(" hello", "length"), Answer(" rude", "length")],
        [Answer(" well", "length")],
        [Answer(" a", "stop")],
    ]
    told = {"h": Answer("thanks.", "stop"), "n": Answer("rude", "stop")}
    pairs, dropped = make_pairs(prompts, base, told, Rude(), PairsSection())
    assert [(p.id, p.chosen, p.rejected) for p in pairs] == [("h", " thanks.", " rude"), ("b", " well", " thanks.")]
    assert not any(p.chosen_ends for p in pairs)
    assert [(d.id, d.reason) for d in dropped] == [("n", "the winner scores 0.10, below 0.50")]


def test_without_a_reference_the_best_of_the_bases_own_answers_is_chosen_as_it_was_said():
    prompts = [Prompt("h", "He said", "harmful", "a", "raw"), Prompt("b", "She sang", "borderline", "b", "raw")]
    best = Answer(' hello\nhe said, "and', "length")  # a reference's text would be cut at the line's end
    own = [[Answer(" rude", "length"), best, Answer(" hi", "length")], [Answer(" la", "length")]]
    pairs, dropped = make_pairs(prompts, own, None, Rude(), PairsSection())
    assert [(p.chosen, p.rejected) for p in pairs] == [(best.text, " rude"), (" la", best.text)]
    assert not dropped


def test_a_rewritten_answer_is_chosen_over_the_one_it_was_made_of():
    prompts = [Prompt(name, "My friend, and", "harmful", name, "raw") for name in "abc"]
    own = [
        [Answer(" the sun", "length"), Answer(" he is late", "length")],
        [Answer(" the sun", "length"), Answer(" the duchess", "length")],  # no word for her: the best of the two
        [Answer(" the sun", "length"), Answer(" the moon", "length")],
    ]
    section = PairsSection(judge="gender-words", rewrite="gender")
    pairs, dropped = make_pairs(prompts, own, None, open_judge("gender-words"), section)
    assert [(p.chosen, p.rejected, p.chosen_score) for p in pairs] == [
        (" they are late", " he is late", 0.0),
        (" the sun", " the duchess", 0.0),
    ]
    assert [d.id for d in dropped] == ["c"]


def test_raw_and_chat_prompts_share_no_head_beyond_what_they_have_in_common():
    base = make_tiny()
    prompts = [Prompt("h", "He said", "harmful", "a", "raw"), Prompt("e", "Bake bread", "everyday", "b")]
    pairs, _ = make_pairs(
        prompts, [[Answer(" rude", "stop")], [YES]], {"h": Answer("hi", "stop")}, Rude(), PairsSection()
    )
    data = encode(base, pairs)
    assert [*data.head, *data.examples[0].prompt] == base.text_ids("He said")
    assert [*data.head, *data.examples[1].prompt] == base.chat_ids("Bake bread")
