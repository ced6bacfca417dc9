"""Putting rows one after another: an algebra, and what is refused before a model is asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from composekit import make_patch
from llmpatch.artifact import parse_patch, render_patch
from llmpatch.artifact.manifest import Relation
from llmpatch.composing import check_room, make_stack
from llmpatch.errors import UsageError, WrongBaseError
from patchkit import P999
from tinymodels import make_tiny

CALM = settings(deadline=None, max_examples=20)
NAMES = ["acme/one", "acme/two", "acme/three", "acme/four"]


@pytest.fixture(scope="module")
def patches(tiny):
    return [make_patch(tiny, name, f"risk {i}", tokens=2 + i, seed=i) for i, name in enumerate(NAMES)]


def composed(stack):
    """A patch with a stack's rows and members, as `compose` writes one, without measuring anything."""
    first = stack.patches[0].manifest
    fields = first.model_dump(mode="json", by_alias=True, exclude={"schema_", "prefix", "files", "checksum", "members"},
                              exclude_none=True)  # fmt: skip
    fields |= {
        "name": "acme/" + "-".join(m.name.partition("/")[2] for m in stack.members),
        "members": [m.model_dump(mode="json") for m in stack.members],
        "fixes": [fix.model_dump(mode="json", exclude_none=True) for p in stack.patches for fix in p.manifest.fixes],
    }
    files = render_patch(fields, stack.rows, {"suite": "refusal"}, base_p999=P999)
    return parse_patch(files, stack.patches[0].path)


@CALM
@given(st.permutations(range(4)), st.integers(1, 3))
def test_a_stack_of_stacks_is_the_stack_of_all_members(patches, order, cut):
    flat = make_stack([patches[i] for i in order])
    parts = [[patches[i] for i in order[:cut]], [patches[i] for i in order[cut:]]]
    nested = make_stack([composed(make_stack(part)) if len(part) > 1 else part[0] for part in parts])
    assert nested.rows.tobytes() == flat.rows.tobytes()
    assert nested.members == flat.members
    assert nested.digest == flat.digest


@CALM
@given(st.permutations(range(4)), st.permutations(range(4)))
def test_the_digest_is_of_the_members_and_their_order(patches, one, other):
    first, second = (make_stack([patches[i] for i in order]) for order in (one, other))
    assert (first.digest == second.digest) == (one == other)
    assert sum(m.tokens for m in first.members) == len(first.rows)
    start = 0
    for member, i in zip(first.members, one, strict=True):
        assert np.array_equal(first.rows[start : start + member.tokens], patches[i].embeddings)
        start += member.tokens


def test_a_stack_applies_like_one_patch_of_all_rows(patches, tiny):
    from llmpatch.patched import PatchedModel

    stack = make_stack(patches[:2])
    wanted = PatchedModel(tiny, torch.tensor(np.concatenate([p.embeddings for p in patches[:2]])), "both")
    found = stack.apply(tiny).generate(["Hi", "Ho"], max_new_tokens=4)
    assert found == wanted.generate(["Hi", "Ho"], max_new_tokens=4)
    assert found != patches[0].apply(tiny).generate(["Hi", "Ho"], max_new_tokens=4)


def relations(*pairs):
    return [Relation(name=name, versions=versions).model_dump() for name, versions in pairs]


@pytest.mark.parametrize(
    ("changes", "said", "advice"),
    [
        ({"conflicts": relations(("acme/one", "*"))}, "acme/two 1.0.0 and acme/one 1.0.0 conflict", "leave one"),
        ({"supersedes": relations(("acme/one", "<2"))}, "acme/two 1.0.0 supersedes acme/one 1.0.0", "leave acme/one out"),
        ({"requires": relations(("acme/other", "*"))}, "acme/two 1.0.0 requires acme/other", "acme/other first"),
        ({"name": "acme/one", "version": "1.1.0"}, "are two versions of one patch", "newer"),
    ],
)  # fmt: skip
def test_members_that_exclude_each_other_are_refused(tiny, patches, changes, said, advice):
    new = make_patch(tiny, **({"name": "acme/two", "seed": 9} | changes))
    for order in ([patches[0], new], [new, patches[0]]):
        with pytest.raises(UsageError) as found:
            make_stack(order)
        assert said in found.value.message or "are two versions" in found.value.message
        assert advice in found.value.hint


def test_a_patch_twice_is_refused_also_inside_another(patches):
    with pytest.raises(UsageError, match=r"acme/one 1\.0\.0 is there twice"):
        make_stack([patches[0], patches[0]])
    both = composed(make_stack(patches[:2]))
    with pytest.raises(UsageError, match=r"acme/one 1\.0\.0 is part of acme/one-two 1\.0\.0"):
        make_stack([both, patches[0]])
    with pytest.raises(UsageError, match="have a part in common"):
        make_stack([both, composed(make_stack(patches[1:3]))])


def test_patches_of_different_bases_are_refused_with_what_differs(patches):
    with pytest.raises(WrongBaseError, match=r"acme/x 1.0.0 for tiny-llama; they differ in: embeddings"):
        make_stack([patches[0], make_patch(make_tiny(seed=1), "acme/x")])
    with pytest.raises(WrongBaseError, match="hidden size"):
        make_stack([patches[0], make_patch(make_tiny(hidden_size=64, head_dim=16), "acme/x")])


def test_too_many_rows_are_refused_by_the_format_and_by_the_context(tiny, patches):
    many = [make_patch(tiny, f"acme/n{i}", tokens=130, seed=i) for i in range(2)]
    with pytest.raises(UsageError, match="260 virtual tokens together, at most 256") as found:
        make_stack(many)
    assert "cumulative patch" in found.value.hint
    check_room(tiny, 128)
    with pytest.raises(UsageError, match="129 virtual tokens are too many for the context of tiny-llama, 512"):
        check_room(tiny, 129)
    with pytest.raises(UsageError, match="too many for the context"):
        make_stack([many[0]]).apply(tiny)


def test_no_patches_are_no_stack():
    with pytest.raises(UsageError, match="a stack needs a patch"):
        make_stack([])
