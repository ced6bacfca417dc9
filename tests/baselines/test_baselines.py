"""Baselines: they learn from the patch's pairs, cost what they say, are kept, and leave the base as it was."""

from __future__ import annotations

import pytest
import torch

from llmpatch.baselines import (
    Lora,
    LoraSettings,
    PrefixTuning,
    behind_key_values,
    find_direction,
    mean_differences,
    merge,
    patch_flops,
    steer,
    train_lora,
    train_peer,
)  # fmt: skip
from llmpatch.errors import IntegrityError, UsageError
from llmpatch.evals.fluency import wikitext_perplexity
from llmpatch.generation import generate
from llmpatch.prefix import prefix_cache
from llmpatch.recipe import DecodingSection
from llmpatch.training import Trainer
from llmpatch.training_data import TrainingSet
from test_training import HEAD, make_data, settings, start
from tinymodels import make_tiny

GREEDY = DecodingSection(max_new_tokens=6)


def losses(base, tuned, section):
    """The patch's own losses of a model without a prefix, on all examples."""
    data = make_data()
    trainer = Trainer(base, data, section, seed=0)
    trainer.policy = lambda rows, batch: hidden(tuned, batch)
    trainer._pair_reference = {i: torch.zeros(2) for i in range(len(data.examples))}
    everything = list(range(len(data.examples)))
    nothing = torch.empty(0, base.hidden_size)
    with torch.no_grad():
        return (
            float(trainer.sft_loss(nothing, everything, section.sft)[0]),
            float(trainer.dpo_loss(nothing, everything, section.dpo)[0]),
        )


def hidden(tuned, batch):
    from llmpatch.losses import hidden_states

    return hidden_states(tuned, None, HEAD, batch)


def logits(base, prompt="Hello there", prefix=None):
    from llmpatch.evals.forward import run_behind
    from llmpatch.prefix import head_logits

    with torch.no_grad():
        past = 0 if prefix is None else len(prefix)
        found, _ = run_behind(base, torch.tensor([base.chat_ids(prompt)]), prefix_cache(base, prefix, []), past)
        return head_logits(base, found)


def texts(base, prompts, prefix=None):
    return {i: found[0].text for i, found in generate(base, prompts, decoding=GREEDY, prefix=prefix)}


PROMPTS = ["Hi", "Tell me a long story about the sea", "Why is it so?"]


def test_lora_lowers_the_patchs_losses_and_leaves_the_base_alone(tmp_path, monkeypatch):
    base = make_tiny()
    before = {k: v.clone() for k, v in base.model.state_dict().items()}
    section = settings(sft=20, dpo=20, dpo_changes={"reference": "none"})
    how = {
        "settings": LoraSettings(rank=4, learning_rate=0.02),
        "section": section,
        "keep": tmp_path / "kept.safetensors",
    }
    tuned, parameters, seconds = train_lora(base, make_data(), seed=0, **how)
    monkeypatch.setattr("llmpatch.baselines.own_lora._optimise", lambda *_: pytest.fail("trained again"))
    again, _, kept = train_lora(base, make_data(), seed=0, **how)
    assert kept == seconds > 0
    assert all(torch.equal(v, again.model.state_dict()[k]) for k, v in tuned.model.state_dict().items())
    was, now = losses(base, base, section), losses(base, tuned, section)
    assert now[0] < 0.95 * was[0]
    assert now[1] < 0.8 * was[1]
    assert all(torch.equal(v, before[k]) for k, v in base.model.state_dict().items())
    # rank 4 on the seven projections of two layers of width 32, 64 inside, 16 for keys and values
    assert parameters == 2 * 4 * ((32 + 32) * 2 + (32 + 16) * 2 + (32 + 64) * 3)
    assert tuned.chat_ids("Hi")[: len(HEAD)] == base.chat_ids("Hi")[: len(HEAD)]
    assert set(tuned.model.state_dict()) == set(before)


def test_lora_cannot_start_dpo_from_a_patch():
    with pytest.raises(UsageError, match="cannot take 'sft' as DPO reference"):
        train_lora(make_tiny(), make_data(), LoraSettings(), settings(dpo_changes={"reference": "sft"}), seed=0)


@pytest.mark.parametrize("reference", ["none", "base", "sft"])
def test_trl_lora_learns_merges_and_leaves_the_base_alone(tmp_path, reference):
    base = make_tiny()
    before = {k: v.clone() for k, v in base.model.state_dict().items()}
    section = settings(sft=15, dpo=15, kl_weight=0.0, dpo_changes={"reference": reference})
    peer = train_peer(base, make_data(), Lora(4, 0.02), section, seed=0, folder=tmp_path)
    was, now = losses(base, base, section), losses(base, peer.base, section)
    assert now[1] < 0.8 * was[1]
    assert all(torch.equal(v, before[k]) for k, v in base.model.state_dict().items())
    assert peer.cost.parameters == 2 * 4 * ((32 + 32) * 2 + (32 + 16) * 2 + (32 + 64) * 3)
    assert peer.cost.seconds > 0
    merged = merge(base, peer, name="merged")
    assert set(merged.model.state_dict()) == set(before)
    assert torch.allclose(logits(merged), logits(peer.base), atol=1e-4)
    assert not torch.allclose(logits(merged), logits(base), atol=0.1)


def test_trl_sees_the_patchs_rows_in_the_patchs_order(tmp_path, monkeypatch):
    """Its loss on its own first batch is the one computed by hand from the rows that the patch's first step takes."""
    from trl import DPOTrainer, SFTTrainer

    base, data, seen = make_tiny(), make_data(), {}
    for trainer in (SFTTrainer, DPOTrainer):

        def compute(self, model, inputs, *args, original=trainer.compute_loss, name=trainer.__name__, **kwargs):
            found = original(self, model, inputs, *args, **kwargs)
            seen.setdefault(name, float((found[0] if isinstance(found, tuple) else found).detach()))
            return found

        monkeypatch.setattr(trainer, "compute_loss", compute)
    section = settings(sft=1, dpo=1, dpo_changes={"reference": "base", "beta": 0.3})
    train_peer(base, data, Lora(2, 1e-9), section, seed=3, folder=tmp_path)
    ours = Trainer(base, data, section, seed=3)
    rows = [data.examples[i] for i in ours.indices(section.sft, 0, 0)]
    sums, tokens = 0.0, 0
    for row in rows:
        answer = row.chosen[:6]
        ids = torch.tensor([[*HEAD, *row.prompt, *answer]])
        scores = base.model(input_ids=ids).logits[0].log_softmax(-1)[-len(answer) - 1 : -1]
        sums -= float(scores.gather(1, torch.tensor(answer)[:, None]).sum())
        tokens += len(answer)
    assert seen["SFTTrainer"] == pytest.approx(sums / tokens, rel=1e-4)
    # The policy still is the reference, so that DPO's loss is log 2 whatever the rows, and their reference is right.
    assert seen["DPOTrainer"] == pytest.approx(0.693147, rel=1e-4)


def test_a_kept_baseline_is_read_and_not_trained_again(tmp_path, monkeypatch):
    from trl import DPOTrainer, SFTTrainer

    base, section = make_tiny(), settings(sft=3, dpo=2, dpo_changes={"reference": "sft"})
    first = train_peer(base, make_data(), Lora(2), section, seed=0, folder=tmp_path)
    monkeypatch.setattr(SFTTrainer, "train", lambda self: pytest.fail("trained again"))
    monkeypatch.setattr(DPOTrainer, "train", lambda self: pytest.fail("trained again"))
    again = train_peer(base, make_data(), Lora(2), section, seed=0, folder=tmp_path)
    assert again.cost == first.cost
    assert torch.equal(logits(first.base), logits(again.base))
    assert set(first.base.model.state_dict()) == set(again.base.model.state_dict())
    with pytest.raises(pytest.fail.Exception, match="trained again"):  # other settings are another baseline
        train_peer(base, make_data(), Lora(3), section, seed=0, folder=tmp_path)
    (tmp_path / "dpo.safetensors").write_bytes(b"\x08" + bytes(40))
    with pytest.raises(IntegrityError, match="is damaged"):
        train_peer(base, make_data(), Lora(2), section, seed=0, folder=tmp_path)


def test_validation_keeps_the_best_weights_of_both_stages(tmp_path):
    section = settings(sft=4, dpo=4, validate_every=2, dpo_changes={"reference": "none"})
    scores = iter([0.1, 0.9, 0.3, 0.2])
    peer = train_peer(
        make_tiny(), make_data(), Lora(2), section, seed=0, folder=tmp_path, score=lambda tuned: next(scores)
    )
    assert peer.best_at == "SFT step 4"


def test_prefix_tuning_starts_as_the_patch_does_and_learns(tmp_path):
    base, rows = make_tiny(), start()
    untrained = train_peer(
        base, make_data(), PrefixTuning(rows), settings(sft=0, dpo=0), seed=0, folder=tmp_path / "none"
    )
    assert untrained.cost.parameters == 2 * 2 * 16 * len(rows)  # keys and values of two layers of two heads of width 8
    assert torch.allclose(logits(untrained.base), logits(base, prefix=rows), atol=1e-4)
    assert texts(untrained.base, PROMPTS) == texts(base, PROMPTS, rows)  # padded batches, too
    section = settings(sft=20, dpo=10, kl_weight=0.0, dpo_changes={"reference": "sft"})
    peer = train_peer(base, make_data(), PrefixTuning(rows, 0.05), section, seed=0, folder=tmp_path / "some")
    assert losses(base, peer.base, section)[0] < 0.95 * losses(base, untrained.base, section)[0]
    ids = torch.tensor([base.chat_ids("Hello there")])
    with torch.no_grad(), pytest.warns(FutureWarning):
        theirs = peer.wrapped(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert torch.allclose(logits(peer.base), theirs[:, -ids.shape[1] :], atol=1e-4)


def test_keys_and_values_cost_what_they_cost_on_plain_text():
    base, rows = make_tiny(), start()
    layers = prefix_cache(base, rows, []).layers
    keys, values = (torch.stack([getattr(each, name)[0].detach() for each in layers]) for name in ("keys", "values"))
    text = "plain text of some length, " * 20
    ours = wikitext_perplexity(base, rows, text, window_tokens=64)
    theirs = wikitext_perplexity(base, None, text, patched=behind_key_values(base, keys, values), window_tokens=64)
    assert theirs.patched == pytest.approx(ours.patched, rel=1e-4)
    assert theirs.base == pytest.approx(ours.base)


def test_a_baseline_cannot_take_the_references_likelihoods(tmp_path):
    section = settings(dpo_changes={"reference": "reference"})
    with pytest.raises(UsageError, match="cannot take M' as DPO reference"):
        train_peer(make_tiny(), make_data(), Lora(), section, seed=0, folder=tmp_path)


def test_the_mean_difference_is_the_one_computed_by_hand():
    base = make_tiny()
    data = TrainingSet(HEAD, [e for e in make_data(6).examples if e.kind == "harmful"])
    sides = []
    for name in ("chosen", "rejected"):
        means = []
        for e in data.examples:
            answer = getattr(e, name)[:3]
            ids = torch.tensor([[*HEAD, *e.prompt, *answer]])
            with torch.no_grad():  # the state before the final norm is what the block gives
                states = base.model(input_ids=ids, output_hidden_states=True).hidden_states
            means.append(states[1][0, -len(answer) :].mean(0))
        sides.append(torch.stack(means).mean(0))
    found = mean_differences(base, data, answer_tokens=3)
    assert found.shape == (2, 32)
    assert torch.allclose(found[0], sides[0] - sides[1], atol=1e-5)


def test_steering_moves_the_model_and_nothing_else():
    base = make_tiny()
    assert torch.equal(logits(steer(base, torch.zeros(32), 1)), logits(base))
    tuned = steer(base, torch.ones(32), 0)
    assert not torch.allclose(logits(tuned), logits(base), atol=0.01)
    assert "steering_vector" in tuned.model.state_dict()
    assert "steering_vector" not in base.model.state_dict()
    with pytest.raises(UsageError, match="has no layer 2"):
        steer(base, torch.ones(32), 2)


def test_layer_and_strength_are_chosen_by_the_score():
    base, data = make_tiny(), make_data()
    vectors = mean_differences(base, data, answer_tokens=6)
    wanted = 2.0 * vectors[1]
    found = find_direction(
        base,
        vectors,
        depths=(0.1, 0.6),
        strengths=(1.0, 2.0, 4.0),
        score=lambda tuned: -float((tuned.model.steering_vector - wanted).norm()),
    )
    assert (found.layer, found.strength, len(found.tried)) == (1, 2.0, 6)
    assert torch.allclose(found.vector, wanted)
    harmless = TrainingSet(HEAD, [e for e in data.examples if e.kind != "harmful"])
    with pytest.raises(UsageError, match="no harmful pair"):
        mean_differences(base, harmless, answer_tokens=6)


def test_the_patchs_flops_grow_with_its_steps_and_count_what_is_shared_once():
    base, data = make_tiny(), make_data()

    def count(**changes):
        return patch_flops(base, data, start(), settings(dpo_changes={"reference": "sft"}, **changes), seed=0)

    short, long = count(sft=3, dpo=3), count(sft=30, dpo=30)
    assert 5 * short < long < 10 * short  # ten times the steps, but the base's distributions are computed once
    assert count(sft=3, dpo=0) < short
