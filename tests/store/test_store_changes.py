"""Installing, activating and going back, step by step on a real disk."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from llmpatch.errors import GateError, IntegrityError, TrustError, UsageError
from llmpatch.store import (
    Store,
    Verified,
    activate,
    activate_stack,
    ancestors,
    collect,
    deactivate,
    distrusted,
    install,
    load,
    pick,
    pin,
    plan_upgrade,
    read_stored,
    revoke,
    rollback,
    unsigned,
    upgrade,
)
from llmpatch.store.disk import remove_folder
from llmpatch.versions import parse_version
from storekit import ADVISORIES, Gate, active, add, base, folder, statuses, verified


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def state(store):
    return load(store).state


def test_an_installed_patch_is_read_only_whole_and_not_active(store, tmp_path):
    entry = install(store, folder(tmp_path), unsigned)
    assert (entry.name, entry.version, entry.status, entry.signer) == ("acme/refusal", "1.0.0", "stored", None)
    assert active(state(store)) == []
    assert read_stored(store, entry.digest).digest == entry.digest
    for path in (store.folder(entry.digest), *store.folder(entry.digest).iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o222 == 0
    before = load(store)
    assert install(store, folder(tmp_path), unsigned) == entry
    assert load(store) == before


def test_installing_again_replaces_damaged_bytes(store, tmp_path):
    digest = add(store, tmp_path)
    card = store.folder(digest) / "README.md"
    card.chmod(0o644)
    card.write_text("changed")
    with pytest.raises(IntegrityError, match="README"):
        read_stored(store, digest)
    assert add(store, tmp_path) == digest
    assert read_stored(store, digest).digest == digest


def test_a_version_is_published_once(store, tmp_path):
    add(store, tmp_path)
    other = folder(tmp_path / "other", summary="Another patch under the same name and version.")
    with pytest.raises(UsageError, match="another patch is installed as"):
        install(store, other, unsigned)
    assert len(state(store).installed) == 1


def test_activation_needs_a_gate_and_keeps_its_verdict(store, tmp_path):
    digest = add(store, tmp_path)
    before = load(store)
    with pytest.raises(UsageError, match="no gate has passed"):
        activate(store, digest)
    with pytest.raises(GateError, match="everyday-declined"):
        activate(store, digest, gate=Gate(passed=False))
    assert load(store) == before
    gate = Gate()
    done = activate(store, digest, gate=gate, reason="ticket 12")
    assert (done.changed, gate.asked) == (True, [("acme/refusal 1.0.0",)])
    record = state(store).active[0].gate
    assert (record.result, record.policy, record.policy_sha256) == ("PASSED", "test policy", "7" * 64)
    assert (store.verdicts / f"{record.verdict}.json").is_file()
    assert load(store).generation.reason.endswith("ticket 12")
    again = activate(store, digest, gate=gate)
    assert (again.changed, len(gate.asked)) == (False, 1)


def test_what_is_active_unjudged_or_without_its_verdict_is_judged_when_asked_again(store, tmp_path):
    digest = add(store, tmp_path)
    activate(store, digest, skip_gate=True)
    assert not activate(store, digest, skip_gate=True).changed
    with pytest.raises(GateError):
        activate(store, digest, gate=Gate(passed=False))
    assert state(store).active[0].gate.result == "SKIPPED"
    done = activate(store, digest, gate=Gate())
    assert done.changed
    assert "is active already, and the gate passes" in done.why
    assert state(store).active[0].gate.result == "PASSED"
    (store.verdicts / f"{state(store).active[0].gate.verdict}.json").unlink()
    gate = Gate()
    assert activate(store, digest, gate=gate).changed
    assert len(gate.asked) == 1
    assert (store.verdicts / f"{state(store).active[0].gate.verdict}.json").is_file()


def test_skipping_the_gate_is_recorded(store, tmp_path):
    activate(store, add(store, tmp_path), skip_gate=True)
    assert state(store).active[0].gate.result == "SKIPPED"
    assert state(store).active[0].gate.verdict is None


def test_a_set_that_passed_here_may_come_back_without_another_run_but_a_skipped_one_may_not(store, tmp_path):
    digest = add(store, tmp_path)
    activate(store, digest, gate=Gate())
    deactivate(store, digest)
    assert (active(state(store)), statuses(state(store))) == ([], {"acme/refusal 1.0.0": "inactive"})
    activate(store, digest)
    assert state(store).active[0].gate.result == "PASSED"
    other = add(store, tmp_path, "acme/tone", fixed=(2,), base=base(embeddings="9"))
    activate(store, other, skip_gate=True)
    deactivate(store, other)
    with pytest.raises(UsageError, match="no gate has passed"):
        activate(store, other)


def test_a_newer_version_takes_the_place_of_the_old_one_and_raises_the_mark(store, tmp_path):
    old, new = add(store, tmp_path), add(store, tmp_path, version="1.1.0", fixed=(1, 2))
    activate(store, old, gate=Gate())
    activate(store, new, gate=Gate())
    assert active(state(store)) == [["acme/refusal 1.1.0"]]
    assert statuses(state(store)) == {"acme/refusal 1.0.0": "superseded", "acme/refusal 1.1.0": "active"}
    assert state(store).high_water == {"acme/refusal": "1.1.0"}
    deactivate(store, new)
    with pytest.raises(UsageError, match="older than"):
        activate(store, old)
    activate(store, old, downgrade=True)
    assert (active(state(store)), state(store).high_water) == ([["acme/refusal 1.0.0"]], {"acme/refusal": "1.1.0"})


def test_a_downgrade_of_what_is_active_is_asked_for_by_name(store, tmp_path):
    old, new = add(store, tmp_path), add(store, tmp_path, version="1.1.0")
    activate(store, new, gate=Gate())
    with pytest.raises(UsageError, match="older"):
        activate(store, old, gate=Gate())
    activate(store, old, gate=Gate(), downgrade=True)
    assert active(state(store)) == [["acme/refusal 1.0.0"]]


def test_going_back_to_an_older_version_keeps_the_order_that_was_judged(store, tmp_path):
    old, new = add(store, tmp_path), add(store, tmp_path, version="2.0.0")
    other = add(store, tmp_path, "acme/tone", fixed=(2,))
    for digest in (old, other, new):
        activate(store, digest, gate=Gate())
    assert active(state(store)) == [["acme/refusal 2.0.0", "acme/tone 1.0.0"]]
    done = activate(store, old, downgrade=True)
    assert active(done.generation.state) == [["acme/refusal 1.0.0", "acme/tone 1.0.0"]]
    assert "acme/refusal 1.0.0 takes the place of acme/refusal 2.0.0" in done.why


def test_an_upgrade_goes_on_where_a_step_took_another_ones_patch_away(store, tmp_path):
    for digest in (add(store, tmp_path), add(store, tmp_path, "acme/tone", fixed=(2,))):
        activate(store, digest, gate=Gate())
    both = add(store, tmp_path, version="2.0.0", fixed=(1, 2))
    tone = add(store, tmp_path, "acme/tone", "1.1.0", fixed=(2, 3))
    steps = upgrade(store, gate=Gate())
    assert [(step.new.digest, step.done, step.refused) for step in steps] == [(both, True, False), (tone, False, True)]
    assert "acme/tone 1.0.0 is active no longer" in steps[1].why
    assert active(state(store)) == [["acme/refusal 2.0.0"]]


def test_an_upgrade_goes_on_where_a_step_does_not_pass(store, tmp_path):
    """One vendor's release that never passes must not keep another's mend away for ever."""
    for digest in (add(store, tmp_path), add(store, tmp_path, "acme/tone", fixed=(2,))):
        activate(store, digest, gate=Gate())
    bad = add(store, tmp_path, version="1.1.0")
    good = add(store, tmp_path, "acme/tone", "1.1.0", fixed=(2, 3))

    def gate(patches):
        return Gate(passed=all(patch.digest != bad for patch in patches))(patches)

    steps = upgrade(store, gate=gate)
    assert [(step.new.digest, step.done, step.refused) for step in steps] == [(bad, False, True), (good, True, False)]
    assert isinstance(steps[0].error, GateError)
    assert steps[1].error is None
    assert active(state(store)) == [["acme/refusal 1.0.0", "acme/tone 1.1.0"]]


def test_an_upgrade_for_another_base_of_that_name_is_no_upgrade(store, tmp_path):
    activate(store, add(store, tmp_path), gate=Gate())
    add(store, tmp_path, version="1.1.0", base=base(embeddings="9"))
    (step,) = upgrade(store, gate=Gate())
    assert (step.done, step.refused) == (False, True)
    assert (
        "for another tiny-llama than the one that 1.0.0 is active on (llmpatch activate acme/refusal@1.1.0)" in step.why
    )
    assert active(state(store)) == [["acme/refusal 1.0.0"]]


def test_two_patches_go_together_only_if_that_set_was_judged(store, tmp_path):
    one, two = add(store, tmp_path), add(store, tmp_path, "acme/tone", fixed=(2,))
    activate(store, one, gate=Gate())
    for attempt in ({}, {"skip_gate": True}):
        with pytest.raises(UsageError, match="never measured together"):
            activate(store, two, **attempt)
    gate = Gate()
    activate(store, two, gate=gate)
    assert gate.asked == [("acme/refusal 1.0.0", "acme/tone 1.0.0")]
    assert active(state(store)) == [["acme/refusal 1.0.0", "acme/tone 1.0.0"]]
    deactivate(store, two)
    assert active(state(store)) == [["acme/refusal 1.0.0"]]


def test_the_vendors_evidence_for_the_very_set_lets_the_gate_be_skipped(store, tmp_path):
    one = add(store, tmp_path)
    piece = {"patches": [one, "self"], "evidence": "8" * 64}
    two = add(store, tmp_path, "acme/tone", fixed=(2,), composition=[piece])
    wrong = add(
        store, tmp_path, "acme/bias", fixed=(3,), composition=[{"patches": ["self", one], "evidence": "8" * 64}]
    )
    activate(store, one, skip_gate=True)
    with pytest.raises(UsageError, match="never measured together"):
        activate(store, wrong, skip_gate=True)
    activate(store, two, skip_gate=True)
    assert active(state(store)) == [["acme/refusal 1.0.0", "acme/tone 1.0.0"]]


def test_each_base_has_its_own_set(store, tmp_path):
    one = add(store, tmp_path)
    other = add(store, tmp_path, "acme/other", fixed=(1,), base=base(embeddings="9"))
    activate(store, one, gate=Gate())
    activate(store, other, gate=Gate())
    assert active(state(store)) == [["acme/refusal 1.0.0"], ["acme/other 1.0.0"]]
    same = add(store, tmp_path, "acme/quantised", fixed=(2,), base=base("gguf:Q8_0", "9"))
    with pytest.raises(UsageError, match="never measured together"):
        activate(store, same, skip_gate=True)


def test_rolling_back_undoes_one_change_after_another(store, tmp_path):
    versions = ["1.0.0", "1.1.0", "1.2.0"]
    digests = [add(store, tmp_path, version=v) for v in versions]
    for digest in digests:
        activate(store, digest, gate=Gate())
    pin(store, "acme/refusal", ">=1")
    for expected in ("1.1.0", "1.0.0"):
        assert rollback(store, reason="worse").changed
        assert active(state(store)) == [[f"acme/refusal {expected}"]]
    assert state(store).high_water == {"acme/refusal": "1.2.0"}
    assert state(store).pins == {"acme/refusal": ">=1"}
    assert statuses(state(store))["acme/refusal 1.2.0"] == "rolled back"
    rollback(store)
    assert active(state(store)) == []
    with pytest.raises(UsageError, match="nothing was active before"):
        rollback(store)
    numbers = {active(g.state)[0][0]: g.number for g in ancestors(store, load(store)) if g.action == "activate"}
    rollback(store, to=numbers["acme/refusal 1.2.0"])
    assert active(state(store)) == [["acme/refusal 1.2.0"]]
    rollback(store)
    assert active(state(store)) == [["acme/refusal 1.1.0"]]
    assert not rollback(store, to=load(store).generation.number).changed
    with pytest.raises(UsageError, match="no generation 99"):
        rollback(store, to=99)


def test_a_revoked_patch_goes_at_once_and_never_comes_back(store, tmp_path):
    good, bad = add(store, tmp_path), add(store, tmp_path, version="1.1.0")
    activate(store, good, gate=Gate())
    activate(store, bad, gate=Gate())
    was = load(store).generation.number
    revoke(store, bad, "x_ACME-2026-0002: over-refusal")
    assert active(state(store)) == [["acme/refusal 1.0.0"]]
    assert statuses(state(store))["acme/refusal 1.1.0"] == "revoked"
    with pytest.raises(TrustError, match="over-refusal"):
        activate(store, bad, gate=Gate())
    with pytest.raises(TrustError, match="over-refusal"):
        rollback(store, to=was)
    with pytest.raises(TrustError, match="over-refusal"):
        install(store, folder(tmp_path, version="1.1.0"), unsigned)
    rollback(store)
    assert active(state(store)) == []
    assert not revoke(store, bad, "again").changed


def test_revoking_the_only_patch_leaves_none(store, tmp_path):
    digest = add(store, tmp_path)
    activate(store, digest, gate=Gate())
    revoke(store, digest, "bad")
    assert active(state(store)) == []
    with pytest.raises(TrustError, match="revoked: bad"):
        pick(state(store), "acme/refusal")


def test_a_signature_that_was_checked_takes_the_place_of_one_that_was_not(store):
    plain = verified()
    digest = plain.patch.digest

    def installed(signer, signature):
        found = install(
            store, Path("made"), lambda _: Verified(plain.patch, {**plain.contents, "patch.sig": signature}, signer)
        )
        return found.signer, (store.folder(digest) / "patch.sig").read_bytes()

    assert installed(None, b"a stranger's") == (None, b"a stranger's")
    assert installed("vendor", b"the vendor's") == ("vendor", b"the vendor's")
    assert installed(None, b"a stranger's") == ("vendor", b"the vendor's")
    assert installed("new key", b"by the new key") == ("new key", b"by the new key")


def test_revoking_brings_nothing_back_that_was_rolled_back_or_deactivated(store, tmp_path):
    good, bad = add(store, tmp_path), add(store, tmp_path, version="1.1.0")
    activate(store, good, gate=Gate())
    activate(store, bad, gate=Gate())
    rollback(store)
    assert active(state(store)) == [["acme/refusal 1.0.0"]]
    revoke(store, good, "x_ACME-2026-0003: worse than it says")
    assert active(state(store)) == []
    assert statuses(state(store))["acme/refusal 1.1.0"] == "rolled back"
    other, third = add(store, tmp_path, "acme/other", fixed=(3,)), add(store, tmp_path, "acme/third", fixed=(4,))
    activate(store, other, gate=Gate())
    deactivate(store, other)
    activate(store, third, gate=Gate())
    revoke(store, third, "bad")
    assert active(state(store)) == []


def test_who_left_with_a_revoked_patch_may_be_fallen_back_to(store, tmp_path):
    one, two, three = (add(store, tmp_path, f"acme/{n}", fixed=(i,)) for i, n in enumerate(("a", "b", "c"), start=1))
    activate(store, three, gate=Gate())
    activate_stack(store, [one], gate=Gate())
    activate_stack(store, [two, three], gate=Gate())
    revoke(store, two, "bad")
    assert active(state(store)) == [["acme/a 1.0.0"]]
    revoke(store, one, "bad")
    assert active(state(store)) == [["acme/c 1.0.0"]]


def test_an_upgrade_stays_within_its_pin_and_does_not_return_to_what_was_rolled_back(store, tmp_path):
    old = add(store, tmp_path)
    activate(store, old, gate=Gate())
    assert plan_upgrade(store, state(store)) == []
    add(store, tmp_path, version="1.1.0", fixed=(1, 2))
    add(store, tmp_path, version="1.2.0-rc.1", fixed=(1, 2))
    two = add(store, tmp_path, version="2.0.0", fixed=(1, 2, 3))
    (step,) = plan_upgrade(store, state(store))
    assert (step.new.version, step.refused, step.done) == ("2.0.0", False, False)
    pin(store, "acme/refusal", ">=1,<2")
    with pytest.raises(UsageError, match="outside of the pin"):
        activate(store, two, gate=Gate())
    (step,) = upgrade(store, gate=Gate())
    assert (step.old.version, step.new.version, step.done) == ("1.0.0", "1.1.0", True)
    assert load(store).generation.action == "upgrade"
    pin(store, "acme/refusal", None)
    upgrade(store, gate=Gate())
    assert active(state(store)) == [["acme/refusal 2.0.0"]]
    rollback(store)
    assert upgrade(store, gate=Gate()) == []
    assert active(state(store)) == [["acme/refusal 1.1.0"]]


def test_an_upgrade_that_is_refused_says_why(store, tmp_path):
    activate(store, add(store, tmp_path, fixed=(1, 2)), gate=Gate())
    add(store, tmp_path, version="1.1.0", fixed=(1,))
    (step,) = upgrade(store, gate=Gate())
    assert step.refused
    assert ADVISORIES[2] in step.why
    assert active(state(store)) == [["acme/refusal 1.0.0"]]


def test_an_upgrade_takes_no_other_vendors_patch_out(store, tmp_path):
    """Nobody looks on, and what the new patch is measured by is what it says itself."""
    activate(store, add(store, tmp_path), gate=Gate())
    activate(store, add(store, tmp_path, name="other/tone", fixed=(2,)), gate=Gate())
    claim = [{"name": "acme/refusal", "versions": "*"}]
    new = add(store, tmp_path, name="other/tone", version="1.0.1", fixed=(2,), supersedes=claim)
    (step,) = upgrade(store, gate=Gate())
    assert step.refused
    assert "acme/refusal 1.0.0 is another vendor's" in step.why
    assert active(state(store)) == [["acme/refusal 1.0.0", "other/tone 1.0.0"]]
    activate(store, new, gate=Gate())  # somebody wants that
    assert active(state(store)) == [["other/tone 1.0.1"]]


def test_an_upgrade_takes_out_no_other_vendors_patch_that_an_earlier_step_made_active(store, tmp_path):
    activate(store, add(store, tmp_path, name="beta/b", fixed=(1,)), gate=Gate())
    activate(store, add(store, tmp_path, name="acme/a", fixed=(2,)), gate=Gate())
    add(store, tmp_path, name="beta/b", version="2.0.0", fixed=(1,))
    claim = [{"name": "beta/b", "versions": ">=2"}]
    add(store, tmp_path, name="acme/a", version="2.0.0", fixed=(2,), supersedes=claim)
    steps = {step.new.name: step for step in upgrade(store, gate=Gate())}
    assert steps["beta/b"].done
    assert active(state(store)) == [["beta/b 2.0.0", "acme/a 1.0.0"]] or steps["acme/a"].done
    assert "beta/b 2.0.0" in active(state(store))[0]


def test_a_pin_never_contradicts_what_is_active(store, tmp_path):
    activate(store, add(store, tmp_path), gate=Gate())
    with pytest.raises(UsageError, match="active, outside of >=2"):
        pin(store, "acme/refusal", ">=2")
    assert pin(store, "acme/refusal", "~=1.0").changed
    assert not pin(store, "acme/refusal", "~=1.0").changed


def test_collecting_keeps_what_is_needed(store, tmp_path):
    digests = {}
    for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"):
        digests[version] = add(store, tmp_path, version=version)
        activate(store, digests[version], gate=Gate())
    add(store, tmp_path, version="0.9.0")
    add(store, tmp_path, version="1.5.0")
    pin(store, "acme/refusal", ">=1.4")
    (store.patches / ".new-1-dead").mkdir()
    remove_folder(store.folder(digests["1.1.0"]))  # somebody else did
    plan = collect(store, keep=2, dry_run=True)
    assert {e.version for e in plan.patches} == {"0.9.0", "1.0.0", "1.1.0", "1.2.0"}
    assert len(list(store.patches.iterdir())) == 7
    done = collect(store, keep=2)
    assert (set(done.patches), len(done.leftovers)) == (set(plan.patches), 1)
    assert {e.version for e in state(store).installed} == {"1.3.0", "1.4.0", "1.5.0"}
    assert {p.name for p in store.patches.iterdir()} == {store.folder(e.digest).name for e in state(store).installed}
    rollback(store)
    assert active(state(store)) == [["acme/refusal 1.3.0"]]
    with pytest.raises(UsageError, match="no longer in the store"):
        rollback(store)
    assert collect(store).patches == ()
    with pytest.raises(UsageError, match="cannot keep 0"):
        collect(store, keep=0)


def test_names_ranges_and_digests_mean_one_patch(store, tmp_path):
    digests = {v: add(store, tmp_path, version=v) for v in ("1.0.0", "1.1.0", "1.2.0-rc.1")}
    assert pick(state(store), "acme/refusal").version == "1.1.0"
    assert pick(state(store), "acme/refusal@<1.1").version == "1.0.0"
    assert pick(state(store), "acme/refusal@1.2.0-rc.1").version == "1.2.0-rc.1"
    activate(store, digests["1.0.0"], gate=Gate())
    assert pick(state(store), "acme/refusal").version == "1.0.0"
    assert pick(state(store), "acme/refusal@*").version == "1.1.0"
    assert pick(state(store), digests["1.1.0"][:12]).version == "1.1.0"
    for text in ("acme/refusal@>2", "acme/nothing", "f" * 64, "Not A Name", "acme/refusal@1.0.0.0"):
        with pytest.raises(UsageError):
            pick(state(store), text)
    assert max(parse_version(v) for v in digests) == parse_version("1.2.0-rc.1")


def test_a_full_disk_is_one_clear_error(store, tmp_path, monkeypatch):
    from llmpatch.errors import LlmpatchError

    digest = add(store, tmp_path)
    before = load(store)

    def full(handle, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LlmpatchError, match="No space left"):
        activate(store, digest, skip_gate=True)
    monkeypatch.undo()
    assert load(store) == before
    activate(store, digest, skip_gate=True)
    assert active(state(store)) == [["acme/refusal 1.0.0"]]


@pytest.mark.parametrize(("code", "said"), [(37, "has no locks"), (11, "another process has held")])
def test_without_the_lock_nothing_changes(store, tmp_path, monkeypatch, code, said):
    import fcntl

    from llmpatch.errors import LlmpatchError
    from llmpatch.store import disk

    add(store, tmp_path)
    before = load(store)

    def refuse(handle, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LlmpatchError, match=said), disk.locked(store.root / "lock", seconds=0.05):
        raise AssertionError("it was not locked")
    assert load(store) == before


def test_what_a_revoked_key_signed_is_not_activated_and_no_upgrade(store, tmp_path):
    def by(key, version):
        made = replace(verified(version=version), signer=key * 64)
        return install(store, tmp_path, lambda _: made).digest

    old, good, bad = by("a", "1.0.0"), by("a", "1.1.0"), by("b", "1.2.0")
    lost, gate = ("b" * 64,), Gate()
    activate(store, old, gate=gate, revoked_keys=lost)
    with pytest.raises(TrustError, match=r"acme/refusal 1\.2\.0 was signed by key bbbbbbbbbbbbbbbb, .* at 20\d\d-"):
        activate(store, bad, gate=gate, revoked_keys=lost)
    with pytest.raises(TrustError, match="which is revoked"):
        activate_stack(store, [bad], gate=gate, revoked_keys=lost)
    (step,) = plan_upgrade(store, load(store).state, revoked_keys=lost)
    assert (step.new.digest, step.refused) == (good, False)  # the highest of those whose key counts
    upgrade(store, gate=gate, revoked_keys=lost)
    (step,) = upgrade(store, gate=gate, revoked_keys=lost)
    assert (step.new.digest, step.refused, "which is revoked" in step.why) == (bad, True, True)
    assert active(load(store).state) == [["acme/refusal 1.1.0"]]
    assert distrusted(load(store).state, lost) == []
    activate(store, bad, gate=gate)
    assert [text.partition(",")[0] for text in distrusted(load(store).state, lost)] == ["acme/refusal 1.2.0"]
    rollback(store)  # there is always a way back, and one forward to what another key signed
    assert activate(store, by("c", "2.0.0"), gate=gate, revoked_keys=lost).changed
