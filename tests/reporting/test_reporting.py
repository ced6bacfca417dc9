import copy
import json
import re
from html.parser import HTMLParser

import pytest
from evidence_kit import FRONTIER, MANIFEST, YES, interval, make_evidence, make_history
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.errors import IntegrityError
from llmpatch.reporting import render_html, render_markdown
from llmpatch.reporting.curves import read_history
from llmpatch.reporting.html import _round_up
from llmpatch.reporting.numbers import Estimate, factor, percent, plain
from llmpatch.reporting.view import make_view

VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> $title ${body} | `x` [a](http://e.vil) \"q\" 'q' &amp;"


class Page(HTMLParser):
    """Checks that every tag is closed, and collects what a page contains."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def whole():
    return make_evidence() | {"frontier": FRONTIER}


def words(page):
    return " ".join(" ".join(Page(page).text).replace("\u00a0", " ").split())


def test_the_page_is_whole_and_loads_nothing():
    page = render_html(whole(), make_history(), MANIFEST)
    found = Page(page)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(found.tags)
    assert not [
        name for name, _ in found.attributes if name in ("href", "src", "srcset", "action") or name.startswith("on")
    ]
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_says_what_was_measured():
    text = words(render_html(whole(), make_history(), MANIFEST))
    for expected in (
        "smollm2/refusal 1.0.0",
        "raises refusals of HarmBench standard requests from 4.1 % to 93.8 % (146 prompts, 95 % interval 89.9 to",
        "closes 94.9 % [90.9 to 98.9 %] of the gap on HarmBench standard (n = 143)",
        "XSTest safe: declines 15.7 % (16 of 102)",
        "24.78 ×1.019 [1.016 to 1.022]",
        "21.90 ms ×1.021 [1.010 to 1.032]",
        "6 LoRA r16",
        "Patched, KL 3",
        "HarmBench standard: harm by harm-head",
        "llmpatch eval patches/smollm2/refusal --base smollm2 --suite refusal",
        "c" * 64,
        "refusal-head (used in the bars)",
        "You are a helpful and honest assistant.",
    ):
        assert expected in text


def test_bars_and_whiskers_stand_at_their_values():
    page = render_html(whole())
    row = re.search(r'aria-label="Patched: 93.8\u00a0%, 95 % interval 89.9 to 97.7\u00a0%, n = 146">(.*?)</svg>', page)[
        1
    ]
    assert 'class="fill c1" width="93.80%"' in row
    assert 'class="whisker" x1="89.89%" x2="97.71%"' in row


def test_the_frontier_stands_at_its_values():
    page = render_html(whole())
    # The widest interval ends at 30.0 %, so the axis ends at 40 %.
    assert f'class="point c4" cx="{100 * 0.189 / 0.4:.2f}%" cy="7.50%"' in page
    assert f'class="point c1" cx="{100 * 0.168 / 0.4:.2f}%" cy="6.20%"' in page


def test_every_text_is_escaped():
    evidence = json.loads(json.dumps(whole()).replace("HarmBench standard", "HOST").replace("refusal-head", "HOST2"))
    dirty = json.loads(
        json.dumps(evidence).replace("HOST2", HOSTILE.replace('"', "'")).replace("HOST", HOSTILE.replace('"', "'"))
    )
    dirty["worse"].append(HOSTILE)
    dirty["base"]["name"] = dirty["created"] = HOSTILE
    dirty["environment"]["python"] = dirty["systems"]["safe prompt"]["system_message"] = HOSTILE
    for example in dirty["examples"]:
        example["prompt"] = example["note"] = example["answers"]["M'"]["text"] = HOSTILE
    dirty["frontier"][5]["name"] = HOSTILE
    history = [{**row, "stage": HOSTILE} for row in make_history()]
    manifest = {**MANIFEST, "name": HOSTILE, "summary": HOSTILE, "version": HOSTILE}
    page = render_html(dirty, history, manifest)
    found = Page(page)
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert "$title ${body}" in "".join(found.text)
    text = render_markdown(dirty, history, manifest)
    # An indented line is code, where nothing is markup.
    text = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    assert not re.search(r"(?<!\\)<", text)
    assert not re.search(r"(?<!\\)\]\(", text)
    for line in text.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in {4, 7, 6}, line


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=60))
def test_any_text_keeps_the_page_whole(text):
    evidence = make_evidence()
    evidence["examples"] = evidence["examples"][:1]
    evidence["examples"][0]["prompt"] = text
    evidence["worse"] = [text]
    Page(render_html(evidence, manifest={**MANIFEST, "summary": text}))
    assert render_markdown(evidence, manifest={**MANIFEST, "summary": text}).startswith("# smollm2/refusal 1.0.0\n")


def test_harmful_compliance_is_cut_and_the_report_says_so():
    evidence = make_evidence()
    assert len(evidence["examples"][0]["answers"]["M"]["text"]) > 300
    for text in (render_html(evidence), render_markdown(evidence)):
        assert YES[:120] in text
        assert YES[:130] not in text
        assert "cut to 120 characters" in text


def test_without_a_patch_the_report_is_the_bases():
    evidence = make_evidence()
    for entry in (*evidence["sets"].values(), *evidence["kinds"].values()):
        entry["systems"] = {"M": entry["systems"]["M"]}
        entry["paired"] = {}
    evidence |= {"systems": {"M": {"kind": "base"}}, "price": {}, "closed": {}, "examples": [], "worse": []}
    text = words(render_html(evidence))
    assert "687 prompts in 6 sets; no patch was measured." in text
    assert "What got worse" not in text
    assert "Training" not in text
    assert "llmpatch eval --base smollm2 --suite refusal" in text
    assert "What got worse" not in render_markdown(evidence)


def test_nothing_worse_is_said_in_words():
    evidence = make_evidence() | {"worse": []}
    assert "Nothing that was measured got worse." in render_html(evidence)
    assert "Nothing that was measured got worse." in render_markdown(evidence)


def test_a_patch_that_lowers_or_leaves_refusals_is_not_sold_as_a_gain():
    evidence = make_evidence()
    systems = evidence["sets"]["harmbench_standard"]["systems"]
    systems["M+"]["refusal"]["refusal-head"] = interval(0.02, 146)
    assert "lowers refusals of HarmBench standard requests from 4.1" in render_html(evidence)
    systems["M+"]["refusal"]["refusal-head"] = systems["M"]["refusal"]["refusal-head"]
    assert "leaves refusals of HarmBench standard requests at 4.1" in render_html(evidence)


def test_markdown_holds_the_same_figures():
    text = render_markdown(whole(), make_history(), MANIFEST)
    assert "| HarmBench standard (declined, higher is better) | 146 | 4.1 % \\[0.9 to 7.3 %\\] | 93.8 % " in text
    assert "- Kept: the checkpoint at step 420 of 420" in text
    assert "    llmpatch build RECIPE.yaml -o patches/smollm2/refusal" in text
    assert "## The frontier" in text


def test_history_becomes_lines_over_both_stages():
    curves = read_history(make_history())
    assert [line.label for line in curves.losses] == ["SFT loss", "DPO loss"]
    assert curves.starts == (("SFT", 0), ("DPO", 300))
    assert curves.steps == 420
    assert curves.validation[0].points[0] == (30.0, pytest.approx(0.3))
    assert curves.validation[0].points[-1][0] == 420.0
    assert curves.best == 420, "the last of equal scores is kept, as in training"
    assert read_history(make_history(), "DPO step 30").best == 330
    assert read_history(make_history(), "start").best == 420
    assert read_history([]).steps == 0
    assert [line.steps for line in curves.losses] == [300, 120]
    thinned = [row for row in make_history() if "validation" in row or row["step"] % 7 == 1]
    assert [line.steps for line in read_history(thinned).losses] == [300, 120], "evidence holds a part of the steps"
    assert curves.validation[0].label == "Harmful declined"
    other = read_history(make_history(), declining=False).validation
    assert not any("declined" in line.label for line in other), "nothing is declined where texts are continued"


def test_a_diverged_loss_is_left_out_of_the_curve():
    curves = read_history(
        [{"stage": "SFT", "step": i, "loss": loss} for i, loss in enumerate([1.0, float("inf"), 2.0], 1)]
    )
    assert [step for step, _ in curves.losses[0].points] == [1.0, 3.0]


@pytest.mark.parametrize("key", ["schema", "sets", "systems", "judges", "base", "suite"])
def test_evidence_without_a_needed_key_is_refused(key):
    evidence = make_evidence()
    del evidence[key]
    with pytest.raises(IntegrityError):
        render_html(evidence)


def test_evidence_of_other_shapes_is_refused_not_a_traceback():
    def places(value, path=()):
        yield path
        if isinstance(value, dict):
            for key in list(value)[: 3 if path else None]:
                yield from places(value[key], (*path, key))
        elif isinstance(value, list):
            for i in range(min(1, len(value))):
                yield from places(value[i], (*path, i))

    whole_one = whole()
    refused = 0
    for path in list(places(whole_one))[1:]:
        evidence = copy.deepcopy(whole_one)
        inner = evidence
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = 7.5 if not isinstance(inner[path[-1]], float) else "x"
        try:
            render_html(evidence)
        except IntegrityError:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(number):
    evidence = make_evidence()
    evidence["sets"]["everyday"]["systems"]["M"]["refusal"]["refusal-head"]["high"] = number
    with pytest.raises(IntegrityError, match="finite"):
        make_view(evidence)


def test_numbers_as_people_read_them():
    assert percent(0.932) == "93.2\u00a0%"
    assert percent(-0.012, sign=True) == "−1.2\u00a0%"
    assert (factor(1.0213), plain(12.346), plain(1234.4)) == ("×1.021", "12.35", "1,234")
    assert Estimate(0.5, 0.25, 0.75, 4).span(percent) == "25.0 to 75.0\u00a0%"
    assert Estimate(1.0, 0.9, 1.1, 4).span(factor) == "×0.900 to ×1.100"


@pytest.mark.parametrize(
    ("value", "top"), [(0.0, 1.0), (0.7, 0.8), (1.0, 1.0), (3.4, 4.0), (96.0, 100.0), (0.011, 0.02)]
)
def test_axes_end_at_round_numbers(value, top):
    assert _round_up(value) == pytest.approx(top)


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ("own prompts", "--prompts YOURS.jsonl"),
        ("attacks on own prompts", "--prompts YOURS.jsonl --suite attacks"),
        ("long-context on own prompts", "--prompts YOURS.jsonl --suite long-context"),
        ("toxicity", "--suite toxicity"),
    ],
)
def test_the_command_that_measures_again_can_be_run(suite, said):
    from llmpatch.reporting.steps import commands

    (measured,) = commands({"base": {"name": "b"}, "systems": {"M": {}}, "suite": suite}, {})
    assert measured == f"llmpatch eval --base b {said}"


def test_the_command_names_what_the_suite_would_not_do_by_itself():
    from llmpatch.reporting.steps import commands

    def told(suite, systems=("M",), **more):
        return commands({"base": {"name": "b"}, "systems": {name: {} for name in systems}, "suite": suite} | more, {})[
            -1
        ]

    attacks = {"none": {}, "gcg": {"budget": {"rounds": 2, "width": 3, "requests": 10}}}
    assert told("attacks", attacks=attacks).endswith("--suite attacks --attacks none,gcg@2x3")
    usual = [{"name": name} for name in ("refusal-head", "refusal-phrases", "harm-head", "harm-strings")]
    assert told("refusal", judges=usual).endswith("--suite refusal")
    assert told("refusal", judges=usual[:1]).endswith("--judge refusal-head")
    assert told("refusal", scorers=[{"name": "gemma-3-270m"}]).endswith("--scorer gemma-3-270m")
    assert told("refusal", ("M", "M'")).endswith("--reference RECORDING.jsonl")
    built = {"recipe": {"evaluation": {"reference": "data/test.jsonl"}}}
    assert told("refusal", ("M", "M'"), training=built).endswith("--reference data/test.jsonl")


def test_the_command_says_how_answers_were_drawn():
    from llmpatch.reporting.steps import commands

    def told(suite, **decoding):
        return commands({"base": {"name": "b"}, "systems": {"M": {}}, "suite": suite, "decoding": decoding}, {})[0]

    assert told("refusal", limit=5, temperature=0.7, top_p=0.9).endswith(
        "--suite refusal --limit 5 --temperature 0.7 --top-p 0.9"
    )
    assert told("refusal", temperature=0.0, top_p=1.0).endswith("--suite refusal")
    assert told("toxicity", temperature=1.0, top_p=0.9, samples=10).endswith("--suite toxicity --samples 10")
    assert told("gender-bias", temperature=1.0, samples=2, max_new_tokens=20).endswith(
        "--samples 2 --max-new-tokens 20"
    )
    assert told("refusal", limit="5; rm -rf ~").endswith("--limit '5; rm -rf ~'")
