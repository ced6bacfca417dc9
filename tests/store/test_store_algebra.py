"""The algebra over fixes, for any sets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmpatch.artifact.manifest import Relation
from llmpatch.errors import UsageError
from llmpatch.store import Facts, decide
from llmpatch.versions import Version

CALM = settings(deadline=None)
FIXES = st.frozensets(st.sampled_from("abcde"), max_size=4)
NAMES = st.sampled_from(["acme/one", "acme/two", "acme/three", "other/one", "other/two"])


def patch(name, fixes, version=(1, 0, 0), **relations):
    digest = f"{name}{version}{sorted(fixes)}"
    made = {key: tuple(Relation(name=n, versions=v) for n, v in value) for key, value in relations.items()}
    return Facts(digest, name, Version(*version), frozenset(fixes), **made)


PATCHES = st.builds(patch, NAMES, FIXES, st.tuples(st.integers(1, 2), st.integers(0, 2), st.just(0)))


@st.composite
def sets(draw):
    """What a base can have come to: patches that the algebra let in, one after another."""
    active = ()
    for new in draw(st.lists(PATCHES, max_size=5)):
        found = outcome(active, new)
        active = found.patches if found else active
    return active


def outcome(active, new):
    try:
        return decide(active, new)
    except UsageError:
        return None


@CALM
@given(sets())
def test_what_is_active_together_fixes_different_things(active):
    assert len({p.name for p in active}) == len(active)
    for one, other in itertools.combinations(active, 2):
        assert not one.fixes & other.fixes


@CALM
@given(sets(), PATCHES)
def test_doing_it_twice_does_nothing_more(active, new):
    found = outcome(active, new)
    assume(found is not None and found.kind != "no-op")
    again = decide(found.patches, new)
    assert (again.kind, again.patches) == ("no-op", found.patches)


@CALM
@given(sets(), PATCHES)
def test_nothing_that_is_fixed_is_lost_and_all_that_is_new_is_there(active, new):
    found = outcome(active, new)
    assume(found is not None)
    before = frozenset().union(*(p.fixes for p in active))
    after = frozenset().union(*(p.fixes for p in found.patches))
    assert after == (before | new.fixes if found.kind != "no-op" or not new.fixes <= before else before)
    assert set(found.patches) - set(active) <= {new}
    assert set(active) - set(found.patches) == (set(found.replaced) if found.kind != "no-op" else set())


@CALM
@given(sets(), PATCHES, st.randoms())
def test_the_order_of_what_is_active_changes_only_the_order(active, new, chance):
    shuffled = list(active)
    chance.shuffle(shuffled)
    one, other = outcome(active, new), outcome(shuffled, new)
    assert (one is None) == (other is None)
    if one and other:
        assert one.kind == other.kind
        assert set(one.patches) == set(other.patches)
        assert set(one.replaced) == set(other.replaced)


@CALM
@given(sets(), PATCHES)
def test_a_subset_is_left_out_and_partial_overlap_refused(active, new):
    assume(new.name not in {p.name for p in active} and new.fixes)
    found = outcome(active, new)
    overlapping = [p for p in active if p.fixes & new.fixes]
    if not overlapping:
        assert found.kind == ("compose" if active else "activate")
    elif any(new.fixes <= p.fixes for p in active):
        assert found.kind == "no-op"
    elif all(p.fixes < new.fixes and p.vendor == new.vendor for p in overlapping):
        assert set(found.replaced) == set(overlapping)
    elif not new.fixes <= frozenset().union(*(p.fixes for p in overlapping)):
        assert found is None


def test_a_superset_of_the_same_vendor_replaces_and_keeps_the_place():
    one, two = patch("acme/one", "a"), patch("acme/two", "b")
    merged = patch("acme/both", "ac")
    found = decide((one, two), merged)
    assert (found.kind, found.patches, found.replaced) == ("compose", (merged, two), (one,))
    assert decide((one,), merged).kind == "replace"


@pytest.mark.parametrize(
    ("active", "new", "said", "advice"),
    [
        ([patch("acme/one", "ab")], patch("acme/two", "bc"), "both fix b", "merged patch that fixes a, b, c"),
        ([patch("other/one", "a")], patch("acme/two", "ab"), "of another vendor", "deactivate other/one first"),
        ([patch("acme/one", "a", (1, 1, 0))], patch("acme/one", "a"), "is older than", "rollback"),
        ([patch("acme/one", "ab")], patch("acme/one", "a", (1, 1, 0)), "no longer fixes b", "keep 1.0.0"),
        ([patch("acme/one", "a")], patch("acme/one", "b"), "another patch is active as", "published once"),
        ([patch("acme/one", "a")], patch("acme/two", "b", conflicts=[("acme/one", "<2")]), "conflict", "deactivate"),
        ([patch("acme/one", "a", conflicts=[("acme/two", "*")])], patch("acme/two", "b"), "conflict", "deactivate"),
        ([], patch("acme/two", "b", requires=[("acme/one", ">=1")]), "requires acme/one@>=1", "activate acme/one"),
        ([patch("acme/one", "a"), patch("acme/two", "b", requires=[("acme/one", "*")])], patch("acme/new", "ac"),
         "acme/two 1.0.0 requires acme/one", "deactivate acme/two"),
    ],
)  # fmt: skip
def test_what_is_refused_says_what_to_do(active, new, said, advice):
    with pytest.raises(UsageError) as found:
        decide(active, new)
    assert said in found.value.message
    assert advice in found.value.hint


def test_a_vendors_word_goes_first():
    old = patch("acme/one", "ab")
    new = patch("acme/two", "bc", supersedes=[("acme/one", "<2")])
    assert decide((old,), new).replaced == (old,)
    assert decide((new,), old).kind == "no-op"
    fewer = patch("acme/one", "a", (2, 0, 0), supersedes=[("acme/one", "<2")])
    assert decide((old,), fewer).replaced == (old,)
    candidate = patch("acme/one", "ab", (2, 0, 0))
    assert decide((old,), candidate).kind == "replace"
    needed = patch("acme/three", "d", requires=[("acme/one", ">=1")])
    assert decide((old,), needed).kind == "compose"
