"""Training: equal to TRL, improving, resumable to the bit, and clear about what it cannot do."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager, nullcontext

import pytest
import torch

from llmpatch.batching import Example, choose, make_batch, shares
from llmpatch.checkpoints import identity_of
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from llmpatch.losses import answer_log_probs, dpo_loss, hidden_states, per_answer
from llmpatch.recomputing import recomputed
from llmpatch.training import Trainer, train
from llmpatch.training_data import TrainingSet
from llmpatch.training_recipe import DistilSection, DPOSection, MixSection, StageSection, TrainingSection
from llmpatch.word_losses import Avoid, Balance
from tinymodels import make_tiny

HEAD = [1, 5, 9, 12]


def make_data(count=12, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def ids(n):
        return tuple(torch.randint(3, 200, (n,), generator=generator).tolist())

    kinds = ["harmful", "borderline", "everyday"]
    return TrainingSet(HEAD, [Example(kinds[i % 3], ids(3 + i % 5), (*ids(4), 2), (*ids(3), 2)) for i in range(count)])


def settings(sft=6, dpo=4, **changes):
    return TrainingSection(
        sft=StageSection(steps=sft, learning_rate=0.05, answer_tokens=6, batch_size=4),
        dpo=DPOSection(steps=dpo, learning_rate=0.02, answer_tokens=6, batch_size=4, **changes.pop("dpo_changes", {})),
        warmup=1, checkpoint_every=2, **changes,
    )  # fmt: skip


def start(n=5):
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(1))


def test_dpo_loss_equals_trl_with_peft_prompt_tuning_on_the_same_batch(tmp_path):
    """TRL's own trainer computes its loss on its own batch; ours is computed from that batch's token ids."""
    from datasets import Dataset
    from peft import PromptTuningConfig
    from trl import DPOConfig, DPOTrainer

    base, rows = make_tiny(), start()
    texts = {"prompt": ["Tell me.", "Hello there", "Why so?"], "chosen": ["No, never", "Hi!", "Because it is"],
             "rejected": ["Sure thing, here", "Go away now", "No"]}  # fmt: skip
    arguments = DPOConfig(output_dir=str(tmp_path), beta=0.3, per_device_train_batch_size=3, report_to=[], use_cpu=True,
                          gradient_checkpointing=False, disable_dropout=True, bf16=False)  # fmt: skip
    trainer = DPOTrainer(
        model=base.model, args=arguments, train_dataset=Dataset.from_dict(texts), processing_class=base.tokenizer,
        peft_config=PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, prompt_tuning_init="RANDOM"),
    )  # fmt: skip
    trainer.model.prompt_encoder["default"].embedding.weight.data.copy_(rows)
    batch = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(trainer.model, batch)

    def sequences(i):
        ids, seen, answer = (
            batch[k][i].bool() if k != "input_ids" else batch[k][i]
            for k in ("input_ids", "attention_mask", "completion_mask")
        )
        return tuple(ids[seen & ~answer].tolist()), tuple(ids[seen & answer].tolist())

    plain = make_tiny()
    examples = [Example("harmful", *sequences(i), sequences(i + 3)[1]) for i in range(3)]
    sums = []
    for prefix in (rows, None):
        ours = make_batch(examples, past=0 if prefix is None else 5, answer_tokens=99, rejected=True)
        log_probs = answer_log_probs(plain, hidden_states(plain, prefix, [], ours), ours.targets)
        sums.append(per_answer(log_probs, ours.owner, 6, mean=False).view(-1, 2))
    assert dpo_loss(*sums, beta=0.3).mean().item() == pytest.approx(theirs.item(), rel=1e-5)


def test_both_stages_lower_their_losses(tiny):
    data = make_data()
    result = train(tiny, data, start(), settings(sft=30, dpo=20, kl_weight=0.1), seed=0)
    for stage in ("SFT", "DPO"):
        losses = [h["loss"] for h in result.history if h["stage"] == stage]
        assert sum(losses[-3:]) < sum(losses[:3])
    accuracies = [h["accuracy"] for h in result.history if h["stage"] == "DPO"]
    assert accuracies[-1] > 0.5


@contextmanager
def interrupted_at(monkeypatch, update_number):
    """Training in here is interrupted at its so many-th update."""
    update, calls = Trainer._update, []

    def broken(self, state, stage):
        calls.append(1)
        if len(calls) == update_number:
            raise KeyboardInterrupt
        return update(self, state, stage)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_update", broken)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_interrupted_run_resumes_to_the_same_bits(tiny, tmp_path, monkeypatch, optimizer):
    data, section = make_data(), settings(optimizer=optimizer)
    whole = train(tiny, data, start(), section, seed=0, run=tmp_path / "whole")
    for stop_at in (3, 8):  # once in SFT, once in DPO
        with interrupted_at(monkeypatch, stop_at):
            train(tiny, data, start(), section, seed=0, run=tmp_path / str(stop_at))
        resumed = train(tiny, data, start(), section, seed=0, run=tmp_path / str(stop_at))
        assert torch.equal(resumed.rows, whole.rows)
        assert len(resumed.history) == len(whole.history)


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_an_interrupt_while_validating_does_not_skip_the_validation(tiny, tmp_path, stop_at):
    """The only one of a stage, too: else DPO would go on from rows that nobody trained."""
    section = settings(validate_every=5)  # looked at after SFT 5, DPO 4 and 5
    calls = []

    def scored(rows):
        calls.append(1)
        return {"score": float(rows.sum())}

    def broken(rows):
        if len(calls) + 1 == stop_at:
            calls.append(1)
            raise KeyboardInterrupt
        return scored(rows)

    whole = train(tiny, make_data(), start(), section, seed=0, validate=scored)
    assert len(calls) > 1
    stop_at = min(stop_at, len(calls))
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        train(tiny, make_data(), start(), section, seed=0, run=tmp_path, validate=broken)
    resumed = train(tiny, make_data(), start(), section, seed=0, run=tmp_path, validate=scored)
    assert torch.equal(resumed.rows, whole.rows)
    assert resumed.history == whole.history


def test_an_interrupt_in_the_middle_of_a_step_leaves_the_state_before_it(tiny, tmp_path, monkeypatch):
    from llmpatch import training

    whole = train(tiny, make_data(), start(), settings(), seed=0, run=tmp_path / "whole")
    with monkeypatch.context() as patched:
        update = Trainer._update

        def half(self, state, stage):
            if state.step == 2:
                state.first, state.updates = state.first + 1, state.updates + 1
                raise KeyboardInterrupt
            return update(self, state, stage)

        patched.setattr(training.Trainer, "_update", half)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, make_data(), start(), settings(), seed=0, run=tmp_path / "half")
    assert torch.equal(train(tiny, make_data(), start(), settings(), seed=0, run=tmp_path / "half").rows, whole.rows)


def test_a_checkpoint_of_other_settings_is_not_resumed(tiny, tmp_path):
    train(tiny, make_data(), start(), settings(), seed=0, run=tmp_path)
    other = train(tiny, make_data(), start(), settings(), seed=1, run=tmp_path)
    assert torch.equal(other.rows, train(tiny, make_data(), start(), settings(), seed=1).rows)


def test_a_checkpoint_that_other_prompts_chose_is_not_resumed(tiny, tmp_path):
    def scored(sign, calls):
        return lambda rows: calls.append(1) or {"score": sign * float(rows.sum())}

    first, other, again = [], [], []
    common = {"seed": 0, "run": tmp_path}
    data, section = make_data(), settings(validate_every=2)
    one = train(tiny, data, start(), section, validate=scored(1, first), validated_by="one", **common)
    two = train(tiny, data, start(), section, validate=scored(-1, other), validated_by="two", **common)
    assert len(other) == len(first) > 2
    assert not torch.equal(one.rows, two.rows)
    train(tiny, data, start(), section, validate=scored(-1, again), validated_by="two", **common)
    assert not again


@pytest.mark.parametrize("damage", [b"", b"garbage" * 100, None])
def test_a_damaged_checkpoint_is_named(tiny, tmp_path, damage):
    train(tiny, make_data(), start(), settings(), seed=0, run=tmp_path)
    path = tmp_path / "training.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if damage is None else damage)
    with pytest.raises(IntegrityError, match=r"training\.safetensors is damaged"):
        train(tiny, make_data(), start(), settings(), seed=0, run=tmp_path)


def test_the_best_prefix_by_validation_is_kept_and_training_stops_early(tiny):
    scores = iter([0.5, 0.9, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1])
    seen = []

    def validate(rows):
        seen.append(rows.clone())
        return {"score": next(scores)}

    section = settings(sft=20, dpo=0, validate_every=2, patience=2)
    result = train(tiny, make_data(), start(), section, seed=0, validate=validate)
    assert torch.equal(result.rows, seen[1])
    assert result.best_at == "SFT step 4"
    assert len([h for h in result.history if "loss" in h]) == 8


def test_of_equally_good_prefixes_the_later_is_kept_and_does_not_put_off_the_end(tiny):
    seen = []

    def validate(rows):
        seen.append(rows.clone())
        return {"score": 0.9}

    result = train(
        tiny, make_data(), start(), settings(sft=20, dpo=0, validate_every=2, patience=2), seed=0, validate=validate
    )
    assert (result.best_at, len(seen)) == ("SFT step 6", 3)
    assert torch.equal(result.rows, seen[2])


def test_the_last_prefix_is_kept_where_the_recipe_says_so(tiny):
    scores, seen = iter([0.9, 0.1, 0.5, 0.2]), []

    def validate(rows):
        seen.append(rows.clone())
        return {"score": next(scores)}

    section = settings(sft=4, dpo=4, validate_every=2, keep="last")
    result = train(tiny, make_data(), start(), section, seed=0, validate=validate)
    assert (result.best_at, len(seen)) == ("DPO step 4", 4)
    assert torch.equal(result.rows, seen[3])


@pytest.mark.parametrize("reference", ["sft", "base", "reference", "none"])
def test_each_dpo_reference_gives_its_own_training(tiny, reference):
    def of_reference(examples):
        return torch.tensor([[-3.0 - i, -1.0] for i in range(len(examples))])

    section = settings(dpo_changes={"reference": reference})
    result = train(tiny, make_data(), start(), section, seed=0, reference_log_probs=of_reference)
    first = next(h for h in result.history if h["stage"] == "DPO")
    if reference == "sft":  # the policy is its own reference: ln 2, as TRL starts
        assert first["dpo"] == pytest.approx(0.693147, rel=1e-3)
    else:
        assert first["dpo"] != pytest.approx(0.693147, rel=1e-3)


def test_text_only_references_cannot_be_the_dpo_reference(tiny):
    with pytest.raises(UsageError, match="no likelihoods"):
        train(tiny, make_data(), start(), settings(dpo_changes={"reference": "reference"}), seed=0)


def test_nothing_to_train_on(tiny):
    with pytest.raises(UsageError, match="no pair passed the filter"):
        train(tiny, TrainingSet(HEAD, []), start(), settings(), seed=0)
    distil = [DistilSection(chat=["a.jsonl"])]
    without = settings().model_copy(update={"pairs_weight": 0.0, "distil": distil})
    with pytest.raises(UsageError, match="pairs_weight is 0, and there are no other answers"):
        train(tiny, TrainingSet([], []), start(), without, seed=0)


def test_a_gradient_that_is_not_finite_stops_the_run(tiny):
    rows = start()
    rows[0, 0] = float("inf")
    with pytest.raises(LlmpatchError, match="not finite"):
        train(tiny, make_data(), rows, settings(), seed=0)


def test_a_checkpoint_of_other_settings_is_kept_beside_the_new_one(tiny, tmp_path):
    def trained(steps):
        train(tiny, make_data(), start(), settings(sft=steps, dpo=0), seed=0, run=tmp_path)
        return (tmp_path / "training.safetensors").read_bytes()

    first, *others = (trained(steps) for steps in (2, 3, 4))
    # Going back to the first ones goes on from there: nothing is trained again, however many came between.
    assert trained(2) == first
    kept = {path.read_bytes() for path in tmp_path.glob("training.*.safetensors")}
    assert kept == set(others)
    # A kill between the two renames leaves none under the usual name.
    path = tmp_path / "training.safetensors"
    path.rename(tmp_path / f"training.{identity_of(path)[:16]}.safetensors")
    assert trained(2) == first


@pytest.mark.parametrize("cheap", [False, True])
def test_rows_may_be_longer_than_a_sliding_window(cheap):
    """Also where layers compute their insides again; what such rows cost is proved in test_losses."""
    gemma = make_tiny("gemma3_text", sliding_window=12, num_hidden_layers=6)
    section = settings(sft=3, dpo=2)
    with recomputed(gemma) if cheap else nullcontext():
        found = train(gemma, make_data(), start(), section, seed=0)
    assert found.rows.isfinite().all()
    assert not torch.equal(found.rows, start())


def test_patience_counts_from_the_best_also_where_the_last_is_kept(tiny):
    scores = iter([0.9, 0.5, 0.6, 0.5, 0.6, 0.5, 0.6, 0.5, 0.6])
    section = settings(sft=9, dpo=0, validate_every=1, patience=2, keep="last")
    found = train(tiny, make_data(), start(), section, seed=0, validate=lambda rows: {"score": next(scores)})
    assert [row["step"] for row in found.history if "validation" in row] == [1, 2, 3]
    assert found.best_at == "SFT step 3"


def test_batches_keep_the_mix_and_visit_everything():
    data = make_data(60)
    counts = shares(MixSection(harmful=0.5, borderline=0.25, everyday=0.25), 8, ["harmful", "borderline", "everyday"])
    assert counts == {"harmful": 4, "borderline": 2, "everyday": 2}
    epoch = [choose(data.examples, counts, seed=0, step=step) for step in range(5)]
    assert all(len(set(step)) == 8 for step in epoch)
    harmful = {i for step in epoch for i in step if data.examples[i].kind == "harmful"}
    assert len(harmful) == 20
    assert choose(data.examples, counts, seed=0, step=3) == epoch[3]
    assert choose(data.examples, counts, seed=1, step=3) != epoch[3]


def test_no_example_is_left_out_of_every_epoch_for_its_length():
    """Of 15 only 8 are in an epoch of batches of 8; which 7 are not is drawn, and not the longest ones each time."""
    examples = [Example("everyday", (3,) * (n + 1), (4,), (5,)) for n in range(15)]
    seen = Counter(i for step in range(60) for i in choose(examples, {"everyday": 8}, seed=0, step=step))
    assert set(seen) == set(range(15))
    assert min(seen.values()) > 16  # 32 expected, sd 3.9


def test_kinds_without_examples_give_their_share_to_the_others():
    assert sum(shares(MixSection(), 16, ["harmful"]).values()) == 16


def test_balance_makes_two_groups_of_words_equally_likely_after_harmful_prompts(tiny):
    """(p - q) / (p + q) of the groups, squared, is what is added; trained, it shrinks."""
    section = settings(sft=30, dpo=0)
    balance = Balance(200.0, (3, 4), (7,))
    data, rows = make_data(), start()

    def imbalance(rows):
        trainer = Trainer(tiny, data, section, seed=0, balance=balance)
        harmful = [i for i, e in enumerate(data.examples) if e.kind == "harmful"]
        with torch.no_grad():
            plain = Trainer(tiny, data, section, seed=0).sft_loss(rows, harmful, section.sft)[0]
            found = trainer.sft_loss(rows, harmful, section.sft)[0] - plain
        gaps = []
        for i in harmful:
            ids = torch.tensor([data.head + list(data.examples[i].prompt)])
            inputs = torch.cat([rows[None], tiny.embed(ids)], dim=1)
            chances = tiny.model(inputs_embeds=inputs).logits[0, -1].softmax(-1)
            p, q = chances[[3, 4]].sum(), chances[7]
            gaps.append(float(((p - q) / (p + q)) ** 2))
        assert float(found) == pytest.approx(200.0 * sum(gaps) / len(gaps), rel=1e-4)
        return float(found)

    before = imbalance(rows)
    assert imbalance(train(tiny, data, rows, section, seed=0, balance=balance).rows) < 0.5 * before


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_avoid_makes_words_unlikely_at_every_position_of_answers_to_harmful_prompts(tiny, stage):
    """1 - prod(1 - p) over the positions of each answer, its mean, is what is added; trained, it shrinks."""
    section = settings(sft=30, dpo=0) if stage == "sft" else settings(sft=0, dpo=30)
    avoid = Avoid(50.0, (3, 4, 7))
    data, rows = make_data(), start()

    def added(rows):
        harmful = [i for i, e in enumerate(data.examples) if e.kind == "harmful"]
        losses = []
        for trainer in (Trainer(tiny, data, section, seed=0, avoid=given) for given in (None, avoid)):
            trainer._pair_reference.update((i, torch.zeros(2)) for i in harmful)
            with torch.no_grad():
                losses.append(getattr(trainer, f"{stage}_loss")(rows, harmful, getattr(section, stage))[0])
        chances = []
        for example in (data.examples[i] for i in harmful):
            for answer in (example.chosen, example.rejected)[: 1 if stage == "sft" else 2]:
                ids = torch.tensor([data.head + list(example.prompt) + list(answer)])
                with torch.no_grad():
                    logits = tiny.model(inputs_embeds=torch.cat([rows[None], tiny.embed(ids)], dim=1)).logits[0]
                said = logits[-len(answer) - 1 : -1].softmax(-1)[:, [3, 4, 7]].sum(-1)
                chances.append(1 - float((1 - said).prod()))
        assert float(losses[1] - losses[0]) == pytest.approx(50.0 * sum(chances) / len(chances), rel=1e-4)
        return float(losses[1] - losses[0])

    before = added(rows)
    assert added(train(tiny, data, rows, section, seed=0, avoid=avoid).rows) < 0.5 * before
