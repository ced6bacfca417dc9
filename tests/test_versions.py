"""Versions are ordered as SemVer and PEP 440 order them, and ranges say what they look like."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version as Peer

from llmpatch.errors import UsageError
from llmpatch.versions import Version, parse_range, parse_request, parse_version

CALM = settings(deadline=None)
NUMBERS = st.integers(0, 4)
VERSIONS = st.builds(
    lambda a, b, c, stage, n: Version(a, b, c, stage, n if stage < 3 else 0),
    NUMBERS, NUMBERS, NUMBERS, st.integers(0, 3), NUMBERS,
)  # fmt: skip
RELEASES = st.builds(Version, NUMBERS, NUMBERS, NUMBERS)
SIGNS = st.sampled_from([">=", "<=", ">", "<", "==", "!=", "~="])


@CALM
@given(VERSIONS)
def test_a_version_reads_back(version):
    assert parse_version(str(version)) == version


@CALM
@given(VERSIONS, VERSIONS)
def test_the_order_is_that_of_pep_440(one, other):
    assert (one < other) == (Peer(str(one)) < Peer(str(other)))


@CALM
@given(VERSIONS, VERSIONS)
def test_nothing_lies_between_a_version_and_its_successor(one, other):
    assert one < one.successor()
    assert not one < other < one.successor()


@CALM
@given(st.lists(st.tuples(SIGNS, RELEASES), min_size=1, max_size=3), RELEASES)
def test_ranges_of_whole_releases_agree_with_pep_440(clauses, version):
    text = ",".join(f"{sign}{release}" for sign, release in clauses)
    assert parse_range(text).holds(version) == SpecifierSet(text).contains(str(version))


@CALM
@given(st.sampled_from([">=", "<", "~="]), NUMBERS, NUMBERS, RELEASES)
def test_a_version_with_its_end_left_out_agrees_with_pep_440(sign, major, minor, version):
    text = f"{sign}{major}.{minor}"
    assert parse_range(text).holds(version) == SpecifierSet(text).contains(str(version))


@CALM
@given(st.integers(0, 4), VERSIONS)
def test_below_and_from_on_part_all_versions(major, version):
    below, above = parse_range(f"<{major}"), parse_range(f">={major}")
    assert below.holds(version, prereleases=True) != above.holds(version, prereleases=True)


@CALM
@given(SIGNS, VERSIONS, VERSIONS)
def test_a_prerelease_comes_only_if_its_numbers_are_named(sign, bound, version):
    found = parse_range(f"{sign}{bound}")
    if version.prerelease and not (bound.prerelease and bound.release == version.release):
        assert not found.holds(version)
    else:
        assert found.holds(version) == found.holds(version, prereleases=True)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [("*", ["0.0.0", "9.9.9"], ["1.0.0-rc.1"]), ("1.2", ["1.2.0", "1.2.9"], ["1.3.0", "1.1.9", "1.2.0-rc.1"]),
     ("<2", ["1.99.0"], ["2.0.0-rc.1", "2.0.0"]), (">1.2", ["1.3.0"], ["1.2.5"]), ("<=1.2", ["1.2.5"], ["1.3.0"]),
     (">=1.2.0-rc.1,<2", ["1.2.0-rc.2", "1.2.0"], ["1.2.0-beta.9", "1.3.0-rc.1"]), ("!=1.2", ["1.3.0"], ["1.2.1"]),
     ("~=1", ["1.9.0"], ["2.0.0"]), (" >= 1.2 , < 2 ", ["1.5.0"], ["2.0.0"])],
)  # fmt: skip
def test_ranges_say_what_they_look_like(text, inside, outside):
    found = parse_range(text)
    assert [v for v in [*inside, *outside] if found.holds(parse_version(v))] == inside


@pytest.mark.parametrize("text", ["1.2", "v1.2.0", "1.2.0-1", "1.2.0-foo.1", "01.2.0", "1.2.0-rc.01", "1.2.0.post1",
                                  "1!1.0.0", "", "1.2.0-rc.1-rc.2", "1.2.0\n", "1." + "9" * 80 + ".0"])  # fmt: skip
def test_other_forms_are_refused(text):
    with pytest.raises(UsageError, match="not a version"):
        parse_version(text)


@CALM
@given(st.text(alphabet="0123456789.<>=!~, -*arcbet", max_size=140))
def test_any_text_is_a_range_or_a_clear_error(text):
    try:
        found = parse_range(text)
    except UsageError:
        return
    assert isinstance(found.holds(Version(1, 0, 0)), bool)


def test_requests_are_names_with_or_without_a_range():
    assert parse_request("acme/refusal").range is None
    found = parse_request("acme/refusal@>=1.2,<2")
    assert (found.name, found.range.text) == ("acme/refusal", ">=1.2,<2")
    for text in ("acme", "Acme/x", "acme/x/y", "acme/x@", "acme/x@>=x", "-/x", "acme/" + "x" * 200):
        with pytest.raises(UsageError):
            parse_request(text)
