"""Patches side by side: what each reads, that order is nothing, and who refuses them."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import composekit
import llmpatch
from composekit import make_patch, write_data
from exportkit import common_tiny
from llmpatch._cli.main import main
from llmpatch.artifact import parse_patch, prefix_of, read_patch
from llmpatch.artifact.composition import parse_record
from llmpatch.artifact.manifest import make_manifest
from llmpatch.composing import compose, make_stack
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from llmpatch.evals import System
from llmpatch.exporting import export
from llmpatch.gate.evidence import read_evidence
from llmpatch.gate.running import check_belongs
from llmpatch.prefix import Parallel, backbone, parallel, prefix_cache, prefix_digest
from llmpatch.store import Store, keep_record, make_lock
from servekit import serving
from tinymodels import make_tiny

NAMES = ("acme/refusal", "acme/toxicity", "acme/personal-data")


@pytest.fixture(scope="module")
def three(wide):
    return [make_patch(wide, name, name.partition("/")[2], tokens=3 + i, seed=i) for i, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def composed(wide, three, tmp_path_factory):
    """Two patches as one, side by side, with all that was measured on the way."""
    root = tmp_path_factory.mktemp("composed")
    write_data(root)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(root)
        compose(
            three[:2], root / "both", base=wide, parallel=True, limit=2, samples=2, allow_loss=True, run=root / "run"
        )
    return root


def random_rows(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 32, generator=generator) for n in lengths]


@pytest.mark.parametrize("family", ["llama", "qwen2", "granite"])
def test_they_are_one_forward_in_which_none_sees_another(family):
    """With one first row for all, whose mean it is, no cache is needed to say what must come out."""
    base = make_tiny(family)
    one, other = random_rows(5, 5)
    other[0] = one[0]
    ids = base.chat_ids("Hello there")
    embeds = torch.cat([one, other[1:], base.embed(torch.tensor(ids))])[None]
    seen = torch.ones(embeds.shape[1], embeds.shape[1], dtype=torch.bool).tril()
    seen[5:9, 1:5] = False
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
    # Nine positions in all: both end at the ninth, so that a request is as far from either as it is from one alone.
    positions = torch.tensor([[4, 5, 6, 7, 8, 5, 6, 7, 8, *range(9, 9 + len(ids))]])
    with torch.no_grad():
        wanted = backbone(base)(inputs_embeds=embeds, attention_mask=mask, position_ids=positions).last_hidden_state[
            :, 9:
        ]
        cache = prefix_cache(base, Parallel((one, other)), ids[:3])
        assert cache.get_seq_length() == 12
        found = backbone(base)(input_ids=torch.tensor([ids[3:]]), **{base.cache_keyword: cache}).last_hidden_state
    assert (found - wanted[:, 3:]).abs().max() < 1e-5


def test_each_has_the_keys_and_values_that_it_has_alone(wide):
    """But for the first, and turned to where it ends: values know no positions."""
    rows = random_rows(3, 6, 4)
    with torch.no_grad():
        cache = prefix_cache(wide, Parallel(tuple(rows)), [])
        alone = [prefix_cache(wide, part, []) for part in rows]
    for layer, found in enumerate(cache.layers):
        values = [one.layers[layer].values for one in alone]
        wanted = torch.cat([sum(v[:, :, :1] for v in values) / 3, *(v[:, :, 1:] for v in values)], 2)
        assert torch.allclose(found.values, wanted, atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(3)))
def test_order_is_nothing_to_the_bit(wide, three, order):
    told, given_ = make_stack(three, parallel=True), make_stack([three[i] for i in order], parallel=True)
    assert given_.digest == told.digest
    assert given_.rows.tobytes() == told.rows.tobytes()
    assert given_.members == told.members
    assert prefix_digest(given_.prefix) == prefix_digest(told.prefix)
    with torch.no_grad():
        one, other = (prefix_cache(wide, stack.prefix, [1, 5]) for stack in (told, given_))
    assert all(a.keys.equal(b.keys) and a.values.equal(b.values) for a, b in zip(one.layers, other.layers, strict=True))


def test_they_are_not_the_stack_and_not_each_other(wide, three):
    stack, side = make_stack(three), make_stack(three, parallel=True)
    assert stack.digest != side.digest
    assert len(side.prefix) == len(stack.rows) - 2
    digests = [prefix_digest(s.prefix) for s in (stack, side, make_stack(three[:2], parallel=True))]
    assert len(set(digests)) == 3
    said = {tuple(map(tuple, s.apply(wide).generate(["Hi", "Ho", "Where?"], max_new_tokens=8))) for s in (stack, side)}
    assert len(said) == 2
    about = System("M+", prefix=side.prefix).json()
    assert (about["tokens"], about["side_by_side"]) == (len(side.prefix), 3)


def test_fewer_than_two_are_refused():
    with pytest.raises(UsageError, match="beside nothing"):
        parallel(random_rows(3))


def test_a_model_that_forgets_what_is_far_is_refused(three):
    gemma = make_tiny("gemma3_text")
    with pytest.raises(UsageError, match="latest tokens"):
        prefix_cache(gemma, Parallel(tuple(random_rows(3, 3))), [])


def test_the_result_is_a_patch_like_any_other(composed, wide, three):
    patch = read_patch(composed / "both")
    stack = make_stack(three[:2], parallel=True)
    assert patch.manifest.arrangement == "parallel"
    assert patch.manifest.members == stack.members
    assert patch.prefix_sha256 == prefix_digest(stack.prefix) == prefix_digest(patch.prefix())
    assert patch.apply(wide).generate(["Hi", "Ho"], max_new_tokens=8) == stack.apply(wide).generate(
        ["Hi", "Ho"], max_new_tokens=8
    )
    record = parse_record((composed / "run/composition.json").read_bytes(), where="record")
    assert record.arrangement == "parallel"
    for risk in ("refusal", "toxicity"):
        check_belongs(read_evidence(composed / f"run/evidence-{risk}.json"), patch, wide)
    assert "side by side" in (composed / "both/README.md").read_text()
    assert "side by side" in patch.manifest.build.method


def test_evidence_of_the_stack_is_not_its_evidence(composed, wide, three, project):
    compose(three[:2], project / "stack", base=wide, limit=2, samples=2, allow_loss=True, run=project / "run")
    with pytest.raises(IntegrityError, match="of another patch"):
        check_belongs(read_evidence(project / "run/evidence-refusal.json"), read_patch(composed / "both"), wide)


def test_it_is_served_as_it_is_generated(composed, wide):
    patch = read_patch(composed / "both")
    with serving(wide, [patch]) as live:
        for text in ("Hi", "How do I bake bread?", "x" * 40):
            said = live.chat(text).json()["choices"][0]["message"]["content"]
            assert said == patch.apply(wide).generate([text], max_new_tokens=8)[0][0]


def test_peft_refuses_it_by_name_and_so_does_every_export(composed, wide, tmp_path):
    peft = pytest.importorskip("peft")
    with pytest.raises((KeyError, ValueError), match="LLMPATCH_PARALLEL"):
        peft.PeftModel.from_pretrained(wide.model, str(composed / "both"))
    with pytest.raises(UsageError, match="side by side"):
        export(wide, [read_patch(composed / "both")], "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_goes_before_or_behind_it(composed, wide, three):
    patch = read_patch(composed / "both")
    for order in itertools.permutations([patch, three[2]]):
        with pytest.raises(UsageError, match="side by side"):
            make_stack(order)
        with pytest.raises(UsageError, match="side by side"):
            prefix_of(order)
        with pytest.raises(UsageError, match="composed itself"):
            make_stack(order, parallel=True)


def test_what_is_known_of_them_says_nothing_of_an_order(composed, three, tmp_path):
    record = parse_record((composed / "run/composition.json").read_bytes(), where="record")
    with pytest.raises(UsageError, match="side by side"):
        keep_record(Store(tmp_path), record)
    ordered = [next(p for p in three if p.digest == digest) for digest in record.digests]
    with pytest.raises(UsageError, match="side by side"):
        make_lock(ordered, record)


def test_an_arrangement_needs_members(composed):
    manifest = json.loads((composed / "both/patch.json").read_text())
    del manifest["members"], manifest["schema"], manifest["checksum"]
    with pytest.raises(UsageError, match="there are none"):
        make_manifest(manifest)


def test_a_patch_that_was_made_a_stack_is_found_out(composed, tmp_path):
    """Without its arrangement the same rows would do something else: the checksum and PEFT's file both differ."""
    files = {path.name: path.read_bytes() for path in (composed / "both").iterdir()}
    files["patch.json"] = files["patch.json"].replace(b' "arrangement": "parallel",\n', b"")
    with pytest.raises(IntegrityError):
        parse_patch(files, tmp_path)


def test_from_the_command_line(composed, tmp_path, capsys, monkeypatch):
    from clikit import save

    base = save(tmp_path / "model", common_tiny())
    loaded = llmpatch.load_base(str(base))
    one, other = (make_patch(loaded, name, "refusal", seed=i) for i, name in enumerate(NAMES[:2]))
    paths = [str(composekit.save(tmp_path / name, patch)) for name, patch in (("one", one), ("other", other))]
    (tmp_path / "in.jsonl").write_text('{"prompt": "Hi"}\n')
    said = []
    for order in (paths, paths[::-1]):
        out = tmp_path / "out.jsonl"
        more = [word for path in order for word in ("--patch", path)]
        assert main(["generate", "--base", str(base), *more, "--parallel", "--prompts", str(tmp_path / "in.jsonl"),
                     "--out", str(out), "--max-new-tokens", "6"]) == 0  # fmt: skip
        said.append(out.read_text())
    assert said[0] == said[1]
    assert "side by side" in capsys.readouterr().err
    assert main(["compose", *paths, "--parallel", "--search"]) == 1
    assert "no order" in capsys.readouterr().err
    assert main(["compose", *paths, "--parallel", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parallel"] is True


def test_compose_says_both_ways_at_once_are_one_too_many(wide, three, project):
    with pytest.raises(LlmpatchError, match="no order"):
        compose(three[:2], base=wide, parallel=True, search=True, run=project / "run")
