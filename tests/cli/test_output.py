import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from llmpatch._cli.evidence_view import example_blocks, price_lines, results_table, worse_lines
from llmpatch._cli.output import one_line, safe, side_by_side, table

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(0, 1) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "n", "value", "low", "high", "M", "M+", "text", "wikitext", "ratio"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.text())
def test_nothing_that_acts_on_a_terminal_gets_through(text):
    shown = safe(text)
    kept = {c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs"}}
    assert kept <= set("\n\t\u200c\u200d")
    assert "\n" not in one_line(text)


def test_ordinary_text_of_any_script_is_unchanged():
    for text in ("naïve — “quoted” 100 %", "丁寧に\nお断り", "👩‍👩‍👧 ok", "a\u00a0b"):
        assert safe(text) == text
    assert safe("\x1b]0;title\x07\u202e\r") == "\\x1b]0;title\\x07\\u202e\\r"


def test_a_table_aligns_words_left_and_numbers_right():
    found = table(["name", "n", "file"], [["a", "7", "x"], ["long name", "1,000", "yy"]])
    assert found.splitlines() == [
        "name           n  file",
        "---------  -----  ----",
        "a              7  x",
        "long name  1,000  yy",
    ]


@given(st.text(max_size=80), st.text(max_size=80), st.integers(20, 120))
def test_two_columns_keep_within_the_width(left, right, width):
    assert all(len(line) <= width for line in side_by_side(left, right, width).splitlines())


@given(st.dictionaries(st.sampled_from(["results", "worse", "price", "examples"]), JSON))
def test_foreign_evidence_never_breaks_the_view(evidence):
    assert isinstance(results_table(evidence), str)
    assert isinstance(price_lines(evidence) + worse_lines(evidence) + example_blocks(evidence, 80), list)


def test_results_show_n_and_intervals():
    rate = {"value": 0.93, "low": 0.89, "high": 0.96}
    evidence = {"results": [{"name": "declined", "n": 146, "base": {"value": 0.04}, "patched": rate}]}
    assert results_table(evidence).splitlines()[2].split("  ")[-3:] == ["146", "4.0 %", "93.0 % [89.0, 96.0]"]
    assert "base" not in results_table(evidence, ("patched",))
