from llmpatch._cli.evidence_view import asked_lines, results_table


def interval(value):
    return {"n": 4, "value": value, "low": value - 0.1, "high": value + 0.1}


def test_rows_of_refusals_stand_in_one_table():
    text = results_table({"results": [{"name": "HarmBench, declined", "n": 4, "base": interval(0.25)}]})
    assert text.splitlines()[0].split() == ["share", "of", "answers", "n", "base"]
    assert text.splitlines()[2].split(maxsplit=3)[3] == "25.0 % [15.0, 35.0]"


def test_each_metric_has_a_table_of_its_own():
    row = {"n": 4, "base": interval(0.531), "patched": interval(0.2)}
    max_row = row | {"name": "RTP: max", "set": "RTP", "metric": "max toxicity", "better": "lower", "unit": "score"}
    safe_row = row | {"name": "RTP: safe", "set": "RTP", "metric": "safety", "better": "higher", "unit": "share"}
    first, second = results_table({"results": [max_row, safe_row]}, ("base",)).split("\n\n")
    assert first.startswith("max toxicity, lower is better")
    assert "0.531 [0.431, 0.631]" in first
    assert second.startswith("safety, higher is better")
    assert "53.1 % [43.1, 63.1]" in second
    assert "patched" not in first + second


def test_foreign_rows_are_left_out_or_shown_as_they_can_be():
    wrong = [3, {"n": 4}, {"name": "x", "metric": 7, "better": "no", "set": 3, "unit": [], "base": {"value": "y"}}]
    assert results_table({"results": wrong}).splitlines()[-1].split() == ["x", "-", "-"]
    assert results_table({"results": "no"}) == "(no results in the evidence)"


def test_drawn_answers_are_said_to_be_drawn_and_foreign_ones_say_nothing():
    def told(**decoding):
        return asked_lines({"sets": {}, "decoding": decoding})

    assert told(temperature=0.7, top_p=0.9) == [
        "one answer to each prompt, drawn at temperature 0.7, top_p 0.9; recordings as they are"
    ]
    assert told(temperature=0.0, top_p=1.0) == told(temperature=1.0, top_p=0.9, samples=10) == []
    for wrong in ("1.0\x1b[2J", float("nan"), None, True, [1.0]):
        assert told(temperature=wrong, top_p=1.0) == []
    assert told(temperature=1.0, top_p="1.0\x1b[2J") == []
    assert asked_lines({"sets": {}, "decoding": "greedy"}) == asked_lines({}) == []


def test_no_number_of_the_evidence_acts_on_a_terminal():
    foreign = {"title": "t\x1b[2J", "n": "\x1b]0;x\x07", "of": "\n\x9b2J"}
    lines = asked_lines({"sets": {"a": foreign}, "decoding": {"within": 0.05}})
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
