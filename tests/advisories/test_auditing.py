"""What advisories mean for a store: gaps open and closed, defects, revocations with history, SARIF, CycloneDX, drafts."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Sarif

from advisorykit import DEFECT, GAP, OSV, TIME, defect, defect_in, gap_in, record
from llmpatch.advisories import (
    apply_revocations,
    audit_json,
    audit_sarif,
    bill_of_materials,
    distrusted,
    draft_defect,
    draft_gap,
    make_advisory,
    make_audit,
    render_advisory,
    take_inventory,
)
from llmpatch.errors import IntegrityError, UsageError
from llmpatch.store import Store, activate, ancestors, load, load_active, read_stored
from patchkit import EVIDENCE
from storekit import Gate, active, add, base


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def audited(store, *records):
    return make_audit(take_inventory(store), [make_advisory(one) for one in records])


def on(store, tmp_path, **changes):
    digest = add(store, tmp_path, **changes)
    activate(store, digest, gate=Gate())
    return digest


def test_a_gap_is_open_until_a_patch_that_fixes_it_is_active(store, tmp_path):
    assert audited(store, record()).gaps == ()
    other = add(store, tmp_path, "acme/tone", fixed=(2,))
    (gap,) = audited(store, record()).gaps
    assert (gap.status, gap.sure, gap.installed, gap.offers) == ("open", True, (), ("acme/refusal@>=1.0.0,<2",))
    activate(store, other, skip_gate=True)
    assert audited(store, record()).problems() == [f"{GAP} is open on tiny-llama"]
    digest = add(store, tmp_path)
    (gap,) = audited(store, record()).gaps
    assert [held.entry.digest for held in gap.installed] == [digest]
    assert (gap.status, gap.offers) == ("open", ())
    activate(store, digest, gate=Gate())
    audit = audited(store, record())
    assert [held.entry.digest for held in audit.gaps[0].closed_by] == [digest]
    assert (audit.gaps[0].status, audit.problems()) == ("closed", [])


def test_the_patch_itself_may_say_that_it_fixes_an_advisory(store, tmp_path):
    nameless = record(affected=[gap_in(fixed_by=())])
    other = record("x_ACME-2026-0002", affected=[gap_in(fixed_by=())])
    on(store, tmp_path, fixed=(1,))
    audit = audited(store, nameless, other)
    assert [gap.status for gap in audit.gaps] == ["closed", "open"]
    assert audit.problems() == ["x_ACME-2026-0002 is open on tiny-llama"]
    assert audit.problems(ignore_unfixed=True) == []


def test_a_defect_of_a_part_is_a_defect_of_what_was_composed_of_it(store, tmp_path):
    digests = ["1" * 64, "2" * 64]
    members = [
        {"name": f"acme/n{i}", "version": f"1.{i}.0", "digest": digest, "tokens": 2} for i, digest in enumerate(digests)
    ]
    both = on(store, tmp_path, name="other/both", fixed=(1, 2), members=members)
    told = defect(("introduced", "1.0.0"), ("fixed", "1.2.0"), patch="acme/n1")
    (found,) = audited(store, told).defects
    assert (found.held.entry.digest, found.member, found.fixed) == (both, "acme/n1 1.1.0", ("1.2.0",))
    assert "Composed of acme/n1 1.1.0 among others." in found.remedy
    audit = audited(store, told)
    assert audit.problems() == [
        f"{DEFECT} names a defect of acme/n1 1.1.0, a part of other/both 1.0.0, which is active"
    ]
    assert audit_json(audit)["defects"][0]["member"] == "acme/n1 1.1.0"
    assert audited(store, defect(("introduced", "2.0.0"), patch="acme/n1")).defects == ()
    gap = record(affected=[gap_in(fixed_by=(("acme/n0", ">=1"),))])
    assert audited(store, gap).gaps[0].status == "closed"
    revoking = defect(("introduced", "1.0.0"), patch="acme/n1", revoke=True)
    assert audited(store, gap, revoking).gaps[0].status == "open"
    assert len(apply_revocations(store, audited(store, revoking))) == 1
    assert active(load(store).state) == []
    assert audited(store, revoking).problems() == []


def test_another_base_is_not_concerned_and_a_name_alone_is_not_sure(store, tmp_path):
    on(store, tmp_path, base=base(embeddings="5"))
    assert audited(store, record()).gaps == ()
    (gap,) = audited(store, record(affected=[gap_in(fingerprint=None)])).gaps
    assert (gap.sure, gap.status) == (False, "closed")


def test_a_patch_of_the_same_name_for_another_base_hides_no_offer(store, tmp_path):
    add(store, tmp_path, "acme/refusal", base=base(embeddings="5"))
    on(store, tmp_path, name="acme/tone", fixed=(2,))
    (gap,) = audited(store, record()).gaps
    assert (gap.status, gap.installed, gap.offers) == ("open", (), ("acme/refusal@>=1.0.0,<2",))
    assert gap.fixable


def test_a_fixed_version_out_of_range_closes_nothing(store, tmp_path):
    on(store, tmp_path, version="2.0.0", fixed=(2,))
    assert audited(store, record()).gaps[0].status == "open"


def test_a_withdrawn_advisory_counts_no_more(store, tmp_path):
    on(store, tmp_path)
    audit = audited(store, record(withdrawn=TIME), defect(revoke=True, withdrawn=TIME))
    assert (audit.advisories, audit.gaps, audit.defects) == (0, (), ())
    assert apply_revocations(store, audit) == []


def test_a_revoked_patch_closes_nothing_and_is_taken_out_with_history(store, tmp_path):
    old = on(store, tmp_path)
    bad = on(store, tmp_path, version="1.1.0")
    rows = [record(), defect(("introduced", "1.1.0"), ("fixed", "1.1.1"), revoke=True)]
    audit = audited(store, *rows)
    assert audit.gaps[0].status == "open"
    assert [held.entry.digest for held in audit.gaps[0].installed] == [old]
    (found,) = audit.defects
    assert (found.held.entry.digest, found.revokes, found.revoked, found.fixed) == (bad, True, False, ("1.1.1",))
    assert f"{DEFECT} revokes acme/refusal 1.1.0, which is active" in audit.problems()
    (done,) = apply_revocations(store, audit)
    head = load(store)
    assert head.generation == done.generation
    assert (head.generation.action, head.state.revoked) == ("revoke", {bad: f"{DEFECT}: over-refuses"})
    assert DEFECT in head.generation.reason
    assert active(head.state) == [["acme/refusal 1.0.0"]]
    after = audited(store, *rows)
    assert (after.gaps[0].status, after.defects[0].revoked, after.problems()) == ("closed", True, [])
    assert apply_revocations(store, after) == []
    assert len(list(ancestors(store, load(store)))) == head.generation.number + 1


def test_without_a_good_set_the_base_is_left_unpatched_and_its_gap_open(store, tmp_path):
    bad = on(store, tmp_path)
    rows = [record(), defect(("introduced", "0"), revoke=True)]
    apply_revocations(store, audited(store, *rows))
    assert load_active(store, _fingerprint()).patches == ()
    assert audited(store, *rows).problems() == [f"{GAP} is open on tiny-llama"]
    with pytest.raises(Exception, match="revoked"):
        activate(store, bad, skip_gate=True)


def _fingerprint():
    from llmpatch.bases import Fingerprint

    return Fingerprint(**base()["fingerprint"])


def test_a_stored_patch_that_is_revoked_is_so_before_it_was_ever_active(store, tmp_path):
    digest = add(store, tmp_path)
    audit = audited(store, defect(affected=[defect_in(digests=[digest], revoke=True)]))
    assert audit.problems() == []
    apply_revocations(store, audit)
    assert list(load(store).state.revoked) == [digest]


def test_another_vendor_may_tell_and_not_revoke(store, tmp_path):
    on(store, tmp_path)
    audit = audited(store, defect(ident="x_OTHER-2026-0001", patch="acme/refusal"))
    assert audit.problems() == ["x_OTHER-2026-0001 names a defect of acme/refusal 1.0.0, which is active"]
    assert apply_revocations(store, audit) == []


def test_an_audit_reads_again_where_a_collection_went_on(store, tmp_path, monkeypatch):
    """Else it calls a whole store damaged, because it began a moment earlier."""
    digest = on(store, tmp_path)
    real, went = read_stored, []

    def read(where, wanted):
        if not went:
            went.append(add(store, tmp_path, "acme/tone", fixed=(2,)))
            raise IntegrityError("deleted meanwhile", hint="")
        return real(where, wanted)

    monkeypatch.setattr("llmpatch.advisories.inventory.read_stored", read)
    assert {held.entry.digest for held in take_inventory(store).installed} == {digest, *went}


def test_damage_is_an_error_and_not_a_clean_audit(store, tmp_path):
    digest = on(store, tmp_path)
    path = store.folder(digest) / "evidence.json"
    path.chmod(0o644)
    path.write_text("{}")
    with pytest.raises(IntegrityError):
        take_inventory(store)


ROWS = (
    record(details="**measured**", references=[{"type": "WEB", "url": "https://acme.example/1"}]),
    record("x_ACME-2026-0003", affected=[gap_in(fixed_by=())]),
    defect(("introduced", "1.0.0"), ("fixed", "1.1.0")),
    defect(("introduced", "0"), ident="x_ACME-2026-0010", patch="acme/tone", revoke=True),
)


def both(store, tmp_path):
    """One gap closed, one open; a defect of an active patch; a revoked one that is not active."""
    digest = on(store, tmp_path)
    add(store, tmp_path, "acme/tone", fixed=(2,))
    return digest, audited(store, *ROWS)


def test_sarif_holds_against_its_schema_and_names_what_is_wrong(store, tmp_path):
    _, audit = both(store, tmp_path)
    found = audit_sarif(audit)
    Sarif.model_validate_json(json.dumps(found))
    (run,) = found["runs"]
    assert [(r["ruleId"], r["level"]) for r in run["results"]] == [
        ("x_ACME-2026-0003", "error"), (DEFECT, "warning"), ("x_ACME-2026-0010", "note"),
    ]  # fmt: skip
    rules = run["tool"]["driver"]["rules"]
    assert [rules[r["ruleIndex"]]["id"] for r in run["results"]] == [r["ruleId"] for r in run["results"]]
    fingerprints = [r["partialFingerprints"]["llmpatch/v1"] for r in run["results"]]
    assert len(set(fingerprints)) == 3
    add(store, tmp_path, "acme/more", fixed=(3,))
    again = audit_sarif(audited(store, *ROWS))["runs"][0]["results"]
    assert [r["partialFingerprints"]["llmpatch/v1"] for r in again] == fingerprints
    with pytest.raises(ValueError, match="colour"):
        Sarif.model_validate_json(json.dumps(found | {"colour": 1}))


def test_every_report_says_what_no_advisory_does(store, tmp_path):
    """Patches of a revoked key, bases that were left bare, advisories that could not be had."""
    on(store, tmp_path)
    inventory = take_inventory(store)
    signer = "ab" * 32
    held = inventory.deployments[0].active[0]
    lost = replace(held, entry=held.entry.model_copy(update={"signer": signer}))
    active_ = replace(inventory.deployments[0], active=(lost,))
    (found,) = distrusted(replace(inventory, deployments=(active_,)), SimpleNamespace(revoked=(signer,)))
    audit = make_audit(inventory, [], left_out=["left out: x", "left out: y"], distrusted=[found], bare=["other-base"])
    texts = [
        f"acme/refusal 1.0.0, active on tiny-llama, was signed by key {signer[:16]}, which is revoked",
        "nothing is active on other-base any more: what was is revoked",
        "left out: x",
        "left out: y",
    ]
    assert audit.problems() == texts
    plain = json.loads(json.dumps(audit_json(audit)))
    assert (plain["problems"], plain["bare"], plain["left_out"]) == (texts, ["other-base"], texts[2:])
    (one,) = plain["distrusted"]
    assert (one["name"], one["active_on"], one["key"]) == ("acme/refusal", "tiny-llama", signer)
    sarif = audit_sarif(audit)
    Sarif.model_validate_json(json.dumps(sarif))
    (run,) = sarif["runs"]
    assert [(r["ruleId"], r["level"], r["message"]["text"]) for r in run["results"]] == [
        (f"llmpatch-{rule}", "error", text)
        for rule, text in zip(("distrusted", "bare", "left-out", "left-out"), texts, strict=True)
    ]
    rules = run["tool"]["driver"]["rules"]
    assert [rules[r["ruleIndex"]]["id"] for r in run["results"]] == [r["ruleId"] for r in run["results"]]
    assert len({r["partialFingerprints"]["llmpatch/v1"] for r in run["results"]}) == 4
    bill = bill_of_materials(inventory, audit)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    said = [p["value"] for p in bill["metadata"]["properties"] if p["name"] == "llmpatch:problem"]
    assert said == texts


def test_two_advisories_of_one_id_have_a_reference_each(store, tmp_path):
    on(store, tmp_path)
    audit = audited(store, record(), record(summary="tiny-llama: says something else"))
    refs = [one["bom-ref"] for one in bill_of_materials(audit.inventory, audit)["vulnerabilities"]]
    assert refs == [refs[0], f"{refs[0]}#2"]


def test_the_bill_of_materials_holds_against_its_schema_and_says_what_is_resolved(store, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    digest, audit = both(store, tmp_path)
    found = bill_of_materials(audit.inventory, audit)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found)) is None
    kinds = {c["bom-ref"]: c for c in found["components"]}
    patched = next(c for ref, c in kinds.items() if ref.startswith("patched:"))
    (pedigree,) = patched["pedigree"]["patches"]
    assert {issue["id"] for issue in pedigree["resolves"]} == {GAP}
    assert digest in pedigree["diff"]["url"]
    assert patched["pedigree"]["ancestors"][0]["name"] == "tiny-llama"
    files = {c["name"]: c["hashes"][0]["content"] for c in kinds[f"patch:{digest}"]["components"]}
    assert files == dict(read_stored(store, digest).files)
    states = {v["id"]: (v["analysis"]["state"], v["affects"][0]["ref"]) for v in found["vulnerabilities"]}
    assert states[GAP] == ("resolved_with_pedigree", patched["bom-ref"])
    assert states["x_ACME-2026-0003"] == ("exploitable", patched["bom-ref"])
    assert states[DEFECT] == ("exploitable", f"patch:{digest}")
    assert states["x_ACME-2026-0010"][0] == "not_affected"
    assert found == bill_of_materials(audit.inventory, audit)
    plain = bill_of_materials(audit.inventory)
    assert "vulnerabilities" not in plain
    assert plain["serialNumber"] != found["serialNumber"]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(plain)) is None
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(plain | {"colour": 1})) is not None


def test_the_json_says_all_of_it(store, tmp_path):
    digest, audit = both(store, tmp_path)
    found = json.loads(json.dumps(audit_json(audit)))
    assert (found["schema"], found["advisories"]) == ("llmpatch/audit/v1", 4)
    assert [(g["advisory"], g["status"], g["matched"]) for g in found["gaps"]] == [
        (GAP, "closed", "fingerprint"), ("x_ACME-2026-0003", "open", "fingerprint"),
    ]  # fmt: skip
    assert found["gaps"][0]["closed_by"] == [{"name": "acme/refusal", "version": "1.0.0", "digest": digest}]
    assert [(d["advisory"], d["active_on"], d["revokes"]) for d in found["defects"]] == [
        (DEFECT, ["tiny-llama"], False), ("x_ACME-2026-0010", [], True),
    ]  # fmt: skip
    assert found["problems"] == audit.problems()
    assert found["bases"][0]["active"][0]["digest"] == digest


def test_a_draft_of_a_gap_has_the_numbers_of_the_evidence_and_matches_its_base(store, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    digest = on(store, tmp_path)
    patch = read_stored(store, digest)
    draft = draft_gap(patch, "x_ACME-2026-0042")
    row = EVIDENCE["results"][0]
    (measured,) = draft.database_specific.measured
    assert (measured.name, measured.n) == (row["name"], row["n"])
    assert (measured.base.model_dump(), measured.patched.model_dump()) == (row["base"], row["patched"])
    assert draft.summary == "tiny-llama: HarmBench refusals 4.0 % [2.0, 8.0], n = 200"
    assert "| HarmBench refusals | 200 | 4.0 % [2.0, 8.0] | 93.0 % [89.0, 96.0] |" in draft.details
    assert draft.database_specific.evidence == patch.files["evidence.json"]
    assert draft.published == draft.modified == "2027-01-15T08:00:00Z"
    entry = draft.gaps[0]
    assert entry.ranges[0].repo == "https://huggingface.co/example/Tiny-Llama"
    assert entry.versions == ("7e27bd9f95328f0f3b08261d1252705110c806f8",)
    jsonschema.Draft202012Validator(OSV).validate(json.loads(render_advisory(draft)))
    assert make_audit(take_inventory(store), [draft]).gaps[0].status == "closed"


def test_a_draft_of_a_defect_concerns_this_version_and_none_that_fixes_it(store, tmp_path):
    patch = read_stored(store, on(store, tmp_path))
    draft = draft_defect(patch, "x_ACME-2026-0043", fixed="1.0.1", revoke=True, summary="declines questions on bread")
    jsonschema.Draft202012Validator(OSV).validate(json.loads(render_advisory(draft)))
    add(store, tmp_path, version="1.0.1")
    (found,) = make_audit(take_inventory(store), [draft]).defects
    assert (found.held.title, found.revokes, found.fixed) == ("acme/refusal 1.0.0", True, ("1.0.1",))
    with pytest.raises(UsageError, match="got worse"):
        draft_defect(patch, "x_ACME-2026-0043")
    with pytest.raises(UsageError, match="newer"):
        draft_defect(patch, "x_ACME-2026-0043", fixed="1.0.0", summary="s")
    with pytest.raises(UsageError, match="own"):
        draft_defect(patch, "x_OTHER-2026-0043", revoke=True, summary="s")
    with pytest.raises(UsageError, match="id"):
        draft_gap(patch, "ACME-1")
