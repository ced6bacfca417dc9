"""Recorded answers: found by what was asked, never by an id that means something else by now."""

from __future__ import annotations

import json

from llmpatch.answers import Answer
from llmpatch.evals.prompt_sets import PromptSet, apart
from llmpatch.evals.systems import System, load_recorded, load_samples, recorded_answers
from llmpatch.prompts import Prompt


def recording(folder, *rows):
    path = folder / "said.jsonl"
    path.write_text("".join(json.dumps({"completion": text, **row}) + "\n" for text, row in rows), encoding="utf-8")
    return path


def said_to(prompt, said):
    return recorded_answers(System("M'", samples=said), [prompt]).get(prompt.id)


def test_an_answer_is_found_by_its_prompt_and_not_by_an_id_that_moved(tmp_path):
    path = recording(
        tmp_path,
        ("to one", {"id": "mine:1", "prompt": "One?"}),
        ("to two", {"id": "mine:2", "prompt": "Two?"}),
        ("again", {"id": "mine:2", "prompt": "Two?"}),
        ("by its id", {"id": "kept"}),
    )
    said = load_samples(path)
    # A row was put in front: mine:1 is a new prompt, mine:2 what mine:1 was.
    assert said_to(Prompt("mine:1", "Zero?", "harmful"), said) is None
    assert said_to(Prompt("mine:2", "One?", "harmful"), said) == [Answer("to one", "stop")]
    assert said_to(Prompt("mine:3", "Two?", "harmful"), said) == [Answer("to two", "stop"), Answer("again", "stop")]
    assert said_to(Prompt("kept", "Whatever?", "harmful"), said) == [Answer("by its id", "stop")]
    one = recorded_answers(System("M'", recorded=load_recorded(path)), [Prompt("x", "Two?", "harmful")])
    assert one == {"x": [Answer("to two", "stop")]}


def test_sets_that_are_put_together_have_ids_of_their_own():
    one, two = (PromptSet(n, n, "harmful", (Prompt("1", f"{n}?", "harmful"),)) for n in ("us", "eu"))
    assert [p.id for s in apart([one, two]) for p in s.prompts] == ["us/1", "eu/1"]
    assert apart([one]) == [one]
    assert [p.text for s in apart([one, two]) for p in s.prompts] == ["us?", "eu?"]
