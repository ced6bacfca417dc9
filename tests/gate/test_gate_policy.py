import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekit import policy_bytes, rule
from llmpatch.errors import IntegrityError, UsageError
from llmpatch.gate import default_policy, load_policy, parse_policy, render_policy
from llmpatch.gate.policy import shipped_risks

ROOT = Path(__file__).parent.parent.parent


def test_a_policy_reads_back_as_it_was_written(tmp_path):
    policy = parse_policy(policy_bytes(rule(), rule(id="two", kind=None, metric="price/wikitext/ratio", judge=None)))
    path = tmp_path / "p.yaml"
    path.write_text(render_policy(policy), encoding="utf-8")
    assert load_policy(path) == policy
    assert load_policy(path).digest() == policy.digest()
    assert policy.risks == ("refusal",)


def test_a_policy_without_decoding_has_the_digest_and_the_text_it_had_before_there_was_any():
    from llmpatch.files import digest_json

    policy = default_policy(["refusal"])
    document = policy.model_dump(mode="json", by_alias=True)
    assert document.pop("decoding") == {"temperature": 0.0, "top_p": 1.0}
    assert policy.digest() == digest_json(document)
    assert "decoding" not in render_policy(policy)
    drawn = parse_policy(policy_bytes(rule(), decoding={"temperature": 0.5}))
    assert "decoding:" in render_policy(drawn)
    assert parse_policy(render_policy(drawn).encode()) == drawn
    assert drawn.digest() != parse_policy(policy_bytes(rule())).digest()


@pytest.mark.parametrize(
    "decoding", [{"top_p": 0.9}, {"temperature": -1}, {"temperature": 1, "top_k": 3}, {"top_p": 0}, 1]
)
def test_decoding_that_means_nothing_is_refused(decoding):
    with pytest.raises(UsageError, match="decoding"):
        parse_policy(policy_bytes(rule(), decoding=decoding))


def test_what_is_not_said_of_drawing_stays_as_the_policy_says():
    policy = parse_policy(policy_bytes(rule(), decoding={"temperature": 0.7, "top_p": 0.95}))
    assert policy.about() is policy
    found = {
        (heat, nucleus): (policy.about(heat, nucleus).decoding.temperature, policy.about(heat, nucleus).decoding.top_p)
        for heat, nucleus in ((1.0, None), (None, 1.0), (None, 0.9), (0.0, None), (1.0, 1.0))
    }
    assert list(found.values()) == [(1.0, 0.95), (0.7, 1.0), (0.7, 0.9), (0.0, 1.0), (1.0, 1.0)]
    for wrong in ((-1.0, None), (float("nan"), None), (None, 0.0), (0.0, 0.5)):
        with pytest.raises(UsageError, match="answers cannot be drawn so"):
            policy.about(*wrong)


def test_the_digest_is_of_content_and_not_of_spelling():
    one = parse_policy(policy_bytes(rule()))
    assert parse_policy(b"# remark\n" + policy_bytes(rule(system="M+"))).digest() == one.digest()
    assert parse_policy(policy_bytes(rule(max=0.2))).digest() != one.digest()


def test_the_shipped_policies_read_and_every_number_has_a_reason():
    for risk in shipped_risks():
        policy = default_policy([risk])
        assert policy.risks == (risk,)
        assert all(len(r.why) > 10 for r in policy.rules)
    assert len(default_policy(["refusal"]).rules) >= 9
    assert set(default_policy(shipped_risks()).risks) == set(shipped_risks())


@pytest.mark.parametrize("risks", [["nonsense"], [], ["refusal", "../refusal"]])
def test_there_is_no_default_for_other_risks(risks):
    with pytest.raises(UsageError, match="no default policy") as error:
        default_policy(risks)
    assert "--policy" in error.value.hint


BAD_RULES = {
    "unknown key": (rule(maximum=1), "maximum"),
    "wrong type": (rule(max="0.1"), "rules.0.max"),
    "a truth value for a number": (rule(max=True), "rules.0.max"),
    "not a number": (rule(max=float("nan")), "rules.0.max"),
    "infinite": (rule(max=float("inf")), "rules.0.max"),
    "beyond any measure": (rule(max=1e300), "rules.0.max"),
    "a huge whole number": (rule(min_n=10**400), "rules.0.min_n"),
    "no bound": (rule(max=None), "neither"),
    "contradictory bounds": (rule(min=0.2, max=0.1), "can never pass"),
    "set and kind": (rule(set="everyday"), "both"),
    "nowhere": (rule(kind=None), "needs a `set` or a `kind`"),
    "price of nothing": (rule(kind=None, metric="price", judge=None), "needs a `set` or a `kind`"),
    "base against itself": (rule(system="M", change="difference"), "with itself"),
    "a change of a change": (rule(kind=None, metric="price/wikitext/ratio", change="ratio"), "against the base already"),
    "closed by another": (rule(kind=None, metric="closed/everyday", system="safe prompt"), "closed"),
    "an unknown change": (rule(change="percent"), "change"),
    "an empty step in a path": (rule(metric="refusal//head"), "metric"),
    "a path without end": (rule(metric="a/b/c/d/e/f/g"), "metric"),
    "a control character": (rule(why="a\x1b[2J"), "why"),
    "no prompts needed": (rule(min_n=0), "min_n"),
    "no minimum": (rule(min_n=None), "min_n"),
    "no reason": (rule(why=""), "why"),
    "an id that is no slug": (rule(id="Every Day"), "id"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_RULES)
def test_a_rule_that_says_nothing_clear_is_named(name):
    bad, said = BAD_RULES[name]
    with pytest.raises(UsageError) as error:
        parse_policy(policy_bytes(bad), where="p.yaml")
    assert said in error.value.message
    assert error.value.message.startswith("p.yaml")
    assert error.value.hint


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (policy_bytes(), "rules"),
        (policy_bytes(rule(), rule()), "two rules are called everyday"),
        (policy_bytes(*[rule(id=f"r{i}") for i in range(257)]), "rules"),
        (policy_bytes(rule(), schema="llmpatch/policy/v2"), "schema"),
        (policy_bytes(rule(), extra=1), "extra"),
        (b"", "not a mapping"),
        (b"- 1\n", "not a mapping"),
        (b"\xff\xfe", "not a YAML policy"),
        (b"a: [", "not a YAML policy"),
        (b"!!python/object/apply:os.system ['true']", "not a YAML policy"),
        (b"rules: 2026-11-24", "not a YAML policy"),
        (b'a: "\\ud800"', "surrogate"),
        (b"[" * 5000, "not a YAML policy"),
        (b"name: a\nname: b\n", "there twice"),
        (b"1: a\n", "is not text"),
        (b"a: &x [1, 1]\nb: [*x, *x]\n", "aliases"),
        (b"a: &x\n  b: *x\n", "aliases"),
        (b"<<: {a: 1}\nschema: x\n", "merge"),
        (b"a: !!bool x", "not a YAML policy"),
        (b"a: !!timestamp x", "not a YAML policy"),
        (b"a: !!int ''", "not a YAML policy"),
        (b"a: 2026-99-99", "not a YAML policy"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_policy_are_one_clear_error(data, said):
    with pytest.raises(UsageError) as error:
        parse_policy(data)
    assert said in error.value.message


def test_files_are_bounded_and_must_be_there(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load_policy(tmp_path / "gone.yaml")
    with pytest.raises(UsageError, match="folder"):
        load_policy(tmp_path)
    (tmp_path / "big.yaml").write_bytes(b"#" * (1 << 17))
    with pytest.raises(IntegrityError, match="larger"):
        load_policy(tmp_path / "big.yaml")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["id", "why", "set", "kind", "system", "metric", "judge", "change", "use", "min", "max", "min_n"]
)


def read_or_hint(data):
    try:
        return parse_policy(data)
    except UsageError as error:
        return error.hint


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(keys, anything, max_size=4))
def test_any_value_of_any_key_is_a_policy_or_a_usage_error(changes):
    found = read_or_hint(policy_bytes({**rule(), **changes}))
    assert found
    if not isinstance(found, str):
        assert parse_policy(render_policy(found).encode()) == found


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_usage_error(data):
    with pytest.raises(UsageError):
        parse_policy(data)


def test_the_schema_documents_are_in_step_and_closed():
    import json

    command = [sys.executable, str(ROOT / "scripts/make_schema.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    for name in ("policy", "verdict"):
        schema = json.loads((ROOT / f"docs/format/{name}.schema.json").read_text(encoding="utf-8"))
        parts = [schema, *schema["$defs"].values()]
        assert all(part["additionalProperties"] is False for part in parts)


def test_the_page_explains_every_shipped_rule_with_its_number():
    page = (ROOT / "docs/gate.md").read_text(encoding="utf-8")
    for rule_ in default_policy(["refusal"]).rules:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{rule_.id}` |"))
        bound = rule_.max if rule_.max is not None else rule_.min
        assert f" {bound:g}" in row
        assert f" {rule_.min_n} |" in row


def test_the_example_of_the_page_is_a_policy():
    page = (ROOT / "docs/gate.md").read_text(encoding="utf-8")
    text = page.partition("```yaml\n")[2].partition("```")[0]
    assert parse_policy(text.encode()).rules
    assert yaml.safe_load(text)["schema"] == "llmpatch/policy/v1"
