import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.errors import UsageError
from llmpatch.evals import stats

flags = st.lists(st.booleans(), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(flags)
def test_a_rate_lies_in_its_interval_which_is_never_empty(hits):
    found = stats.rate(hits)
    assert found.n == len(hits)
    assert found.value == pytest.approx(sum(hits) / len(hits))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


@pytest.mark.parametrize(("hits", "n"), [(20, 100), (50, 100), (60, 250), (225, 250)])
def test_the_bootstrap_of_a_rate_agrees_with_the_normal_interval(hits, n):
    found = stats.rate([True] * hits + [False] * (n - hits))
    half = stats.Z95 * math.sqrt(hits / n * (1 - hits / n) / n)
    assert found.low == pytest.approx(hits / n - half, abs=0.012)
    assert found.high == pytest.approx(hits / n + half, abs=0.012)


@pytest.mark.parametrize("n", [1, 20, 250])
def test_nothing_and_everything_get_wilsons_bound(n):
    square = stats.Z95**2
    none, all_of_them = stats.rate([False] * n), stats.rate([True] * n)
    assert astuple(none) == (n, 0.0, 0.0, pytest.approx(square / (n + square)))
    assert astuple(all_of_them) == (n, 1.0, pytest.approx(n / (n + square)), 1.0)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("n", [100, 150, 250])
def test_one_more_event_never_looks_surer(n, clustered):
    """A percentile bootstrap of one yes ends below Wilson's bound of none."""
    clusters = [str(i // 5) for i in range(n)] if clustered else None
    some = [[False] * (n - k) + [True] * k for k in range(8)]
    ends = [stats.rate(hits, clusters).high for hits in some]
    assert ends == sorted(set(ends))
    assert [1 - stats.rate([not hit for hit in hits], clusters).low for hits in some] == pytest.approx(ends, abs=0.002)
    rises = [stats.paired([False] * n, hits, clusters).difference for hits in some]
    assert [rise.high for rise in rises] == sorted({rise.high for rise in rises})
    falls = [stats.paired(hits, [False] * n, clusters).difference for hits in some]
    assert [-fall.low for fall in falls] == pytest.approx([rise.high for rise in rises], abs=0.002)
    gone = [stats.paired([False] * n, [not hit for hit in hits], clusters).difference for hits in some]
    assert [1 - found.low for found in gone] == sorted({1 - found.low for found in gone})
    for k in range(1, 8):
        least, most = stats.wilson(k, n)
        assert stats.rate(some[k], clusters).high >= most
        assert stats.rate(some[k], clusters).low <= least
        assert rises[k].high >= most  # nobody fell, so a rise is at least as uncertain as a share


def test_gained_and_lost_are_put_together_as_zou_and_donner_do():
    """20 of 200 gained, 4 lost; nobody can do both, so the two shares go together with r < 0."""
    before = [False] * 20 + [True] * 4 + [False] * 176
    after = [True] * 20 + [False] * 4 + [False] * 176
    found = stats.paired(before, after).difference
    (least_up, most_up), (least_down, most_down) = stats.wilson(20, 200), stats.wilson(4, 200)
    r = -math.sqrt(0.1 * 0.02 / (0.9 * 0.98))
    high = 0.08 + math.sqrt(
        (most_up - 0.1) ** 2 + (0.02 - least_down) ** 2 - 2 * r * (most_up - 0.1) * (0.02 - least_down)
    )
    low = 0.08 - math.sqrt(
        (0.1 - least_up) ** 2 + (most_down - 0.02) ** 2 - 2 * r * (0.1 - least_up) * (most_down - 0.02)
    )
    assert found.value == pytest.approx(0.08)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.006)
    assert found.low <= low
    assert found.high >= high


def test_a_mean_of_fractions_is_left_as_it_was():
    values = [0.25, 0.5, 0.75] * 20
    assert stats.rate(values) == stats.mean(values)


def test_wilsons_interval_holds_its_own_definition():
    for hits, n in ((0, 7), (3, 7), (45, 50), (50, 50)):
        for end in stats.wilson(hits, n):
            if 0 < end < 1:
                assert abs(hits / n - end) == pytest.approx(stats.Z95 * math.sqrt(end * (1 - end) / n))


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_two_sided_binomial_test(gained, lost):
    n = gained + lost
    weights = [math.comb(n, k) / 2**n for k in range(n + 1)]
    expected = min(1.0, sum(w for k, w in enumerate(weights) if abs(k - n / 2) >= abs(gained - n / 2)))
    assert stats.mcnemar(gained, lost) == pytest.approx(expected)


def test_mcnemar_known_values():
    assert stats.mcnemar(0, 0) == 1.0
    assert stats.mcnemar(10, 0) == pytest.approx(2 / 1024)
    assert stats.mcnemar(8, 2) == pytest.approx(0.109375)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_a_paired_change_is_the_difference_of_rates_and_mirrors(rows):
    before, after = [a for a, _ in rows], [b for _, b in rows]
    there, back = stats.paired(before, after), stats.paired(after, before)
    assert there.difference.value == pytest.approx((sum(after) - sum(before)) / len(rows))
    assert there.gained == sum(b and not a for a, b in rows)
    assert (there.gained, there.lost, there.p) == (back.lost, back.gained, back.p)
    assert there.difference.low == pytest.approx(-back.difference.high, abs=0.12)
    assert there.difference.low < there.difference.high


def test_pairing_sees_what_unpaired_rates_hide():
    before = [i % 2 == 0 for i in range(100)]
    after = [a or i % 10 == 1 for i, a in enumerate(before)]
    found = stats.paired(before, after)
    spread = math.sqrt(0.1 * 0.9 / 100)
    assert found.difference.value == pytest.approx(0.1)
    assert found.difference.low == pytest.approx(0.1 - 1.96 * spread, abs=0.012)
    assert found.p == pytest.approx(2 / 1024)


def test_a_perplexity_is_the_exponent_of_the_mean_loss_per_token():
    found = stats.ratio([6.0, 2.0], [3.0, 1.0], exponent=True)
    assert found.value == pytest.approx(math.exp(2.0))
    assert found.low == pytest.approx(found.high)


def test_mean_and_median_agree_with_numpy_and_are_repeatable():
    values = list(np.random.default_rng(1).normal(3, 1, 200))
    found = stats.mean(values)
    half = 1.96 * np.std(values) / math.sqrt(200)
    assert found.value == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.02)
    assert stats.median(values).value == pytest.approx(np.median(values))
    assert stats.mean(values) == found
    assert stats.mean(values, seed=1) != found


def test_the_share_of_a_gap_that_is_closed():
    base, reference = [False] * 96 + [True] * 4, [True] * 100
    half = stats.share_closed(base, [True] * 48 + [False] * 48 + [True] * 4, reference)
    assert half.value == pytest.approx(0.5)
    assert 0.38 < half.low < 0.5 < half.high < 0.62
    full = stats.share_closed(base, [True] * 100, reference)
    assert full.value == 1.0
    assert full.low < 1.0 == full.high
    assert stats.share_closed(reference, base, reference) is None


STATISTICS = {
    "rate": lambda a, b, c, near: stats.rate(b, near),
    "mean": lambda a, b, c, near: stats.mean(b, near),
    "ratio": lambda a, b, c, near: stats.ratio(b, [1 + x for x in a], near, exponent=True),
    "paired": lambda a, b, c, near: stats.paired(a, b, near),
    "reduction": lambda a, b, c, near: stats.reduction(c, b, near),
    "share closed": lambda a, b, c, near: stats.share_closed(a, b, c, clusters=near),
}


def three_rows(n):
    draw = np.random.default_rng(n)
    return [[float(x) for x in draw.random(n) < share] for share in (0.1, 0.6, 0.9)]


@pytest.mark.parametrize("name", STATISTICS)
def test_the_same_said_five_times_is_no_more_certain_than_said_once(name):
    rows = three_rows(40)
    once = STATISTICS[name](*rows, None)
    near = [f"wording {i}" for i in range(40)]
    assert STATISTICS[name](*rows, near) == once  # alone in their clusters: as without
    fives = [[value for value in row for _ in range(5)] for row in rows]
    said = STATISTICS[name](*fives, [cluster for cluster in near for _ in range(5)])
    free = STATISTICS[name](*fives, None)
    spans = [getattr(found, "difference", found) for found in (said, once, free)]
    assert spans[0].n == 200
    assert (spans[0].value, spans[0].low, spans[0].high) == pytest.approx((spans[1].value, spans[1].low, spans[1].high))
    assert spans[0].high - spans[0].low > 1.8 * (spans[2].high - spans[2].low)
    if name == "paired":
        assert (said.gained, said.lost, said.p) == (5 * once.gained, 5 * once.lost, once.p)


def test_clusters_are_resampled_whole_whatever_their_size_and_order():
    sizes = [1, 9, 3, 7, 2, 8, 4, 6, 5, 5, 10, 1]
    values = [float(i % 2) for i, size in enumerate(sizes) for _ in range(size)]
    near = [str(i) for i, size in enumerate(sizes) for _ in range(size)]
    found = stats.mean(values, near)
    assert found.value == pytest.approx(np.mean(values))
    # By hand: the percentiles of resampled clusters' sums over their counts.
    picks = np.random.default_rng(1).integers(len(sizes), size=(20_000, len(sizes)))
    counts = np.asarray(sizes, dtype=float)
    drawn = (counts * (np.arange(len(sizes)) % 2))[picks].sum(-1) / counts[picks].sum(-1)
    assert (found.low, found.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)
    places = np.random.default_rng(2).permutation(len(values))
    mixed = stats.mean([values[i] for i in places], [near[i] for i in places])
    assert (mixed.low, mixed.high) == pytest.approx((found.low, found.high), abs=0.02)


def test_none_at_all_excludes_no_more_than_as_many_clusters_can():
    near = [str(i // 5) for i in range(200)]
    assert stats.rate([False] * 200, near).high == stats.rate([False] * 40).high
    assert stats.paired([False] * 200, [False] * 200, near).difference.high == stats.rate([False] * 40).high


@pytest.mark.parametrize("count", [1, 2, 9, 40])
def test_few_clusters_and_clusters_that_are_alike_never_make_an_interval_narrower(count):
    near = [str(i // 5) for i in range(5 * count)]
    alike = [float(i % 5 == 0) for i in range(5 * count)]  # one of each five
    assert stats.mean(alike, near) == stats.mean(alike)
    changed, free = (stats.paired(alike, alike[::-1], whom).difference for whom in (near, None))
    assert changed.low <= free.low <= free.high <= changed.high
    assert changed == free or count < stats.FEW
    split = [float(i // 5 % 2) for i in range(5 * count)]
    apart, free = stats.mean(split, near), stats.mean(split)
    assert apart.low <= free.low <= free.high <= apart.high


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.rate([]),
        lambda: stats.rate([True, False], ["one"]),
        lambda: stats.rate([2.0]),
        lambda: stats.mean([float("nan")]),
        lambda: stats.paired([True], [True, False]),
        lambda: stats.ratio([1.0], [0.0]),
        lambda: stats.share_closed([True], [True], []),
    ],
)
def test_what_cannot_be_estimated_is_a_clear_error(call):
    with pytest.raises(UsageError):
        call()


def test_one_half_is_no_surer_than_nothing():
    """Shares of several samples of a prompt: few events do not narrow an interval, whatever their size."""
    none, half = stats.rate([0.0] * 150), stats.rate([0.5] + [0.0] * 149)
    assert half.high >= none.high > 0.02
    many = [0.1 + 0.005 * i for i in range(150)]
    assert stats.rate(many) == stats.mean(many)  # scores are what they were


def test_a_fall_to_nothing_is_as_sure_as_nothing_is():
    found = stats.reduction([1, 1, 1, 0, 0], [0] * 5)
    assert found.value == found.high == 1.0
    assert found.low < 0.5
    large = stats.reduction([1.0, 0.0] * 200, [0.0] * 400)
    assert 0.95 < large.low < 1.0


def test_a_worse_reference_does_not_make_a_closed_gap_surer():
    before, after = [0.0] * 10, [1.0] * 10
    worse, best = ([1.0] * 9 + [0.0]), [1.0] * 10
    assert stats.share_closed(before, after, worse).low < 0.9
    assert stats.share_closed(before, after, best).low < 0.9
