"""Sets that were measured: what is known to lose is refused, a composed patch stands for its members, a lock pins a set."""

from __future__ import annotations

import json

import pytest

from llmpatch.artifact import read_patch
from llmpatch.artifact.composition import make_record, render_record
from llmpatch.artifact.manifest import Relation
from llmpatch.bases import Fingerprint
from llmpatch.errors import GateError, IntegrityError, TrustError, UsageError, WrongBaseError
from llmpatch.store import (
    Facts,
    Known,
    Lost,
    Store,
    activate,
    activate_stack,
    check_lock_base,
    check_locked,
    check_measured,
    check_together,
    deactivate,
    decide,
    examine,
    facts_of,
    install,
    keep_record,
    known_here,
    known_of,
    load,
    load_active,
    load_patch,
    locked_to,
    make_lock,
    parse_lock,
    read_stored,
    render_lock,
    revoke,
    rollback,
    unsigned,
)  # fmt: skip
from llmpatch.versions import Version
from storekit import Gate, active, add, base, folder


def facts(name, fixes="a", **more):
    return Facts(name[-1] * 8, name, Version(1, 0, 0), frozenset(fixes), **more)


A, B, C = (facts(f"acme/{letter}", letter) for letter in "abc")
LOST = Lost(A.digest, "refusal: declines", 0.9, 0.4, 200)


def test_an_order_that_was_measured_to_lose_is_refused_with_the_numbers():
    known = [Known((A.digest, B.digest), (LOST,))]
    with pytest.raises(UsageError) as found:
        decide((A,), B, known)
    assert (
        "acme/a 1.0.0 loses together with acme/b 1.0.0: refusal: declines is 0.400, alone 0.900 (n=200"
        in found.value.message
    )
    assert "--search" in found.value.hint
    assert decide((B,), A, known).kind == "compose"  # the other order was not measured to lose
    with pytest.raises(UsageError, match="loses together"):
        check_measured((A, C, B), known)  # the pair stands in it so
    check_measured((A, C, B), [*known, Known((A.digest, C.digest, B.digest))])  # measured whole: that says more
    check_measured((B, A, C), known)


def test_who_saw_a_loss_counts_more_than_who_saw_none_in_the_same_order():
    loss, none = Known((A.digest, B.digest), (LOST,)), Known((A.digest, B.digest))
    check_measured((A, B), [none])
    for known in ([loss, none], [none, loss]):
        with pytest.raises(UsageError, match="loses together"):
            check_measured((A, B), known)


def test_what_stands_side_by_side_is_activated_beside_nobody():
    both = Facts("9" * 8, "other/both", Version(1, 0, 0), frozenset("z"), members=frozenset({"7" * 8}), parallel=True)
    for there, new in (((A,), both), ((both,), A)):
        with pytest.raises(UsageError, match=r"other/both 1\.0\.0 holds patches side by side") as found:
            decide(there, new)
        assert "deactivate the others" in found.value.hint
    assert decide((), both).kind == "activate"


def test_a_vendors_own_measurement_counts_the_same():
    new = Facts("9" * 8, "acme/n", Version(1, 0, 0), frozenset("n"), measured=(Known((A.digest, "9" * 8), (LOST,)),))
    with pytest.raises(UsageError, match=r"acme/a 1\.0\.0 loses together with acme/n 1\.0\.0"):
        decide((A,), new)
    assert decide((B,), new).kind == "compose"


def test_a_composed_patch_takes_the_place_of_its_members_whoever_made_it():
    both = Facts("9" * 8, "other/both", Version(1, 0, 0), frozenset("ab"), members=frozenset({A.digest, B.digest}))
    found = decide((A, C, B), both)
    assert (found.kind, found.patches, found.replaced) == ("compose", (both, C), (A, B))
    assert decide((both,), A).why == "acme/a 1.0.0 is part of other/both 1.0.0, which is active"
    with pytest.raises(UsageError, match="is part of other/both"):
        check_together([both, A])


def test_together_in_any_order_or_not_at_all():
    check_together([A, B, C])
    rival = facts("acme/r", "r", conflicts=(Relation(name="acme/a", versions="*"),))
    heir = facts("acme/h", "h", supersedes=(Relation(name="acme/a", versions="<2"),))
    for other, said in ((rival, "conflict"), (heir, "acme/h 1.0.0 supersedes acme/a 1.0.0")):
        for order in ((A, other), (other, A)):
            with pytest.raises(UsageError, match=said.replace(".", r"\.")):
                check_together(order)


# -- a real store -----------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def two(store, tmp_path):
    """Digests of two installed patches."""
    return (
        add(store, tmp_path, "acme/refusal", fixed=(1,)),
        add(store, tmp_path, "acme/toxicity", fixed=(2,)),
    )


def figure(digest, alone, together, hurt):
    half = 0.01
    return {
        "patch": digest, "risk": "refusal", "metric": "declines", "aim": True, "before": 0.1, "alone": alone,
        "together": together, "hurt": hurt,
        "change": {"n": 200, "value": together - alone, "low": together - alone - half, "high": together - alone + half},
    }  # fmt: skip


def record(store, digests, *, lost=False, created="2026-11-25T12:00:00Z", **more):
    patches = [read_stored(store, digest) for digest in digests]
    return make_record(
        {
            "created": created,
            **more,
            "base": {"name": "tiny-llama", "fingerprint": base()["fingerprint"]},
            "patches": [{"name": p.manifest.name, "version": p.manifest.version, "digest": p.digest} for p in patches],
            "measured": [{"patches": list(digests), "figures": [figure(digests[0], 0.9, 0.4 if lost else 0.9, lost)]}],
        }
    )


def test_what_was_measured_here_is_asked_before_any_gate_runs(store, two):
    activate(store, two[0], gate=Gate())
    keep_record(store, record(store, two, lost=True))
    gate = Gate()
    with pytest.raises(UsageError, match=r"acme/refusal 1\.0\.0 loses together with acme/toxicity 1\.0\.0"):
        activate(store, two[1], gate=gate)
    assert gate.asked == []
    assert active(load(store).state) == [["acme/refusal 1.0.0"]]


def test_a_record_that_is_kept_first_leaves_a_whole_store(store, two, tmp_path):
    fresh = Store(tmp_path / "fresh")
    keep_record(fresh, record(store, two))
    assert examine(fresh) == []
    (fresh.compositions / ".new-torn").write_bytes(b"{")
    assert [found.code for found in examine(fresh)] == ["leftover"]
    (tmp_path / "file").write_text("")
    assert [found.message for found in examine(Store(tmp_path / "file"))] == [f"{tmp_path / 'file'} is no folder"]


def test_a_later_record_counts_unless_it_saw_no_loss_on_fewer_prompts(store, two):
    keep_record(store, record(store, two, lost=True, limit=100))
    keep_record(store, record(store, two, created="2026-11-26T12:00:00Z", limit=5))
    assert [bool(known.losses) for known in known_here(store)] == [True]
    keep_record(store, record(store, two, created="2026-11-27T12:00:00Z"))
    assert [bool(known.losses) for known in known_here(store)] == [False]
    keep_record(store, record(store, two, lost=True, created="2026-11-28T12:00:00Z", limit=5))
    assert [bool(known.losses) for known in known_here(store)] == [True]


def test_a_few_prompts_of_ones_own_show_no_loss_away(store, two):
    """They have no limit that a record could tell."""
    keep_record(store, record(store, two, lost=True))
    few = record(store, two, created="2026-11-26T12:00:00Z")
    small = few.measured[0].figures[0]
    small = small.model_copy(update={"change": small.change.model_copy(update={"n": 3})})
    measured = few.measured[0].model_copy(update={"figures": (small,)})
    keep_record(store, few.model_copy(update={"measured": (measured,)}))
    assert [bool(known.losses) for known in known_here(store)] == [True]


def test_a_record_is_kept_once_and_a_damaged_one_stops_activations(store, two):
    found = record(store, two)
    digest = keep_record(store, found)
    assert keep_record(store, found) == digest
    assert known_here(store) == known_of(found)
    path = store.compositions / f"{digest}.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"false", b"true"))
    with pytest.raises(IntegrityError, match="was changed or damaged"):
        activate(store, two[0], gate=Gate())
    (finding,) = examine(store)
    assert (finding.code, finding.repairable, str(path) in finding.message) == ("composition", False, True)


def test_skipping_the_gate_needs_evidence_of_that_very_order(store, two):
    with pytest.raises(UsageError, match="never measured together"):
        activate_stack(store, two, skip_gate=True)
    with pytest.raises(UsageError, match="never measured together"):
        activate_stack(store, two[::-1], known=known_of(record(store, two)), skip_gate=True)
    done = activate_stack(store, two, known=known_of(record(store, two)), skip_gate=True)
    assert active(done.generation.state) == [["acme/refusal 1.0.0", "acme/toxicity 1.0.0"]]
    assert done.generation.state.active[0].gate.result == "SKIPPED"


def test_a_stack_becomes_active_in_one_generation_in_its_order_and_goes_back_in_one(store, two, tmp_path):
    third = add(store, tmp_path, "acme/bias", fixed=(3,))
    activate(store, third, gate=Gate())
    before = load(store).generation.number
    gate = Gate()
    done = activate_stack(store, two[::-1], gate=gate)
    assert gate.asked == [("acme/toxicity 1.0.0", "acme/refusal 1.0.0")]
    assert done.generation.number == before + 1
    assert active(done.generation.state) == [["acme/toxicity 1.0.0", "acme/refusal 1.0.0"]]
    assert not activate_stack(store, two[::-1], gate=gate).changed
    rollback(store)
    assert active(load(store).state) == [["acme/bias 1.0.0"]]


def test_a_stack_that_may_not_be_changes_nothing(store, two, tmp_path):
    elsewhere = add(store, tmp_path, "acme/elsewhere", fixed=(4,), base=base(embeddings="8"))
    for digests, error, said in (
        ((two[0], two[0]), UsageError, "there twice"),
        ((two[0], elsewhere), WrongBaseError, "they differ in: embeddings"),
        ((two[0], "9" * 64), UsageError, "is not installed"),
    ):
        with pytest.raises(error, match=said):
            activate_stack(store, digests, gate=Gate())
    with pytest.raises(GateError):
        activate_stack(store, two, gate=Gate(passed=False))
    with pytest.raises(UsageError, match="loses together"):
        activate_stack(store, two, known=known_of(record(store, two, lost=True)), gate=Gate())
    assert active(load(store).state) == []


def test_a_composed_patch_with_a_revoked_member_is_refused(store, two, tmp_path):
    members = [{"name": f"acme/n{i}", "version": "1.0.0", "digest": d, "tokens": 2} for i, d in enumerate(two)]
    both = add(store, tmp_path, "acme/both", fixed=(1, 2), members=members)
    revoke(store, two[1], "it leaks")
    for act in (lambda: activate(store, both, gate=Gate()), lambda: activate_stack(store, [both], gate=Gate())):
        with pytest.raises(TrustError, match=r"acme/both 1\.0\.0 holds acme/n1 1\.0\.0, which is revoked: it leaks"):
            act()


def test_revoking_a_member_takes_the_composed_patch_out_of_use(store, two, tmp_path):
    third = add(store, tmp_path, "acme/bias", fixed=(3,))
    activate(store, third, gate=Gate())
    members = [{"name": f"acme/n{i}", "version": "1.0.0", "digest": d, "tokens": 2} for i, d in enumerate(two)]
    both = add(store, tmp_path, "acme/both", fixed=(1, 2), members=members)
    activate(store, both, gate=Gate())
    assert active(load(store).state) == [["acme/bias 1.0.0", "acme/both 1.0.0"]]
    revoke(store, two[1], "it leaks")
    assert active(load(store).state) == [["acme/bias 1.0.0"]]


def made_of(digests):
    return [{"name": f"acme/n{i}", "version": "1.0.0", "digest": d, "tokens": 2} for i, d in enumerate(digests)]


def test_rows_of_a_revoked_member_do_not_come_back(store, two, tmp_path, monkeypatch):
    """Neither where what is active is damaged, nor by a rollback, nor by name."""
    wanted = Fingerprint(**base()["fingerprint"])
    third = add(store, tmp_path, "acme/bias", fixed=(3,))
    activate(store, third, gate=Gate())
    both = add(store, tmp_path, "acme/both", fixed=(1, 2), members=made_of(two))
    activate_stack(store, [both], gate=Gate())
    revoke(store, two[1], "it leaks")
    fourth = add(store, tmp_path, "acme/tone", fixed=(4,))
    activate_stack(store, [fourth], gate=Gate())
    with pytest.raises(TrustError, match=r"holds acme/n1 1\.0\.0, which is revoked"):
        load_patch("acme/both", store=store)
    monkeypatch.setattr("llmpatch.store.opening.read_stored", lost(fourth))
    found = load_active(store, wanted)
    assert found.digests == (third,)
    assert "used instead" in found.notes[0]
    monkeypatch.undo()
    assert active(rollback(store).generation.state) == [["acme/bias 1.0.0"]]


def lost(digest):
    """Reading a store in which one patch is damaged."""

    def read(store, asked):
        if asked == digest:
            raise IntegrityError("damaged", hint="")
        return read_stored(store, asked)

    return read


def test_what_a_composed_patch_is_made_of_counts_for_conflicts_and_requirements(store, two, tmp_path):
    both = add(store, tmp_path, "acme/both", fixed=(1, 2), members=made_of(two))
    activate(store, both, gate=Gate())
    angry = add(store, tmp_path, "acme/angry", fixed=(5,), conflicts=[{"name": "acme/n0", "versions": "*"}])
    with pytest.raises(UsageError, match=r"acme/angry 1\.0\.0 and acme/both 1\.0\.0 conflict"):
        activate(store, angry, gate=Gate())
    with pytest.raises(UsageError, match="conflict"):
        activate_stack(store, [both, angry], gate=Gate())
    needy = add(store, tmp_path, "acme/needy", fixed=(6,), requires=[{"name": "acme/n1", "versions": ">=1"}])
    assert activate(store, needy, gate=Gate()).changed


def test_what_stays_after_a_deactivation_is_held_to_the_rules_of_an_activation(store, two, tmp_path):
    third = add(store, tmp_path, "acme/bias", fixed=(3,))
    activate_stack(store, [two[0], third, two[1]], gate=Gate())
    with pytest.raises(UsageError, match="never measured together"):
        deactivate(store, third, skip_gate=True)
    keep_record(store, record(store, two, lost=True))
    with pytest.raises(UsageError, match="loses together"):
        deactivate(store, third, gate=Gate())
    assert deactivate(store, two[0], gate=Gate()).changed
    assert deactivate(store, two[1], skip_gate=True).changed  # one patch alone may be used unjudged


def test_a_composed_patch_replaces_its_members(store, two, tmp_path):
    activate_stack(store, two, gate=Gate())
    members = [{"name": f"acme/n{i}", "version": "1.0.0", "digest": d, "tokens": 2} for i, d in enumerate(two)]
    both = add(store, tmp_path, "other/both", fixed=(1, 2), members=members)
    assert active(activate(store, both, gate=Gate()).generation.state) == [["other/both 1.0.0"]]
    assert not activate(store, two[0], gate=Gate()).changed


# -- the lock file ------------------------------------------------------------------------------------------------------


def test_a_lock_file_reads_back_and_gives_the_same_bytes(store, two):
    patches = [read_stored(store, digest) for digest in two]
    lock = make_lock(patches, record(store, two))
    text = render_lock(lock)
    again = parse_lock(text.encode(), where="x")
    assert again == lock
    assert render_lock(again) == text
    assert lock.digests == two
    check_locked(lock, patches)
    for wrong in (patches[::-1], patches[:1]):
        with pytest.raises(IntegrityError, match="the lock file wants"):
            check_locked(lock, wrong)
    assert make_lock(patches).composition is None


def test_a_lock_of_other_evidence_or_of_what_cannot_be_is_refused(store, two, tmp_path):
    patches = [read_stored(store, digest) for digest in two]
    with pytest.raises(UsageError, match=r"is of acme/toxicity 1\.0\.0, then acme/refusal"):
        make_lock(patches, record(store, two[::-1]))
    with pytest.raises(UsageError, match="twice"):
        make_lock([patches[0], patches[0]])
    with pytest.raises(UsageError, match="needs a patch"):
        make_lock([])
    other = read_patch(folder(tmp_path, "acme/elsewhere", fixed=(4,), base=base(embeddings="8")))
    with pytest.raises(WrongBaseError):
        make_lock([patches[0], other])


def edited(text, change):
    mapping = json.loads(text)
    change(mapping)
    return json.dumps(mapping).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(extra=1),
        lambda m: m.update(schema="llmpatch/lock/v2"),
        lambda m: m["patches"].reverse(),
        lambda m: m["patches"].append(m["patches"][0]),
        lambda m: m["patches"].clear(),
        lambda m: m["patches"][0].update(digest="x"),
        lambda m: m["composition"]["measured"][0].update(figures=[]),
        lambda m: m["composition"].update(created="yesterday"),
        lambda m: m["composition"]["measured"][0]["figures"][0].update(alone=1e400),
    ],
)
def test_a_crooked_lock_file_is_refused(store, two, change):
    lock = make_lock([read_stored(store, digest) for digest in two], record(store, two))
    with pytest.raises(IntegrityError):
        parse_lock(edited(render_lock(lock), change), where="llmpatch.lock")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"schema": "llmpatch/lock/v1"}', b"x" * (1 << 21)])
def test_what_is_no_lock_file_is_refused(data):
    with pytest.raises(IntegrityError, match=r"llmpatch\.lock"):
        parse_lock(data, where="llmpatch.lock")


def test_only_the_very_patch_gets_into_the_store(store, two, tmp_path):
    lock = make_lock([read_stored(store, digest) for digest in two])
    fresh = Store(tmp_path / "fresh")
    right = folder(tmp_path, "acme/refusal", fixed=(1,))
    wrong = folder(tmp_path, "acme/refusal", "1.0.1", fixed=(1,))
    with pytest.raises(IntegrityError, match=r"wants acme/refusal 1\.0\.0 with digest"):
        install(fresh, wrong, locked_to(lock, lock.patches[0], unsigned))
    assert load(fresh).state.installed == ()
    assert install(fresh, right, locked_to(lock, lock.patches[0], unsigned)).digest == two[0]


def test_the_bytes_of_a_record_do_not_change(store, two):
    found = record(store, two)
    assert render_record(found) == render_record(record(store, two))
    assert facts_of(read_stored(store, two[0]).manifest, two[0]).measured == ()


def test_a_stack_of_older_versions_is_a_downgrade_and_asked_for_by_name(store, two, tmp_path):
    newer = add(store, tmp_path, "acme/refusal", "2.0.0", fixed=(1,))
    activate(store, newer, gate=Gate())
    gate = Gate()
    with pytest.raises(UsageError, match=r"acme/refusal 1\.0\.0 is older than 2\.0\.0, which was active here"):
        activate_stack(store, two, gate=gate)
    assert (gate.asked, active(load(store).state)) == ([], [["acme/refusal 2.0.0"]])
    done = activate_stack(store, two, gate=gate, downgrade=True)
    assert active(done.generation.state) == [["acme/refusal 1.0.0", "acme/toxicity 1.0.0"]]
    assert not activate_stack(store, two, gate=gate).changed  # what is active may stay


def test_a_lock_of_another_base_is_refused_wherever_the_base_is_named(store, two, tmp_path):
    patches = [read_stored(store, digest) for digest in two]
    found, other = record(store, two), {"name": "another", "fingerprint": base(embeddings="8")["fingerprint"]}
    elsewhere = make_record(found.model_dump(mode="json", exclude={"schema_"}, exclude_none=True) | {"base": other})
    with pytest.raises(WrongBaseError, match=r"evidence was measured on another, .*differ in: embeddings"):
        make_lock(patches, elsewhere)
    text = render_lock(make_lock(patches, found))
    with pytest.raises(WrongBaseError, match="evidence was measured on another"):
        parse_lock(edited(text, lambda m: m["composition"].update(base=other)), where="x")
    lock = parse_lock(edited(render_lock(make_lock(patches)), lambda m: m.update(base=other)), where="x")
    with pytest.raises(WrongBaseError, match=r"of another, and acme/refusal 1\.0\.0 was made for"):
        check_locked(lock, patches)
    fresh = Store(tmp_path / "fresh")
    with pytest.raises(WrongBaseError):
        install(fresh, folder(tmp_path, "acme/refusal"), locked_to(lock, lock.patches[0], unsigned))
    assert load(fresh).state.installed == ()
    mine = Fingerprint(**base()["fingerprint"])
    check_lock_base(make_lock(patches), "mine", mine)
    with pytest.raises(WrongBaseError, match="the lock file is of another, not of mine; they differ in: embeddings"):
        check_lock_base(lock, "mine", mine)
