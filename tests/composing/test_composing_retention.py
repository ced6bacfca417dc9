"""What is kept, what is lost, and what is chance: numbers with known answers."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from llmpatch.artifact.composition import make_record
from llmpatch.composing import Column, make_figures
from llmpatch.composing.retention import spread_p
from llmpatch.composing.search import orders_of
from llmpatch.errors import UsageError


def column(hits, n=200, aim=True, offset=0):
    """The first ``hits`` of ``n`` prompts are right, counted from ``offset`` on."""
    right = {(i + offset) % n for i in range(hits)}
    return Column("refusal", "declines", aim, {f"s/{i}": float(i in right) for i in range(n)})


def figure(before, alone, together, **options):
    (found,) = make_figures("1" * 64, [column(before, **options)], [column(alone, **options)],
                            [column(together, **options)])  # fmt: skip
    return found


def test_the_share_kept_is_of_the_gain_not_of_the_rate():
    found = figure(20, 180, 100)
    assert found["kept"]["value"] == pytest.approx((100 - 20) / (180 - 20))
    assert found["kept"]["low"] < 0.5 < found["kept"]["high"]
    assert found["change"]["value"] == pytest.approx(-0.4)
    assert found["hurt"]


@pytest.mark.parametrize(("together", "hurt"), [(180, False), (178, False), (172, False), (150, True), (190, False)])
def test_a_loss_is_one_that_chance_and_tolerance_do_not_explain(together, hurt):
    found = figure(20, 180, together)
    assert found["hurt"] is hurt
    assert hurt == (found["kept"]["high"] < 0.95)


def test_few_prompts_cannot_show_a_loss_that_many_do():
    assert figure(0, 8, 6, n=8)["hurt"] is False
    assert figure(0, 200, 150)["hurt"] is True


def test_without_a_gain_alone_there_is_nothing_to_keep_and_still_something_to_lose():
    assert "kept" not in figure(50, 50, 50)
    assert not figure(50, 50, 50)["hurt"]
    assert figure(100, 90, 20)["hurt"]


def test_what_a_patch_leaves_alone_may_fall_by_a_point_but_not_more():
    assert not figure(198, 198, 197, aim=False)["hurt"]
    found = figure(198, 198, 150, aim=False)
    assert found["hurt"]
    assert "kept" not in found


def test_prompts_of_one_wording_count_together():
    def behind(hits):
        alone = column(hits)
        return replace(alone, clusters={name: str(i // 5) for i, name in enumerate(alone.values)})

    free, near = figure(20, 180, 155), make_figures("1" * 64, [behind(20)], [behind(180)], [behind(155)])[0]
    assert near["kept"]["value"] == free["kept"]["value"]
    assert near["kept"]["high"] - near["kept"]["low"] > 1.8 * (free["kept"]["high"] - free["kept"]["low"])
    assert free["hurt"]
    assert not near["hurt"]
    assert spread_p([behind(100), behind(115)]) > spread_p([column(100), column(115)])


def test_columns_of_other_prompts_are_not_compared():
    with pytest.raises(UsageError, match="was not measured on the prompts"):
        make_figures("1" * 64, [column(3)], [column(3, n=100)], [column(3)])


def test_orders_that_differ_by_chance_are_told_from_orders_that_differ():
    draw = random.Random(0)

    def noisy(rate, seed):
        draw.seed(seed)
        return Column("refusal", "declines", True, {f"s/{i}": float(draw.random() < rate) for i in range(200)})

    alike = [noisy(0.8, seed) for seed in range(6)]
    assert spread_p(alike) > 0.05
    assert spread_p([*alike[:5], noisy(0.5, 9)]) < 0.01
    assert spread_p([column(100)] * 6) == 1.0


def test_all_orders_up_to_four_and_a_sample_with_every_patch_everywhere_beyond():
    assert len(set(orders_of(4))) == 24
    assert orders_of(3)[0] == (0, 1, 2)
    sample = orders_of(6, seed=1)
    assert len(sample) == len(set(sample)) == 24
    assert sample[0] == tuple(range(6))
    assert all({order[place] for order in sample} == set(range(6)) for place in range(6))
    assert orders_of(6, seed=1) == sample != orders_of(6, seed=2)


def test_figures_are_what_a_record_takes_and_a_crooked_record_is_refused():
    digests = ["1" * 64, "2" * 64]
    parts = ("config", "tokenizer", "chat_template", "embeddings")
    fields = {
        "created": "2026-11-25T12:00:00Z",
        "base": {"name": "tiny", "fingerprint": dict.fromkeys(parts, "3" * 64) | {"quantisation": "none"}},
        "patches": [{"name": f"acme/n{i}", "version": "1.0.0", "digest": d} for i, d in enumerate(digests)],
        "measured": [{"patches": digests, "figures": [figure(20, 180, 100), figure(50, 50, 50)]}],
    }  # fmt: skip
    record = make_record(fields)
    assert [f.hurt for f in record.measured[0].figures] == [True, False]
    for crooked in (
        fields | {"measured": [{"patches": digests[::-1], "figures": [figure(1, 2, 2)]}]},
        fields | {"unknown": 1},
        fields | {"measured": [{"patches": digests, "figures": [figure(1, 2, 2) | {"patch": "9" * 64}]}]},
    ):
        with pytest.raises(UsageError, match="composition record"):
            make_record(crooked)
