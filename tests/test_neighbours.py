"""Others around the trained rows: who stands where, that each part can be turned off, and that runs repeat to the bit."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch

from llmpatch.batching import Example, choose
from llmpatch.neighbours import Neighbours, arrange, within
from llmpatch.prefix import prefix_cache
from llmpatch.training import Trainer, train
from llmpatch.training_data import Kept, TrainingSet
from llmpatch.training_recipe import NeighboursSection, StageSection, TrainingSection
from llmpatch.word_losses import Avoid, Balance
from test_training import HEAD, interrupted_at, make_data, settings, start
from tinymodels import make_tiny


def rows(n, seed):
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))


THREE = (rows(2, 11), rows(3, 12), rows(4, 13))


def neighbours(patches=THREE, largest=None, **changes):
    section = NeighboursSection(patches=[f"p{i}" for i in range(len(patches))], **({"probability": 1.0} | changes))
    return Neighbours(tuple(patches), section, largest)


def sequence(found):
    """Lengths of what stands before and after."""
    return tuple(map(len, found.before)), tuple(map(len, found.after))


def steps(base, company, count=300):
    return [arrange(base, company, start(), seed=0, step=step) for step in range(count)]


def test_an_arrangement_depends_on_seed_and_step_only(tiny):
    company = neighbours(random=1, random_tokens=3, row_subsets=True)
    first = [arrange(tiny, company, start(), seed=0, step=step) for step in range(20)]
    again = [arrange(tiny, company, start(), seed=0, step=step) for step in reversed(range(20))][::-1]
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.around(start()), b.around(start()))
    other = [arrange(tiny, company, start(), seed=1, step=step) for step in range(20)]
    assert [sequence(a) for a in first] != [sequence(a) for a in other]


def test_every_subset_size_order_and_place_comes_up(tiny):
    found = [sequence(a) for a in steps(tiny, neighbours())]
    sizes = Counter(len(before) + len(after) for before, after in found)
    assert set(sizes) == {1, 2, 3}
    assert min(sizes.values()) > 70
    whole = {(len(before), before + after) for before, after in found if len(before + after) == 3}
    assert len(whole) == 4 * 6
    for before, after in found:
        assert set(before + after) <= {2, 3, 4}
        assert len(set(before + after)) == len(before + after)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"subsets": False, "shuffle": False, "place": "last"}, {((2, 3, 4), ())}),
        ({"subsets": False, "shuffle": False, "place": "first"}, {((), (2, 3, 4))}),
        ({"probability": 0.0}, {((), ())}),
    ],
)
def test_each_part_can_be_turned_off(tiny, changes, wanted):
    assert {sequence(a) for a in steps(tiny, neighbours(**changes), 40)} == wanted


def test_neighbours_stand_in_a_share_of_the_steps_and_rows_can_be_left_out(tiny):
    some = steps(tiny, neighbours(probability=0.3))
    assert 60 < sum(a.tokens > 0 for a in some) < 120
    cut = steps(tiny, neighbours(row_subsets=True, subsets=False, shuffle=False, place="last"), 100)
    assert {len(part) for a in cut for part in a.before} == {1, 2, 3, 4}
    assert all(2 <= len(a.before[2]) <= 4 for a in cut)
    for a in cut:  # in their order
        at = [next(i for i, row in enumerate(THREE[2]) if torch.equal(row, one)) for one in a.before[2]]
        assert at == sorted(at)


def test_stand_ins_are_vocabulary_rows_as_loud_as_a_patch(tiny):
    quiet = arrange(tiny, neighbours((), random=2, random_tokens=7, subsets=False), start(), seed=0, step=3)
    assert quiet.tokens == 14
    rest = quiet.without()
    assert float(rest.norm(dim=-1).mean()) == pytest.approx(float(start().norm(dim=-1).mean()), rel=0.2)
    table = tiny.embed(torch.arange(tiny.vocab_size)).float()
    nearest = torch.nn.functional.cosine_similarity(rest[:, None], table[None], dim=-1).max(-1).values
    assert nearest.min() > 0.999


def test_only_the_trained_rows_move_and_only_they_are_kept(tiny):
    frozen = [part.clone() for part in THREE]
    result = train(tiny, make_data(), start(), settings(sft=6, dpo=4), seed=0, neighbours=neighbours(frozen))
    assert result.rows.shape == (5, 32)
    assert not torch.equal(result.rows, start())
    assert all(torch.equal(a, b) for a, b in zip(frozen, THREE, strict=True))
    assert len({row["neighbour_tokens"] for row in result.history}) > 3


def test_a_run_without_neighbours_is_the_run_it_always_was(tiny):
    plain = train(tiny, make_data(), start(), settings(), seed=0)
    never = train(tiny, make_data(), start(), settings(), seed=0, neighbours=neighbours(probability=0.0))
    assert torch.equal(plain.rows, never.rows)


def test_an_interrupted_run_with_company_resumes_to_the_same_bits(tiny, tmp_path, monkeypatch):
    options = {"seed": 0, "neighbours": neighbours(random=1, random_tokens=3, probability=0.6), "kept": [kept()]}
    whole = train(tiny, make_data(), start(), settings(), run=tmp_path / "whole", **options)
    with interrupted_at(monkeypatch, 8):
        train(tiny, make_data(), start(), settings(), run=tmp_path / "cut", **options)
    resumed = train(tiny, make_data(), start(), settings(), run=tmp_path / "cut", **options)
    assert torch.equal(resumed.rows, whole.rows)
    other = {**options, "neighbours": neighbours(THREE[:2], probability=0.6)}
    assert not torch.equal(
        train(tiny, make_data(), start(), settings(), run=tmp_path / "cut", **other).rows, whole.rows
    )


def kept(rows_of=None, weight=1.0, count=6):
    generator = torch.Generator().manual_seed(7)
    ids = [tuple(torch.randint(3, 200, (n,), generator=generator).tolist()) for n in (4, 5, 6, 4, 5, 6)[:count]]
    examples = [Example("everyday", ids[i], ids[-1 - i], (), "ab"[i % 2]) for i in range(count)]
    return Kept(TrainingSet(HEAD, examples), weight, 4, 6, rows_of)


def test_training_keeps_what_the_neighbours_do_and_without_it_does_not(tiny):
    """The KL from the neighbours alone to neighbours and trained rows, on the neighbours' own prompts."""

    def divergence(result):
        company = neighbours(subsets=False)
        trainer = Trainer(tiny, make_data(), settings(), seed=0, neighbours=company)
        with torch.no_grad():
            values = [
                trainer.kept_losses(result.rows, trainer.arrangement(result.rows, step, 0), [kept()], step, 0)[0]
                for step in range(6)
            ]
        return float(torch.stack(values).mean())

    section = settings(sft=30, dpo=0)
    without = train(tiny, make_data(), start(), section, seed=0, neighbours=neighbours(subsets=False))
    with_it = train(
        tiny, make_data(), start(), section, seed=0, neighbours=neighbours(subsets=False), kept=[kept(weight=5.0)]
    )
    assert divergence(with_it) < 0.7 * divergence(without)


def test_kept_prompts_may_have_their_words_balanced_and_only_those_named(tiny):
    """Behind the neighbours and the trained rows; a mean over all tokens alone leaves one word where it drifted to."""
    balance = Balance(30.0, (5, 6), (7, 8))
    section = settings(sft=30, dpo=0)

    def lean(result, places):
        """The mean loss on words after these of the kept prompts."""
        trainer = Trainer(tiny, make_data(), settings(), seed=0, neighbours=neighbours(subsets=False))
        part = dataclasses.replace(kept(), balance=Balance(1.0, (5, 6), (7, 8)), balanced=frozenset(places))
        with torch.no_grad():
            found = [
                trainer.kept_losses(result.rows, trainer.arrangement(result.rows, step, 0), [part], step, 0)[1][
                    "kept_words"
                ]
                for step in range(6)
            ]
        return sum(found) / len(found)

    def trained(**words):
        part = dataclasses.replace(kept(), **words)
        return train(tiny, make_data(), start(), section, seed=0, neighbours=neighbours(subsets=False), kept=[part])

    plain, balanced = trained(), trained(balance=balance, balanced=frozenset({0, 2, 4}))
    assert lean(balanced, {0, 2, 4}) < 0.5 * lean(plain, {0, 2, 4})
    assert lean(balanced, {1, 3, 5}) > lean(balanced, {0, 2, 4})
    assert lean(balanced, ()) == 0 < lean(balanced, {1, 3, 5})
    assert all({"kept", "kept_words"} <= row.keys() for row in balanced.history)
    assert not any("kept_words" in row for row in plain.history)


def test_a_checkpoint_knows_whether_words_were_balanced(tiny):
    plain = kept()
    balanced = dataclasses.replace(plain, balance=Balance(1.0, (5,), (7,)), balanced=frozenset({1}))
    assert (
        len({plain.digest(), balanced.digest(), dataclasses.replace(balanced, balanced=frozenset({2})).digest()}) == 3
    )


def test_a_prefix_learns_what_a_stack_does(tiny):
    stack = torch.cat(THREE)
    section = TrainingSection(
        sft=StageSection(steps=60, learning_rate=0.1, answer_tokens=6, batch_size=4), warmup=1, kl_weight=0.0,
        dpo={"steps": 0, "learning_rate": 0.1},
    )  # fmt: skip
    teacher = kept(stack, weight=20.0)
    result = train(tiny, make_data(), start(), section, seed=0, kept=[teacher])
    found = [row["kept"] for row in result.history if "kept" in row]
    assert sum(found[-5:]) < 0.5 * sum(found[:5])


def test_what_is_taught_beside_some_is_taught_only_where_they_stand(tiny):
    """Only the first neighbour's lesson: in steps without it the part says nothing, and such a step still has a gradient."""
    company = neighbours(parallel=True)
    lesson = dataclasses.replace(kept(THREE[0]), beside=(0,))
    trainer = Trainer(tiny, make_data(), settings(), seed=0, neighbours=company, kept=[lesson])
    seen = Counter()
    for step in range(30):
        there, rows = trainer.arrangement(start(), step, 0), start().requires_grad_()
        loss, told = trainer.kept_losses(rows, there, [lesson], step, 0)
        stands = any(torch.equal(part, THREE[0]) for part in (*there.before, *there.after))
        assert there.who.issuperset({0}) == stands == (float(loss.detach()) > 0)
        always = dataclasses.replace(lesson, beside=())
        if stands:
            assert torch.equal(loss, trainer.kept_losses(rows, there, [always], step, 0)[0])
        loss.backward()
        assert bool(rows.grad.any()) == stands
        assert told["kept"] == pytest.approx(float(loss.detach()))
        seen[stands] += 1
    assert min(seen[True], seen[False]) > 5
    assert len({one.digest() for one in (lesson, always, dataclasses.replace(lesson, beside=(0, 1)))}) == 3
    section = settings(dpo=0).model_copy(update={"pairs_weight": 0.0})
    taught = train(tiny, make_data(), start(), section, seed=0, neighbours=company, kept=[lesson])
    assert not torch.equal(taught.rows, start())


def test_stand_ins_are_nobody_to_learn_beside(tiny):
    company = neighbours(THREE[:1], random=2, random_tokens=2, parallel=True)
    found = [arrange(tiny, company, start(), seed=0, step=step) for step in range(40)]
    assert {there.who for there in found} == {frozenset(), frozenset({0})}
    assert all(0 in there.who for there in found if len(there.before) + len(there.after) == 3)


def test_side_by_side_no_trained_row_reads_a_neighbour_and_runs_repeat(tiny):
    beside = neighbours(parallel=True, subsets=False)
    there = arrange(tiny, beside, start(), seed=0, step=0)
    around, without = there.around(start()), there.without()
    assert sorted(map(len, around.parts)) == sorted([2, 3, 4, len(start())])
    assert len(without.parts) == 3
    with torch.no_grad():
        alone, among = (prefix_cache(tiny, part, []).layers[1].values for part in (start(), around))
    place = 1 + sum(len(part) - 1 for part in there.before)
    assert torch.allclose(among[:, :, place : place + len(start()) - 1], alone[:, :, 1:], atol=1e-5)
    data, section = make_data(), settings(dpo=4)
    kept = Kept(make_data(), 1.0, 2, 4)
    one, again = (train(tiny, data, start(), section, seed=0, neighbours=beside, kept=[kept]).rows for _ in range(2))
    assert torch.equal(one, again)
    stacked = train(tiny, data, start(), section, seed=0, neighbours=neighbours(subsets=False), kept=[kept]).rows
    assert not torch.equal(one, stacked)
    assert [torch.equal(a, b) for a, b in zip(beside.patches, THREE, strict=True)] == [True] * 3


def test_beside_nobody_and_one_neighbour_are_what_they_are(tiny):
    one = neighbours(THREE[:1], parallel=True)
    there = arrange(tiny, one, start(), seed=0, step=0)
    assert torch.equal(there.without(), THREE[0])
    assert len(there.around(start())) == len(start()) + 1
    nobody = arrange(tiny, neighbours(parallel=True, probability=0.0), start(), seed=0, step=0)
    assert torch.equal(nobody.around(start()), start())
    assert nobody.without() is None


def test_a_norm_budget_holds_after_every_step(tiny):
    assert torch.allclose(within(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0), torch.tensor([[0.6, 0.8], [0.3, 0.4]]))
    assert within(THREE[0], None) is THREE[0]
    largest = float(start().norm(dim=-1).max()) * 0.9
    free = train(tiny, make_data(), start(), settings(), seed=0, neighbours=neighbours())
    held = train(tiny, make_data(), start(), settings(), seed=0, neighbours=neighbours(largest=largest))
    assert free.rows.norm(dim=-1).max() > largest
    assert held.rows.norm(dim=-1).max() <= largest * (1 + 1e-5)


def test_kl_can_weigh_otherwise_beside_neighbours(tiny):
    runs = [
        train(tiny, make_data(), start(), settings(kl_weight=1.0), seed=0, neighbours=neighbours(**changes)).rows
        for changes in ({}, {"kl_weight": 1.0}, {"kl_weight": 0.0})
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_several_risks_share_each_kind_and_a_balance_keeps_to_its_own():
    examples = [
        Example("harmful", (i,), (1,), (2,), risk) for risk, n in (("a", 30), ("b", 6), ("c", 9)) for i in range(n)
    ]
    seen = Counter()
    for step in range(60):
        found = choose(examples, {"harmful": 7}, seed=0, step=step)
        assert len(found) == len(set(found)) == 7
        each = Counter(examples[i].risk for i in found)
        assert set(each.values()) <= {2, 3}
        seen += each
    assert max(seen.values()) - min(seen.values()) <= 3
    base, data = make_tiny(), make_data()
    mixed = TrainingSet(
        HEAD, [Example(e.kind, e.prompt, e.chosen, e.rejected, "ab"[i % 2]) for i, e in enumerate(data.examples)]
    )
    harmful = [i for i, e in enumerate(mixed.examples) if e.kind == "harmful"]

    def term(words, indices):
        name = "balance" if isinstance(words, Balance) else "avoid"
        trainer = Trainer(base, mixed, settings(), seed=0, **{name: words})
        plain = Trainer(base, mixed, settings(), seed=0)
        with torch.no_grad():
            return float(
                trainer.sft_loss(start(), indices, settings().sft)[0]
                - plain.sft_loss(start(), indices, settings().sft)[0]
            )

    only_b = [i for i in harmful if mixed.examples[i].risk == "b"]
    assert term(Balance(3.0, (3, 4), (7,), "a"), only_b) == term(Avoid(3.0, (3, 4), "a"), only_b) == 0.0
    assert term(Avoid(3.0, (3, 4), "b"), only_b) == pytest.approx(term(Avoid(3.0, (3, 4)), only_b)) != 0
    assert term(Balance(3.0, (3, 4), (7,), "b"), only_b) == pytest.approx(term(Balance(3.0, (3, 4), (7,)), only_b)) != 0
