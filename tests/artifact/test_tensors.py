"""The tensor file: equal to what the safetensors library reads and writes; any other bytes give one error."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.artifact.tensors import decode_tensor, encode_tensor
from llmpatch.errors import IntegrityError
from patchkit import embeddings


@pytest.mark.parametrize("shape", [(1, 1), (4, 32), (50, 576), (256, 7)])
def test_the_safetensors_library_agrees(shape):
    rows = embeddings(*shape)
    assert np.array_equal(safetensors.numpy.load(encode_tensor(rows))["prompt_embeddings"], rows)
    for metadata in ({"format": "pt"}, None):
        theirs = safetensors.numpy.save({"prompt_embeddings": rows}, metadata=metadata)
        found = decode_tensor(theirs, where="x")
        assert np.array_equal(found.embeddings, rows)
        assert found.digest == decode_tensor(encode_tensor(rows), where="x").digest


def test_the_layout_of_the_array_does_not_matter():
    rows = embeddings()
    assert encode_tensor(np.asfortranarray(rows)) == encode_tensor(rows)


@settings(deadline=None)  # other work on the machine is not our time
@given(st.binary(max_size=300))
def test_rubbish_gives_one_error(data):
    with pytest.raises(IntegrityError) as caught:
        decode_tensor(data, where="x")
    assert caught.value.message.isprintable()
    assert caught.value.hint


@settings(deadline=None)
@given(st.integers(0, 1 << 12), st.binary(max_size=60))
def test_rubbish_with_a_plausible_header_length_gives_one_error(size, data):
    with pytest.raises(IntegrityError):
        decode_tensor(size.to_bytes(8, "little") + data, where="x")
